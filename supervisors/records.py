"""The journal in the shapes of ``--json``: alerts, executions, transitions. Reads on the caller's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actors.journal import rows
from actors.journal.journal import Journal
from runbooks.deciding.queue import Waiting
from runbooks.model import Status
from runbooks.step_views import StepView, step_views
from supervisors.manager import Record, Transition
from supervisors.tree_json import rfc3339


@dataclass(frozen=True, slots=True)
class JournalRecords:
    """Fulfils ``local_manager.Records``. Methods raise JournalTrouble when the journal cannot be read."""

    journal: Journal
    waiting: Callable[[str], Waiting | None] = lambda _execution_id: None
    """The place of a queued run, and why it has not begun."""

    def alerts(self, limit: int) -> Sequence[Record]:
        return [_alert(row) for row in self.journal.read(lambda db: rows.alerts(db, limit))]

    def alert(self, alert_id: str) -> Record | None:
        """By its message id; the newest, should several senders have used it."""
        row = self.journal.read(lambda db: rows.alert(db, alert_id))
        return None if row is None else _alert(row)

    def executions(self, limit: int) -> Sequence[Record]:
        return [self._shown(row) for row in self.journal.read(lambda db: rows.executions(db, limit))]

    def execution(self, execution_id: str) -> Record | None:
        row = self.journal.read(lambda db: rows.execution(db, execution_id))
        return None if row is None else self._shown(row)

    def _shown(self, row: Mapping[str, Any]) -> Record:
        shown, waiting = _execution(row), self.waiting(row["id"])
        if waiting is not None and shown["status"] == Status.QUEUED.value:
            shown["queue"] = {"position": waiting.place, "why": waiting.why}
        return shown

    def transitions(self, path: str, limit: int) -> Sequence[Transition]:
        return [_transition(row) for row in self.journal.read(lambda db: rows.events(db, path, limit))]


def _alert(row: Mapping[str, Any]) -> dict[str, Any]:
    body = row["body"]
    shown = {
        "id": row["msg_id"],
        "type": body.get("type"),
        "service": body.get("service"),
        "severity": body.get("severity"),
        "message": body.get("message", ""),
        "source": body.get("source"),
        "received_at": rfc3339(row["received_at"]),
        "outcome": row["outcome"] or "undecided",
    }
    optional = {"execution_id": row["execution_id"], "runbook": row["runbook"], "reason": row["reason"]}
    if row["resolved_at"] is not None:
        optional["resolved_at"] = rfc3339(row["resolved_at"])
    return shown | {key: value for key, value in optional.items() if value}


def _execution(row: Mapping[str, Any]) -> dict[str, Any]:
    status = Status(row["status"])
    steps = step_views(row["records"], status, row["ended_at"])
    shown: dict[str, Any] = {
        "id": row["id"],
        "runbook": row["runbook"],
        "alert_id": row["alert_id"],
        "target": row["target"],
        "status": status.value,
        "decided_at": rfc3339(row["decided_at"]),
        "started_at": rfc3339(row["started_at"]) if row["started_at"] is not None else None,
        "steps": [_step(step) for step in steps],
    }
    if row["ended_at"] is not None:
        shown["ended_at"] = rfc3339(row["ended_at"])
    if row["detail"]:
        shown["detail"] = row["detail"]
    return shown


def _step(step: StepView) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": step.id,
        "status": step.status,
        "attempts": step.attempts,
        "started_at": rfc3339(step.started_at),
    }
    if step.ended_at is not None:
        shown["ended_at"] = rfc3339(step.ended_at)
    if step.error:
        shown["error"] = step.error
    return shown


def _transition(row: Mapping[str, Any]) -> Transition:
    made = Transition(at=rfc3339(row["at"]), path=row["path"], event=row["event"], text=row["text"])
    if row["evidence"]:
        made["evidence"] = row["evidence"]
    return made
