"""Notifications as Alertmanager writes them (0.25, webhook payload version 4)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

NEVER = "0001-01-01T00:00:00Z"
BEGAN = 1_795_000_000.125


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """Not Alertmanager's own function; as stable, and as unlike for other labels."""
    return hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16]


def alert(
    name: str = "ServiceDown", *, began: float = BEGAN, ended: float | None = None, **labels: str
) -> dict[str, Any]:
    """One alert; resolved when it ``ended``."""
    every = {"alertname": name, **labels}
    return {
        "status": "firing" if ended is None else "resolved",
        "labels": every,
        "annotations": {"summary": f"{name} of {labels.get('service', 'something')}"},
        "startsAt": rfc3339(began),
        "endsAt": NEVER if ended is None else rfc3339(ended),
        "generatorURL": "http://prometheus:9090/graph?g0.expr=up",
        "fingerprint": fingerprint_of(every),
    }


def notification(*alerts: dict[str, Any], **more: Any) -> dict[str, Any]:
    firing = any(one["status"] == "firing" for one in alerts)
    return {
        "version": "4",
        "groupKey": '{}:{alertname="ServiceDown"}',
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "selfheal",
        "groupLabels": {"alertname": "ServiceDown"},
        "commonLabels": {},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "alerts": list(alerts),
    } | more
