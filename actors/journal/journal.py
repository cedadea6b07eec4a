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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from actors.failpoints import reached, register
from actors.journal.adopting import adopt
from actors.journal.audit import SealingConnection
from actors.journal.checkpointing import Checkpointer
from actors.journal.place import Fault, Place, put_back
from actors.journal.retention import Retention, forget
from actors.journal.room import MIB, Room, said
from actors.journal.schema import (
    COMPANIONS,
    CorruptJournal,
    JournalFull,
    JournalTrouble,
    move_aside,
    open_reader,
    open_writer,
    try_to_write,
)

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
MAX_BATCH: Final = 64
COMMIT_WANTED: Final = register("daemon.journal.commit", "a batch is written into the transaction, not committed")
COMMITTED: Final = register("daemon.journal.committed", "a batch is committed, nobody was told")
LOOK_S: Final = 1.0
"""How often the writer looks after its file, and tries to open one that cannot be opened."""
READ_LIMIT_S: Final = 30.0
"""A reader that takes longer is cut off: the write-ahead log cannot be begun anew while one reads."""
MOST_LOG_BYTES: Final = 256 * MIB
"""So long a write-ahead log is said: another program keeps a transaction open."""
MENDED_SHOWN_S: Final = 600.0
"""So long a damage that was mended is shown; what it was stays on record as an event and an alert."""
PATIENCE_S: Final = 0.001
_END: Final = None
_NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class _Asked:
    """``is_simple``: needs no savepoint of its own, whatever is half done when it fails. ``is_patient``: rather goes
    along with another than by itself.
    """

    work: Work[Any]
    future: Future[Any]
    is_simple: bool = False
    is_patient: bool = False


Asked = queue.SimpleQueue[_Asked | None]
Done = list[tuple[Future[Any], Any, BaseException | None]]


