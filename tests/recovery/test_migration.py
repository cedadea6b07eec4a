"""A journal of an earlier version is brought up to date: all of it or nothing, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from actors.journal import schema
from actors.journal.schema import MIGRATIONS, VERSION, open_writer

FIRST = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE alerts(
  seq INTEGER PRIMARY KEY, client TEXT NOT NULL, msg_id TEXT NOT NULL, sha256 TEXT NOT NULL, body TEXT NOT NULL,
  received_at REAL NOT NULL, outcome TEXT, reason TEXT, runbook TEXT, execution_id TEXT, decided_at REAL,
  UNIQUE(client, msg_id)) STRICT;
CREATE TABLE executions(
  id TEXT PRIMARY KEY, alert_seq INTEGER NOT NULL REFERENCES alerts(seq), runbook TEXT NOT NULL, source BLOB NOT NULL,
  sha256 TEXT NOT NULL, target TEXT NOT NULL, parameters TEXT NOT NULL, fingerprint TEXT NOT NULL,
  severity TEXT NOT NULL, priority INTEGER NOT NULL, status TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '',
  decided_at REAL NOT NULL, started_at REAL, ended_at REAL) STRICT;
CREATE TABLE steps(
  seq INTEGER PRIMARY KEY, execution_id TEXT NOT NULL REFERENCES executions(id), at REAL NOT NULL,
  record TEXT NOT NULL) STRICT;
CREATE TABLE events(
  seq INTEGER PRIMARY KEY, at REAL NOT NULL, path TEXT NOT NULL, event TEXT NOT NULL, text TEXT NOT NULL,
  evidence TEXT NOT NULL) STRICT;
CREATE INDEX alerts_undecided ON alerts(seq) WHERE outcome IS NULL;
CREATE INDEX executions_open ON executions(status) WHERE ended_at IS NULL;
CREATE INDEX steps_of ON steps(execution_id, seq);
CREATE INDEX events_of ON events(path, seq);
PRAGMA application_id=98696865;
PRAGMA user_version=1;
INSERT INTO alerts(client, msg_id, sha256, body, received_at) VALUES ('local', 'alert-01', 'x', '{}', 1.0);
"""


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A journal as version 1 made it."""
    path = tmp_path / "journal.db"
    old = sqlite3.connect(path)
    old.executescript(FIRST)
    old.close()
    return path


def looked_at(path: Path) -> tuple[int, set[str], int]:
    """Version, names of tables and indexes, number of alerts."""
    db = sqlite3.connect(path)
    try:
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
        return (
            db.execute("PRAGMA user_version").fetchone()[0],
            names,
            db.execute("SELECT count(*) FROM alerts").fetchone()[0],
        )
    finally:
        db.close()


def test_an_old_journal_becomes_what_a_new_one_is(first: Path, tmp_path: Path) -> None:
    assert schema.APPLICATION_ID == 98696865
    open_writer(first).close()
    open_writer(tmp_path / "new.db").close()
    version, names, alerts = looked_at(first)
    assert (version, alerts) == (VERSION, 1)
    assert names == looked_at(tmp_path / "new.db")[1]
    open_writer(first).close()
    assert looked_at(first)[0] == VERSION


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from actors.journal import schema

schema.MIGRATIONS[2] = schema.MIGRATIONS[2] + "; SELECT die()"
real = sqlite3.connect

def connect(*args, **more):
    connection = real(*args, **more)
    connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return connection

sqlite3.connect = connect
schema.open_writer(Path(sys.argv[1]))
"""


def test_trap_47_killed_in_the_middle_of_a_migration_it_is_made_by_the_next(first: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(first)], check=False, env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    version, names, alerts = looked_at(first)
    assert (version, alerts) == (1, 1)
    assert "executions_of_alert" not in names
    open_writer(first).close()
    version, names, alerts = looked_at(first)
    assert (version, alerts) == (VERSION, 1)
    assert "executions_of_alert" in names


def test_a_migration_that_fails_changes_nothing(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(MIGRATIONS, 2, MIGRATIONS[2] + "; SELECT nonsense")
        with pytest.raises(schema.JournalTrouble, match="nonsense"):
            open_writer(first)
    assert looked_at(first)[0] == 1
    open_writer(first).close()
    assert looked_at(first)[0] == VERSION
