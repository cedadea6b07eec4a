"""What the chain attests of the journal's other tables: runs, their steps, what was asked and who agreed; latches and
silences.

Reads one state of the journal. What the daemon itself forgot by age is said by the chain, and missed by nobody.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from actors.chain.macs import Finding
from actors.journal import attested, audit, rows
from actors.journal.attested import Held
from runbooks.model import Status

_KINDS: Final = ("asked", "vote", "granted", "started", "step", "escalated", audit.RUNS_FORGOTTEN, *attested.KINDS)
_ACTS: Final = frozenset({"started", "step", "ended"})
_RUNS: Final = """
SELECT e.*, a.msg_id, a.body, a.sha256 AS alert_sha256, a.outcome AS answer, a.execution_id AS answer_id,
  a.runbook AS answer_runbook
FROM executions e LEFT JOIN alerts a ON a.seq = e.alert_seq
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
    marks: dict[str, str | None] = field(default_factory=dict)
    """By "decided", "started", "ended"; rows of before they were sealed say none."""
    rungs: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Said:
    """All of it. ``forgotten``: runs that the daemon removed by age; ``told_by``: the row that took over what was there
    before the chain told of all (None: it does not yet), ``old``: how many ended runs that were, where it is said.
    ``strangers``: rows about runs whose decision is not told, by the runs. ``carried``: those whose decision was
    forgotten; ``forgotten_at``: the time of the newest forgotten row, where it is said.
    """

    held: Held
    carried: frozenset[str]
    forgotten_at: float | None
    known: dict[str, _Attested] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    strangers: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    told_by: int | None = None
    old: int | None = None


def different(db: sqlite3.Connection) -> Iterator[Finding]:
    """Runs, steps, requests, votes, latches and silences that are not what the chain says."""
    begin = db.execute("SELECT seq, at FROM audit ORDER BY seq LIMIT 1").fetchone()
    if begin is None:
        return
    said = _attested(db)
    yield from _runs(db, said, begin["seq"], begin["at"])
    if said.held.is_known:
        yield from _latches(db, said.held)
        yield from _silences(db, said.held, said.forgotten_at)


def _runs(db: sqlite3.Connection, said: _Said, first: int, began_at: float) -> Iterator[Finding]:
    missing, old = dict(said.known), 0
    for row in db.execute(_RUNS).fetchall():
        name = row["id"]
        run = missing.pop(name, None)
        if run is not None:
            is_of_now = said.told_by is not None and run.row > said.told_by
            for what in _differences(db, row, run, said.held, is_of_now=is_of_now):
                yield Finding(run.row, f"execution {name}: {what}")
        elif name in said.carried:
            continue
        elif _may_be_older(row, said.strangers.get(name, []), said.told_by, first, began_at):
            old += 1
        else:
            yield Finding(None, f"execution {name} is not in the chain: it was put in, or the chain was begun anew")
    for name, run in missing.items():
        if name not in said.forgotten:
            yield Finding(run.row, f"execution {name} is in the chain, and was removed from the journal")
    were = None if said.old is None or first != 1 else said.old - len(said.forgotten - said.known.keys())
    if were is not None and old > were:
        yield Finding(said.told_by, f"runs older than the chain: {old}, and it began with {were}: some were put in")


def _may_be_older(
    row: sqlite3.Row, rows_of_it: list[tuple[int, str]], told_by: int | None, first: int, began_at: float
) -> bool:
    """Whether a run that nothing says was decided may be of the time before the chain, or before what is left of it: it
    has ended, and the chain tells nothing of what it did, since it tells of all.
    """
    if row["ended_at"] is None or row["decided_at"] > began_at or (first == 1 and row["decided_mark"] is not None):
        return False
    if any(told_by is not None and seq > told_by for seq, _ in rows_of_it):
        return False
    return bool(row["ended_at"] <= began_at) or any(kind == "ended" for _, kind in rows_of_it)


