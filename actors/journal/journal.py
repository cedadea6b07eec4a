"""The journal: one writer thread with group commit; readers with connections of their own.

``submit`` from any thread; what it returns is completed after the commit, never before. Readers never block the writer.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from actors.failpoints import reached, register
from actors.journal.schema import CorruptJournal, JournalTrouble, move_aside, open_reader, open_writer

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Asked = queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None]
MAX_BATCH: Final = 64
COMMIT_WANTED: Final = register("daemon.journal.commit", "a batch is written into the transaction, not committed")
COMMITTED: Final = register("daemon.journal.committed", "a batch is committed, nobody was told")
_END: Final = None


class Journal:
    """``Journal(path)``; ``start`` opens it. A damaged file is moved aside and said in ``trouble``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._damage: str | None = None
        self._refused: str | None = None
        self._asked: Asked = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_open = False
        self._thread: threading.Thread | None = None

    @property
    def trouble(self) -> str | None:
        """What is wrong although it runs: the last write was refused (a full disk), or the file was found damaged."""
        return self._refused or self._damage

    @property
    def is_open(self) -> bool:
        """Takes work now."""
        return self._is_open and self.is_alive

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Open the file and begin. Raises JournalTrouble."""
        connection = self._opened()
        with self._lock:
            _fail_all(self._asked, self.path)  # what a writer that died left behind
            self._asked = queue.SimpleQueue()
            self._is_open = True
            self._thread = threading.Thread(
                target=self._run, args=(connection, self._asked), name="journal-writer", daemon=True
            )
            self._thread.start()

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what was submitted, then end."""
        with self._lock:
            was_open, self._is_open = self._is_open, False
            if was_open:
                self._asked.put(_END)
        if self._thread is not None:
            self._thread.join(timeout_s)

    def submit(self, work: Work[T]) -> Future[T]:
        """Do ``work(connection)`` in the next transaction; the future completes after its commit.

        It fails with JournalTrouble when the transaction could not be written, with ``work``'s own error when that
        raised (then nothing of it is written).
        """
        future: Future[T] = Future()
        with self._lock:
            if self._is_open:
                self._asked.put((work, future))
                return future
        future.set_exception(JournalTrouble(f"{self.path}: is closed"))
        return future

    def read(self, query: Work[T]) -> T:
        """The answer of ``query(connection)`` on this thread. Raises JournalTrouble."""
        connection = open_reader(self.path)
        try:
            return query(connection)
        except sqlite3.Error as error:
            raise JournalTrouble(f"{self.path}: {error}") from error
        finally:
            connection.close()

    # -- the writer thread ------------------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            return open_writer(self.path)
        except CorruptJournal as corrupt:
            aside = move_aside(self.path, f"corrupt-{time.time_ns()}")
            self._damage = f"{corrupt}; kept as {aside.name}, a new journal was begun"
            structlog.get_logger().critical("journal is damaged", trouble=self._damage)
            return open_writer(self.path)

    def _run(self, connection: sqlite3.Connection, asked: Asked) -> None:
        try:
            while (first := asked.get()) is not _END:
                batch, is_last = _batch(asked, first)
                self._write(connection, batch)
                if is_last:
                    return
        finally:
            connection.close()

    def _write(self, connection: sqlite3.Connection, batch: list[tuple[Work[Any], Future[Any]]]) -> None:
        done: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for work, future in batch:
                done.append((future, *_attempt(connection, work)))
            reached(COMMIT_WANTED)
            connection.execute("COMMIT")
            reached(COMMITTED)
        except Exception as error:  # nobody may wait for an answer that never comes
            self._failed(connection, batch, error)
            return
        self._refused = None
        for future, result, failure in done:
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)

    def _failed(
        self, connection: sqlite3.Connection, batch: list[tuple[Work[Any], Future[Any]]], error: Exception
    ) -> None:
        """Nothing of the batch is on disk; SQLite may have rolled back by itself."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        trouble = JournalTrouble(f"{self.path}: {error}")
        self._refused = str(trouble)
        for _, future in batch:
            future.set_exception(trouble)


def _batch(asked: Asked, first: tuple[Work[Any], Future[Any]]) -> tuple[list[tuple[Work[Any], Future[Any]]], bool]:
    """What waits already, up to a limit; and whether the end came with it."""
    batch = [first]
    while len(batch) < MAX_BATCH:
        try:
            following = asked.get_nowait()
        except queue.Empty:
            break
        if following is _END:
            return batch, True
        batch.append(following)
    return batch, False


def _fail_all(asked: Asked, path: Path) -> None:
    while True:
        try:
            left = asked.get_nowait()
        except queue.Empty:
            return
        if left is not _END:
            left[1].set_exception(JournalTrouble(f"{path}: its writer died"))


def _attempt(connection: sqlite3.Connection, work: Work[Any]) -> tuple[Any, BaseException | None]:
    """One work in a savepoint of its own: its failure takes nothing else of the batch along.

    Raises:
        sqlite3.OperationalError: the disk is at fault (full, gone): the whole transaction is.
    """
    connection.execute("SAVEPOINT work")
    try:
        result = work(connection)
    except sqlite3.OperationalError:
        raise
    except BaseException as error:
        connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
        return None, error
    connection.execute("RELEASE work")
    return result, None
