"""Requests for approval and the votes on them. Runs on the writer thread, or on a reader's own.

Each change is one transaction that looks first whether the execution still awaits approval: of votes, expiry and edits
that come at once the first one written decides, and the others find it decided.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from actors.journal import audit, events, happened, rows
from actors.journal.rows import Execution
from runbooks.approval import Reading, Say, Verdict, Vote, refusal, verdict
from runbooks.deciding.timing import Moment
from runbooks.model import Approval, Call, CallType, Status


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: agreement to this plan until ``expires_at`` (Unix seconds). ``asked_by``: authenticated names."""

    execution_id: str
    plan_hash: str
    asked_by: tuple[str, ...]
    asked_at: float
    expires_at: float
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """An execution that awaits approval, with its alert; ``request`` is None until its plan is worked out."""

    execution: Execution
    facts: Mapping[str, Any]
    client: str
    request: Request | None
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class Ballot:
    """A vote on its way. ``void``: why the plan is not what was asked about any more."""

    execution_id: str
    plan_hash: str
    vote: Vote
    why: str
    void: str | None = None


class Came(NamedTuple):
    """What came of it: a verdict now, or why the vote was not taken (``refused``). ``is_end``: by this very call."""

    verdict: Verdict
    refused: str | None = None
    votes: int = 0
    is_end: bool = False
    detail: str = ""


def awaiting(db: sqlite3.Connection) -> list[Case]:
    """All that await approval, oldest first."""
    found = db.execute(f"{_CASES} WHERE e.status=? ORDER BY e.rowid", (Status.AWAITING_APPROVAL.value,))
    return [_case(db, row) for row in found.fetchall()]


def case(db: sqlite3.Connection, execution_id: str) -> Case | None:
    row = db.execute(f"{_CASES} WHERE e.id=?", (execution_id,)).fetchone()
    return None if row is None else _case(db, row)


_CASES = "SELECT e.*, a.body AS alert_body, a.client AS client FROM executions e JOIN alerts a ON a.seq = e.alert_seq"


def _case(db: sqlite3.Connection, row: sqlite3.Row) -> Case:
    return Case(
        rows.execution_of(row),
        json.loads(row["alert_body"] or "{}"),
        row["client"],
        request_of(db, row["id"]),
        tuple(votes_of(db, row["id"])),
    )


def request_of(db: sqlite3.Connection, execution_id: str) -> Request | None:
    row = db.execute("SELECT * FROM approval_requests WHERE execution_id=?", (execution_id,)).fetchone()
    if row is None:
        return None
    return Request(
        row["execution_id"],
        row["plan_hash"],
        tuple(json.loads(row["asked_by"])),
        row["asked_at"],
        row["expires_at"],
        tuple(
            Reading(Call(CallType(kind), given), said, seen) for kind, given, said, seen in json.loads(row["readings"])
        ),
    )


def votes_of(db: sqlite3.Connection, execution_id: str) -> list[Vote]:
    found = db.execute("SELECT who, what FROM approvals WHERE execution_id=? ORDER BY seq", (execution_id,))
    return [Vote(row["who"], Say(row["what"])) for row in found]


# -- changes ----------------------------------------------------------------------------------------------------------


def ask(db: sqlite3.Connection, path: str, execution: Execution, request: Request) -> bool:
    """Whether it is asked now, for the first time, and still awaited."""
    if not _is_awaited(db, execution.id) or request_of(db, execution.id) is not None:
        return False
    readings = [[one.call.type.value, dict(one.call.arguments), one.answer, one.seen] for one in request.readings]
    db.execute(
        "INSERT INTO approval_requests(execution_id, plan_hash, asked_by, asked_at, expires_at, readings)"
        " VALUES (?,?,?,?,?,?)",
        (
            execution.id,
            request.plan_hash,
            json.dumps(request.asked_by),
            request.asked_at,
            request.expires_at,
            rows.dump(readings),
        ),
    )
    facts = {"execution_id": execution.id, "plan": request.plan_hash, "expires_at": request.expires_at}
    text = f"{execution.runbook} on {execution.target} awaits approval"
    events.add(db, request.asked_at, path, "approval_wanted", text, facts)
    seen = audit.digest(rows.dump(readings))
    audit.note(db, request.asked_at, "asked", facts | {"asked_by": request.asked_by, "readings": seen})
    return True


