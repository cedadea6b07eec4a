"""Many alerts with few statements: storing those of one poll, recording the decisions about many. On a connection.

Each statement gives the interpreter to another thread and has to get it back; so a batch is written with as few as can
be.
"""

from __future__ import annotations

import hashlib
import json
import json.encoder
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from actors.alert_frames import json_of
from actors.journal.rows import AlertConflict, Execution, JsonMap, StoredAlert, add_execution, decision_of

T = TypeVar("T")
_SIZES: Final = (256, 64, 16, 4, 1)
"""Rows written by one statement: few sizes, so that each stays prepared."""
_INSERT: Final = "INSERT INTO alerts(client,msg_id,sha256,body,received_at,outcome,reason,decided_at)"
_encoder: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True, default=str)
_make_pieces: Final[Any] = getattr(json.encoder, "c_make_encoder", None)
_pieces: Final = _make_pieces and _make_pieces(
    None, str, json.encoder.encode_basestring_ascii, None, ":", ",", True, False, True
)
"""What ``JSONEncoder.encode`` makes anew for each text, and takes most of its time for."""


def _encode(facts: JsonMap) -> str:
    return _encoder.encode(facts) if _pieces is None else "".join(_pieces(facts, 0))


class NewAlert(NamedTuple):
    """An alert as it is stored. ``client``: the sender's authenticated name; ``at``: Unix seconds; ``decision``: what
    is decided about it already, and starts nothing.
    """

    client: str
    msg_id: str
    sha256: str
    body: str
    at: float
    decision: JsonMap | None = None


class NewDecision(NamedTuple):
    """``body`` as the wire's DECIDED; ``execution`` when one starts."""

    seq: int
    body: JsonMap
    execution: Execution | None
    at: float


Stored = StoredAlert | AlertConflict


def new_alert(
    client: str, msg_id: str, facts: JsonMap, at: float, decision: JsonMap | None = None, text: str | None = None
) -> NewAlert:
    """``text``: the facts as JSON, where somebody has made it (``alert_frames``)."""
    body = _encode(facts) if text is None else text
    return NewAlert(client, msg_id, _hash(body), body, at, decision)


def _hash(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _hashes(body: str) -> set[str]:
    """Of the same facts in each form they are written in: a body may be forgotten, its hash is not."""
    facts = json.loads(body)
    forms = (body, _encode(facts), json_of(facts))
    return {_hash(one) for one in forms if one is not None}


def store_alerts(db: sqlite3.Connection, alerts: Sequence[NewAlert]) -> list[Stored]:
    """What came of each, in order. One that is known already, or refused, changes nothing for the others."""
    stored: list[Stored] = []
    for part in _parts(alerts):
        stored += _store(db, part)
    return stored


def _store(db: sqlite3.Connection, alerts: Sequence[NewAlert]) -> list[Stored]:
    values = ",".join(("(?,?,?,?,?,?,?,?)",) * len(alerts))
    row: list[Any] = []
    for client, msg_id, sha256, body, at, decision in alerts:
        if decision is None:
            row += (client, msg_id, sha256, body, at, None, None, None)
        else:
            row += (client, msg_id, sha256, body, at, decision["outcome"], decision["reason"], at)
    try:
        last = db.execute(f"{_INSERT} VALUES {values}", row).lastrowid
    except sqlite3.IntegrityError:  # SQLite took the whole statement back: some are known
        if len(alerts) > 1:
            return [stored for one in alerts for stored in _store(db, (one,))]
        return [_known(db, alerts[0])]
    first = (last or 0) - len(alerts) + 1  # one writer, one statement: consecutive numbers
    return [StoredAlert(seq, True, one.decision) for seq, one in enumerate(alerts, first)]


def _known(db: sqlite3.Connection, alert: NewAlert) -> Stored:
    known = db.execute("SELECT * FROM alerts WHERE client=? AND msg_id=?", (alert.client, alert.msg_id)).fetchone()
    if known["sha256"] != alert.sha256 and known["sha256"] not in _hashes(alert.body):
        return AlertConflict(f"alert {alert.msg_id} is known with another body")
    return StoredAlert(known["seq"], is_new=False, decision=decision_of(known))


def record_decisions(db: sqlite3.Connection, decisions: Sequence[NewDecision]) -> list[JsonMap]:
    """Each decision and, when one starts, its execution. Returns the decisions that stand: an alert is decided once,
    also when two incarnations of the decider asked.
    """
    first = decisions[0]
    if all(one.body == first.body and one.execution is None for one in decisions) and _record_alike(db, decisions):
        return [one.body for one in decisions]
    stands: list[JsonMap] = []
    for part in _parts(decisions):
        stands += _record(db, part)
    return stands


def _record_alike(db: sqlite3.Connection, decisions: Sequence[NewDecision]) -> bool:
    """In a storm most decisions are the same and start nothing. False, and nothing is written: one was decided."""
    body, seqs = decisions[0].body, json.dumps([one.seq for one in decisions])
    values = (body["outcome"], body["reason"], body["runbook"], body["execution_id"], decisions[0].at)
    query = (
        "UPDATE alerts SET outcome=?, reason=?, runbook=?, execution_id=?, decided_at=?"
        " WHERE seq IN (SELECT value FROM json_each(?)) AND (SELECT count(*) FROM alerts"
        " WHERE outcome IS NULL AND seq IN (SELECT value FROM json_each(?))) = ?"
    )
    return db.execute(query, (*values, seqs, seqs, len(decisions))).rowcount == len(decisions)


def _record(db: sqlite3.Connection, decisions: Sequence[NewDecision]) -> list[JsonMap]:
    undecided = _undecided(db, [one.seq for one in decisions])
    fresh = [one for one in decisions if one.seq in undecided]
    for one in fresh:
        if one.execution is not None:
            add_execution(db, one.execution)
    for part in _parts(fresh):
        _update(db, part)
    return [one.body if one.seq in undecided else _decided(db, one.seq) for one in decisions]


def _undecided(db: sqlite3.Connection, seqs: list[int]) -> set[int]:
    query = "SELECT group_concat(seq) FROM alerts WHERE outcome IS NULL AND seq IN (SELECT value FROM json_each(?))"
    found = db.execute(query, (json.dumps(seqs),)).fetchone()[0]
    return set(map(int, found.split(","))) if found else set()


def _update(db: sqlite3.Connection, decisions: Sequence[NewDecision]) -> None:
    values = ",".join(("(?,?,?,?,?,?)",) * len(decisions))
    row: list[Any] = []
    for one in decisions:
        body = one.body
        row += (one.seq, body["outcome"], body["reason"], body["runbook"], body["execution_id"], one.at)
    db.execute(
        "UPDATE alerts SET outcome=d.column2, reason=d.column3, runbook=d.column4, execution_id=d.column5,"  # noqa: S608
        f" decided_at=d.column6 FROM (VALUES {values}) AS d WHERE alerts.seq=d.column1",
        row,
    )


def _decided(db: sqlite3.Connection, seq: int) -> JsonMap:
    """Nothing when there is no such alert: it went with a journal that was lost."""
    row = db.execute("SELECT * FROM alerts WHERE seq=?", (seq,)).fetchone()
    return {} if row is None else decision_of(row) or {}


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """In parts of the sizes there are statements for."""
    at = 0
    for size in _SIZES:
        while len(items) - at >= size:
            yield items[at : at + size]
            at += size
