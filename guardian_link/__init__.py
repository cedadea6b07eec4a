"""Alerts over the wire: what a Guardian imports. Needs pyzmq and msgpack only; names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardian_link.aio import AsyncGuardianClient
    from guardian_link.client import GuardianClient
    from guardian_link.errors import AlertRefused, DaemonUnreachable, GuardianError, OutcomeTimeout
    from guardian_link.messages import Ack, Alert, BadAlert, Decision, Outcome, Severity
    from guardian_link.recovery_system import AutomatedRecoverySystem

_HOMES = {
    "AsyncGuardianClient": "guardian_link.aio",
    "GuardianClient": "guardian_link.client",
    "AlertRefused": "guardian_link.errors",
    "DaemonUnreachable": "guardian_link.errors",
    "GuardianError": "guardian_link.errors",
    "OutcomeTimeout": "guardian_link.errors",
    "Ack": "guardian_link.messages",
    "Alert": "guardian_link.messages",
    "BadAlert": "guardian_link.messages",
    "Decision": "guardian_link.messages",
    "Outcome": "guardian_link.messages",
    "Severity": "guardian_link.messages",
    "AutomatedRecoverySystem": "guardian_link.recovery_system",
}

__all__ = [
    "Ack",
    "Alert",
    "AlertRefused",
    "AsyncGuardianClient",
    "AutomatedRecoverySystem",
    "BadAlert",
    "DaemonUnreachable",
    "Decision",
    "GuardianClient",
    "GuardianError",
    "Outcome",
    "OutcomeTimeout",
    "Severity",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'guardian_link' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
