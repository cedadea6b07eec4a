"""Runbook files for tests: one good one, and ways to change it."""

from __future__ import annotations

import copy
import json
from typing import Any

from runbooks.model import Runbook
from runbooks.parse import BadRunbook, parse

READY = {"call": {"type": "service_ready", "with": {"service": "{service}"}}, "within": "5s"}
GOOD: dict[str, Any] = {
    "schema_version": 2,
    "id": "restart_it",
    "version": "1.0.0",
    "name": "Restart it",
    "description": "For tests",
    "match": {"field": "/type", "op": "eq", "value": "service_failure"},
    "parameters": {"service": {"type": "service", "from": "/service", "required": True}},
    "target": "service:{service}",
    "actions": [
        {
            "id": "restart",
            "name": "Restart",
            "action_type": "service_restart",
            "effect": "mutating",
            "parameters": {"service": "{service}"},
            "probe": {"call": {"type": "service_generation", "with": {"service": "{service}"}}},
            "verify": READY,
            "rollback": {
                "call": {"type": "service_restore", "with": {"service": "{service}"}},
                "verify": {"call": {"type": "service_restored", "with": {"service": "{service}"}}},
            },
        }
    ],
    "success_criteria": [READY],
}
COMMAND: dict[str, Any] = {
    "id": "run",
    "name": "Run",
    "action_type": "command",
    "effect": "idempotent",
    "command": ["echo", "{service}"],
}


def changed(path: str, value: Any, base: dict[str, Any] = GOOD) -> dict[str, Any]:
    """A copy with the value at a JSON Pointer replaced; ``...`` removes it."""
    raw = copy.deepcopy(base)
    *way, last = path.split("/")[1:]
    at: Any = raw
    for part in way:
        at = at[int(part)] if isinstance(at, list) else at[part]
    key: Any = int(last) if isinstance(at, list) else last
    if value is ...:
        del at[key]
    else:
        at[key] = value
    return raw


def runbook(raw: dict[str, Any] = GOOD, **more: Any) -> Runbook:
    return parse(json.dumps({**raw, **more}).encode(), "test.json")


def problems(source: dict[str, Any] | bytes) -> dict[str, str]:
    """What is wrong, by JSON Pointer; {} when nothing is."""
    raw = source if isinstance(source, bytes) else json.dumps(source).encode()
    try:
        parse(raw, "test.json")
    except BadRunbook as bad:
        return {problem.pointer: problem.text for problem in bad.problems}
    return {}
