"""The journal's tables and how its file is opened. Every setting is read back."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from actors.journal.audit import OF_FEW, RUN_OF, SealingConnection

APPLICATION_ID: Final = 0x5E1FEA1
VERSION: Final = 4
_FIRST: Final = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS alerts(
  seq INTEGER PRIMARY KEY, client TEXT NOT NULL, msg_id TEXT NOT NULL, sha256 TEXT NOT NULL, body TEXT NOT NULL,
  received_at REAL NOT NULL, outcome TEXT, reason TEXT, runbook TEXT, execution_id TEXT, decided_at REAL,
  UNIQUE(client, msg_id)) STRICT;
CREATE INDEX IF NOT EXISTS alerts_undecided ON alerts(seq) WHERE outcome IS NULL;
CREATE TABLE IF NOT EXISTS executions(
  id TEXT PRIMARY KEY, alert_seq INTEGER NOT NULL REFERENCES alerts(seq), runbook TEXT NOT NULL, source BLOB NOT NULL,
  sha256 TEXT NOT NULL, target TEXT NOT NULL, parameters TEXT NOT NULL, fingerprint TEXT NOT NULL,
  severity TEXT NOT NULL, priority INTEGER NOT NULL, status TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '',
  decided_at REAL NOT NULL, started_at REAL, ended_at REAL) STRICT;
CREATE INDEX IF NOT EXISTS executions_open ON executions(status) WHERE ended_at IS NULL;
CREATE TABLE IF NOT EXISTS steps(
  seq INTEGER PRIMARY KEY, execution_id TEXT NOT NULL REFERENCES executions(id), at REAL NOT NULL,
  record TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS steps_of ON steps(execution_id, seq);
CREATE TABLE IF NOT EXISTS events(
  seq INTEGER PRIMARY KEY, at REAL NOT NULL, path TEXT NOT NULL, event TEXT NOT NULL, text TEXT NOT NULL,
  evidence TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS events_of ON events(path, seq)
"""
_SECOND: Final = """
CREATE INDEX executions_of_alert ON executions(alert_seq);
CREATE TABLE IF NOT EXISTS firings(
  alert_seq INTEGER PRIMARY KEY REFERENCES alerts(seq) ON DELETE CASCADE, fingerprint TEXT NOT NULL,
  starts_at REAL NOT NULL, resolved_at REAL) STRICT;
CREATE INDEX IF NOT EXISTS firings_of ON firings(fingerprint, alert_seq)
"""
_AUDIT: Final = """
CREATE TABLE IF NOT EXISTS audit(
  seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, mac BLOB NOT NULL) STRICT
"""
_APPROVALS: Final = """
CREATE TABLE IF NOT EXISTS approval_requests(
  execution_id TEXT PRIMARY KEY REFERENCES executions(id) ON DELETE CASCADE, plan_hash TEXT NOT NULL,
  asked_by TEXT NOT NULL, asked_at REAL NOT NULL, expires_at REAL NOT NULL, readings TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS approvals(
  seq INTEGER PRIMARY KEY, execution_id TEXT NOT NULL REFERENCES executions(id) ON DELETE CASCADE,
  plan_hash TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, at REAL NOT NULL, why TEXT NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS approvals_of ON approvals(execution_id, seq)
"""
_DECIDING: Final = """
ALTER TABLE executions ADD COLUMN decided_mark TEXT;
ALTER TABLE executions ADD COLUMN started_mark TEXT;
ALTER TABLE executions ADD COLUMN ended_mark TEXT;
CREATE INDEX IF NOT EXISTS alerts_of_execution ON alerts(execution_id) WHERE execution_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS silences(
  id TEXT PRIMARY KEY, matchers TEXT NOT NULL, by TEXT NOT NULL, why TEXT NOT NULL, at REAL NOT NULL,
  mark TEXT NOT NULL, for_s REAL NOT NULL, ended_at REAL, ended_by TEXT) STRICT;
CREATE TABLE IF NOT EXISTS pending(
  key TEXT PRIMARY KEY, waits TEXT NOT NULL, runbook TEXT NOT NULL, alert_seq INTEGER NOT NULL, at REAL NOT NULL,
  mark TEXT NOT NULL, last_at REAL NOT NULL, last_mark TEXT NOT NULL, wait_s REAL NOT NULL, count INTEGER NOT NULL,
  severity TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS escalations(
  root TEXT NOT NULL, rung INTEGER NOT NULL, at REAL NOT NULL, mark TEXT NOT NULL, execution_id TEXT,
  text TEXT NOT NULL, PRIMARY KEY(root, rung)) STRICT
"""
_RUNS: Final = """
ALTER TABLE executions ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN stalls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN stop TEXT;
CREATE TABLE IF NOT EXISTS latches(target TEXT PRIMARY KEY, execution_id TEXT, at REAL, why TEXT) STRICT
"""
"""``epoch``: which incarnation carries the run out; ``stalls``: how many since anything was last written of it."""
_THIRD: Final = ";".join((_AUDIT, _APPROVALS, _DECIDING, _RUNS))  # noqa: FLY002  one of each part
_FOURTH: Final = f"CREATE INDEX audit_of ON audit(kind, {RUN_OF}) WHERE {OF_FEW}"
MIGRATIONS: Final = {1: _FIRST, 2: _SECOND, 3: _THIRD, 4: _FOURTH}
"""What makes each version of the one before it: statements, parted by semicolons."""
_PRAGMAS: Final = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: a commit survives a power cut; NORMAL's does not
    "busy_timeout": 5000,
    "foreign_keys": 1,
    "journal_size_limit": 64 * 1024 * 1024,
    "wal_autocheckpoint": 8000,  # the checkpointer does nearly all of it before
}