class Journal:
    """``Journal(path)``; ``start`` opens it. A damaged file is moved aside and said in ``trouble``.

    Args:
        on_open: called with the connection whenever the file was opened, before any work is done on it.
        on_commit: called on the writer's thread after each commit; it must only hand on.
        room: watched and made on the writer's thread.
        retention: what is forgotten; None: nothing. It may be set to another at any time.
        audit_key: what rows of the audit chain are sealed with, asked whenever the file was opened; None: there is no
            chain.
        adopts: asked whenever the file was opened whether no chain was ever begun here: what was there before it is
            taken into it (``adopting``); None: it is not.
        on_sealed: called as ``on_commit`` after a commit with such rows.
        mended_shown_s: for how many seconds ``trouble`` tells of a damage that was mended.
    """

    def __init__(
        self,
        path: Path,
        on_open: Callable[[sqlite3.Connection], object] = lambda _connection: None,
        on_commit: Callable[[], object] = lambda: None,
        *,
        room: Room | None = None,
        retention: Retention | None = None,
        audit_key: Callable[[], bytes | None] = lambda: None,
        adopts: Callable[[], bool] | None = None,
        on_sealed: Callable[[], object] = lambda: None,
        mended_shown_s: float = MENDED_SHOWN_S,
    ) -> None:
        self.path = path
        self._on_open = on_open
        self._on_commit = on_commit
        self._room = room
        self.retention = retention
        self._audit_key = audit_key
        self._adopts = adopts
        self._on_sealed = on_sealed
        self._has_chores = False
        self._checkpointer: Checkpointer | None = None
        self._overlong: str | None = None
        self._unopened: str | None = None
        self._damage: str | None = None
        self._mended_shown_s = mended_shown_s
        self._mended_at_s = float("-inf")
        self._refused: str | None = None
        self._is_suspect = False
        self._place: Place | None = None
        self._asked: Asked = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_open = False
        self._thread: threading.Thread | None = None

    @property
    def trouble(self) -> str | None:
        """What is wrong although it runs: the file cannot be opened, the last write was refused (a full disk), the disk
        is nearly full, or the file was found damaged or gone not long ago (``mended_shown_s``).
        """
        short = None if self._room is None else self._room.trouble
        is_fresh = time.monotonic() - self._mended_at_s < self._mended_shown_s
        damage = self._damage if is_fresh else None
        return self._unopened or self._refused or short or damage or self._overlong

    @property
    def is_short(self) -> bool:
        """There is little room: only what matters most should be written."""
        return self._room is not None and self._room.is_short

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

    def submit(self, work: Work[T], *, is_simple: bool = False, is_patient: bool = False) -> Future[T]:
        """Do ``work(connection)`` in the next transaction; the future completes after its commit. It may be done again
        when the first try found no room.

        Args:
            is_simple: what it has written when it raises may stay (it can be done again): it needs no savepoint.
            is_patient: it waits ``PATIENCE_S`` for other work, so that one commit does for both.

        It fails with JournalTrouble when the transaction could not be written (JournalFull: no room), with ``work``'s
        own error when that raised (then nothing of it is written).
        """
        future: Future[T] = Future()
        with self._lock:
            if self._is_open:
                self._asked.put(_Asked(work, future, is_simple, is_patient))
                return future
        future.set_exception(JournalTrouble(f"{self.path}: is closed"))
        return future

    def read(self, query: Work[T]) -> T:
        """The answer of ``query(connection)`` on this thread, within ``READ_LIMIT_S``. Raises JournalTrouble."""
        connection = open_reader(self.path)
        limit = time.monotonic() + READ_LIMIT_S
        connection.set_progress_handler(lambda: time.monotonic() > limit, 100_000)
        try:
            return query(connection)
        except sqlite3.Error as error:
            self._suspect(error)
            raise JournalTrouble(f"{self.path}: {error}") from error
        finally:
            connection.close()

    # -- the writer thread ------------------------------------------------------------------------------------------

    def _opened(self) -> SealingConnection:
        """Raises JournalTrouble."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._release_place()
            connection = self._opened_or_begun_anew()
            self._place = Place.of(self.path)
        except OSError as error:
            raise JournalTrouble(f"{self.path}: {error.strerror}") from error
        connection.audit_key = self._audit_key()
        try:
            self._on_open(connection)
            if self._adopts is not None:
                _adopt(connection, is_first=self._adopts())
        except sqlite3.Error as error:  # a disk that has become full since: the writer tries again
            connection.close()
            raise JournalTrouble(f"{self.path}: {error}") from error
        self._unopened, self._refused, self._is_suspect = None, None, False
        return connection

    def _opened_or_begun_anew(self) -> SealingConnection:
        try:
            return open_writer(self.path)
        except CorruptJournal as corrupt:
            aside = move_aside(self.path, f"corrupt-{time.time_ns()}")
            self._say_damage(f"{corrupt}; kept as {aside.name}, a new journal was begun")
            return open_writer(self.path)

    def _say_damage(self, text: str) -> None:
        """Of a damage that is mended by now."""
        self._damage, self._mended_at_s = f"{text}; told for {self._mended_shown_s / 60:g} min", time.monotonic()
        structlog.get_logger().critical("journal is damaged", trouble=text)

    def _run(self, connection: sqlite3.Connection | None, asked: Asked) -> None:
        looked_s = float("-inf")
        self._checkpointer = Checkpointer(self.path, self._is_in_place)
        try:
            while True:
                if time.monotonic() - looked_s >= LOOK_S:
                    connection, looked_s = self._looked_after(connection), time.monotonic()
                first = _wait(asked, 0.0 if self._has_chores else LOOK_S)
                if first is _END:
                    return
                batch, is_last = ([], False) if first is _NOTHING else _batch(asked, first)
                if batch or self._has_chores:
                    connection = self._write(connection, batch)
                if is_last:
                    return
        finally:
            self._checkpointer.close()
            _closed(connection)
            if self._room is not None:
                self._room.close()
            self._release_place()

    def _release_place(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.release()

    def _looked_after(self, connection: sqlite3.Connection | None) -> sqlite3.Connection | None:
        """Once in a while: look for room, open what could not be opened, put back what was removed, begin anew what is
        damaged.
        """
        if self._room is not None:
            self._room.look()
        self._has_chores = self.retention is not None and connection is not None
        self._overlong = self._log_too_long()
        if connection is not None and self._checkpointer is not None:
            self._checkpointer.kick(connection.total_changes, at_least=1)
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

    def _is_in_place(self) -> bool:
        place = self._place
        return place is not None and place.fault() is None

    def _log_too_long(self) -> str | None:
        try:
            size = self.path.with_name(self.path.name + COMPANIONS[0]).stat().st_size
        except OSError:
            return None
        if size <= MOST_LOG_BYTES:
            return None
        return f"{self.path}: its write-ahead log has {said(size)}: another program has been reading it for long"

    def _try_again(self, connection: sqlite3.Connection) -> None:
        """After a refused write: whether there is room again is known only from a write."""
        if self._refused is None:
            return
        try:
            try_to_write(connection)
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

    def _write(self, connection: sqlite3.Connection | None, batch: list[_Asked]) -> sqlite3.Connection | None:
        if connection is None:
            self._has_chores = False
            self._refuse(batch, JournalTrouble(f"cannot be opened: {self._unopened}"))
            return None
        if self._room is not None:
            self._room.look()
        try:
            done = self._transacted(connection, batch)
        except Exception as error:  # nobody may wait for an answer that never comes
            if not self._failed(connection, batch, error):
                return connection
            try:
                done = self._transacted(connection, batch)
            except Exception as again:
                self._failed(connection, batch, again)
                return connection
        return self._committed(connection, batch, done)

    def _transacted(self, connection: sqlite3.Connection, batch: list[_Asked]) -> Done:
        connection.execute("BEGIN IMMEDIATE")
        done: Done = [(asked.future, *_attempt(connection, asked)) for asked in batch]
        self._do_chores(connection)
        reached(COMMIT_WANTED)
        connection.execute("COMMIT")
        reached(COMMITTED)
        return done

    def _do_chores(self, connection: sqlite3.Connection) -> None:
        """A little of what is to be forgotten goes with each transaction until nothing is left to do."""
        keep = self.retention
        if not self._has_chores or keep is None:
            return
        chore = _Asked(lambda db: forget(db, keep, time.time()), Future())
        count, error = _attempt(connection, chore)
        self._has_chores = bool(count)
        if error is not None:
            structlog.get_logger().error("what is old could not be forgotten", error=repr(error))

    def _committed(
        self,
        connection: sqlite3.Connection,
        batch: list[_Asked],
        done: Done,
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
        if now is connection and self._checkpointer is not None:
            self._checkpointer.kick(connection.total_changes)
        for future, result, failure in done:
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)
        self._on_commit()
        if isinstance(connection, SealingConnection) and connection.has_sealed:
            connection.has_sealed = False
            self._on_sealed()
        return now

    def _failed(self, connection: sqlite3.Connection, batch: list[_Asked], error: Exception) -> bool:
        """Nothing of the batch is on disk; SQLite may have rolled back by itself. True: there is room, try again."""
        self._suspect(error)
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # a damaged file: it is opened anew at the next look
                connection.execute("ROLLBACK")
        is_full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        if is_full and self._room is not None and self._room.give_up():
            structlog.get_logger().critical("the disk is full, the ballast is given up", path=str(self._room.ballast))
            return True
        trouble = (JournalFull if is_full else JournalTrouble)(f"{self.path}: {error}")
        self._refused = str(trouble)
        self._has_chores = False
        self._refuse(batch, trouble)
        return False

    def _suspect(self, error: Exception) -> None:
        self._is_suspect = self._is_suspect or _is_damage(error)

    @staticmethod
    def _refuse(batch: list[_Asked], trouble: JournalTrouble) -> None:
        for asked in batch:
            asked.future.set_exception(trouble)


def _adopt(connection: SealingConnection, *, is_first: bool) -> None:
    """Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        adopt(connection, time.time(), is_first=is_first)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_damage(error: BaseException) -> bool:
    """SQLite's own words for a file that is no (whole) database; a violated constraint or a full disk is none."""
    return type(error) is sqlite3.DatabaseError


