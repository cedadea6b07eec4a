"""What keeps runs from beginning, and makes them begin later: claims, latches, silences, pending alerts, escalations.

Functions on a connection. Times are written twice (``runbooks.deciding.timing``) and read on the scale of ``now.up_s``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from actors.journal import attested, audit, events, rows
from runbooks.deciding.quiet import BadMatcher, matchers
from runbooks.deciding.timing import Moment, on_scale
from runbooks.deciding.words import Pending, Silence, Storm, Waits
from runbooks.model import Status

STORMS_KEY: Final = "storms"
THE_ALERT_IS_OVER: Final = "the alert is over"
_BUSY: Final = "EXISTS (SELECT 1 FROM executions o WHERE o.status='running' AND o.ended_at IS NULL AND o.target=?)"
_RUNNING: Final = "(SELECT count(*) FROM executions o WHERE o.status='running' AND o.ended_at IS NULL)"
_LATCHED: Final = "EXISTS (SELECT 1 FROM latches l WHERE l.target=?)"
_IS_OVER: Final = """
EXISTS (SELECT 1 FROM firings f WHERE f.alert_seq=e.alert_seq AND f.resolved_at IS NOT NULL)
AND NOT EXISTS (SELECT 1 FROM alerts a LEFT JOIN firings f ON f.alert_seq=a.seq
  WHERE a.execution_id=e.id AND (f.alert_seq IS NULL OR f.resolved_at IS NULL))
