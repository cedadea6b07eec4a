"""A run of an earlier version of the file: it is ended before the service is started as the file says now.

The file may be edited while no daemon lives, and a daemon may die in the middle of an ``apply``. What then lives was
launched with another command, or by another runtime, which the wanted one cannot see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Final, Protocol, runtime_checkable

from actors.clock import SystemClock
from actors.failpoints import reached, register
from actors.ledger import Ledger, Phase, ServiceRecord
from actors.runtimes.base import ExitStatus, LaunchSpec, Runtime, StopFailed, TruthUnknown
from actors.runtimes.launch_hash import launch_hash

PROCESS: Final = "process"
MAY_LIVE: Final = frozenset({Phase.INTENT, Phase.LAUNCHED})
EARLIER_FILE: Final = "ended: the file had been edited"
FORMER_FOUND: Final = register("daemon.former.found", "a run of before an edit may live, nobody has looked")
FORMER_ENDED: Final = register("daemon.former.ended", "nothing of it lives, the ledger may still know it")


@runtime_checkable
class Attaching(Protocol):
    """A runtime whose runs may be in what belongs to somebody else."""

    def halt(self, service: str, container_id: str, grace_s: float) -> bool:
        """Stop this container if it runs, whosever it is, and leave it where it is. Returns whether it ran.

        Raises:
            TruthUnknown: cannot be told now. StopFailed: it still runs.
        """


def is_former(record: ServiceRecord, runtime: str, spec: LaunchSpec) -> bool:
    """Whether what the record tells of may live, and is not what is wanted now. Pure.

    A record of an older version of Selfheal says nothing of what was launched: its run is taken as it is.
    """
    if record.phase not in MAY_LIVE:
        return False
    return record.runtime != runtime or record.spec_hash not in ("", launch_hash(spec))


def end_former(ledger: Ledger, record: ServiceRecord, runtimes: Mapping[str, Runtime], grace_s: float) -> bool:
    """End the recorded run through the runtime that began it; what was only attached to is stopped and stays.

    Returns whether there was anything. The ledger then knows that it ended, and that we asked for it.

    Raises:
        TruthUnknown: something of it may live: nothing may be started.
    """
    service, runtime = record.service, runtimes.get(record.runtime)
    if runtime is None:
        raise TruthUnknown(f"service {service!r}: its last run was one of {record.runtime}, which is not there")
    reached(FORMER_FOUND)
    was_there = end_all(runtime, service, grace_s, _container_of(record))
    reached(FORMER_ENDED)
    now = ledger.record(service)
    if now.phase is Phase.LAUNCHED:
        ledger.exited(service, now.run, asdict(ExitStatus(EARLIER_FILE, asked=True, at=SystemClock().wall())))
    elif now.phase is Phase.EXITED and (now.last_exit or {}).get("asked"):
        ledger.recaused(service, EARLIER_FILE)
    return was_there


def end_all(runtime: Runtime, service: str, grace_s: float, container_id: str = "") -> bool:
    """Whatever of the service this runtime has, and this container. Returns whether there was anything.

    Raises:
        TruthUnknown: something of it may live.
    """
    try:
        was_there = runtime.clear(service, grace_s)
        if container_id and isinstance(runtime, Attaching):
            was_there = runtime.halt(service, container_id, grace_s) or was_there
    except StopFailed as failed:
        raise TruthUnknown(f"{failed} (its run of before the file was edited)") from failed
    return was_there


def _container_of(record: ServiceRecord) -> str:
    """A container's run has its id as token: it is known before the start."""
    return str((record.identity or {}).get("container_id") or record.token)
