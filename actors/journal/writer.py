"""The journal's one writer: a thread that owns the connection and commits what waits in groups.

A job is done, and its future answered, only after the commit that holds it reached the disk. An idle writer commits at
once; under load everything that came in during one flush goes into the next. Callbacks of the futures run on this
thread: they must only hand the news on.
"""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from actors.journal.rows import JournalTrouble
from actors.journal.schema import is_corrupt, open_writer

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
GROUP: Final = 64
OPEN_TIMEOUT_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class _Waiting:
    job: Job[Any]
    future: Future[Any]


class Writer:
    """``submit`` from any thread. ``open`` and ``close`` may be called again and again, from one thread at a time."""

    def __init__(self, path: Path, wall: Callable[[], float] = time.time) -> None:
        self.path = path
        self._wall = wall
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Waiting | None] | None = None
        self._thread: threading.Thread | None = None
        self._identity: tuple[int, int] | None = None
        self._damage: str | None = None
        self._trouble: str | None = None
        self.commits = 0

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def trouble(self) -> str | None:
        """What is wrong: a disk that takes nothing (until it does again), or a damaged file that was moved aside."""
        return self._trouble or self._damage

    def open(self) -> Path | None:
        """Open the file and start the thread. Returns where a damaged file was moved to, if there was one.

        Raises:
            JournalTrouble: see ``schema.open_writer``.
        """
        if self.is_alive:
            return None
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._wall()))
        opened = open_writer(self.path, stamp)
        found = self.path.stat()
        self._identity = (found.st_dev, found.st_ino)
        self._damage, self._trouble = opened.trouble or self._damage, None
        jobs: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(opened.connection, jobs), name="journal-writer", daemon=True
        )
        self._thread.start()
        with self._lock:
            self._jobs = jobs
        return opened.moved_aside

    def submit(self, job: Job[T]) -> Future[T]:
        """Do ``job(connection)`` inside a transaction; the future is answered after its commit.

        The future fails with ``JournalTrouble`` when nothing could be committed, or with what the job raised.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._jobs is not None:
                self._jobs.put(_Waiting(job, future))
                return future
        future.set_exception(JournalTrouble(self._trouble or f"the journal {self.path} is not open"))
        return future

    def close(self) -> None:
        """Commit what waits, then end the thread."""
        with self._lock:
            jobs, self._jobs = self._jobs, None
        if jobs is not None:
            jobs.put(None)
        if self._thread is not None:
            self._thread.join(CLOSE_TIMEOUT_S)

    # -- the writer's own thread ----------------------------------------------------------------------------------

    def _run(self, connection: sqlite3.Connection, jobs: queue.SimpleQueue[_Waiting | None]) -> None:
        try:
            while (first := jobs.get()) is not None:
                group, is_last = _take(first, jobs)
                self._write(connection, group)
                if is_last:
                    break
        except JournalTrouble as fatal:
            self._trouble = str(fatal)
        finally:
            with self._lock:
                if self._jobs is jobs:
                    self._jobs = None
            connection.close()
            self._refuse_rest(jobs)

    def _write(self, connection: sqlite3.Connection, group: list[_Waiting]) -> None:
        """Commit the group. Raises only what ends the writer; then everybody in the group has been told."""
        try:
            self._check_identity()
            connection.execute("BEGIN IMMEDIATE")
            answers = [_done(connection, waiting.job) for waiting in group]
            connection.execute("COMMIT")
        except (sqlite3.Error, JournalTrouble, OSError) as error:
            if connection.in_transaction:  # a full disk has rolled back by itself
                connection.execute("ROLLBACK")
            self._trouble = _explained(self.path, error)
            trouble = JournalTrouble(self._trouble)
            for waiting in group:
                waiting.future.set_exception(trouble)
            if isinstance(error, JournalTrouble) or (isinstance(error, sqlite3.Error) and is_corrupt(error)):
                raise trouble from error
            return
        self._trouble = None
        self.commits += 1
        for waiting, (result, failure) in zip(group, answers, strict=True):
            if failure is not None:
                waiting.future.set_exception(failure)
            else:
                waiting.future.set_result(result)

    def _check_identity(self) -> None:
        """Commits into a file that was deleted or replaced succeed, and are lost."""
        try:
            found = os.stat(self.path)  # noqa: PTH116  once per commit: no Path object on the way
        except FileNotFoundError as error:
            raise JournalTrouble(f"the journal {self.path} was deleted while it was open") from error
        if (found.st_dev, found.st_ino) != self._identity:
            raise JournalTrouble(f"the journal {self.path} was replaced by another file while it was open")

    def _refuse_rest(self, jobs: queue.SimpleQueue[_Waiting | None]) -> None:
        text = self._trouble or f"the journal {self.path} was closed"
        while True:
            try:
                waiting = jobs.get_nowait()
            except queue.Empty:
                return
            if waiting is not None:
                waiting.future.set_exception(JournalTrouble(text))


def _take(first: _Waiting, jobs: queue.SimpleQueue[_Waiting | None]) -> tuple[list[_Waiting], bool]:
    """``first`` and what else waits already, at most ``GROUP``; True when the end is among it."""
    group = [first]
    while len(group) < GROUP:
        try:
            waiting = jobs.get_nowait()
        except queue.Empty:
            return group, False
        if waiting is None:
            return group, True
        group.append(waiting)
    return group, False


def _done(connection: sqlite3.Connection, job: Job[Any]) -> tuple[Any, Exception | None]:
    """The job's result, or what it raised: then nothing of it stays, and the others of the group go on.

    Raises:
        sqlite3.Error: the whole transaction is gone.
    """
    connection.execute("SAVEPOINT job")
    try:
        result = job(connection)
    except Exception as error:
        if not connection.in_transaction or (isinstance(error, sqlite3.Error) and is_corrupt(error)):
            raise
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return None, error
    connection.execute("RELEASE job")
    return result, None


def _explained(path: Path, error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return f"the disk of the journal {path} is full: nothing is recorded and no alert accepted; make room"
    if isinstance(error, JournalTrouble):
        return str(error)
    return f"the journal {path} cannot be written: {error}"
