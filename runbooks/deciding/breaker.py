"""The breaker: a runbook that does not help is not tried on and on. Pure; derived from the runs that ended.

*closed*: runs may begin. After ``failures`` runs on a target within ``per_s`` that did not help it is *open* for
``open_for_s``; then *half open*: one run is let through, its success closes it and anything else opens it anew.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from runbooks.deciding.words import NO_HELP, History, PastRun
from runbooks.model import Breaker, Runbook, Status


class Position(enum.Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerState:
    """``failures`` that count now; ``until``: when an open one becomes half open."""

    position: Position
    failures: int = 0
    until: float = 0.0


def breaker_state(runbook: Runbook, target: str, history: History, now: float) -> BreakerState | None:
    """None: the runbook has none."""
    rule = runbook.limits.breaker
    if rule is None:
        return None
    failed_at, opened_at = _after(_since_success(runbook, target, history), rule)
    if opened_at is None:
        recent = [at for at in failed_at if now - at < rule.per_s]
        return BreakerState(Position.CLOSED, len(recent))
    until = opened_at + rule.open_for_s
    return BreakerState(Position.OPEN if now < until else Position.HALF_OPEN, len(failed_at), until)


def _since_success(runbook: Runbook, target: str, history: History) -> list[PastRun]:
    """The runs that ended after the last one that helped, the earliest end first: it closed the breaker."""
    ended: list[PastRun] = []
    for run in history.ended_latest(runbook.id, target):
        if run.status is Status.SUCCEEDED:
            break
        ended.append(run)
    return ended[::-1]


def _after(ended: list[PastRun], rule: Breaker) -> tuple[list[float], float | None]:
    """When the failures were that count, and when the breaker was opened last (None: it is closed)."""
    failed_at: list[float] = []
    opened_at: float | None = None
    for run in ended:
        at = run.ended_at or 0.0
        if run.status in NO_HELP:
            failed_at = [one for one in failed_at if opened_at is not None or at - one < rule.per_s] + [at]
            if opened_at is not None or len(failed_at) >= rule.failures:
                opened_at = at
    return failed_at, opened_at


def broken(runbook: Runbook, target: str, history: History, now: float, *, but: str = "") -> str:
    """Why no run may begin now; "" when one may. ``but``: the run that is asked about."""
    if runbook.limits.breaker is None or not history.has_not_helped(runbook.id, target):
        return ""  # closed, and nothing to count: as nearly always
    state = breaker_state(runbook, target, history, now)
    if state is None or state.position is Position.CLOSED:
        return ""
    if state.position is Position.OPEN:
        return f"{state.failures} runs of {runbook.id} on {target} did not help; again in {state.until - now:.0f} s"
    trial = next((run for run in history.open_on(target) if _is_trial(run, runbook, but)), None)
    return "" if trial is None else f"{trial.execution_id} is tried first: earlier runs did not help"


def _is_trial(run: PastRun, runbook: Runbook, but: str) -> bool:
    """Asked for a queued run (``but``), only one at work is before it."""
    is_before = run.status is Status.RUNNING or not but
    return run.runbook_id == runbook.id and run.execution_id != but and is_before
