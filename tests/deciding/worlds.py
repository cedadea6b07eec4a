"""Runbooks, past runs and a guardian in virtual time, for tests of the pure rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from runbooks.deciding.gate import held_back
from runbooks.deciding.queue import line
from runbooks.deciding.quiet import silenced_by
from runbooks.deciding.words import History, PastRun
from runbooks.matching import Decision, Outcome, decide, fingerprint
from runbooks.model import Runbook, Status
from tests.runbooks.files import runbook

NOW = 100_000.0
ALERT = {"type": "service_failure", "service": "a", "severity": "high"}


@dataclass(frozen=True)
class Books:
    runbooks: tuple[Runbook, ...]


def past(book: Runbook, **more: Any) -> PastRun:
    """A run that has just succeeded, unless told otherwise."""
    run = PastRun("x-1", book.id, "service:a", fingerprint(book, ALERT), Status.SUCCEEDED, NOW - 8, NOW - 7)
    return replace(run, **more)


def ended(book: Runbook, status: Status, at: float, number: int = 0, **more: Any) -> PastRun:
    return past(book, execution_id=f"x-{number}-{at:g}", status=status, decided_at=at - 1, ended_at=at, **more)


def queued(book: Runbook, name: str, at: float, **more: Any) -> PastRun:
    given = {"target": f"t-{name}", "fingerprint": name} | more
    return past(book, execution_id=name, status=Status.QUEUED, decided_at=at, ended_at=None, **given)


def running(book: Runbook, name: str, at: float, **more: Any) -> PastRun:
    return replace(queued(book, name, at, **more), status=Status.RUNNING, started_at=at)


def limited(**limits: Any) -> Runbook:
    return runbook(limits=limits)


@dataclass
class Virtual:
    """A guardian with a clock of its own: alerts are decided, runs begin, last ``lasts_s`` and end as ``ends`` says."""

    books: tuple[Runbook, ...]
    most: int = 5
    lasts_s: float = 5.0
    ends: Callable[[PastRun, float], Status] = lambda _run, _now: Status.SUCCEEDED
    now: float = NOW
    history: History = field(init=False)
    made: list[tuple[float, str, str]] = field(default_factory=list)
    """(when, "begin" or "end", execution id): what a journal would tell."""
    decisions: list[Decision] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self.history = History(max_concurrent=self.most)

    def alert(self, **facts: Any) -> Decision:
        alert = {**ALERT, **facts}
        decision = decide(alert, Books(self.books), self.history, self.now, seq=self._count)
        self.decisions.append(decision)
        if decision.pending is not None:
            self.history.pending[decision.pending.key] = decision.pending
        if decision.starts_execution and decision.runbook is not None:
            self._count += 1
            is_run = decision.outcome is Outcome.RUN
            run = PastRun(
                f"x-{self._count}",
                decision.runbook.id,
                decision.target,
                decision.fingerprint,
                Status.RUNNING if is_run else Status.QUEUED,
                self.now,
                severity=decision.severity,
                started_at=self.now if is_run else None,
                priority=decision.runbook.priority,
                facts=alert,
            )
            self.history.put(run)
            if is_run:
                assert run.target not in self.history.latches
                self.made.append((self.now, "begin", run.execution_id))
        return decision

    def to(self, at: float) -> None:
        """Let time pass: what is due to end ends, and what may begin begins."""
        while (due := min((self._end_of(run) for run in self.history.running), default=at + 1)) <= at:
            self.now = due
            for run in [one for one in self.history.running if self._end_of(one) <= due]:
                self.history.put(replace(run, status=self.ends(run, due), ended_at=due))
                self.made.append((due, "end", run.execution_id))
            self.serve()
        self.now = at
        self.serve()

    def _end_of(self, run: PastRun) -> float:
        return (run.began_at or 0.0) + self.lasts_s

    def serve(self) -> None:
        by_id = {book.id: book for book in self.books}
        found = line(
            self.history, self.now, lambda run: held_back(run, by_id.get(run.runbook_id), self.history, self.now)
        )
        for run in found.startable:
            assert run.target not in self.history.latches
            assert silenced_by(run.facts or {}, self.history, self.now) is None
            self.history.put(replace(run, status=Status.RUNNING, started_at=self.now))
            self.made.append((self.now, "begin", run.execution_id))

    @property
    def began(self) -> list[str]:
        return [name for _, what, name in self.made if what == "begin"]

    def at_work(self) -> Iterator[int]:
        """How many run at each instant of the record."""
        count = 0
        for _, what, _ in self.made:
            count += 1 if what == "begin" else -1
            yield count