def _latches(db: sqlite3.Connection, held: Held) -> Iterator[Finding]:
    now = attested.latches(db)
    for target in sorted(held.latches.keys() | now.keys()):
        if target not in now:
            yield Finding(None, f"the latch of {target} was removed, and nobody released it")
        elif target not in held.latches:
            yield Finding(None, f"the latch of {target} was put in: nothing in the chain latched it")
        elif now[target] != held.latches[target]:
            yield Finding(None, f"the latch of {target} was changed")


def _silences(db: sqlite3.Connection, held: Held, forgotten_at: float | None) -> Iterator[Finding]:
    now = attested.silences(db)
    for name in sorted(held.silences.keys() | now.keys()):
        if name not in now:
            yield Finding(None, f"silence {name} was removed from the journal")
        elif name not in held.silences:
            if forgotten_at is None or not _was_over(db, name, forgotten_at):
                yield Finding(None, f"silence {name} was put in: nobody is on record for it")
        elif now[name] != held.silences[name]:
            yield Finding(None, f"silence {name} was changed")


def _was_over(db: sqlite3.Connection, name: str, by: float) -> bool:
    row = db.execute("SELECT coalesce(ended_at, at + for_s) FROM silences WHERE id=?", (name,)).fetchone()
    return bool(row[0] <= by)


def _attested(db: sqlite3.Connection) -> _Said:
    held, forgotten_at = attested.state_before(db)
    said = _Said(held, frozenset(held.open_runs), forgotten_at)
    marks = ",".join("?" * len(_KINDS))
    for seq, at, kind, text in db.execute(
        f"SELECT seq, at, kind, body FROM audit WHERE kind IN ({marks}) ORDER BY seq",  # noqa: S608
        _KINDS,
    ):
        body: dict[str, Any] = json.loads(text)
        name = str(body.get("execution_id"))
        if kind in attested.KINDS:
            held.take(kind, body)
        if kind == audit.RUNS_FORGOTTEN:
            said.forgotten.update(map(str, body["executions"]))
        elif kind == audit.ADOPTED:
            said.told_by, said.old = seq, body.get("ended")
        elif kind == "decided":
            said.known[name] = _Attested(seq, at, body)
            said.known[name].marks |= {kind: body["mark"]} if "mark" in body else {}
        elif name in said.known:
            _note(said.known[name], at, kind, body)
        elif kind in _ACTS:  # else its beginning was forgotten
            said.strangers.setdefault(name, []).append((seq, kind))
    if said.told_by is None and held.is_known:
        said.told_by = 0  # by a row that was forgotten
    return said


def _note(run: _Attested, at: float, kind: str, body: Mapping[str, Any]) -> None:
    if "mark" in body:
        run.marks[kind] = body["mark"]
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
        case "escalated":
            run.rungs[int(body["rung"])] = str(body["sha256"])
        case "ended":
            run.end = (at, str(body["status"]), str(body["detail"]))


def _differences(
    db: sqlite3.Connection, row: sqlite3.Row, said: _Attested, held: Held, *, is_of_now: bool
) -> Iterator[str]:
    """``is_of_now``: it was decided since the chain tells of all."""
    yield from _decision_differences(row, said)
    if not row["body"] and held.is_known and row["alert_seq"] > held.bodies_to:
        yield "the alert it answers was changed"
    if any(row[f"{kind}_mark"] != mark for kind, mark in said.marks.items()):
        yield "its marks are not what the chain says"
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
    ladder = db.execute("SELECT * FROM escalations WHERE root=?", (name,))
    rungs = {rung["rung"]: attested.rung_digest(rung) for rung in ladder}
    if not said.rungs.items() <= rungs.items() or (is_of_now and rungs != said.rungs):
        yield "its ladder is not what the chain says"
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
        "answer": attested.answer_digest(row["answer"], row["answer_id"], row["answer_runbook"]),
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