def vote(
    db: sqlite3.Connection,
    path: str,
    rules: Approval,
    ballot: Ballot,
    moment: Callable[[], Moment],
    is_late: Callable[[], bool],
) -> Came:
    """Take one vote, and what follows from it.

    Args:
        moment: that of the transaction itself.
        is_late: whether the time is over by a clock nobody can set.
    """
    found = case(db, ballot.execution_id)
    if found is None or found.execution.status is not Status.AWAITING_APPROVAL:
        return Came(Verdict.WAITING, refused=not_awaited(ballot.execution_id, found))
    request, now = found.request, moment()
    if request is None:
        return Came(Verdict.WAITING, refused=f"{ballot.execution_id}: its plan is being worked out; ask again")
    if now.wall_s >= request.expires_at or is_late():
        return Came(Verdict.EXPIRED, refused=f"{ballot.execution_id}: nobody approved it in time")
    if ballot.plan_hash != request.plan_hash:
        return Came(Verdict.WAITING, refused=_other_plan(request, ballot))
    refused = refusal(rules, request.asked_by, found.votes, ballot.vote)
    if refused is not None:
        return Came(Verdict.WAITING, refused=refused, votes=len(found.votes))
    _write_vote(db, path, found.execution, ballot, now.wall_s)
    if ballot.void is not None:
        detail = f"void: {ballot.void}"
        happened.finish_execution(db, path, found.execution, Status.REJECTED, detail, now.wall_s, now.mark)
        return Came(Verdict.REJECTED, is_end=True, detail=detail)
    votes = (*found.votes, ballot.vote)
    came = verdict(rules, votes, now.wall_s, request.expires_at)
    return _follow(db, path, found.execution, votes, came, ballot.why, now)


def _follow(
    db: sqlite3.Connection,
    path: str,
    execution: Execution,
    votes: Sequence[Vote],
    came: Verdict,
    why: str,
    now: Moment,
) -> Came:
    if came is Verdict.REJECTED:
        detail = f"rejected by {votes[-1].who}" + (f": {why}" if why else "")
        happened.finish_execution(db, path, execution, Status.REJECTED, detail, now.wall_s, now.mark)
        return Came(came, votes=len(votes), is_end=True, detail=detail)
    if came is Verdict.GRANTED:
        db.execute(
            "UPDATE executions SET status=? WHERE id=? AND status=?",
            (Status.QUEUED.value, execution.id, Status.AWAITING_APPROVAL.value),
        )
        people = ", ".join(one.who for one in votes)
        text = f"{execution.runbook} on {execution.target} approved by {people}"
        events.add(db, now.wall_s, path, "approval_granted", text, {"execution_id": execution.id})
        audit.note(db, now.wall_s, "granted", {"execution_id": execution.id, "by": [one.who for one in votes]})
        return Came(came, votes=len(votes), is_end=True)
    return Came(came, votes=len(votes))


def _write_vote(db: sqlite3.Connection, path: str, execution: Execution, ballot: Ballot, now: float) -> None:
    who, says = ballot.vote.who, ballot.vote.says.value
    row = [ballot.plan_hash, who, says, now, ballot.why]
    db.execute(
        "INSERT INTO approvals(execution_id, plan_hash, who, what, at, why) VALUES (?,?,?,?,?,?)", (execution.id, *row)
    )
    why = f": {ballot.why}" if ballot.why else ""
    evidence = {"execution_id": execution.id, "who": who, "plan": ballot.plan_hash}
    events.add(db, now, path, f"approval_{says}", f"{says} of {execution.runbook} by {who}{why}", evidence)
    audit.note(db, now, "vote", evidence | {"says": says, "why": ballot.why, "sha256": audit.digest(rows.dump(row))})


def expire(
    db: sqlite3.Connection, path: str, execution: Execution, now: Moment, instead: Execution | None = None
) -> Came:
    """Its time is over: it never runs. ``instead`` is queued in the same transaction."""
    if not _is_awaited(db, execution.id):
        return Came(Verdict.WAITING, refused=f"{execution.id} awaits no approval any more")
    detail = "nobody approved it in time"
    if instead is not None:
        detail += f"; {instead.runbook} is begun instead ({instead.id})"
        rows.add_execution(db, instead)
        happened.decided(db, now.wall_s, instead, "safe_action", instead_of=execution.id)
    happened.finish_execution(db, path, execution, Status.EXPIRED, detail, now.wall_s, now.mark)
    return Came(Verdict.EXPIRED, is_end=True, detail=detail)


def _is_awaited(db: sqlite3.Connection, execution_id: str) -> bool:
    query = "SELECT 1 FROM executions WHERE id=? AND status=? AND ended_at IS NULL"
    return db.execute(query, (execution_id, Status.AWAITING_APPROVAL.value)).fetchone() is not None


def not_awaited(execution_id: str, found: Case | None) -> str:
    if found is None:
        return f"no execution is called {execution_id!r}; see 'selfheal approvals'"
    return f"{execution_id} awaits no approval: it is {found.execution.status.value}"


def _other_plan(request: Request, ballot: Ballot) -> str:
    return (
        f"{ballot.execution_id}: the plan is another one ({request.plan_hash[:12]}, not {ballot.plan_hash[:12]}):"
        " look at 'selfheal approvals' again"
    )
