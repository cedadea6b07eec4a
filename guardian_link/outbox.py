"""What a sender has promised to deliver, in one small SQLite file: it outlives the sender, the daemon and a power cut.

Any thread and any number of processes may use the same file; one of them delivers at a
time (``Outbox.take_office``). A commit is on disk when a method returns (``synchronous=FULL``);
only that of ``delivered`` may be later.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from bridge_link.wire import is_id, new_id
from guardian_link.errors import AlertRefused, OutboxFull, OutboxUnusable
from guardian_link.messages import Alert

MOST_LETTERS: Final = 100_000
BUSY_MS: Final = 10_000
"""How long a writer waits for another program's commit."""
REBOOT_S: Final = 1.0
"""Put so much in the future: before a reboot."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS letters (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    alert TEXT NOT NULL,
    posted_s REAL NOT NULL,
    is_told INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS untold ON letters (number) WHERE is_told = 0;
CREATE TABLE IF NOT EXISTS dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    alert TEXT NOT NULL,
    code TEXT NOT NULL,
    why TEXT NOT NULL,
    at REAL NOT NULL
);
"""
_PUT: Final = "INSERT INTO letters (id, alert, posted_s) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING"
_LETTERS: Final = "SELECT number, CAST(id AS BLOB), CAST(alert AS BLOB) FROM letters"
"""As bytes: what is no text (any more) cannot be asked for as text."""
_DEAD: Final = "SELECT CAST(id AS BLOB), CAST(alert AS BLOB), code, why, at FROM dead"
_LATE: Final = f"{_LETTERS} WHERE is_told = 0 AND number > ? AND (posted_s <= ? OR posted_s > ?)"
_FIELDS: Final = frozenset(field.name for field in fields(Alert))


UNREADABLE: Final = "unreadable"
"""Code of a dead letter that holds no alert (any more)."""


class _Unreadable(Exception):
    """A row that holds no alert; the text says why."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An alert the daemon will never take, and why. ``at``: Unix seconds of the refusal.

    Of code ``unreadable``: the outbox holds something else than an alert (a broken disk, another's program). ``raw`` is
    what it holds; ``alert`` stands for it, with its id and the reason.
    """

    alert: Alert
    code: str
    why: str
    at: float
    raw: bytes = b""


