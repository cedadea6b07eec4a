"""What is written and read, as functions on a connection. Runs on the writer thread, or on a reader's own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from actors.journal import audit
from runbooks.deciding.timing import Moment, on_scale
from runbooks.engine_words import ESCALATED, Kind, Record
from runbooks.matching import PastRun
from runbooks.model import Status

JsonMap = Mapping[str, Any]


class StoredAlert(NamedTuple):
    """What came of storing an alert: ``is_new``, or known already with the same body (``decision`` if decided)."""

    seq: int
    is_new: bool
    decision: JsonMap | None = None


class AlertConflict(Exception):
    """Another body under a known id."""

    is_new: Final = False


class OpenAlert(NamedTuple):
    """An alert nobody has decided yet. ``client``: the sender's authenticated name."""

    seq: int
    msg_id: str
    facts: JsonMap
    client: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution as it is started: the very bytes of its runbook, and its values."""

    id: str
    alert_seq: int
    runbook: str
    source: bytes
    sha256: str
    target: str
    parameters: JsonMap
    fingerprint: str
    severity: str
    priority: int
    status: Status
    decided_at: float
    started_at: float | None = None
    decided_mark: str | None = None


def dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, default=str)


# -- alerts -----------------------------------------------------------------------------------------------------------


def decision_of(row: sqlite3.Row) -> JsonMap | None:
    """An alert's, or None."""
    if row["outcome"] is None:
        return None
    return {key: row[key] for key in ("outcome", "execution_id", "runbook", "reason")}


def undecided(db: sqlite3.Connection, after: int = 0, limit: int = -1) -> list[OpenAlert]:
    """The oldest beyond the number ``after``; all of them with a ``limit`` of -1."""
    query = "SELECT seq, msg_id, body, client FROM alerts WHERE outcome IS NULL AND seq > ? ORDER BY seq LIMIT ?"
    rows = db.execute(query, (after, limit))
    return [OpenAlert(row["seq"], row["msg_id"], json.loads(row["body"]), row["client"]) for row in rows]


def alerts(db: sqlite3.Connection, limit: int) -> list[dict[str, Any]]:
    """Newest first, with the body's own fields, without those whose body is forgotten; ``resolved_at`` when whoever
    sent it said that it is over.
    """
    rows = db.execute(
        "SELECT a.*, f.resolved_at FROM alerts a LEFT JOIN firings f ON f.alert_seq=a.seq WHERE a.body <> ''"
        " ORDER BY a.seq DESC LIMIT ?",
        (limit,),
    )
    return [{**dict(row), "body": json.loads(row["body"])} for row in rows]


_CLIENTS: Final = """
WITH RECURSIVE clients(name) AS (
  SELECT min(client) FROM alerts UNION ALL
  SELECT (SELECT min(client) FROM alerts WHERE client > clients.name) FROM clients WHERE clients.name IS NOT NULL)
SELECT a.*, f.resolved_at FROM alerts a LEFT JOIN firings f ON f.alert_seq = a.seq
WHERE a.client IN (SELECT name FROM clients) AND a.msg_id = ? ORDER BY a.seq DESC LIMIT 1
"""
"""By message id alone, through the index whose first column is the client."""


def alert(db: sqlite3.Connection, msg_id: str) -> dict[str, Any] | None:
    """The alert with this message id, as ``alerts`` shows it; the newest, should several clients have used the id. One
    whose body is forgotten has an empty one.
    """
    row = db.execute(_CLIENTS, (msg_id,)).fetchone()
    return None if row is None else {**dict(row), "body": json.loads(row["body"] or "{}")}


def facts_of(db: sqlite3.Connection, seq: int) -> JsonMap:
    """The alert of that number; nothing when its body is forgotten."""
    row = db.execute("SELECT body FROM alerts WHERE seq = ?", (seq,)).fetchone()
    facts: JsonMap = json.loads(row["body"] or "{}") if row is not None else {}
    return facts


# -- executions -------------------------------------------------------------------------------------------------------


def add_execution(db: sqlite3.Connection, execution: Execution) -> None:
    db.execute(
        "INSERT INTO executions(id, alert_seq, runbook, source, sha256, target, parameters, fingerprint, severity,"
        " priority, status, decided_at, decided_mark, started_mark) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (
            execution.id,
            execution.alert_seq,
            execution.runbook,
            execution.source,
            execution.sha256,
            execution.target,
            dump(dict(execution.parameters)),
            execution.fingerprint,
            execution.severity,
            execution.priority,
            execution.status.value,
            execution.decided_at,
            execution.decided_mark,
            execution.decided_mark if execution.status is Status.RUNNING else None,
        ),
    )


def execution_of(row: sqlite3.Row) -> Execution:
    return Execution(
        row["id"],
        row["alert_seq"],
        row["runbook"],
        row["source"],
        row["sha256"],
        row["target"],
        json.loads(row["parameters"]),
        row["fingerprint"],
        row["severity"],
        row["priority"],
        Status(row["status"]),
        row["decided_at"],
        row["started_at"],
        row["decided_mark"],
    )


def unfinished(db: sqlite3.Connection) -> list[Execution]:
    return [execution_of(row) for row in db.execute("SELECT * FROM executions WHERE ended_at IS NULL ORDER BY rowid")]


