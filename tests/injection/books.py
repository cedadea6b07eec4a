"""Runbooks that put an alert's every field where it could do harm: each takes the value at ``/labels/value``, or the
field it is named for, as a plain string."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from runbooks.model import Runbook
from runbooks.parse import parse

FIELDS = ("type", "service", "severity", "message", "source", "dedup_key")
POINTERS = {**{name: f"/{name}" for name in FIELDS}, "value": "/labels/value", "detail": "/labels/details"}
WELL = {"call": {"type": "service_exists", "with": {"service": "a"}}}
RECORD = "import json, sys; open(sys.argv[1], 'a').write(json.dumps(sys.argv[2:]) + '\\n')"
"""A program that writes down how it was called."""


def step(kind: str, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    made = {"id": "do_it", "name": "Do it", "action_type": kind, "effect": "idempotent", "timeout": "20s"}
    return {**made, **({"parameters": parameters} if parameters else {}), **more}


def recording(file: Path, *items: str) -> dict[str, Any]:
    return step("command", {}, command=[sys.executable, "-I", "-S", "-c", RECORD, str(file), *items])


def raw(name: str, action: dict[str, Any], match: dict[str, Any]) -> dict[str, Any]:
    """All of the alert's fields are its parameters; those that are not there are empty."""
    return {
        "schema_version": 2,
        "id": name,
        "version": "1.0.0",
        "name": name,
        "description": "For tests",
        "match": match,
        "parameters": {
            key: {"type": "string", "from": pointer, "default": "none"} for key, pointer in POINTERS.items()
        },
        "target": f"{name}:{{value}}",
        "actions": [action],
        "success_criteria": [WELL],
    }


def made(name: str, action: dict[str, Any]) -> Runbook:
    return parse(json.dumps(raw(name, action, {"field": "/type", "op": "exists", "value": True})).encode())


def everywhere(value: str) -> dict[str, dict[str, Any]]:
    """The value in each field of an alert, by the field; the others are harmless."""
    plain: dict[str, Any] = {"type": "hostile", "service": "a", "severity": "high", "message": "m", "source": "s"}
    alerts = {name: {**plain, name: value} for name in FIELDS}
    alerts["id"] = {**plain, "id": value}
    alerts["value"] = {**plain, "labels": {"value": value}}
    alerts["detail"] = {**plain, "details": value}
    alerts["label name"] = {**plain, "labels": {value: "x", "value": "x"}}
    alerts["unknown field"] = {**plain, value: value}
    alerts["nested"] = {**plain, "labels": {"value": [value, {value: value}]}}
    return alerts
