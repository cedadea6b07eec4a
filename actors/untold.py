"""What a supervisor's first start of a service must hear before another run is begun: an end it does not know of. Pure.

A run that ended while no daemon lived, or under a daemon that was killed before it had judged that end, is judged by
the next one as any other end: counted, paced, and with those that restart with it. One that was not to be run again is
not run again, whoever supervises it by now. After an orderly end of the daemon, and after a reboot, all begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from actors.ledger import Phase, ServiceRecord
from actors.runtimes.base import ExitStatus
from actors.service_fsm import Rules, end_reason
from actors.spec import ExitKind

UNKNOWN: Final = "unknown"
_FIELDS: Final = frozenset(field.name for field in fields(ExitStatus))


def untold_end(
    record: ServiceRecord, runtime: str, rules: Rules, *, boot_id: str, booted_at: float, now: float
) -> ExitStatus | None:
    """How the last run ended, if its first start under a new supervisor is to be told that; None: a run is to begin.

    Args:
        record: of a service of which nothing lives.
        runtime: the name of its runtime now; another one's run was ended before (``actors.former``).
        booted_at, now: wall seconds.
    """
    if record.runtime != runtime or _is_of_another_boot(record, boot_id, booted_at):
        return None
    match record.phase:
        case Phase.LAUNCHED if record.identity is not None and "boot_id" in record.identity:
            # neither daemon nor keeper was there; a container's end the engine knows
            return ExitStatus(UNKNOWN, at=now)
        case Phase.EXITED if record.last_exit is not None:
            return _unjudged(record, rules, record.last_exit)
        case _:
            return None


def _unjudged(record: ServiceRecord, rules: Rules, facts: Mapping[str, Any]) -> ExitStatus | None:
    if facts.get("asked") or record.is_rested:
        return None
    end = ExitStatus(**{"cause": UNKNOWN, **{name: facts[name] for name in _FIELDS & facts.keys()}})
    if end_reason(rules, end).kind is not ExitKind.CRASHED:
        return end  # it was done, and is
    is_judged = max(record.counted_run, record.judged_run) >= record.exited_run
    return None if is_judged else end


def _is_of_another_boot(record: ServiceRecord, boot_id: str, booted_at: float) -> bool:
    """Where no identity names a boot (a container's, one never written) the time of its start or end tells."""
    known = (record.identity or {}).get("boot_id")
    if known is not None:
        return bool(known != boot_id)
    ended_at = float((record.last_exit or {}).get("at", 0.0)) if record.phase is Phase.EXITED else 0.0
    return max(record.started_at, ended_at) < booted_at
