"""What the journal forgets, and when: a little at a time, as part of the writer's own transactions.

First an alert's body goes; its id, hash and outcome stay far longer, so that a late resend is still a duplicate. What
is undecided and what has not ended is never forgotten. Functions on the writer's connection.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from actors.journal import attested, audit
from actors.journal.rows import set_setting, setting

DAY_S: Final = 24 * 3600.0
AT_ONCE: Final = 500
"""Rows forgotten in one transaction."""
FORGOTTEN_TO: Final = "forgotten_to"
IDS_FORGOTTEN_TO: Final = "ids_forgotten_to"
"""Up to here ids are gone, but for those whose execution is kept: they go with it."""
_OPEN: Final = "SELECT alert_seq FROM executions WHERE ended_at IS NULL UNION SELECT alert_seq FROM pending"
"""Alerts whose body will be asked for. Of the few that are open when its turn comes it goes with the id."""
_FREE: Final = "NOT EXISTS (SELECT 1 FROM executions WHERE alert_seq = alerts.seq)"


@dataclass(frozen=True, slots=True)
class Retention:
    """By age (seconds) and by number, whichever comes first: bodies of alerts; ids of alerts, and what they started;
    events of the tree; rows of the audit chain.
    """

    bodies_s: float = 30 * DAY_S
    bodies: int = 1_000_000
    ids_s: float = 365 * DAY_S
    ids: int = 10_000_000
    events_s: float = 365 * DAY_S
    events: int = 1_000_000
    audit_s: float = 3650 * DAY_S
    audit: int = 10_000_000


def forget(db: sqlite3.Connection, keep: Retention, now: float) -> int:
    """At most ``AT_ONCE`` rows of each kind; returns how many were due, 0 when none is. ``now``: Unix seconds."""
    return (
        _bodies(db, keep, now)
        + _executions(db, keep, now)
        + _ids(db, keep, now)
        + _events(db, keep, now)
        + audit.forget(db, keep.audit, now - keep.audit_s, now, attested.carried)
    )


def _last_due(db: sqlite3.Connection, table: str, time: str, after: int, most: int, before: float) -> int:
    """Rows up to this seq are due, of those beyond ``after``: too many follow it, or it is older than ``before``."""
    newest = db.execute(f"SELECT max(seq) FROM {table}").fetchone()[0] or 0  # noqa: S608  names of ours
    due = db.execute(
        f"SELECT max(seq) FROM (SELECT seq, {time} AS at FROM {table} WHERE seq > ? ORDER BY seq LIMIT ?) "  # noqa: S608
        "WHERE at < ? OR seq <= ?",
        (after, AT_ONCE, before, newest - most),
    ).fetchone()[0]
    return min(due or 0, newest - 1)  # the newest stays: the next number is counted from it


def _bodies(db: sqlite3.Connection, keep: Retention, now: float) -> int:
    done = int(setting(db, FORGOTTEN_TO) or 0)
    due = _last_due(db, "alerts", "received_at", done, keep.bodies, now - keep.bodies_s)
    undecided = db.execute("SELECT min(seq) FROM alerts WHERE outcome IS NULL").fetchone()[0]
    due = due if undecided is None else min(due, undecided - 1)
    if due <= done:
        return 0
    query = f"UPDATE alerts SET body='', reason=NULL WHERE seq > ? AND seq <= ? AND seq NOT IN ({_OPEN})"  # noqa: S608
    count = db.execute(query, (done, due)).rowcount
    answered = "SELECT 1 FROM executions WHERE alert_seq > ? AND alert_seq <= ? LIMIT 1"
    if db.execute(answered, (done, due)).fetchone() is not None:  # of the others nothing is on record
        audit.note(db, now, audit.BODIES_FORGOTTEN, {"to": due})
    set_setting(db, FORGOTTEN_TO, due)
    return count


def _executions(db: sqlite3.Connection, keep: Retention, now: float) -> int:
    """With their steps and their ladders, when the ids go."""
    newest = db.execute("SELECT max(rowid) FROM executions").fetchone()[0] or 0
    old = db.execute(
        "SELECT id, alert_seq FROM (SELECT id, alert_seq, ended_at, rowid AS n FROM executions"
        " WHERE ended_at IS NOT NULL ORDER BY n LIMIT ?) WHERE n < ? AND (n <= ? OR ended_at < ?)",
        (AT_ONCE // 10, newest, newest - keep.ids, now - keep.ids_s),
    ).fetchall()
    ids = [(row["id"],) for row in old]
    if ids:  # who checks the chain must know that it was the daemon
        audit.note(db, now, audit.RUNS_FORGOTTEN, {"executions": [row["id"] for row in old]})
    db.executemany("DELETE FROM steps WHERE execution_id = ?", ids)
    db.executemany("DELETE FROM escalations WHERE root = ?", ids)
    db.executemany("DELETE FROM executions WHERE id = ?", ids)
    passed = int(setting(db, IDS_FORGOTTEN_TO) or 0) if old else 0
    db.executemany(f"DELETE FROM alerts WHERE seq = ? AND {_FREE}", [(n,) for _, n in old if n <= passed])  # noqa: S608
    return len(old)


def _ids(db: sqlite3.Connection, keep: Retention, now: float) -> int:
    """The bodies of all of them are gone."""
    done = int(setting(db, IDS_FORGOTTEN_TO) or 0)
    due = _last_due(db, "alerts", "received_at", done, keep.ids, now - keep.ids_s)
    due = min(due, int(setting(db, FORGOTTEN_TO) or 0))
    if due <= done:
        return 0
    db.execute(f"DELETE FROM alerts WHERE seq > ? AND seq <= ? AND {_FREE}", (done, due))  # noqa: S608
    set_setting(db, IDS_FORGOTTEN_TO, due)
    return due - done


def _events(db: sqlite3.Connection, keep: Retention, now: float) -> int:
    first = db.execute("SELECT min(seq) FROM events").fetchone()[0] or 0
    due = _last_due(db, "events", "at", first - 1, keep.events, now - keep.events_s)
    return db.execute("DELETE FROM events WHERE seq <= ?", (due,)).rowcount
