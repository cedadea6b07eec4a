"""The queue as the guardian keeps it: who is next begins, by a claim that is committed before anything is started."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final

from actors.deciding.desk import Desk
from actors.journal import happened, holds
from actors.journal.rows import Execution
from actors.runbook import ExecutionFinished
from runbooks.deciding.gate import held_back
from runbooks.deciding.queue import Waiting, in_order, line
from runbooks.deciding.timing import Moment
from runbooks.deciding.words import PastRun
from runbooks.model import Status

LOOK_S: Final = 1.0
"""A queue that a limit holds back is looked at this often."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """To the guardian: what the claims came to, in the order of ``executions``. ``error``: nothing is known."""

    executions: tuple[Execution, ...]
    statuses: tuple[Status | None, ...] = ()
    error: BaseException | None = None


class RunQueue:
    """Args:
    start: starts an execution that has been claimed.
    finished: an execution has ended without having begun.
    """

    def __init__(
        self, desk: Desk, start: Callable[[Execution], object], finished: Callable[[ExecutionFinished], object]
    ) -> None:
        self._desk = desk
        self._start = start
        self._finished = finished
        self._is_claiming = False
        self._shown: tuple[Waiting, ...] = ()

    @property
    def is_held_back(self) -> bool:
        """Whether something waits that nobody's end will wake."""
        return bool(self._shown)

    def look(self) -> None:
        """Let begin what may; and show what waits, and why."""
        desk = self._desk
        desk.look_up()
        history = desk.history
        now = desk.now()
        if not history.is_recovery_on:
            queued = in_order(history.queued, history, now)
            self._show(tuple(Waiting(run, place, "recovery is off") for place, run in enumerate(queued, 1)))
            return
        if self._is_claiming:
            return
        found = line(history, now, lambda run: held_back(run, desk.runbook(run.runbook_id), history, now))
        self._show(found.waiting)
        self._claim([desk.executions[run.execution_id] for run in found.startable if self._is_known(run)])

    def _is_known(self, run: PastRun) -> bool:
        return run.execution_id in self._desk.executions

    def _claim(self, executions: Sequence[Execution]) -> None:
        if not executions:
            return
        desk, claimed = self._desk, tuple(executions)
        now, most, path = desk.moment(), desk.history.max_concurrent, desk.context.path
        for one in claimed:
            self._put(one, Status.RUNNING)
        self._is_claiming = True
        future = desk.parts.journal.submit(lambda db: _claim_all(db, path, claimed, most, now))
        future.add_done_callback(lambda done: desk.ref.tell(_as_claimed(claimed, done)))

    def claimed(self, message: Claimed) -> None:
        """What was claimed begins; the others are put back."""
        self._is_claiming = False
        if message.error is not None:
            for one in message.executions:
                self._put(one, Status.QUEUED)
            return
        for one, status in zip(message.executions, message.statuses, strict=True):
            match status:
                case Status.RUNNING:
                    self._start(replace(one, status=Status.RUNNING))
                case Status.QUEUED:
                    self._put(one, Status.QUEUED)
                case None:
                    self._desk.drop(one.id)
                case _:
                    self._put(one, Status.QUEUED)
                    self._finished(ExecutionFinished(one.id, status, holds.THE_ALERT_IS_OVER))

    def _put(self, execution: Execution, status: Status) -> None:
        desk = self._desk
        run = desk.history.get(execution.id)
        if run is not None:
            desk.executions[execution.id] = replace(execution, status=status)
            started_at = desk.now() if status is Status.RUNNING else None
            desk.history.put(replace(run, status=status, started_at=started_at))

    def _show(self, waiting: tuple[Waiting, ...]) -> None:
        if waiting != self._shown:
            self._shown = waiting
            self._desk.parts.show_queue(waiting)


def _claim_all(
    db: sqlite3.Connection, path: str, executions: Sequence[Execution], most: int, now: Moment
) -> list[Status | None]:
    found: list[Status | None] = []
    for one in executions:
        status = holds.claim(db, one.id, most, now)
        if status is Status.CANCELLED:
            happened.finish_execution(db, path, one, status, holds.THE_ALERT_IS_OVER, now.wall_s, now.mark)
        found.append(status)
    return found


def cancel_over(db: sqlite3.Connection, path: str, executions: Sequence[Execution], now: Moment) -> list[str]:
    """End the queued ones of these whose alert is over; returns their ids."""
    ids = set(holds.over(db))
    ended = [one for one in executions if one.id in ids]
    for one in ended:
        happened.finish_execution(db, path, one, Status.CANCELLED, holds.THE_ALERT_IS_OVER, now.wall_s, now.mark)
    return [one.id for one in ended]


def _as_claimed(executions: tuple[Execution, ...], done: Future[list[Status | None]]) -> Claimed:
    error = done.exception()
    return Claimed(executions, () if error is not None else tuple(done.result()), error)
