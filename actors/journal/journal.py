"""The journal: one writer thread with group commit; readers with connections of their own.

``submit`` from any thread; what it returns is completed after the commit, never before. Readers never block the writer.
"""

from __future__ import annotations

import contextlib
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
from actors.journal.place import Fault, Place, put_back
from actors.journal.schema import CorruptJournal, JournalTrouble, move_aside, open_reader, open_writer

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Asked = queue.SimpleQueue[tuple[Work[Any], Future[Any]] | None]
MAX_BATCH: Final = 64
COMMIT_WANTED: Final = register("daemon.journal.commit", "a batch is written into the transaction, not committed")
COMMITTED: Final = register("daemon.journal.committed", "a batch is committed, nobody was told")
LOOK_S: Final = 1.0
"""How often the writer looks after its file, and tries to open one that cannot be opened."""
_END: Final = None
_NOTHING: Final = object()


class Journal:
    """``Journal(path)``; ``start`` opens it. A damaged file is moved aside and said in ``trouble``.

    Args:
        on_open: called with the connection whenever the file was opened, before any work is done on it.
        on_commit: called on the writer's thread after each commit; it must only hand on.
    """

    def __init__(
        self,
        path: Path,
        on_open: Callable[[sqlite3.Connection], object] = lambda _connection: None,
        on_commit: Callable[[], object] = lambda: None,
    ) -> None:
        self.path = path
        self._on_open = on_open
        self._on_commit = on_commit
        self._unopened: str | None = None
        self._damage: str | None = None
        self._refused: str | None = None
        self._is_suspect = False
        self._place: Place | None = None
        self._asked: Asked = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_open = False
        self._thread: threading.Thread | None = None

    @property
    def trouble(self) -> str | None:
        """What is wrong although it runs: the file cannot be opened, the last write was refused (a full disk), or the
        file was found damaged or gone.
        """
        return self._unopened or self._refused or self._damage

    @property
    def is_open(self) -> bool:
        """Takes work now. While the file cannot be opened (``trouble``) all of it fails with JournalTrouble."""
        return self._is_open and self.is_alive

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Open the file and begin. Raises JournalTrouble."""
        self._begin(self._opened())

    def start_anyway(self) -> None:
        """Begin, whether the file can be opened or not: the writer tries again until it can."""
        try:
            self.start()
        except JournalTrouble as trouble:
            self._unopened = str(trouble)
            self._begin(None)

    def _begin(self, connection: sqlite3.Connection | None) -> None:
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
            self._suspect(error)
            raise JournalTrouble(f"{self.path}: {error}") from error
        finally:
            connection.close()

    # -- the writer thread ------------------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        """Raises JournalTrouble."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._release_place()
            connection = self._opened_or_begun_anew()
            self._place = Place.of(self.path)
        except OSError as error:
            raise JournalTrouble(f"{self.path}: {error.strerror}") from error
        self._on_open(connection)
        self._unopened, self._refused, self._is_suspect = None, None, False
        return connection

    def _opened_or_begun_anew(self) -> sqlite3.Connection:
        try:
            return open_writer(self.path)
        except CorruptJournal as corrupt:
            aside = move_aside(self.path, f"corrupt-{time.time_ns()}")
            self._say_damage(f"{corrupt}; kept as {aside.name}, a new journal was begun")
            return open_writer(self.path)

    def _say_damage(self, text: str) -> None:
        self._damage = text
        structlog.get_logger().critical("journal is damaged", trouble=text)

    def _run(self, connection: sqlite3.Connection | None, asked: Asked) -> None:
        looked_s = time.monotonic()
        try:
            while True:
                first = _wait(asked)
                if time.monotonic() - looked_s >= LOOK_S:
                    connection, looked_s = self._looked_after(connection), time.monotonic()
                if first is _END:
                    return
                if first is not _NOTHING:
                    batch, is_last = _batch(asked, first)
                    connection = self._write(connection, batch)
                    if is_last:
                        return
        finally:
            _closed(connection)
            self._release_place()

    def _release_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.release()

    def _looked_after(self, connection: sqlite3.Connection | None) -> sqlite3.Connection | None:
        """Once in a while: open what could not be opened, put back what was removed, begin anew what is damaged."""
        if connection is not None and not self._is_suspect:
            fault = None if self._place is None else self._place.looked_into()
            if fault is None:
                self._try_again(connection)
                return connection
            if fault is not Fault.DAMAGED:
                return self._put_back(connection, fault)
        was = self._damage
        _closed(connection)  # SQLite may still write what it knows: then nothing is lost
        opened = self._opened_or_none()
        if connection is not None and opened is not None and self._damage == was:
            self._say_damage(f"{self.path}: {Fault.DAMAGED.value}; opened anew, and whole again")
        return opened

    def _try_again(self, connection: sqlite3.Connection) -> None:
        """After a refused write: whether there is room again is known only from a write."""
        if self._refused is None:
            return
        try:
            connection.execute("INSERT OR REPLACE INTO meta(key, value) VALUES ('tried_at', ?)", (str(time.time()),))
        except sqlite3.Error as error:
            self._suspect(error)
        else:
            self._refused = None

    def _opened_or_none(self) -> sqlite3.Connection | None:
        try:
            return self._opened()
        except JournalTrouble as trouble:
            self._unopened = str(trouble)
            return None

    def _put_back(self, connection: sqlite3.Connection, fault: Fault) -> sqlite3.Connection | None:
        try:
            aside = put_back(connection, self.path)
        except JournalTrouble as trouble:
            self._refused = str(trouble)
            return connection
        found = "" if aside is None else f", what was there is kept as {aside}"
        self._say_damage(f"{self.path}: {fault.value}; written anew with all its records{found}")
        _closed(connection)
        return self._opened_or_none()

    def _write(
        self, connection: sqlite3.Connection | None, batch: list[tuple[Work[Any], Future[Any]]]
    ) -> sqlite3.Connection | None:
        if connection is None:
            self._refuse(batch, JournalTrouble(f"cannot be opened: {self._unopened}"))
            return None
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
            return connection
        return self._committed(connection, batch, done)

    def _committed(
        self,
        connection: sqlite3.Connection,
        batch: list[tuple[Work[Any], Future[Any]]],
        done: list[tuple[Future[Any], Any, BaseException | None]],
    ) -> sqlite3.Connection | None:
        """It is in the file; is that file still the journal? What is written to a removed one is not acknowledged."""
        fault = None if self._place is None else self._place.fault()
        now: sqlite3.Connection | None = connection
        if fault is not None:
            now = self._put_back(connection, fault)
            if now is None or now is connection:
                self._refuse(batch, JournalTrouble(str(self.trouble)))
                return now
        self._refused = None
        for future, result, failure in done:
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)
        self._on_commit()
        return now

    def _failed(
        self, connection: sqlite3.Connection, batch: list[tuple[Work[Any], Future[Any]]], error: Exception
    ) -> None:
        """Nothing of the batch is on disk; SQLite may have rolled back by itself."""
        self._suspect(error)
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # a damaged file: it is opened anew at the next look
                connection.execute("ROLLBACK")
        trouble = JournalTrouble(f"{self.path}: {error}")
        self._refused = str(trouble)
        self._refuse(batch, trouble)

    def _suspect(self, error: Exception) -> None:
        self._is_suspect = self._is_suspect or _is_damage(error)

    @staticmethod
    def _refuse(batch: list[tuple[Work[Any], Future[Any]]], trouble: JournalTrouble) -> None:
        for _, future in batch:
            future.set_exception(trouble)


def _is_damage(error: BaseException) -> bool:
    """SQLite's own words for a file that is no (whole) database; a violated constraint or a full disk is none."""
    return type(error) is sqlite3.DatabaseError


def _closed(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):  # its file may be gone or damaged
            connection.close()


def _wait(asked: Asked) -> Any:
    try:
        return asked.get(timeout=LOOK_S)
    except queue.Empty:
        return _NOTHING


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
        sqlite3.OperationalError, sqlite3.DatabaseError: the disk or the file is at fault (full, gone, damaged): the
            whole transaction is.
    """
    connection.execute("SAVEPOINT work")
    try:
        result = work(connection)
    except sqlite3.OperationalError:
        raise
    except BaseException as error:
        if _is_damage(error):
            raise
        connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
        return None, error
    connection.execute("RELEASE work")
    return result, None
