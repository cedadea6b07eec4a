"""What holds back a queued run although there is room and its target is free. Pure.

Asked again when it is to begin: what was so when it was queued may have changed. It keeps its place meanwhile.
"""

from __future__ import annotations

from runbooks.choosing import is_in_use
from runbooks.deciding import breaker, limits, quiet, radius
from runbooks.deciding.words import History, PastRun
from runbooks.model import Mode, Runbook, Status


def held_back(run: PastRun, runbook: Runbook | None, history: History, now: float) -> str:
    """Why it may not begin now; "" when it may.

    Args:
        runbook: its own; None when its file is gone or unusable: the run has its bytes, the limits it is asked for
            were in it and are those of the moment it was queued.
    """
    if run.target in history.latches:
        return f"{run.target} is latched: {history.latches[run.target]}"
    silence = quiet.silenced_by(run.facts or {}, history, now) if history.silences else None
    if silence is not None:
        return quiet.said(silence, now)
    if runbook is None:
        return ""
    if not is_in_use(runbook) or runbook.mode is not Mode.AUTO:
        return f"{runbook.id} was switched to {runbook.mode.value if runbook.enabled else 'disabled'} meanwhile"
    if cooling := limits.cooling(runbook, run.target, history, now):
        return cooling
    but = run.execution_id
    other = quiet.inhibitor(runbook, run.facts or {}, history, but=but, only_running=True)
    if other is not None:
        return f"{other.execution_id} of {other.runbook_id} is first"
    return (
        crowded(runbook, history)
        or breaker.broken(runbook, run.target, history, now, but=but)
        or limits.limited(runbook, run.target, history, now, but=but)
        or radius.too_wide(runbook, history, now)
    )


def crowded(runbook: Runbook, history: History, *, with_queued: bool = False) -> str:
    """Why there is no room for one more run of this runbook; "" when there is. ``with_queued``: nobody overtakes."""
    most = runbook.limits.concurrency
    if most is None:
        return ""
    counted = {Status.RUNNING, Status.QUEUED} if with_queued else {Status.RUNNING}
    at_work = sum(1 for run in history.open_of(runbook.id) if run.status in counted)
    return f"{most} runs of {runbook.id} may be at work at once" if at_work >= most else ""
