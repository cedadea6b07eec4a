"""What is written of a running execution, and by whom: each incarnation of its actor has an epoch, and only the newest
may write. Checked in the transaction of every write, so one that was thought dead and is not changes nothing.

Runs on the writer thread.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from actors.chain.macs import FOUND
from actors.journal import attested, audit, happened, rows
from actors.journal.rows import Execution, JsonMap, dump, facts_of, records
from runbooks.engine_words import Record
from runbooks.model import Status

LATCHING: Final = frozenset({Status.ROLLBACK_FAILED, Status.UNKNOWN})
"""After these ends nobody knows what the target is like: nothing is done to it until a person says so."""


class Overtaken(Exception):
    """A newer incarnation carries this execution out: nothing more of it is mine to write."""


class HasEnded(Exception):
    """Its end is written already: ``status``, ``detail``."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(status.value)
        self.status = status
        self.detail = detail


class RunLost(Exception):
    """The journal knows nothing of this execution: its file was lost, and another has been begun."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What an incarnation knows when it begins: everything on record, and that it alone may go on.

    ``stalls`` counts the incarnations, this one too, since anything was last written. ``stop``: why its end was asked
    for, as ``ask_stop`` kept it. ``started_mark``: about ``started_at`` (``deciding.timing``).
    """

    epoch: int
    stalls: int
    started_at: float
    records: list[tuple[float, Record]]
    facts: JsonMap
    stop: JsonMap | None = None
    started_mark: str | None = None


def refused(
    db: sqlite3.Connection, path: str, execution: Execution, at: float, mark: str | None = None
) -> HasEnded | None:
    """Ask before ``claim``: a run that the audit chain does not vouch for is ended, and that it was found is on record.
    Where anything is written of its steps, that end is "unknown", and latches.

    Args:
        at: Unix seconds.
        mark: about ``at`` (``deciding.timing``).

    Returns:
        its end; None: it may be carried out, as far as this goes.
    """
    row = db.execute("SELECT parameters FROM executions WHERE id=? AND ended_at IS NULL", (execution.id,)).fetchone()
    if row is None:
        return None
    why = audit.why_not_ours(db, execution.id, execution.target, execution.source, row["parameters"])
    if why is None:
        return None
    detail = f"not carried out: {why}"
    audit.note(db, at, FOUND, {"text": f"execution {execution.id} is {detail}"})
    has_steps = db.execute("SELECT 1 FROM steps WHERE execution_id=?", (execution.id,)).fetchone() is not None
    status = Status.UNKNOWN if has_steps else Status.REJECTED
    finish(db, path, execution, None, status, detail, at, mark)
    return HasEnded(status, detail)


def claim(db: sqlite3.Connection, path: str, execution: Execution, at: float) -> Claim:
    """From here on this incarnation carries it out. ``at``: Unix seconds.

    Raises:
        HasEnded: it has.
        RunLost: there is no such execution.
    """
    row = _row(db, execution.id)
    if row["ended_at"] is not None:
        raise _end_of(row)
    if row["started_at"] is None:
        happened.tell_start(db, path, execution, at, row["started_mark"])
    now = db.execute(
        "UPDATE executions SET status='running', started_at=coalesce(started_at, ?), epoch=epoch+1, stalls=stalls+1"
        " WHERE id=? RETURNING epoch, stalls, started_at, stop, started_mark",
        (at, execution.id),
    ).fetchone()
    stop = None if now["stop"] is None else json.loads(now["stop"])
    known = records(db, execution.id)
    facts = facts_of(db, execution.alert_seq)
    return Claim(now["epoch"], now["stalls"], now["started_at"], known, facts, stop, now["started_mark"])


def add_record(db: sqlite3.Connection, execution_id: str, epoch: int, record: Record, at: float) -> None:
    """Raises Overtaken, HasEnded, RunLost."""
    is_mine = db.execute(
        "UPDATE executions SET stalls=0 WHERE id=? AND epoch=? AND ended_at IS NULL", (execution_id, epoch)
    )
    if is_mine.rowcount != 1:
        _refuse(_row(db, execution_id))
    rows.add_record(db, execution_id, record, at)


def finish(
    db: sqlite3.Connection,
    path: str,
    execution: Execution,
    epoch: int | None,
    status: Status,
    detail: str,
    at: float,
    mark: str | None = None,
) -> None:
    """The end, written once, with its event and, after an end nobody can trust, the latch of its target. ``epoch``
    None: whoever carries it out.

    Raises:
        Overtaken: a newer incarnation is at work.
        HasEnded: its end is written already, perhaps by this very call at an earlier try.
        RunLost: there is no such execution.
    """
    if not rows.finish_execution(db, execution.id, status, detail, at, mark, epoch):
        _refuse(_row(db, execution.id))
    happened.tell_end(db, path, execution, status, detail, at, mark)
    if status in LATCHING:
        latch(db, execution.target, execution.id, at, f"{execution.runbook} {status.value}: {detail}"[:2000])


def latch(db: sqlite3.Connection, target: str, execution_id: str, at: float, why: str) -> None:
    """Nothing is done to the target until a person releases it."""
    db.execute(
        "INSERT INTO latches(target, execution_id, at, why) VALUES (?,?,?,?)"
        " ON CONFLICT(target) DO UPDATE SET execution_id=excluded.execution_id, at=excluded.at, why=excluded.why",
        (target, execution_id, at, why),
    )
    attested.note_latch(db, at, target)


def ask_stop(db: sqlite3.Connection, execution_id: str, stop: JsonMap) -> bool:
    """Keep that its end is wanted, over a death of the daemon; the first word counts. Whether it had not ended."""
    asked = db.execute(
        "UPDATE executions SET stop=coalesce(stop, ?) WHERE id=? AND ended_at IS NULL", (dump(dict(stop)), execution_id)
    )
    return asked.rowcount == 1


def ask_all_to_stop(db: sqlite3.Connection, stop: JsonMap) -> None:
    """``ask_stop`` for every run that has begun."""
    query = "UPDATE executions SET stop=coalesce(stop, ?) WHERE ended_at IS NULL AND status='running'"
    db.execute(query, (dump(dict(stop)),))


def untold_failures(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Latches whose alert is not on record: the daemon died between the two. Others' alerts by its id are not it."""
    rows = db.execute(
        "SELECT l.* FROM latches l WHERE NOT EXISTS"
        " (SELECT 1 FROM alerts a WHERE a.client = 'selfheal' AND a.msg_id = ? || l.execution_id)",
        (FAILED_ID,),
    )
    return [dict(row) for row in rows]


FAILED_ID: Final = "recovery-failed-"
"""An execution's id behind it is the id of the alert about its end."""


def _row(db: sqlite3.Connection, execution_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("SELECT * FROM executions WHERE id=?", (execution_id,)).fetchone()
    if row is None:
        raise RunLost(execution_id)
    return row


def _refuse(row: sqlite3.Row) -> None:
    raise Overtaken(row["id"]) if row["ended_at"] is None else _end_of(row)


def _end_of(row: sqlite3.Row) -> HasEnded:
    return HasEnded(Status(row["status"]), row["detail"])
