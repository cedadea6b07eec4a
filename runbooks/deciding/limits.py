"""How often: cooldown and the number of runs within a time. Pure."""

from __future__ import annotations

from runbooks.deciding.words import History
from runbooks.model import MaxRuns, Runbook, Scope


def cooling_left_s(runbook: Runbook, target: str, history: History, now: float) -> float:
    """Seconds until the runbook may be used on the target again; what did nothing does not count."""
    for run in history.ended_latest(runbook.id, target):
        if run.ended_at is not None and now >= run.ended_at:
            return runbook.limits.cooldown_s - (now - run.ended_at)  # those before it ended earlier
    return 0.0


def cooling(runbook: Runbook, target: str, history: History, now: float) -> str:
    """Why no run may begin now so soon after the last one; "" when one may."""
    left_s = cooling_left_s(runbook, target, history, now)
    return f"{target} was recovered a moment ago; again in {left_s:.0f} s" if left_s > 0 else ""


def limited(runbook: Runbook, target: str, history: History, now: float, *, but: str = "") -> str:
    """Why no run may begin now for the number of those begun lately; "" when one may. ``but``: itself."""
    for limit in runbook.limits.max_runs:
        at = history.nth_begun(limit.scope, runbook.id, target, limit.count, but)
        if at is not None and now - at < limit.per_s:  # so many began then or later
            left_s = limit.per_s - (now - at)
            return f"{_said(limit, runbook, target)}; again in {left_s:.0f} s"
    return ""


def _said(limit: MaxRuns, runbook: Runbook, target: str) -> str:
    match limit.scope:
        case Scope.TARGET:
            about = f"on {target}"
        case Scope.RUNBOOK:
            about = f"of {runbook.id}"
        case Scope.GLOBAL:
            about = "in all"
    return f"{limit.count} runs {about} within {limit.per_s:g} s are enough"
