"""Recorded alerts decided again, as if they came now: the very ``decide``, in the alerts' own time. Pure.

An alert that was for one runbook (a rung of an escalation, a run that a person asked for) is for that one again.

The past of a decision is made by the replay itself, with these assumptions: each run takes ``run_s`` and helps, nobody
approves what must be approved, no service is down, nobody silences anything. So two libraries differ by their files
alone, and a replay is the same every time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from runbooks.deciding.gate import held_back
from runbooks.deciding.holding import due
from runbooks.deciding.horizon import looks_back_s
from runbooks.deciding.queue import line
from runbooks.deciding.words import Decision, Health, History, Outcome, PastRun, Waits
from runbooks.matching import decide
from runbooks.model import Facts, Runbook, Status
from runbooks.parse import Library

RUN_S: Final = 30.0
_REMEMBER_AT_LEAST_S: Final = 3600.0
"""The daemon remembers a day at least; what no runbook asks for changes no decision."""
_PATIENCE_S: Final = 24 * 3600.0
_FORGET_EVERY_S: Final = 600.0
_LOOK_S: Final = 1.0
_ALL_WELL: Final = Health(1000, 1000)
_NOTHING_PASSED: Final[frozenset[Waits]] = frozenset()
_UNANSWERED: Final = frozenset({Outcome.NO_MATCH, Outcome.REJECTED})


class Recorded(NamedTuple):
    """One alert as it came: ``at`` in Unix seconds (None: with the one before it), ``facts`` as runbooks see it;
    ``wanted``: the id of the runbook it was for, whatever its rule says (None: whichever fits).
    """

    at: float | None
    facts: dict[str, Any]
    wanted: str | None = None


class Answer(NamedTuple):
    """What became of one alert. ``outcome``: of one that waited first, ``pending`` and what came then."""

    outcome: str
    runbook: str | None

    @property
    def kind(self) -> str:
        """run, suppress or none: no runbook answers it."""
        last = self.outcome.rpartition(">")[2]
        if last in _RUNS:
            return "run"
        return "none" if last in _NONE else "suppress"


_NO_MATCH: Final = Answer(Outcome.NO_MATCH.value, None)
_RUNS: Final = frozenset({"run", "queued", "awaiting_approval"})
_NONE: Final = frozenset(one.value for one in _UNANSWERED)


class _Waiting(NamedTuple):
    number: int
    alert: Facts
    wanted: str | None
    key: str


@dataclass
class Replay:
    """One library's decisions. ``answers``: by the number of the alert."""

    library: Library
    run_s: float = RUN_S
    max_concurrent: int = 5
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._history = History(max_concurrent=self.max_concurrent, health=lambda: _ALL_WELL)
        self._runbooks = {one.id: one for one in self.library.runbooks}
        self._remember_s = max(_REMEMBER_AT_LEAST_S, *map(looks_back_s, self.library.runbooks))
        self._events: list[tuple[float, int, PastRun | _Waiting | None]] = []
        self._count = 0
        self._now = 0.0
        self._forgets_at = 0.0
        self._looks_at: float | None = None
        self._known: dict[tuple[str, str | None], Answer] = {_NO_MATCH: _NO_MATCH}

    def take(self, alert: Facts, at: float, wanted: str | None = None) -> None:
        """The next alert; one that came before the last one is taken as coming with it."""
        now = max(at, self._now)
        if self._events and self._events[0][0] <= now:
            self._pass_time(now)
        self._now = now
        number = len(self.answers)
        decision = self._decide(alert, number, wanted, _NOTHING_PASSED)
        self.answers.append(_NO_MATCH)
        if decision.outcome is not Outcome.NO_MATCH:  # which nearly all are
            self._decided(number, alert, wanted, decision, "")

    def finish(self) -> list[Answer]:
        """Everything that waits gets its answer; all of them."""
        self._pass_time(float("inf"))
        return self.answers

    # -- deciding ---------------------------------------------------------------------------------------------------

    def _decide(self, alert: Facts, number: int, wanted: str | None, passed: frozenset[Waits]) -> Decision:
        only = None if wanted is None else self.library.get(wanted)
        if wanted is not None and only is None:  # never another one instead
            return Decision(Outcome.NO_MATCH, f"there is no runbook {wanted}")
        return decide(alert, self.library, self._history, self._now, seq=number, passed=passed, only=only)

    def _decided(self, number: int, alert: Facts, wanted: str | None, decision: Decision, before: str) -> None:
        runbook = decision.runbook
        self.answers[number] = self._answer(before + decision.outcome.value, runbook.id if runbook else None)
        if decision.settles:
            self._history.pending.pop(decision.settles, None)
        pending = decision.pending
        if pending is not None:
            self._history.pending[pending.key] = pending
            if decision.outcome is Outcome.PENDING:
                self._at(pending.due_at, _Waiting(number, alert, wanted, pending.key))
        if decision.starts_execution and runbook is not None:
            self._begin(number, alert, decision, runbook)

    def _answer(self, outcome: str, runbook_id: str | None) -> Answer:
        key = (outcome, runbook_id)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = Answer(outcome, runbook_id)
        return found

    def _begin(self, number: int, alert: Facts, decision: Decision, runbook: Runbook) -> None:
        status = _STATUS[decision.outcome]
        run = PastRun(
            f"alert {number}",
            runbook.id,
            decision.target,
            decision.fingerprint,
            status,
            self._now,
            None,
            decision.severity,
            self._now if status is Status.RUNNING else None,
            runbook.priority,
            alert,
        )
        self._history.put(run)
        if status is Status.RUNNING:
            self._at(self._now + self.run_s, run)
        elif status is Status.AWAITING_APPROVAL:
            patience_s = runbook.approval.timeout_s if runbook.approval is not None else _PATIENCE_S
            self._at(self._now + patience_s, run)
        else:
            self._look_later()

    # -- time -------------------------------------------------------------------------------------------------------

    def _at(self, at: float, what: PastRun | _Waiting | None) -> None:
        self._count += 1
        heapq.heappush(self._events, (at, self._count, what))

    def _pass_time(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            at, _, what = heapq.heappop(self._events)
            self._now = max(self._now, at)
            match what:
                case PastRun():
                    self._ended(what)
                case _Waiting():
                    self._due(what)
                case None:
                    self._looks_at = None
                    self._look_at_queue()
        if self._now >= self._forgets_at and until != float("inf"):
            self._history.forget(self._now - self._remember_s)
            self._forgets_at = self._now + _FORGET_EVERY_S

    def _ended(self, run: PastRun) -> None:
        now = self._history.get(run.execution_id)
        if now is None or now.status.is_terminal:
            return
        status = Status.EXPIRED if now.status is Status.AWAITING_APPROVAL else Status.SUCCEEDED
        self._history.put(replace(now, status=status, ended_at=self._now, started_at=now.began_at))
        self._look_at_queue()

    def _due(self, waiting: _Waiting) -> None:
        pending = self._history.pending.get(waiting.key)
        if pending is None or pending.alert_seq != waiting.number:
            self._settle(waiting, "answered")
            return
        what = due(pending, None, self._now)
        if what.again_at is not None:
            self._at(max(what.again_at, self._now + 0.001), waiting)
            return
        self._history.pending.pop(waiting.key, None)
        if what.over:
            self._settle(waiting, "over")
            return
        alert = {**waiting.alert, "severity": pending.severity} if pending.waits is Waits.GROUP else waiting.alert
        decision = self._decide(alert, waiting.number, waiting.wanted, what.passed)
        self._decided(waiting.number, alert, waiting.wanted, decision, "pending>")

    def _settle(self, waiting: _Waiting, word: str) -> None:
        self.answers[waiting.number] = self._answer(f"pending>{word}", self.answers[waiting.number].runbook)

    def _look_at_queue(self) -> None:
        if not self._history.has_queued:
            return
        began = line(
            self._history,
            self._now,
            lambda run: held_back(run, self._runbooks.get(run.runbook_id), self._history, self._now),
        ).startable
        for run in began:
            started = replace(run, status=Status.RUNNING, started_at=self._now)
            self._history.put(started)
            self._at(self._now + self.run_s, started)
        self._look_later()

    def _look_later(self) -> None:
        """A limit may let go while nothing is at work whose end would be a reason to look."""
        if self._looks_at is None and not self._history.has_running and self._history.has_queued:
            self._looks_at = self._now + _LOOK_S
            self._at(self._looks_at, None)


_STATUS: Final = {
    Outcome.RUN: Status.RUNNING,
    Outcome.QUEUED: Status.QUEUED,
    Outcome.AWAITING_APPROVAL: Status.AWAITING_APPROVAL,
}


def replayed(alerts: Iterable[Recorded], library: Library, run_s: float = RUN_S) -> list[Answer]:
    """What this library would do about each."""
    replay = Replay(library, run_s)
    last = 0.0
    for at, facts, wanted in alerts:
        last = last if at is None else at
        replay.take(facts, last, wanted)
    return replay.finish()
