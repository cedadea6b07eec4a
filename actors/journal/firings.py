"""Alerts that begin and end (Alertmanager's): which firing a message is about, and what is written of it.

Runs on the writer thread, inside one transaction for a whole notification. ``is_repeat`` is the rule, and pure.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from actors.journal import events, rows
from actors.journal.alert_batches import new_alert, store_alerts

NOTHING_DONE: Final = frozenset(
    {"cooling", "recovery_off", "silenced", "inhibited", "breaker_open", "limited", "blast_radius", "latched"}
)
"""Answers for the moment: whoever is sent again after one of them is decided again."""


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert that fires. ``msg_id`` is derived from ``fingerprint`` and ``starts_at`` (Unix seconds)."""

    fingerprint: str
    starts_at: float
    msg_id: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """An alert that does so no longer. Times in Unix seconds."""

    fingerprint: str
    starts_at: float
    ended_at: float
    name: str


EVER: Final = math.inf
"""As ``starts_at`` of an end: whatever has been written by now is over, whenever it says that it began."""


@dataclass(frozen=True, slots=True)
class Known:
    """The firing of that fingerprint that was stored last."""

    starts_at: float
    received_at: float
    outcome: str | None
    resolved_at: float | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What came of storing a firing: its row, the id it has there, and whether that row ``is_new``. ``is_over``: it is
    one that has ended, told late.
    """

    seq: int
    msg_id: str
    is_new: bool
    is_over: bool = False


def is_repeat(known: Known, starts_at: float, now: float, repeat_after_s: float) -> bool:
    """Whether a firing is the one that is known: told again, not begun again.

    It is not when that one has ended, or began earlier (its end was never told); nor when it was answered with "not
    now"; nor when it was taken longer ago than ``repeat_after_s`` and fires still: then it is worth another recovery.
    """
    if known.resolved_at is not None or starts_at > known.starts_at or known.outcome in NOTHING_DONE:
        return False
    return abs(now - known.received_at) < repeat_after_s  # either way: a clock may have been set back


def is_over(known: Known, starts_at: float, now: float, repeat_after_s: float) -> bool:
    """Whether a firing is the one that is known, and that has ended: messages overtake each other.

    One that is told still when its end is longer ago than ``repeat_after_s`` fires: its Prometheus could not say so for
    a while, and Alertmanager took it for ended.
    """
    if known.resolved_at is None or starts_at > known.starts_at:
        return False
    return abs(now - known.resolved_at) < repeat_after_s  # either way: clocks differ


def keep(
    db: sqlite3.Connection,
    client: str,
    firing: Firing,
    now: float,
    repeat_after_s: float,
    *,
    may_be_late: bool = False,
) -> Kept:
    """Store it as an alert, unless it is known.

    Args:
        may_be_late: who tells it may do so after having told its end. Else what is told now fires now.
    """
    row = db.execute(
        "SELECT f.*, a.msg_id, a.received_at, a.outcome FROM firings f JOIN alerts a ON a.seq=f.alert_seq"
        " WHERE f.fingerprint=? ORDER BY f.alert_seq DESC LIMIT 1",
        (firing.fingerprint,),
    ).fetchone()
    if row is not None:
        known = Known(row["starts_at"], row["received_at"], row["outcome"], row["resolved_at"])
        if is_repeat(known, firing.starts_at, now, repeat_after_s):
            return Kept(row["alert_seq"], row["msg_id"], is_new=False)
        if may_be_late and is_over(known, firing.starts_at, now, repeat_after_s):
            return Kept(row["alert_seq"], row["msg_id"], is_new=False, is_over=True)
    _end_earlier(db, firing)
    msg_id = _free_id(db, client, firing.msg_id)
    (stored,) = store_alerts(db, [new_alert(client, msg_id, firing.facts, now)])
    if isinstance(stored, rows.AlertConflict):  # the id was free a moment ago, in this transaction
        raise stored
    db.execute(
        "INSERT INTO firings(alert_seq, fingerprint, starts_at) VALUES (?,?,?)",
        (stored.seq, firing.fingerprint, firing.starts_at),
    )
    return Kept(stored.seq, msg_id, is_new=True)


def end(db: sqlite3.Connection, ended: Ended, now: float, path: str) -> str | None:
    """Mark what fired until then as resolved; returns the id of the last such alert, None when nothing fired any more.

    What began after that end goes on: then it is an old message that comes late.

    Args:
        path: the node whose event it is.
    """
    open_rows = db.execute(
        "UPDATE firings SET resolved_at=? WHERE fingerprint=? AND resolved_at IS NULL AND starts_at<=?"
        " RETURNING alert_seq",
        (ended.ended_at, ended.fingerprint, max(ended.starts_at, ended.ended_at)),
    ).fetchall()
    if not open_rows:
        return None
    newest = max(row["alert_seq"] for row in open_rows)
    msg_id = str(db.execute("SELECT msg_id FROM alerts WHERE seq=?", (newest,)).fetchone()["msg_id"])
    evidence = {"alert": msg_id, "fingerprint": ended.fingerprint, "ended_at": ended.ended_at}
    events.add(db, now, path, "resolved", f"alert {msg_id} ({ended.name}) is over", evidence)
    return msg_id


def _end_earlier(db: sqlite3.Connection, firing: Firing) -> None:
    """Equal labels cannot fire twice at once: when this one began, earlier ones were over."""
    db.execute(
        "UPDATE firings SET resolved_at=? WHERE fingerprint=? AND resolved_at IS NULL AND starts_at<?",
        (firing.starts_at, firing.fingerprint, firing.starts_at),
    )


def _free_id(db: sqlite3.Connection, client: str, msg_id: str) -> str:
    """``ID``, then ``ID-2``, ``ID-3``, ... for the same firing taken anew."""
    number, free = 1, msg_id
    while db.execute("SELECT 1 FROM alerts WHERE client=? AND msg_id=?", (client, free)).fetchone() is not None:
        number += 1
        free = f"{msg_id}-{number}"
    return free
