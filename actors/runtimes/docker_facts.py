"""What an inspected container says of itself, in our words: does it run, is it paused, healthy, restarted by others;
and how a run ended that nobody saw. Pure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Final

from actors.ledger import Phase, ServiceRecord
from actors.runtimes.docker_spec import identity_from, unix_time
from actors.runtimes.observing import Observed, OwnHealth

PAUSED_OUTSIDE: Final = "paused from outside (docker pause)"
_DETAIL_LENGTH: Final = 160


def is_running(inspected: Mapping[str, Any]) -> bool:
    """Whether its main process lives. The engine calls one "running" that it is about to restart by its own policy."""
    return bool(inspected["State"]["Running"]) and not is_restarting(inspected)


def is_restarting(inspected: Mapping[str, Any]) -> bool:
    """It ended, and the engine's own restart policy will start it again."""
    return bool(inspected["State"].get("Restarting"))


def observed_from(inspected: Mapping[str, Any]) -> Observed:
    """What is seen of a running container."""
    health, detail = _health(inspected["State"].get("Health") or {})
    return Observed(
        paused=PAUSED_OUTSIDE if inspected["State"].get("Paused") else None,
        health=health,
        health_detail=detail,
        drift=drift(inspected),
    )


def drift(inspected: Mapping[str, Any]) -> str | None:
    """Two supervisors on one container fight: said, never corrected."""
    policy = ((inspected.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no"
    return None if policy == "no" else f"drift: the engine restarts it too (restart policy {policy})"


def _health(health: Mapping[str, Any]) -> tuple[OwnHealth | None, str]:
    try:
        word = OwnHealth(health.get("Status"))
    except ValueError:  # "none", or no health check at all
        return None, ""
    if word is not OwnHealth.UNHEALTHY:
        return word, ""
    last = (health.get("Log") or [{}])[-1]
    output = " ".join(str(last.get("Output") or "").split())[:_DETAIL_LENGTH]
    said = f": {output}" if output else ""
    return word, f"docker health check, {health.get('FailingStreak', 0)} failures in a row{said}"


class Unseen(enum.Enum):
    """How the recorded run ended while nobody looked."""

    EXITED = "exited"
    REMOVED = "removed"


def unseen_end(record: ServiceRecord, runtime: str, inspected: Mapping[str, Any] | None) -> Unseen | None:
    """Whether the run the ledger last knew has ended without anybody seeing it.

    Args:
        record: as the ledger has it; a run it knows the end of, or none, gives None.
        runtime: the name of the asking runtime: another one's run is none of its business.
        inspected: the service's container, which does not run; None when there is none.
    """
    if record.runtime != runtime or record.phase not in (Phase.LAUNCHED, Phase.INTENT):
        return None
    if record.phase is Phase.LAUNCHED and record.identity is not None:
        is_same = inspected is not None and identity_from(inspected).container_id == record.identity.get("container_id")
        return Unseen.EXITED if is_same else Unseen.REMOVED
    if inspected is None:
        return None  # it may never have been made
    last_at = float((record.last_exit or {}).get("at", 0.0))
    ran = unix_time(str(inspected["State"]["StartedAt"]))
    return Unseen.EXITED if ran > last_at else None