COMPANIONS: Final = ("-wal", "-shm")


class JournalTrouble(Exception):
    """The journal cannot take or give records now; the text says why and where."""


class JournalFull(JournalTrouble):
    """There is no room for what was to be written."""


class CorruptJournal(JournalTrouble):
    """The file is no journal of ours, or damaged."""


def open_writer(path: Path) -> SealingConnection:
    """The writing connection; makes the file when it is missing.

    Raises:
        CorruptJournal: it is damaged, or of another program or a newer version.
        JournalTrouble: it cannot be opened (read-only, full, no permission).
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=SealingConnection)
    except sqlite3.Error as error:
        raise JournalTrouble(f"{path}: {error}") from error
    try:
        _prepare(connection, path)
        _flush_directory(path.parent)
    except sqlite3.OperationalError as error:
        connection.close()
        raise JournalTrouble(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise CorruptJournal(f"{path}: {error}") from error
    except OSError as error:
        connection.close()
        raise JournalTrouble(f"{path}: {error.strerror}") from error
    except JournalTrouble:
        connection.close()
        raise
    return connection


def _flush_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def open_reader(path: Path) -> sqlite3.Connection:
    """A short-lived reading connection. Raises JournalTrouble."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA busy_timeout=5000")
    except sqlite3.Error as error:
        raise JournalTrouble(f"{path}: {error}") from error
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.row_factory = sqlite3.Row
    for name, wanted in _PRAGMAS.items():
        connection.execute(f"PRAGMA {name}={wanted}")
        (found,) = connection.execute(f"PRAGMA {name}").fetchone()
        if found != wanted:
            raise JournalTrouble(
                f"{path}: {name} is {found!r} instead of {wanted!r}: the file system cannot promise it"
            )
    path.chmod(0o600)
    _check(connection, path)
    _migrate(connection)
    _check_that_it_writes(connection)


def try_to_write(connection: sqlite3.Connection) -> None:
    """Whether anything can be written is known only from a write. Raises: sqlite3.Error."""
    connection.execute("INSERT OR REPLACE INTO meta(key, value) VALUES ('tried_at', ?)", (str(time.time()),))


def _check_that_it_writes(connection: sqlite3.Connection) -> None:
    """SQLite opens a file for reading, silently and for good, while its file system is read-only; only a write tells.

    No room is another matter: it may come. Raises: sqlite3.OperationalError.
    """
    try:
        try_to_write(connection)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
            raise


def _migrate(connection: sqlite3.Connection) -> None:
    """All the way to the present version, or not at all: one transaction, the version number with it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in range(version + 1, VERSION + 1):
            for statement in MIGRATIONS[step].split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check(connection: sqlite3.Connection, path: Path) -> None:
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise CorruptJournal(f"{path}: {found}")
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if owner not in (0, APPLICATION_ID):
        raise CorruptJournal(f"{path}: is the database of another program")
    if version > VERSION:
        raise CorruptJournal(f"{path}: has version {version}, and this is version {VERSION}; update selfheal")


def move_aside(path: Path, word: str) -> Path:
    """Put a damaged journal out of the way, with its companions; returns where it is now. Raises OSError."""
    aside = path.with_name(f"{path.name}.{word}")
    for suffix in ("", *COMPANIONS):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(path.with_name(aside.name + suffix))
    return aside
