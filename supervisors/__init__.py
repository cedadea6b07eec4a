"""The supervision tree, also as a library: ``from supervisors import ChildSpec, Supervisor, Strategy, Restart``.

Names are loaded on first use, so that the command line starts without the daemon's packages.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.kernel import IGNORE, PENDING, StartRefused, SupervisedActor
    from actors.spec import (
        BRUTAL_KILL,
        INFINITY,
        Backoff,
        BadSpec,
        ChildSpec,
        ExitReason,
        OnExhausted,
        Pacing,
        Restart,
        WaitFor,
    )
    from supervisors.decisions.model import AutoShutdown, Strategy
    from supervisors.library import StartIgnored, SupervisionError, Supervisor

_HOMES = {
    "actors.kernel": ("IGNORE", "PENDING", "StartRefused", "SupervisedActor"),
    "actors.spec": (
        "BRUTAL_KILL",
        "INFINITY",
        "Backoff",
        "BadSpec",
        "ChildSpec",
        "ExitReason",
        "OnExhausted",
        "Pacing",
        "Restart",
        "WaitFor",
    ),
    "supervisors.decisions.model": ("AutoShutdown", "Strategy"),
    "supervisors.library": ("StartIgnored", "SupervisionError", "Supervisor"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BRUTAL_KILL",
    "IGNORE",
    "INFINITY",
    "PENDING",
    "AutoShutdown",
    "Backoff",
    "BadSpec",
    "ChildSpec",
    "ExitReason",
    "OnExhausted",
    "Pacing",
    "Restart",
    "StartIgnored",
    "StartRefused",
    "Strategy",
    "SupervisedActor",
    "SupervisionError",
    "Supervisor",
    "WaitFor",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'supervisors' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
