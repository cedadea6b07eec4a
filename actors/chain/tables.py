"""What the chain attests of the journal's other tables: runs, their steps, what was asked and who agreed.

Reads one state of the journal. What the daemon itself forgot by age is said by the chain, and missed by nobody.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from actors.chain.macs import Finding
from actors.journal import audit, rows
from runbooks.model import Status

_KINDS: Final = ("decided", "asked", "vote", "granted", "started", "step", "ended", audit.RUNS_FORGOTTEN)
_RUNS: Final = """
SELECT e.*, a.msg_id, a.body, a.sha256 AS alert_sha256 FROM executions e LEFT JOIN alerts a ON a.seq = e.alert_seq
"""
_NEEDS_WORD: Final = frozenset({Status.QUEUED.value, Status.RUNNING.value})


@dataclass(slots=True)
class _Attested:
    """What the chain says of one run. ``row``: where it was decided, at ``at``."""

    row: int
    at: float
    decided: Mapping[str, Any]
    asked: tuple[float, Mapping[str, Any]] | None = None
    votes: list[str] = field(default_factory=list)
    is_granted: bool = False
    started_at: float | None = None
    steps: list[tuple[float, str]] = field(default_factory=list)
    end: tuple[float, str, str] | None = None


def different(db: sqlite3.Connection) -> Iterator[Finding]:
    """Runs, steps, requests and votes that are not what the chain says."""
    first, began_at = db.execute("SELECT min(seq), min(at) FROM audit").fetchone()
    if began_at is None:
        return
    known, forgotten = _attested(db)
    for row in db.execute(_RUNS).fetchall():
        said = known.pop(row["id"], None)
        if said is not None:
            for what in _differences(db, row, said):
                yield Finding(said.row, f"execution {row['id']}: {what}")
        elif row["decided_at"] > began_at or (first == 1 and row["decided_mark"] is not None):  # as old as the chain
            yield Finding(
                None, f"execution {row['id']} is not in the chain: it was put in, or the chain was begun anew"
            )
    for name, said in known.items():
        if name not in forgotten:
            yield Finding(said.row, f"execution {name} is in the chain, and was removed from the journal")


def _attested(db: sqlite3.Connection) -> tuple[dict[str, _Attested], set[str]]:
    """By the run's id; and the ids of those that the daemon forgot by age."""
    known: dict[str, _Attested] = {}
    forgotten: set[str] = set()
    marks = ",".join("?" * len(_KINDS))
    for seq, at, kind, text in db.execute(
        f"SELECT seq, at, kind, body FROM audit WHERE kind IN ({marks}) ORDER BY seq",  # noqa: S608
        _KINDS,
    ):
        body: dict[str, Any] = json.loads(text)
        name = str(body.get("execution_id"))
        if kind == audit.RUNS_FORGOTTEN:
            forgotten.update(map(str, body["executions"]))
        elif kind == "decided":
            known[name] = _Attested(seq, at, body)
        elif name in known:  # else its beginning was forgotten
            _note(known[name], at, kind, body)
    return known, forgotten


def _note(run: _Attested, at: float, kind: str, body: Mapping[str, Any]) -> None:
    match kind:
        case "asked":
            run.asked = (at, body)
        case "vote":
            run.votes.append(str(body["sha256"]))
        case "granted":
            run.is_granted = True
        case "started":
            run.started_at = at
        case "step":
            run.steps.append((at, str(body["sha256"])))
        case _:
            run.end = (at, str(body["status"]), str(body["detail"]))


def _differences(db: sqlite3.Connection, row: sqlite3.Row, said: _Attested) -> Iterator[str]:
    yield from _decision_differences(row, said)
    name = row["id"]
    if (row["decided_at"], row["started_at"]) != (said.at, said.started_at):
        yield "its times are not what the chain says"
    end = None if row["ended_at"] is None else (row["ended_at"], row["status"], audit.digest(row["detail"]))
    if end != said.end:
        yield "its end is not what the chain says"
    steps = db.execute("SELECT at, record FROM steps WHERE execution_id=? ORDER BY seq", (name,))
    if [(at, audit.digest(record)) for at, record in steps] != said.steps:
        yield "its steps are not what the chain says"
    votes = db.execute("SELECT plan_hash, who, what, at, why FROM approvals WHERE execution_id=? ORDER BY seq", (name,))
    if [audit.digest(rows.dump(list(one))) for one in votes] != said.votes:
        yield "its votes are not what the chain says"
    if _request(db, name) != _said_request(said):
        yield "what was asked of people is not what the chain says"
    needs_word = said.decided.get("outcome") == Status.AWAITING_APPROVAL.value and not said.is_granted
    if needs_word and (said.started_at is not None or row["status"] in _NEEDS_WORD):
        yield "it went on although nobody approved it"


def _decision_differences(row: sqlite3.Row, said: _Attested) -> Iterator[str]:
    rest = audit.digest(rows.dump([row["fingerprint"], row["severity"], row["priority"]]))
    found = {
        "runbook": row["runbook"],
        "target": row["target"],
        "sha256": row["sha256"],
        "parameters": audit.digest(row["parameters"]),
        "rest": rest,
        "alert": row["msg_id"],
        "alert_sha256": row["alert_sha256"],
    }
    if any(said.decided.get(key, value) != value for key, value in found.items()):
        yield "it is not what was decided"
    if audit.digest(bytes(row["source"])) != row["sha256"]:
        yield "its runbook is not the one that was decided"
    if row["body"] and audit.digest(row["body"]) != row["alert_sha256"]:
        yield "the alert it answers was changed"


def _request(db: sqlite3.Connection, name: str) -> tuple[Any, ...] | None:
    row = db.execute("SELECT * FROM approval_requests WHERE execution_id=?", (name,)).fetchone()
    if row is None:
        return None
    asked_by, seen = json.loads(row["asked_by"]), audit.digest(row["readings"])
    return row["asked_at"], row["plan_hash"], row["expires_at"], asked_by, seen


def _said_request(said: _Attested) -> tuple[Any, ...] | None:
    if said.asked is None:
        return None
    at, body = said.asked
    return at, body["plan"], body["expires_at"], list(body["asked_by"]), body["readings"]
