"""The queue: which runs may begin now, which one first, and what each of the others waits for. Pure.

The order, best first:

1. Critical before all others. But when ``IN_A_ROW`` critical ones were begun one after the other while a lesser one
   waited, the best of the lesser has its turn: a stream of critical alerts starves nobody. So a critical run waits for
   the run that is at work, for critical ones before it, and at most for one run of another's turn.
2. By rank: the runbook's priority (0 to 100), ``POINTS`` for the alert's severity, and ``POINTS_A_MINUTE`` for each
   minute of waiting. The rank of lesser runs ends at ``MOST``, which is more than any newcomer of theirs can have:
   there the longest waiting is first. So whoever waits long enough is overtaken by no newcomer.
3. The longest waiting.

A run whose target is busy, or that a limit holds back, keeps its place and lets others pass. Nothing is ever dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from runbooks.deciding.words import History, PastRun
from runbooks.model import Status

CRITICAL: Final = "critical"
POINTS: Final = {"low": 0.0, "medium": 10.0, "high": 20.0, "critical": 20.0}
POINTS_A_MINUTE: Final = 10.0
MOST: Final = 130.0
"""Priority 100 and severity high have 120 points when they come."""
IN_A_ROW: Final = 4

Held = Callable[[PastRun], str]
"""Why this run may not begin now whatever room there is; "" when it may."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued run: its place (from 1), and why it has not begun."""

    run: PastRun
    place: int
    why: str


@dataclass(frozen=True, slots=True)
class Line:
    """What may begin now, and the others in the order in which they would."""

    startable: tuple[PastRun, ...]
    waiting: tuple[Waiting, ...]


def rank(run: PastRun, now: float) -> float:
    """The more, the sooner; among critical runs, or among lesser ones."""
    waited_s = now - run.decided_at if now > run.decided_at else 0.0
    points = run.priority + POINTS.get(run.severity, POINTS["high"]) + POINTS_A_MINUTE * waited_s / 60
    return points if run.severity == CRITICAL else min(MOST, points)


def in_order(queued: Iterable[PastRun], history: History, now: float) -> list[PastRun]:
    """Best first, as if each began when the one before it had."""
    keyed = [(-rank(run, now), run.decided_at, run.execution_id, run) for run in queued]
    keyed.sort()  # ids differ: no two runs are compared
    urgent = [run for *_, run in keyed if run.severity == CRITICAL]
    lesser = [run for *_, run in keyed if run.severity != CRITICAL]
    if not urgent or not lesser:
        return urgent + lesser
    turn_in = max(0, IN_A_ROW - _critical_in_a_row(lesser, history))
    order: list[PastRun] = []
    while urgent and lesser:
        order += [*urgent[:turn_in], lesser.pop(0)]
        urgent, turn_in = urgent[turn_in:], IN_A_ROW
    return order + urgent + lesser


def _critical_in_a_row(lesser: list[PastRun], history: History) -> int:
    """Critical runs begun since a lesser one was begun last, while one of these waited."""
    since = min(run.decided_at for run in lesser)
    count = 0
    for run in history.begun_since(since):
        if run.severity != CRITICAL:
            break
        count += 1
    return count


def line(history: History, now: float, held: Held = lambda _run: "") -> Line:
    """The queue as it stands. What begins has a free target, and there is room for all of it."""
    room = history.max_concurrent - len(history.running)
    began: list[PastRun] = []
    waiting: list[tuple[PastRun, str]] = []
    busy = {run.target: run for run in history.running}
    for run in in_order(history.queued, history, now):
        why = _why_not(run, room - len(began), busy, held, history)
        if why:
            waiting.append((run, why))
        else:
            began.append(run)
            busy[run.target] = run
            history.put(replace(run, status=Status.RUNNING, started_at=now))  # the next are asked with it at work
    for run in began:
        history.put(run)
    shown = tuple(Waiting(run, place, why) for place, (run, why) in enumerate(waiting, 1))
    return Line(tuple(began), shown)


def _why_not(run: PastRun, room: int, busy: dict[str, PastRun], held: Held, history: History) -> str:
    if run.target in busy:
        return f"{busy[run.target].execution_id} is at work on {run.target}"
    if room <= 0:
        return f"{history.max_concurrent} runbooks may run at once"
    try:
        return held(run)
    except Exception as error:  # a limit that breaks holds back, it does not let through
        return f"it cannot be told whether it may begin: {type(error).__name__}: {error}"
