"""``exit_with``: the one service with which the daemon ends, and the exit code it then has. Pure.

It ended for good when nothing will start it again by itself: its policy does not restart this end, or it is parked (a
crash loop is no way to be alive for what a container is there for). A stop by hand is no end of its own: the daemon
stays.
"""

from __future__ import annotations

from typing import Final

from actors.spec import ExitReason, Restart
from supervisors.decisions.model import Report, ReportKind
from supervisors.decisions.strategy import should_restart

NEVER_STARTED: Final = 127
"""It could not even be started (what a shell says of a command it cannot find)."""
NOBODY_KNOWS: Final = 1
"""It ended while neither a daemon nor a keeper lived."""


def code_at_end(report: Report) -> int | None:
    """The daemon's exit code after this report of the chosen service; None: it has not ended for good."""
    reason = report.reason
    if reason is None:
        return None
    is_over = report.kind is ReportKind.PARKED or (
        report.kind is ReportKind.EXITED and not should_restart(Restart.TRANSIENT, reason)
    )
    return _code_of(reason) if is_over else None


def _code_of(reason: ExitReason) -> int:
    """The service's own exit code, or 128 + the signal that killed it."""
    if "cause" not in reason.evidence:
        return NEVER_STARTED
    code, signal = reason.evidence.get("code"), reason.evidence.get("signal")
    if isinstance(signal, int):
        return 128 + signal
    return code if isinstance(code, int) else NOBODY_KNOWS
