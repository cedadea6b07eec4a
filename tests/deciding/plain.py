"""The rules that ask the past, by a look at every run that is known: what the indexes of ``History`` must equal."""

from __future__ import annotations

from collections.abc import Iterable

from runbooks.deciding import quiet, repeats
from runbooks.deciding.breaker import BreakerState, Position
from runbooks.deciding.words import NO_HELP, History, PastRun
from runbooks.model import Facts, MaxRuns, Runbook, Scope, Status


def twin(fingerprint: str, runbook: Runbook, severity: str, history: History, now: float) -> PastRun | None:
    for run in reversed([one for one in history.runs if one.fingerprint == fingerprint]):
        is_taken_back = run.status is Status.CANCELLED and run.began_at is None
        is_recent = not run.status.is_terminal or 0 <= now - run.decided_at < runbook.dedup.window_s
        is_recent = is_recent and not is_taken_back
        if is_recent and not repeats.is_worse(severity, run.severity):
            return run
    return None


def inhibitor(
    runbook: Runbook, alert: Facts, history: History, *, but: str = "", only_running: bool = False
) -> PastRun | None:
    for rule in runbook.inhibited_by:
        for run in history.runs:
            is_open = run.status is Status.RUNNING if only_running else not run.status.is_terminal
            is_another = run.runbook_id == rule.runbook and run.execution_id != but
            if is_open and is_another and quiet._are_equal(alert, run.facts or {}, rule.equal):
                return run
    return None


def broken(runbook: Runbook, target: str, history: History, now: float, *, but: str = "") -> str:
    state = breaker_state(runbook, target, history, now)
    if state is None or state.position is Position.CLOSED:
        return ""
    if state.position is Position.OPEN:
        return f"{state.failures} runs of {runbook.id} on {target} did not help; again in {state.until - now:.0f} s"
    for run in history.runs:
        is_before = run.status is Status.RUNNING or (not but and not run.status.is_terminal)
        if is_before and run.target == target and run.runbook_id == runbook.id and run.execution_id != but:
            return f"{run.execution_id} is tried first: earlier runs did not help"
    return ""


def breaker_state(runbook: Runbook, target: str, history: History, now: float) -> BreakerState | None:
    rule = runbook.limits.breaker
    if rule is None:
        return None
    failed_at: list[float] = []
    opened_at: float | None = None
    ended = [one for one in _of(runbook, target, history) if one.ended_at is not None]
    for run in sorted(ended, key=lambda one: one.ended_at or 0.0):
        at = run.ended_at or 0.0
        if run.status is Status.SUCCEEDED:
            failed_at, opened_at = [], None
        elif run.status in NO_HELP:
            failed_at = [one for one in failed_at if opened_at is not None or at - one < rule.per_s] + [at]
            if opened_at is not None or len(failed_at) >= rule.failures:
                opened_at = at
    if opened_at is None:
        return BreakerState(Position.CLOSED, len([at for at in failed_at if now - at < rule.per_s]))
    until = opened_at + rule.open_for_s
    return BreakerState(Position.OPEN if now < until else Position.HALF_OPEN, len(failed_at), until)


def cooling_left_s(runbook: Runbook, target: str, history: History, now: float) -> float:
    ended = [one for one in _of(runbook, target, history) if one.began_at is not None]
    left = [runbook.limits.cooldown_s - (now - at) for one in ended if (at := one.ended_at) is not None and now >= at]
    return max(left, default=0.0)


def limited(runbook: Runbook, target: str, history: History, now: float, *, but: str = "") -> str:
    for limit in runbook.limits.max_runs:
        began = sorted(
            at
            for run in history.runs
            if _is_in_scope(limit, runbook, target, run)
            and run.execution_id != but
            and (at := run.began_at) is not None
            and now - at < limit.per_s
        )
        if len(began) >= limit.count:
            where = {Scope.TARGET: f"on {target}", Scope.RUNBOOK: f"of {runbook.id}", Scope.GLOBAL: "in all"}
            left_s = limit.per_s - (now - began[-limit.count])
            return (
                f"{limit.count} runs {where[limit.scope]} within {limit.per_s:g} s are enough; again in {left_s:.0f} s"
            )
    return ""


def crowded(runbook: Runbook, history: History, *, with_queued: bool = False) -> str:
    most = runbook.limits.concurrency
    if most is None:
        return ""
    counted = {Status.RUNNING, Status.QUEUED} if with_queued else {Status.RUNNING}
    at_work = sum(1 for run in history.runs if run.runbook_id == runbook.id and run.status in counted)
    return f"{most} runs of {runbook.id} may be at work at once" if at_work >= most else ""


def _of(runbook: Runbook, target: str, history: History) -> Iterable[PastRun]:
    return [one for one in history.runs if one.runbook_id == runbook.id and one.target == target]


def _is_in_scope(limit: MaxRuns, runbook: Runbook, target: str, run: PastRun) -> bool:
    match limit.scope:
        case Scope.TARGET:
            return run.target == target
        case Scope.RUNBOOK:
            return run.runbook_id == runbook.id
        case Scope.GLOBAL:
            return True


RULES = (twin, inhibitor, broken, cooling_left_s, limited, crowded)