class Outbox:
    """``put`` first, send afterwards; what is in here is sent until the daemon has it on disk.

    Args:
        path: the file; made with its folder if it is not there, readable by its owner only.
        most_letters: beyond so many nothing more is taken.

    Raises:
        OutboxUnusable: the file cannot be opened, or is none of ours.
    """

    def __init__(self, path: str | Path, *, most_letters: int = MOST_LETTERS) -> None:
        self.path = Path(path)
        self._most = most_letters
        self._lock = threading.Lock()
        self._office: sqlite3.Connection | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise OutboxUnusable(f"{self.path}: {error}") from error
        try:
            with self._troubles():
                self._database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                self._database.executescript(_SCHEMA)
        except OutboxUnusable:
            self._database.close()
            raise

    # -- letters --------------------------------------------------------------------------------------------------

    def put(self, alert: Alert) -> None:
        """Keep the alert until it is delivered. The same alert under the same id is kept once.

        Raises:
            AlertRefused: ``conflict``: another alert has this id. ``malformed``: it cannot be written.
            OutboxFull: nothing was kept.
            OutboxUnusable: the disk is full, or the file broken; nothing was kept.
        """
        self.put_all([alert])

    def put_all(self, alerts: Iterable[Alert]) -> None:
        """All or none of them, with one commit. Raises as ``put``."""
        written = [(alert.id, _written(alert)) for alert in alerts]
        with self._transaction() as database:
            (count,) = database.execute("SELECT count(*) FROM letters").fetchone()
            for message_id, text in written:
                if database.execute(_PUT, (message_id, text, time.monotonic())).rowcount == 0:
                    known = database.execute("SELECT alert FROM letters WHERE id = ?", (message_id,)).fetchone()
                    if known[0] != text:
                        raise AlertRefused("conflict", f"another alert with id {message_id} waits in {self.path}")
                    continue
                if count >= self._most:
                    raise OutboxFull(f"{self.path}: {count} alerts wait already; is the daemon running?")
                count += 1

    def waiting(self, most: int) -> list[Alert]:
        """The oldest that are not delivered, in the order they were put. What holds no alert becomes a dead letter."""
        while True:
            with self._troubles():
                rows = self._database.execute(f"{_LETTERS} ORDER BY number LIMIT ?", (most,)).fetchall()
            alerts, is_whole = self._readable(rows)
            if is_whole:
                return alerts

    def delivered(self, ids: Iterable[str]) -> None:
        """The daemon has them on disk: they leave. A power cut just then may bring some back: it knows them again."""
        with self._transaction(is_durable=False) as database:
            database.executemany("DELETE FROM letters WHERE id = ?", [(one,) for one in ids])

    def bury(self, message_id: str, code: str, why: str) -> None:
        """The daemon will never take it: it is not sent again, and kept among the dead letters."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO dead (id, alert, code, why, at) SELECT id, alert, ?, ?, ? FROM letters WHERE id = ? "
                "AND NOT EXISTS (SELECT 1 FROM dead WHERE dead.id = letters.id AND dead.alert = letters.alert)",
                (code, why, time.time(), message_id),
            )
            database.execute("DELETE FROM letters WHERE id = ?", (message_id,))

    def dead(self) -> list[DeadLetter]:
        """Those that were refused for good, oldest first."""
        with self._troubles():
            rows = self._database.execute(f"{_DEAD} ORDER BY number").fetchall()
        return [_dead(*row) for row in rows]

    def bring_back(self, message_id: str) -> bool:
        """Send a dead letter again (the daemon was mended): the newest with this id.

        False: there is none, or another alert with this id waits.
        """
        with self._transaction() as database:
            moved = database.execute(
                "INSERT OR IGNORE INTO letters (id, alert, posted_s) "
                "SELECT id, alert, ? FROM dead WHERE id = ? ORDER BY number DESC LIMIT 1",
                (time.monotonic(), message_id),
            ).rowcount
            if moved:
                database.execute(
                    "DELETE FROM dead WHERE number = (SELECT max(number) FROM dead WHERE id = ?)", (message_id,)
                )
        return moved == 1

    def forget_dead(self, message_id: str) -> None:
        """Somebody has seen to it."""
        with self._transaction() as database:
            database.execute("DELETE FROM dead WHERE id = ?", (message_id,))

    def late(self, after_s: float, *, behind: int = 0, most: int = 1_000) -> list[tuple[int, Alert]]:
        """Those that wait for longer than ``after_s`` seconds and were not ``told``, with their numbers, oldest first.

        Args:
            behind: of a higher number than this.
            most: so many at most; the next are asked for behind the last one.
        """
        with self._troubles():
            now_s = time.monotonic()  # once nobody else here is putting any
            since = (behind, now_s - after_s, now_s + REBOOT_S, most)
            rows = self._database.execute(f"{_LATE} ORDER BY number LIMIT ?", since).fetchall()
        return [found for found in (self._numbered(row) for row in rows) if found is not None]

    def told(self, ids: Iterable[str]) -> None:
        """Somebody was told otherwise that they wait. With one commit."""
        with self._transaction() as database:
            database.executemany("UPDATE letters SET is_told = 1 WHERE id = ?", [(one,) for one in ids])

    def first(self) -> int | None:
        """The number of the one that waits longest; None: none waits."""
        with self._troubles():
            (number,) = self._database.execute("SELECT min(number) FROM letters").fetchone()
        return None if number is None else int(number)

    def __len__(self) -> int:
        with self._troubles():
            (count,) = self._database.execute("SELECT count(*) FROM letters").fetchone()
        return int(count)

    # -- who delivers -----------------------------------------------------------------------------------------------

    def take_office(self) -> bool:
        """Become the one who delivers from this file. False: somebody else is, here or in another process."""
        if self._office is not None:
            return True
        place = self.path.with_name(self.path.name + ".office")
        try:
            office = sqlite3.connect(place, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise OutboxUnusable(f"{place}: {error}") from error
        try:  # a lock that every system has, and that ends with its process
            office.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            office.close()
            if "locked" in str(error):
                return False
            raise OutboxUnusable(f"{place}: {error}") from error
        self._office = office
        return True

    def close(self) -> None:
        """The letters stay."""
        with self._lock:
            self._database.close()
            if self._office is not None:
                self._office.close()
                self._office = None

    # -- inside -----------------------------------------------------------------------------------------------------

    def _readable(self, rows: Iterable[tuple[int, Any, Any]]) -> tuple[list[Alert], bool]:
        """The alerts in these rows, and whether all hold one; the others are set aside. Raises OutboxUnusable."""
        found = [self._numbered(row) for row in rows]
        return [one[1] for one in found if one is not None], None not in found

    def _numbered(self, row: tuple[int, Any, Any]) -> tuple[int, Alert] | None:
        """None: it holds no alert, and is set aside. Raises OutboxUnusable."""
        number, message_id, raw = row
        try:
            return number, _read(message_id, raw)
        except _Unreadable as error:
            self._set_aside(number, str(error))
            return None

    def _set_aside(self, number: int, why: str) -> None:
        with self._transaction() as database:
            database.execute(
                "INSERT INTO dead (id, alert, code, why, at) SELECT id, alert, ?, ?, ? FROM letters WHERE number = ?",
                (UNREADABLE, why, time.time(), number),
            )
            database.execute("DELETE FROM letters WHERE number = ?", (number,))
        logging.getLogger("selfheal.outbox").error("%s: row %d holds no alert: %s", self.path, number, why)

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise OutboxUnusable(f"{self.path}: {error}") from error

    @contextmanager
    def _transaction(self, *, is_durable: bool = True) -> Iterator[sqlite3.Connection]:
        """``is_durable``: it outlives a power cut when this is left; else once the next durable one does."""
        with self._troubles():
            if not is_durable:
                self._database.execute("PRAGMA synchronous = NORMAL")
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):  # a full disk may have ended it already
                        self._database.execute("ROLLBACK")
                    raise
            finally:
                if not is_durable:
                    self._database.execute("PRAGMA synchronous = FULL")


def _written(alert: Alert) -> str:
    try:
        return json.dumps(alert.to_body(), sort_keys=True, ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AlertRefused("malformed", f"labels: {error}") from None


def _read(message_id: Any, raw: Any) -> Alert:
    """A newer version may have written more. Raises _Unreadable."""
    try:
        body: Mapping[str, Any] = json.loads(bytes(raw))
        return Alert(**{key: value for key, value in body.items() if key in _FIELDS} | {"id": _text(message_id)})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # BadAlert is a ValueError
        raise _Unreadable(f"{type(error).__name__}: {error}"[:500]) from None


def _dead(message_id: Any, raw: Any, code: str, why: str, at: float) -> DeadLetter:
    try:
        return DeadLetter(_read(message_id, raw), code, why, at, bytes(raw))
    except _Unreadable as error:
        text = _text(message_id).replace("\0", "")
        stands = Alert(type=UNREADABLE, message=str(error), source="outbox", id=text if is_id(text) else new_id())
        return DeadLetter(stands, code, why, at, bytes(raw))


def _text(raw: Any) -> str:
    return bytes(raw).decode("utf-8", "replace")
