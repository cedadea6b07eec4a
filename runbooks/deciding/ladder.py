"""Escalation: what is done when a run did not help. Pure; derived from the runs that ended and the rungs climbed.

A run that ended without success is the *root* of its runbook's ladder. Its rungs are climbed one after the other, each
``after_s`` after the one before it: after the end of the run that it led to (at once, where a step of that run asks for
it), or after the notice. The ladder ends with
a success, with the end of the alert, or with its last rung. A run on a rung has no ladder of its own, and there is one
ladder at a time for alerts that are one: so an alert leads to as many runs as its runbook has rungs, and no loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from runbooks.deciding.words import NO_HELP, History, PastRun
from runbooks.model import Escalation, Runbook, Status


@dataclass(frozen=True, slots=True)
class Rung:
    """One that was climbed. ``execution_id``: the run it led to; None: a notice, or nothing could be begun."""

    root: str
    number: int
    at: float
    execution_id: str | None = None


@dataclass(frozen=True, slots=True)
class NextRung:
    root: PastRun
    number: int
    escalation: Escalation
    due_at: float


def next_rungs(
    runbooks: Iterable[Runbook], history: History, climbed: Mapping[str, Sequence[Rung]]
) -> tuple[NextRung, ...]:
    """What is to be climbed next, of all ladders, whenever it is due."""
    on_rungs = {rung.execution_id for rungs in climbed.values() for rung in rungs}
    found: list[NextRung] = []
    for runbook in runbooks:
        if runbook.escalate:
            own = [run for run in history.of_runbook(runbook.id) if run.execution_id not in on_rungs]
            for root in _roots(own, runbook, climbed, history):
                following = _next(root, runbook.escalate, climbed.get(root.execution_id, ()), history)
                if following is not None:
                    found.append(following)
    return tuple(sorted(found, key=lambda one: one.due_at))


def _roots(
    runs: Iterable[PastRun], runbook: Runbook, climbed: Mapping[str, Sequence[Rung]], history: History
) -> Iterable[PastRun]:
    roots: dict[str, PastRun] = {}
    for run in sorted((one for one in runs if one.ended_at is not None), key=lambda one: one.ended_at or 0.0):
        known = roots.get(run.fingerprint)
        if run.status is Status.SUCCEEDED:
            roots.pop(run.fingerprint, None)
        elif run.status in NO_HELP and (known is None or _is_climbed(known, run, runbook, climbed, history)):
            roots[run.fingerprint] = run
    return roots.values()


def _is_climbed(
    root: PastRun, run: PastRun, runbook: Runbook, climbed: Mapping[str, Sequence[Rung]], history: History
) -> bool:
    """Whether the ladder of ``root`` was at its end before ``run`` was decided."""
    rungs = climbed.get(root.execution_id, ())
    if len(rungs) < len(runbook.escalate):
        return False
    last = history.get(rungs[-1].execution_id or "")
    ended_at = rungs[-1].at if last is None else last.ended_at
    return ended_at is not None and ended_at <= run.decided_at


def _next(root: PastRun, ladder: Sequence[Escalation], rungs: Sequence[Rung], history: History) -> NextRung | None:
    number = len(rungs)
    if number >= len(ladder):
        return None
    base, last = root.ended_at or root.decided_at, root
    if rungs:
        run = history.get(rungs[-1].execution_id or "")
        if run is not None and (run.ended_at is None or run.status is Status.SUCCEEDED):
            return None
        base = rungs[-1].at if run is None or run.ended_at is None else run.ended_at
        last = run or replace(root, escalates=False)
    return NextRung(root, number, ladder[number], base if last.escalates else base + ladder[number].after_s)