"""
"""Of the execution ``e``: its alert, and all that were folded into it, have been said to be over."""


# -- the target's lock and the limit of all ---------------------------------------------------------------------------


def may_begin(db: sqlite3.Connection, target: str, most: int) -> bool:
    """Whether a run may begin on the target, by what is on disk: it has no other and no latch, and there is room."""
    query = f"SELECT NOT {_BUSY} AND NOT {_LATCHED} AND {_RUNNING} < ?"
    return bool(db.execute(query, (target, target, most)).fetchone()[0])


def claim(db: sqlite3.Connection, execution_id: str, most: int, now: Moment) -> Status | None:
    """Begin a queued run, if it may: the status it has now; None when there is no such run.

    It does not begin when another is at work on its target, which is latched, or ``most`` run; one whose alert is over
    is cancelled instead.
    """
    found = db.execute(f"SELECT e.*, {_IS_OVER} AS is_over FROM executions e WHERE e.id=?", (execution_id,)).fetchone()  # noqa: S608
    if found is None:
        return None
    if found["status"] != Status.QUEUED.value:
        return Status(found["status"])
    if found["is_over"]:
        return Status.CANCELLED
    if not may_begin(db, found["target"], most):
        return Status.QUEUED
    db.execute(
        "UPDATE executions SET status='running', started_mark=? WHERE id=? AND status='queued'",
        (now.mark, execution_id),
    )
    return Status.RUNNING


def over(db: sqlite3.Connection) -> list[str]:
    """Queued runs whose alert is over."""
    query = f"SELECT e.id FROM executions e WHERE e.ended_at IS NULL AND e.status='queued' AND {_IS_OVER}"  # noqa: S608
    return [str(row["id"]) for row in db.execute(query)]


def has_ended(db: sqlite3.Connection, alert_seq: int) -> bool | None:
    """Whether whoever sent the alert said that it is over; None: its kind is never said to be."""
    row = db.execute("SELECT resolved_at FROM firings WHERE alert_seq=?", (alert_seq,)).fetchone()
    return None if row is None else row["resolved_at"] is not None


# -- latches ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Latch:
    """Nothing is done to the target until a person has looked. ``at``: Unix seconds."""

    target: str
    execution_id: str
    at: float
    why: str


def latches(db: sqlite3.Connection) -> list[Latch]:
    return [Latch(*row) for row in db.execute("SELECT target, execution_id, at, why FROM latches ORDER BY at")]


def release(db: sqlite3.Connection, target: str, at: float) -> bool:
    """Whether it was latched. ``at``: Unix seconds."""
    is_released = db.execute("DELETE FROM latches WHERE target=?", (target,)).rowcount == 1
    if is_released:
        audit.note(db, at, "released", {"target": target})
    return is_released


# -- silences ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredSilence:
    """``at`` and ``ended_at``: Unix seconds; ``left_s``: how long it still lasts, 0 when it does not."""

    id: str
    matchers: tuple[str, ...]
    by: str
    why: str
    at: float
    for_s: float
    left_s: float
    ended_at: float | None = None
    ended_by: str | None = None


def add_silence(db: sqlite3.Connection, silence: StoredSilence, now: Moment) -> None:
    db.execute(
        "INSERT INTO silences(id, matchers, by, why, at, mark, for_s) VALUES (?,?,?,?,?,?,?)",
        (
            silence.id,
            json.dumps(silence.matchers),
            silence.by,
            silence.why,
            now.wall_s,
            now.mark,
            silence.for_s,
        ),
    )
    attested.note_silence(db, now.wall_s, silence.id)


def end_silence(db: sqlite3.Connection, silence_id: str, by: str, now: Moment) -> StoredSilence | None:
    """End it now; None when there is none of that id. One that is over stays as it was."""
    found = next((one for one in silences(db, now) if one.id == silence_id), None)
    if found is not None and found.left_s > 0:
        db.execute("UPDATE silences SET ended_at=?, ended_by=? WHERE id=?", (now.wall_s, by, silence_id))
        attested.note_silence(db, now.wall_s, silence_id)
    return found


def silences(db: sqlite3.Connection, now: Moment) -> list[StoredSilence]:
    """Newest first."""
    return [_silence(row, now) for row in db.execute("SELECT * FROM silences ORDER BY rowid DESC")]


def _silence(row: sqlite3.Row, now: Moment) -> StoredSilence:
    until = on_scale(row["at"], row["mark"], now) + row["for_s"]
    left_s = max(0.0, until - now.up_s) if row["ended_at"] is None else 0.0
    return StoredSilence(
        row["id"],
        tuple(json.loads(row["matchers"])),
        row["by"],
        row["why"],
        row["at"],
        row["for_s"],
        left_s,
        row["ended_at"],
        row["ended_by"],
    )


def as_rule(silence: StoredSilence, now: Moment) -> Silence:
    """As deciding sees it. Raises BadMatcher."""
    return Silence(silence.id, matchers(silence.matchers), now.up_s + silence.left_s, silence.by, silence.why)


def rules(stored: Iterable[StoredSilence], now: Moment) -> tuple[Silence, ...]:
    """Those that are on. One that cannot be read (any more) silences nothing: the others count."""
    found = []
    for one in stored:
        if one.left_s > 0:
            try:
                found.append(as_rule(one, now))
            except BadMatcher:
                continue
    return tuple(found)


# -- alerts that wait -------------------------------------------------------------------------------------------------


def keep_pending(db: sqlite3.Connection, pending: Pending, now: Moment) -> None:
    """Write it, or what became of it: another alert was folded into it, or began it anew."""
    first = Moment(now.wall_s - (now.up_s - pending.first_at), now.boot, pending.first_at)
    db.execute(
        "INSERT OR REPLACE INTO pending(key, waits, runbook, alert_seq, at, mark, last_at, last_mark, wait_s, count,"
        " severity) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
        (
            pending.key,
            pending.waits.value,
            pending.runbook_id,
            pending.alert_seq,
            first.wall_s,
            first.mark,
            now.wall_s,
            now.mark,
            pending.due_at - pending.first_at,
            pending.count,
            pending.severity,
        ),
    )


def forget_pending(db: sqlite3.Connection, key: str) -> None:
    db.execute("DELETE FROM pending WHERE key=?", (key,))


def all_pending(db: sqlite3.Connection, now: Moment) -> list[Pending]:
    return [_pending(row, now) for row in db.execute("SELECT * FROM pending ORDER BY rowid")]


def _pending(row: sqlite3.Row, now: Moment) -> Pending:
    first_at = on_scale(row["at"], row["mark"], now)
    return Pending(
        row["key"],
        Waits(row["waits"]),
        row["runbook"],
        row["alert_seq"],
        first_at,
        on_scale(row["last_at"], row["last_mark"], now),
        first_at + row["wait_s"],
        row["count"],
        row["severity"],
    )


def pending_alert(db: sqlite3.Connection, alert_seq: int) -> rows.OpenAlert | None:
    """The alert of that number; None when its body is forgotten, or it is not pending any more."""
    row = db.execute(
        "SELECT seq, msg_id, body, client FROM alerts WHERE seq=? AND outcome='pending' AND body <> ''", (alert_seq,)
    ).fetchone()
    return None if row is None else rows.OpenAlert(row["seq"], row["msg_id"], json.loads(row["body"]), row["client"])


def settle(db: sqlite3.Connection, key: str, alert_seq: int, by: int, body: Mapping[str, Any]) -> None:
    """What waited under ``key`` is answered with the alert number ``by``: itself, or one that came since."""
    forget_pending(db, key)
    if by == alert_seq:
        db.execute("UPDATE alerts SET outcome=NULL WHERE seq=? AND outcome='pending'", (alert_seq,))
        return
    db.execute(
        "UPDATE alerts SET outcome='duplicate', execution_id=?, reason=? WHERE seq=? AND outcome='pending'",
        (body["execution_id"], f"answered with a later one: {body['outcome']}", alert_seq),
    )


def give_up_pending(db: sqlite3.Connection, alert_seq: int, reason: str) -> None:
    """It stays pending for ever, and says why."""
    db.execute("UPDATE alerts SET reason=? WHERE seq=? AND outcome='pending'", (reason, alert_seq))


# -- storms -----------------------------------------------------------------------------------------------------------


def keep_storms(db: sqlite3.Connection, storms: Mapping[str, Storm], now: Moment) -> None:
    def instant(at: float) -> tuple[float, str]:
        return now.wall_s - (now.up_s - at), Moment(0.0, now.boot, at).mark

    body = {
        key: {"since": instant(storm.since), "calm": None if storm.calm_since is None else instant(storm.calm_since)}
        for key, storm in storms.items()
    }
    rows.set_setting(db, STORMS_KEY, body)


def storms(db: sqlite3.Connection, now: Moment) -> dict[str, Storm]:
    def scaled(instant: list[Any]) -> float:
        wall_s, mark = instant
        return on_scale(wall_s, mark, now)

    stored = rows.setting(db, STORMS_KEY) or {}
    return {
        key: Storm(key, scaled(one["since"]), None if one["calm"] is None else scaled(one["calm"]))
        for key, one in stored.items()
    }


# -- escalations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredRung:
    """One rung of the ladder of the run ``root`` that was climbed; ``execution_id``: the run it led to."""

    root: str
    rung: int
    at: float
    execution_id: str | None
    text: str


def add_rung(db: sqlite3.Connection, rung: StoredRung, path: str, now: Moment) -> None:
    """Once; and what is climbed is told."""
    added = db.execute(
        "INSERT OR IGNORE INTO escalations(root, rung, at, mark, execution_id, text) VALUES (?,?,?,?,?,?)",
        (rung.root, rung.rung, now.wall_s, now.mark, rung.execution_id, rung.text),
    )
    if added.rowcount:
        evidence = {"execution_id": rung.root, "rung": rung.rung, "next": rung.execution_id or ""}
        events.add(db, now.wall_s, path, "escalated", rung.text, evidence)
        attested.note_rung(db, now.wall_s, rung.root, rung.rung)


def add_rungs(db: sqlite3.Connection, rungs: Iterable[StoredRung], path: str, now: Moment) -> None:
    for one in rungs:
        add_rung(db, one, path, now)


def all_rungs(db: sqlite3.Connection, now: Moment) -> list[StoredRung]:
    return [
        StoredRung(row["root"], row["rung"], on_scale(row["at"], row["mark"], now), row["execution_id"], row["text"])
        for row in db.execute("SELECT * FROM escalations ORDER BY root, rung")
    ]


def alert_of(db: sqlite3.Connection, execution_id: str) -> tuple[Mapping[str, Any] | None, bool]:
    """The alert an execution answers (None: forgotten), and whether it is over."""
    row = db.execute(
        "SELECT a.seq, a.body FROM executions e JOIN alerts a ON a.seq=e.alert_seq WHERE e.id=?", (execution_id,)
    ).fetchone()
    if row is None or not row["body"]:
        return None, False
    return json.loads(row["body"]), bool(has_ended(db, row["seq"]))