def _closed(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):  # its file may be gone or damaged
            connection.close()


def _wait(asked: Asked, timeout_s: float) -> Any:
    try:
        return asked.get(timeout=timeout_s) if timeout_s else asked.get_nowait()
    except queue.Empty:
        return _NOTHING


def _batch(asked: Asked, first: _Asked) -> tuple[list[_Asked], bool]:
    """What waits already, up to a limit; and whether the end came with it."""
    batch = [first]
    is_patient = first.is_patient
    while len(batch) < MAX_BATCH:
        try:
            following = asked.get(timeout=PATIENCE_S) if is_patient else asked.get_nowait()
        except queue.Empty:
            break
        is_patient = is_patient and following is not _END and following.is_patient
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
            left.future.set_exception(JournalTrouble(f"{path}: its writer died"))


def _attempt(connection: sqlite3.Connection, asked: _Asked) -> tuple[Any, BaseException | None]:
    """One work, in a savepoint of its own where it needs one: its failure takes nothing else of the batch along.

    Raises:
        sqlite3.OperationalError, sqlite3.DatabaseError: the disk or the file is at fault (full, gone, damaged): the
            whole transaction is.
    """
    if not asked.is_simple:
        connection.execute("SAVEPOINT work")
    try:
        result = asked.work(connection)
    except sqlite3.OperationalError:
        raise
    except BaseException as error:
        if _is_damage(error):
            raise
        if not asked.is_simple:
            connection.execute("ROLLBACK TO work")
            connection.execute("RELEASE work")
        return None, error
    if not asked.is_simple:
        connection.execute("RELEASE work")
    return result, None
