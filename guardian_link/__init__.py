"""Alerts over the wire: what a Guardian imports. Needs pyzmq and msgpack only; names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardian_link.actor import GuardianLinkActor
    from guardian_link.agent import GuardianAgent, Handled
    from guardian_link.aio import AsyncGuardianClient
    from guardian_link.client import GuardianClient
    from guardian_link.errors import AlertRefused, DaemonUnreachable, EventsLost, GuardianError, OutcomeTimeout
    from guardian_link.events import Event
    from guardian_link.messages import Ack, Alert, BadAlert, Decision, Outcome, Severity
    from guardian_link.recovery_system import AutomatedRecoverySystem

_HOMES = {
    "GuardianLinkActor": "guardian_link.actor",
    "GuardianAgent": "guardian_link.agent",
    "Handled": "guardian_link.agent",
    "AsyncGuardianClient": "guardian_link.aio",
    "GuardianClient": "guardian_link.client",
    "AlertRefused": "guardian_link.errors",
    "DaemonUnreachable": "guardian_link.errors",
    "EventsLost": "guardian_link.errors",
    "GuardianError": "guardian_link.errors",
    "OutcomeTimeout": "guardian_link.errors",
    "Event": "guardian_link.events",
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
    "Event",
    "EventsLost",
    "GuardianAgent",
    "GuardianClient",
    "GuardianError",
    "GuardianLinkActor",
    "Handled",
    "Outcome",
    "OutcomeTimeout",
    "Severity",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'guardian_link' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
