"""What was decided, written as one: the decision, its execution, what waited for it. Runs on the writer thread.

Whoever decided knew the past from memory. What must never be wrong is asked of the records once more, in the very
transaction: one run on a target, none on a latched one, and no more at once than are allowed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from actors.journal import happened, holds
from actors.journal.alert_batches import NewDecision
from actors.journal.rows import OpenAlert
from runbooks.deciding.timing import Moment
from runbooks.deciding.words import Pending
from runbooks.model import Status

NOT_YET: Final = "another run is at work on {target}, it is latched, or there is no room"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision. ``pending``: what waits now; ``settled``: what waited and is answered with it."""

    alert: OpenAlert
    decision: NewDecision
    pending: Pending | None = None
    settled: Pending | None = None
    rung: holds.StoredRung | None = None

    @property
    def is_plain(self) -> bool:
        """Nothing but the decision itself is written."""
        return self.decision.execution is None and self.pending is None and self.settled is None and self.rung is None


def write(
    db: sqlite3.Connection, path: str, verdicts: Sequence[Verdict], most: int, now: Moment
) -> list[Mapping[str, Any]]:
    """Returns what stands for each: a run that may not begin by the records is queued."""
    decisions = [one.decision for one in verdicts]
    if any(one.execution is not None for one in decisions):
        decisions = _fitting(db, decisions, most)
    for one, decision in zip(verdicts, decisions, strict=True):
        if one.settled is not None:
            holds.settle(db, one.settled.key, one.settled.alert_seq, one.alert.seq, decision.body)
    stands = happened.decide_alerts(db, path, [one.alert for one in verdicts], decisions)
    for one, body in zip(verdicts, stands, strict=True):
        if one.pending is not None:
            holds.keep_pending(db, one.pending, now)
        if one.rung is not None:
            holds.add_rung(db, replace(one.rung, execution_id=body.get("execution_id")), path, now)
    return stands


def _fitting(db: sqlite3.Connection, decisions: Sequence[NewDecision], most: int) -> list[NewDecision]:
    taken: set[str] = set()
    fitting: list[NewDecision] = []
    for one in decisions:
        execution = one.execution
        if execution is None or execution.status is not Status.RUNNING:
            fitting.append(one)
        elif execution.target not in taken and holds.may_begin(db, execution.target, most - len(taken)):
            taken.add(execution.target)
            fitting.append(one)
        else:
            reason = NOT_YET.format(target=execution.target)
            body = {**one.body, "outcome": "queued", "reason": reason}
            fitting.append(replace_decision(one, body))
    return fitting


def replace_decision(one: NewDecision, body: Mapping[str, Any]) -> NewDecision:
    execution = one.execution
    return one._replace(body=body, execution=None if execution is None else replace(execution, status=Status.QUEUED))
