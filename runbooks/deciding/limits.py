"""How often: cooldown and the number of runs within a time. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from runbooks.deciding.words import NEVER_BEGUN, History, PastRun
from runbooks.model import MaxRuns, Runbook, Scope


def cooling_left_s(runbook: Runbook, target: str, history: History, now: float) -> float:
    """Seconds until the runbook may be used on the target again; what did nothing does not count."""
    ended = [
        run.ended_at
        for run in history.of(runbook.id, target)
        if run.ended_at is not None and run.status not in NEVER_BEGUN
    ]
    left = [runbook.limits.cooldown_s - (now - at) for at in ended if now >= at]
    return max(left, default=0.0)


def limited(runbook: Runbook, target: str, history: History, now: float, *, but: str = "") -> str:
    """Why no run may begin now for the number of those begun lately; "" when one may. ``but``: itself."""
    for limit in runbook.limits.max_runs:
        began = sorted(
            at
            for run in _in_scope(limit, runbook, target, history)
            if run.execution_id != but and (at := run.began_at) is not None and now - at < limit.per_s
        )
        if len(began) >= limit.count:
            left_s = limit.per_s - (now - began[-limit.count])
            return f"{_said(limit, runbook, target)}; again in {left_s:.0f} s"
    return ""


def _in_scope(limit: MaxRuns, runbook: Runbook, target: str, history: History) -> Iterable[PastRun]:
    match limit.scope:
        case Scope.TARGET:
            return history.on(target)
        case Scope.RUNBOOK:
            return history.of_runbook(runbook.id)
        case Scope.GLOBAL:
            return history.runs


def _said(limit: MaxRuns, runbook: Runbook, target: str) -> str:
    about = {Scope.TARGET: f"on {target}", Scope.RUNBOOK: f"of {runbook.id}", Scope.GLOBAL: "in all"}[limit.scope]
    return f"{limit.count} runs {about} within {limit.per_s:g} s are enough"
