"""What becomes of alerts and executions, each written with its event: both or neither. Runs on the writer thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from actors.journal import events, rows
from actors.journal.rows import Execution, OpenAlert
from runbooks.model import Status


def decide_alert(
    db: sqlite3.Connection,
    path: str,
    alert: OpenAlert,
    decision: Mapping[str, Any],
    execution: Execution | None,
    at: float,
) -> Mapping[str, Any]:
    """``rows.record_decision``, and ``alert_decided`` when it is this one that stands."""
    stands = rows.record_decision(db, alert.seq, decision, execution, at)
    if stands is decision:
        facts = {key: alert.facts.get(key) for key in ("type", "service", "severity", "source")}
        evidence = {"alert": alert.msg_id} | {key: value for key, value in {**facts, **decision}.items() if value}
        about = " of ".join(str(one) for one in (facts["type"], facts["service"]) if one)
        events.add(db, at, path, "alert_decided", f"{about}: {decision['outcome']}", evidence)
    return stands


def begin_execution(db: sqlite3.Connection, path: str, execution: Execution, at: float) -> None:
    if rows.begin_execution(db, execution.id, at):
        events.add(db, at, path, "execution_started", f"{execution.runbook} started", _which(execution))


def finish_execution(
    db: sqlite3.Connection, path: str, execution: Execution, status: Status, detail: str, at: float
) -> None:
    if rows.finish_execution(db, execution.id, status, detail, at):
        evidence = _which(execution) | {"status": status.value} | ({"detail": detail[:500]} if detail else {})
        events.add(db, at, path, "execution_ended", f"{execution.runbook} {status.value}", evidence)


def _which(execution: Execution) -> dict[str, Any]:
    return {"execution_id": execution.id, "runbook": execution.runbook, "target": execution.target}
