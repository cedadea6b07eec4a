"""What becomes of alerts and executions, each written with its event: both or neither. Runs on the writer thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from actors.journal import attested, audit, events, rows
from actors.journal.alert_batches import NewAlert, NewDecision, Stored, record_decisions, store_alerts
from actors.journal.rows import AlertConflict, Execution, OpenAlert
from runbooks.model import Status

FEW: Final = 8
"""Decisions written at once that are each told by itself; of more, those that start nothing are summed up."""
WHO: Final = ("by", "proven", "why")
"""Of a command: who gave it by his own word, who that was as far as it is proven, and why."""
AT_ONCE: Final = 500
"""Alerts one sum names: it must fit into a message."""


def take_alerts(
    db: sqlite3.Connection, path: str, alerts: Sequence[NewAlert], facts: Sequence[rows.JsonMap]
) -> list[Stored]:
    """``store_alerts``; those that came with their decision are told as ``decide_alerts`` tells them.

    Args:
        facts: of each alert.
    """
    stored = store_alerts(db, alerts)
    fresh = [
        number
        for number, (came, alert) in enumerate(zip(stored, alerts, strict=True))
        if alert.decision is not None and not isinstance(came, AlertConflict) and came.is_new
    ]
    if len(fresh) > FEW:
        by_outcome: dict[str, list[str]] = {}
        for number in fresh:
            alert = alerts[number]
            by_outcome.setdefault(str((alert.decision or {})["outcome"]), []).append(alert.msg_id)
        _sum_up(db, path, alerts[fresh[0]].at, by_outcome)
        return stored
    for number in fresh:
        alert = alerts[number]
        told = NewDecision(0, alert.decision or {}, None, alert.at)
        _tell(db, path, OpenAlert(0, alert.msg_id, facts[number]), told)
    return stored


def decide_alerts(
    db: sqlite3.Connection, path: str, alerts: Sequence[OpenAlert], decisions: Sequence[NewDecision]
) -> list[Mapping[str, Any]]:
    """``record_decisions``; and what now stands is told: ``alert_decided``, or in a storm ``alerts_decided``."""
    stands = record_decisions(db, decisions)
    ours = {id(one.body) for one in decisions}
    fresh = [pair for pair, body in zip(zip(alerts, decisions, strict=True), stands, strict=True) if id(body) in ours]
    if len(fresh) > FEW:
        by_outcome: dict[str, list[str]] = {}
        for alert, one in fresh:
            if one.execution is None:
                by_outcome.setdefault(str(one.body["outcome"]), []).append(alert.msg_id)
        _sum_up(db, path, fresh[0][1].at, by_outcome)
        fresh = [(alert, one) for alert, one in fresh if one.execution is not None]
    for alert, one in fresh:
        _tell(db, path, alert, one)
        if one.execution is not None:
            body = one.body
            answer = attested.answer_digest(body["outcome"], body["execution_id"], body["runbook"])
            decided(db, one.at, one.execution, str(body["outcome"]), answer=answer)
    return stands


def _tell(db: sqlite3.Connection, path: str, alert: OpenAlert, decided: NewDecision) -> None:
    facts = {key: alert.facts.get(key) for key in ("type", "service", "severity", "source")}
    evidence = {"alert": alert.msg_id} | {key: value for key, value in {**facts, **decided.body}.items() if value}
    about = " of ".join(str(one) for one in (facts["type"], facts["service"]) if one)
    events.add(db, decided.at, path, "alert_decided", f"{about}: {decided.body['outcome']}", evidence)


def _sum_up(db: sqlite3.Connection, path: str, at: float, by_outcome: Mapping[str, Sequence[str]]) -> None:
    """``by_outcome``: the message ids."""
    for outcome, ids in by_outcome.items():
        for first in range(0, len(ids), AT_ONCE):
            part = ids[first : first + AT_ONCE]
            evidence = {"outcome": outcome, "count": len(part), "alerts": part}
            events.add(db, at, path, "alerts_decided", f"{len(part)} alerts: {outcome}", evidence)


def tell(db: sqlite3.Connection, at: float, path: str, event: str, text: str, evidence: Mapping[str, Any]) -> None:
    """An event; one that somebody asked for (``by`` in the evidence) is in the audit chain too."""
    events.add(db, at, path, event, text, evidence)
    if evidence.get("by"):
        said = {key: evidence[key] for key in WHO if evidence.get(key)}
        audit.note(db, at, "command", {"path": path, "event": event, "text": text, **said})


def conflicted(db: sqlite3.Connection, at: float, path: str, client: str, count: int, ids: Sequence[str]) -> None:
    """A client sent other bodies under ids that are known: a fault of its own, or somebody who speaks with its key.

    Args:
        ids: of the alerts, as far as they are told; ``count`` is how many there were.
    """
    evidence = {"client": client, "count": count, "alerts": list(ids)[:AT_ONCE]}
    events.add(db, at, path, "alert_conflict", f"{client}: {count} with another body under a known id", evidence)
    audit.note(db, at, "conflict", evidence)


def finish_execution(
    db: sqlite3.Connection,
    path: str,
    execution: Execution,
    status: Status,
    detail: str,
    at: float,
    mark: str | None = None,
) -> bool:
    """The end of one that nobody carries out: queued, or waiting for a person. Whether it ends now."""
    is_ended = rows.finish_execution(db, execution.id, status, detail, at, mark)
    if is_ended:
        tell_end(db, path, execution, status, detail, at, mark)
    return is_ended


def tell_start(db: sqlite3.Connection, path: str, execution: Execution, at: float, mark: str | None) -> None:
    events.add(db, at, path, "execution_started", f"{execution.runbook} started", _which(execution))
    audit.note(db, at, "started", _which(execution) | {"sha256": execution.sha256, "mark": mark})


def tell_end(
    db: sqlite3.Connection,
    path: str,
    execution: Execution,
    status: Status,
    detail: str,
    at: float,
    mark: str | None,
) -> None:
    evidence = _which(execution) | {"status": status.value} | ({"detail": detail[:500]} if detail else {})
    events.add(db, at, path, "execution_ended", f"{execution.runbook} {status.value}", evidence)
    said = {"status": status.value, "detail": audit.digest(detail), "mark": mark}
    audit.note(db, at, "ended", _which(execution) | said)


def decided(db: sqlite3.Connection, at: float, execution: Execution, outcome: str, **more: str) -> None:
    """What starts, because of what, from which bytes and with which values, into the chain."""
    alert = db.execute("SELECT msg_id, sha256 FROM alerts WHERE seq=?", (execution.alert_seq,)).fetchone()
    about = {} if alert is None else {"alert": alert[0], "alert_sha256": alert[1]}
    parameters = audit.digest(rows.dump(dict(execution.parameters)))
    facts = {"outcome": outcome, "sha256": execution.sha256, "parameters": parameters, "rest": rest_of(execution)}
    audit.note(db, at, "decided", _which(execution) | about | facts | {"mark": execution.decided_mark} | more)


def rest_of(execution: Execution) -> str:
    """A digest of what else is written of an execution once, when it is decided."""
    return audit.digest(rows.dump([execution.fingerprint, execution.severity, execution.priority]))


def _which(execution: Execution) -> dict[str, Any]:
    return {"execution_id": execution.id, "runbook": execution.runbook, "target": execution.target}