def past_runs(db: sqlite3.Connection, before_s: float, now: Moment) -> list[PastRun]:
    """The unfinished ones, and those that ended within the last ``before_s`` seconds by either clock; oldest first.
    Times are on the scale of ``now.up_s``.
    """
    rows = db.execute(
        "SELECT e.*, CASE WHEN e.ended_at IS NULL THEN a.body END AS body FROM executions e"
        " JOIN alerts a ON a.seq = e.alert_seq WHERE e.ended_at IS NULL OR e.ended_at >= ?"
        " OR (e.ended_mark >= ? AND e.ended_mark < ? AND CAST(substr(e.ended_mark, ?) AS REAL) >= ?) ORDER BY e.rowid",
        (now.wall_s - before_s, f"{now.boot}/", f"{now.boot}0", len(now.boot) + 2, now.up_s - before_s),
    )
    return [_past_run(row, now) for row in rows]


def _past_run(row: sqlite3.Row, now: Moment) -> PastRun:
    def scaled(what: str) -> float | None:
        at = row[f"{what}_at"]
        return None if at is None else on_scale(at, row[f"{what}_mark"], now)

    started = scaled("started")
    if started is None and row["started_mark"] is not None:  # it is to begin, and its actor has not said so yet
        started = on_scale(row["decided_at"], row["started_mark"], now)
    return PastRun(
        row["id"],
        row["runbook"],
        row["target"],
        row["fingerprint"],
        Status(row["status"]),
        on_scale(row["decided_at"], row["decided_mark"], now),
        scaled("ended"),
        row["severity"],
        started,
        row["priority"],
        json.loads(row["body"]) if row["body"] else None,
        row["detail"].startswith(ESCALATED),
    )


def add_record(db: sqlite3.Connection, execution_id: str, record: Record, at: float) -> None:
    body = {
        "kind": record.kind.value,
        "step": record.step,
        "step_id": record.step_id,
        "attempt": record.attempt,
        "ok": record.ok,
        "detail": record.detail,
        "snapshot": record.snapshot,
        "bound": record.bound,
        "outputs": record.outputs,
        "trouble": record.trouble,
        **({"untouched": True} if record.untouched else {}),
    }
    text = dump(body)
    db.execute("INSERT INTO steps(execution_id, at, record) VALUES (?,?,?)", (execution_id, at, text))
    said = {key: body[key] for key in ("step_id", "attempt", "ok")}
    attested = {"execution_id": execution_id, "record": record.kind.value, **said, "sha256": audit.digest(text)}
    audit.note(db, at, "step", attested)


def records(db: sqlite3.Connection, execution_id: str) -> list[tuple[float, Record]]:
    """(time, record), oldest first."""
    rows = db.execute("SELECT at, record FROM steps WHERE execution_id=? ORDER BY seq", (execution_id,))
    return [(row["at"], _record(json.loads(row["record"]))) for row in rows]


def _record(body: dict[str, Any]) -> Record:
    return Record(**{**body, "kind": Kind(body["kind"])})


def finish_execution(
    db: sqlite3.Connection,
    execution_id: str,
    status: Status,
    detail: str,
    at: float,
    mark: str | None = None,
    epoch: int | None = None,
) -> bool:
    """Whether it ends now; an end is written once, and by none but the incarnation of this ``epoch`` (None: any).
    ``mark``: ``deciding.timing`` has it.
    """
    ended = db.execute(
        "UPDATE executions SET status=?, detail=?, ended_at=?, ended_mark=?"
        " WHERE id=? AND ended_at IS NULL AND epoch=coalesce(?, epoch)",
        (status.value, detail, at, mark, execution_id, epoch),
    )
    return ended.rowcount == 1


def executions(db: sqlite3.Connection, limit: int) -> list[dict[str, Any]]:
    """Newest first, each with its ``records`` and the id of its alert."""
    rows = db.execute(f"{_SELECT} ORDER BY e.rowid DESC LIMIT ?", (limit,)).fetchall()
    return [_with_records(db, row) for row in rows]


def execution(db: sqlite3.Connection, execution_id: str) -> dict[str, Any] | None:
    row = db.execute(f"{_SELECT} WHERE e.id=?", (execution_id,)).fetchone()
    return None if row is None else _with_records(db, row)


_SELECT = "SELECT e.*, a.msg_id AS alert_id FROM executions e JOIN alerts a ON a.seq = e.alert_seq"


def _with_records(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Any]:
    return {**dict(row), "records": records(db, row["id"])}


def counts(db: sqlite3.Connection) -> dict[str, int]:
    """Executions by status."""
    rows = db.execute("SELECT status, count(*) AS n FROM executions GROUP BY status")
    return {row["status"]: row["n"] for row in rows}


# -- events and settings ----------------------------------------------------------------------------------------------


def add_event(db: sqlite3.Connection, at: float, path: str, event: str, text: str, evidence: JsonMap) -> int:
    """Its number. Call ``events.add``, which also removes the oldest."""
    added = db.execute(
        "INSERT INTO events(at, path, event, text, evidence) VALUES (?,?,?,?,?)",
        (at, path, event, text, dump(dict(evidence))),
    )
    return int(added.lastrowid or 0)


def events(db: sqlite3.Connection, path: str, limit: int) -> list[dict[str, Any]]:
    """Of a node and all below it, newest first."""
    rows = db.execute(
        "SELECT * FROM events WHERE path=? OR path GLOB ? ORDER BY seq DESC LIMIT ?", (path, f"{path}/*", limit)
    )
    return [{**dict(row), "evidence": json.loads(row["evidence"])} for row in rows]


def setting(db: sqlite3.Connection, key: str) -> Any:
    """A remembered setting, or None."""
    row = db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
    return None if row is None else json.loads(row["value"])


def set_setting(db: sqlite3.Connection, key: str, value: Any) -> None:
    db.execute(
        "INSERT INTO meta(key, value) VALUES (?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value",
        (key, dump(value)),
    )
