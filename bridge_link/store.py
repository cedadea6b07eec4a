"""What one endpoint must not forget: errors the daemon does not have yet, and which commands it has run.

One small SQLite file in the endpoint's own folder; without a folder the same in memory, which ends with the process.
Any thread. A commit is on disk when a method returns. Needs the standard library only.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridge_link.errors import StoreUnusable
from bridge_link.wire import is_id, new_id

BUSY_MS: Final = 5_000
MOST_ERRORS: Final = 100_000
MOST_REFUSED: Final = 10_000
"""Of those the daemon will never take, the newest are kept."""
KEEP_COMMANDS_S: Final = 32 * 86400.0
"""Longer than a runbook may run: nobody asks for older ones."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS errors (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL, code TEXT, why TEXT);
CREATE INDEX IF NOT EXISTS waiting_errors ON errors (number) WHERE code IS NULL;
CREATE INDEX IF NOT EXISTS refused_errors ON errors (number) WHERE code IS NOT NULL;
CREATE TABLE IF NOT EXISTS commands (
    id TEXT PRIMARY KEY, process TEXT NOT NULL, state TEXT NOT NULL, body TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS old_commands ON commands (at);
"""


UNREADABLE: Final = "unreadable"
"""Code of what holds no error (any more)."""
_WAITING: Final = (
    "SELECT number, CAST(id AS BLOB), CAST(body AS BLOB) FROM errors WHERE code IS NULL ORDER BY number LIMIT ?"
)
"""As bytes: what is no text (any more) cannot be asked for as text."""


class _Unreadable(Exception):
    """A row that holds nothing of ours; the text says why."""


@dataclass(frozen=True, slots=True)
class KnownCommand:
    """A command of the table: ``state`` is begun, done, failed or closed (never to be run), ``body`` its answer."""

    state: str
    body: Mapping[str, Any]
    is_of_this_process: bool


@dataclass(frozen=True, slots=True)
class RefusedError:
    """An error the daemon will never take, and why. Of code ``unreadable``: the file holds something else than an error
    (a broken disk, another's program); ``raw`` is what it holds, and ``body`` is empty.
    """

    id: str
    body: Mapping[str, Any]
    code: str
    why: str
    raw: bytes = b""


class BridgeStore:
    """``folder``: the endpoint's own, made if it is not there. None: all is forgotten with the process.

    Raises:
        StoreUnusable: the file cannot be opened, or is none of ours.
    """

    def __init__(self, folder: str | Path | None, name: str) -> None:
        self.is_durable = folder is not None
        self._process = new_id()
        self._lock = threading.Lock()
        path = ":memory:"
        try:
            if folder is not None:
                path = str(Path(folder) / f"{name}.bridge.db")
                Path(folder).mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnusable(f"{path}: {error}") from error
        self._path = path
        try:
            with self._troubles() as database:
                database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                database.executescript(_SCHEMA)
                database.execute("DELETE FROM commands WHERE at < ?", (time.time() - KEEP_COMMANDS_S,))
        except StoreUnusable:
            self._database.close()
            raise

    # -- errors ---------------------------------------------------------------------------------------------------

    def keep(self, error_id: str, body: Mapping[str, Any]) -> None:
        """Until it is ``delivered`` or ``bury``-ed. Raises StoreUnusable: it is not kept."""
        with self._troubles() as database:
            if self._is_full(database):
                raise StoreUnusable(f"{self._path}: {MOST_ERRORS} errors wait already; is the daemon running?")
            database.execute("INSERT OR IGNORE INTO errors (id, body) VALUES (?, ?)", (error_id, json.dumps(body)))

    def waiting(self, most: int, but: Iterable[str] = ()) -> list[tuple[str, dict[str, Any]]]:
        """The oldest that wait, without those in ``but``. What holds no error is set aside, among the refused."""
        left_out = set(but)
        while True:
            with self._troubles() as database:
                rows = database.execute(_WAITING, (most + len(left_out),)).fetchall()
            errors: list[tuple[str, dict[str, Any]]] = []
            is_whole = True
            for number, error_id, raw in rows:
                try:
                    errors.append(_read(error_id, raw))
                except _Unreadable as error:
                    is_whole = False
                    self._set_aside(number, str(error))
            wanted = [one for one in errors if one[0] not in left_out][:most]
            if is_whole:
                return wanted

    def delivered(self, ids: Iterable[str]) -> None:
        """The daemon has them on disk."""
        with self._transaction() as database:
            database.executemany("DELETE FROM errors WHERE id = ?", [(one,) for one in ids])

    def bury(self, error_id: str, code: str, why: str) -> None:
        """The daemon will never take it."""
        with self._transaction() as database:
            database.execute("UPDATE errors SET code = ?, why = ? WHERE id = ?", (code, why, error_id))
            database.execute(
                "DELETE FROM errors WHERE code IS NOT NULL AND number <= (SELECT number FROM errors"
                " WHERE code IS NOT NULL ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (MOST_REFUSED,),
            )

    def bring_back(self, error_id: str) -> bool:
        """A refused one waits again (the daemon was mended). False: there is none with this id."""
        with self._troubles() as database:
            text = "UPDATE errors SET code = NULL, why = NULL WHERE id = ? AND code IS NOT NULL"
            return database.execute(text, (error_id,)).rowcount > 0

    def forget_refused(self, error_id: str) -> None:
        """Somebody has seen to it."""
        with self._troubles() as database:
            database.execute("DELETE FROM errors WHERE id = ? AND code IS NOT NULL", (error_id,))

    def refused(self) -> list[RefusedError]:
        with self._troubles() as database:
            rows = database.execute(
                "SELECT CAST(id AS BLOB), CAST(body AS BLOB), code, why FROM errors WHERE code IS NOT NULL"
                " ORDER BY number"
            ).fetchall()
        return [_refused(*row) for row in rows]

    def count(self) -> int:
        """How many errors wait."""
        with self._troubles() as database:
            (count,) = database.execute("SELECT count(*) FROM errors WHERE code IS NULL").fetchone()
        return int(count)

    # -- commands -------------------------------------------------------------------------------------------------

    def command(self, request_id: str) -> KnownCommand | None:
        with self._troubles() as database:
            return self._command(database, request_id)

    def begin(self, request_id: str, instead_of: Iterable[str]) -> str | None:
        """It is about to be run, and what it stands instead of never will be. Commits before it returns.

        Returns:
            None; or, when it must not be run, why: an earlier one may have been. Then it was not noted.

        Raises:
            StoreUnusable: nothing was noted.
        """
        with self._transaction() as database:
            for earlier in instead_of:
                known = self._command(database, earlier)
                if known is None:
                    self._note(database, earlier, "closed", {})
                elif known.state == "begun":
                    return f"{earlier}, which it stands instead of, may still be at work"
                elif known.state == "done":
                    return f"{earlier}, which it stands instead of, was done"
            self._note(database, request_id, "begun", {})
        return None

    def finish(self, request_id: str, state: str, body: Mapping[str, Any]) -> None:
        """It has ended. Raises StoreUnusable: after a restart nobody will know how."""
        with self._transaction() as database:
            self._note(database, request_id, state, body)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _set_aside(self, number: int, why: str) -> None:
        with self._troubles() as database:
            database.execute("UPDATE errors SET code = ?, why = ? WHERE number = ?", (UNREADABLE, why, number))
        logging.getLogger("selfheal.bridge").error("%s: row %d holds no error: %s", self._path, number, why)

    def _is_full(self, database: sqlite3.Connection) -> bool:
        """Counted only when there may be so many: refused ones lie between."""
        (span,) = database.execute(
            "SELECT (SELECT max(number) FROM errors WHERE code IS NULL)"
            " - (SELECT min(number) FROM errors WHERE code IS NULL) + 1"
        ).fetchone()
        if (span or 0) < MOST_ERRORS:
            return False
        (count,) = database.execute("SELECT count(*) FROM errors WHERE code IS NULL").fetchone()
        return int(count) >= MOST_ERRORS

    def _command(self, database: sqlite3.Connection, request_id: str) -> KnownCommand | None:
        query = "SELECT process, state, CAST(body AS BLOB) FROM commands WHERE id = ?"
        row = database.execute(query, (request_id,)).fetchone()
        if row is None:
            return None
        try:
            return KnownCommand(row[1], _body(row[2]), row[0] == self._process)
        except _Unreadable:
            return KnownCommand("begun", {}, is_of_this_process=False)  # it was, and nobody knows any more how it ended

    def _note(self, database: sqlite3.Connection, request_id: str, state: str, body: Mapping[str, Any]) -> None:
        database.execute(
            "INSERT OR REPLACE INTO commands VALUES (?, ?, ?, ?, ?)",
            (request_id, self._process, state, json.dumps(body), time.time()),
        )

    @contextmanager
    def _troubles(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._database
            except sqlite3.Error as error:
                raise StoreUnusable(f"{self._path}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._troubles() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk may have ended it already
                    database.execute("ROLLBACK")
                raise


def _body(raw: bytes) -> dict[str, Any]:
    """Raises _Unreadable."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"{type(error).__name__}: {error}"[:500]) from None
    if not isinstance(body, dict):
        raise _Unreadable("it is no mapping")
    return body


def _read(raw_id: bytes, raw: bytes) -> tuple[str, dict[str, Any]]:
    """Raises _Unreadable."""
    error_id = raw_id.decode("utf-8", "replace")
    if not is_id(error_id):
        raise _Unreadable(f"{error_id!r} is no message id")
    return error_id, _body(raw)


def _refused(raw_id: bytes, raw: bytes, code: str, why: str) -> RefusedError:
    try:
        error_id, body = _read(raw_id, raw)
    except _Unreadable:
        return RefusedError(raw_id.decode("utf-8", "replace"), {}, code, why, raw)
    return RefusedError(error_id, body, code, why, raw)
