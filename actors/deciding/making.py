"""One decision from the alert to the disk: made, remembered, and taken back when it could not be written."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from actors.deciding.desk import Desk
from actors.deciding.words import ESCALATED_FROM, ESCALATED_TO, INSIDE, RUNG, runbook_wanted
from actors.journal.alert_batches import NewDecision
from actors.journal.holds import StoredRung
from actors.journal.rows import Execution, OpenAlert
from actors.journal.verdicts import Verdict
from runbooks.deciding.ladder import Rung
from runbooks.deciding.timing import Moment
from runbooks.deciding.words import Decision, Outcome, PastRun, Pending, Waits
from runbooks.matching import NOTHING_PASSED, decide
from runbooks.model import Status

_STATUS: Final = {
    Outcome.RUN: Status.RUNNING,
    Outcome.QUEUED: Status.QUEUED,
    Outcome.AWAITING_APPROVAL: Status.AWAITING_APPROVAL,
}


class Made(NamedTuple):
    """A decision on its way to the disk. ``before``: what waited under which keys until then."""

    verdict: Verdict
    before: tuple[tuple[str, Pending | None], ...] = ()

    @property
    def execution(self) -> Execution | None:
        return self.verdict.decision.execution


def make(
    desk: Desk, alert: OpenAlert, now: Moment, passed: frozenset[Waits] = NOTHING_PASSED, settles: str = ""
) -> Made:
    """Decide, and know it from here on.

    Args:
        settles: the key of what waited and is answered now.
    """
    history = desk.history
    climbs = alert.client == INSIDE and RUNG in alert.facts.get("labels", ())  # other senders' labels climb nothing
    rung, wanted = _rung(alert) if climbs else None, runbook_wanted(alert.client, alert.facts)
    only = None if wanted is None else desk.runbook(wanted)
    if rung is not None and wanted is not None and wanted != _next_of(desk, rung):  # no label names a runbook
        decision = Decision(Outcome.NO_MATCH, f"the ladder of {rung.root} does not lead to {wanted}")
    elif wanted is not None and only is None:  # never another one instead
        decision = Decision(Outcome.NO_MATCH, f"there is no runbook {wanted} any more")
    else:
        decision = decide(alert.facts, desk.library, history, now.up_s, seq=alert.seq, passed=passed, only=only)
    execution = _execution(desk, alert, decision, now) if decision.starts_execution else None
    key, pending = decision.settles or settles, decision.pending
    keys = [one for one in (key, pending.key if pending is not None else "") if one]
    before = tuple((one, history.pending.get(one)) for one in keys)
    settled = history.pending.pop(key, None) if key else None
    if pending is not None:
        history.pending[pending.key] = pending
    new = NewDecision(alert.seq, body_of(decision, execution), execution, now.wall_s)
    return Made(Verdict(alert, new, pending, settled, rung), before)


def take_back(desk: Desk, made: Made) -> None:
    """As if it had not been decided."""
    if made.execution is not None:
        desk.drop(made.execution.id)
    for key, pending in reversed(made.before):
        if pending is None:
            desk.history.pending.pop(key, None)
        else:
            desk.history.pending[key] = pending


def standing(desk: Desk, made: Made, stands: Mapping[str, Any]) -> Execution | None:
    """The execution as it is on disk; None when there is none, or an earlier incarnation's stands."""
    execution, rung = made.execution, made.verdict.rung
    if rung is not None:
        desk.climbed(Rung(rung.root, rung.rung, desk.now(), stands.get("execution_id")))
        if stands.get("outcome") == Outcome.NO_MATCH.value and ESCALATED_TO in made.verdict.alert.facts["labels"]:
            desk.parts.alert(lost_rung_alert(rung, made.verdict.alert.facts, str(stands.get("reason"))))
    if execution is None:
        return None
    if stands.get("execution_id") != execution.id:
        desk.drop(execution.id)
        return None
    if execution.status is Status.RUNNING and stands.get("outcome") == Outcome.QUEUED.value:
        execution = replace(execution, status=Status.QUEUED)
        desk.executions[execution.id] = execution
        run = desk.history.get(execution.id)
        if run is not None:
            desk.history.put(replace(run, status=Status.QUEUED, started_at=None))
    return execution


def _execution(desk: Desk, alert: OpenAlert, decision: Decision, now: Moment) -> Execution:
    runbook = decision.runbook
    if runbook is None:
        raise ValueError(f"a decision to run without a runbook: {decision.reason}")
    status = _STATUS[decision.outcome]
    execution = Execution(
        f"x-{uuid.uuid4().hex[:16]}",
        alert.seq,
        runbook.id,
        runbook.source,
        runbook.sha256,
        decision.target,
        decision.parameters,
        decision.fingerprint,
        decision.severity,
        runbook.priority,
        status,
        now.wall_s,
        decided_mark=now.mark,
    )
    desk.executions[execution.id] = execution
    desk.history.put(
        PastRun(
            execution.id,
            runbook.id,
            decision.target,
            decision.fingerprint,
            status,
            now.up_s,
            None,
            execution.severity,
            now.up_s if status is Status.RUNNING else None,
            runbook.priority,
            alert.facts,
        )
    )
    return execution


def _rung(alert: OpenAlert) -> StoredRung:
    labels = alert.facts["labels"]
    return StoredRung(str(labels[ESCALATED_FROM]), int(labels[RUNG]), 0.0, None, str(alert.facts.get("message", "")))


def _next_of(desk: Desk, rung: StoredRung) -> str | None:
    """The runbook that the root's own runbook, as it is now, names for this rung."""
    root = desk.history.get(rung.root)
    runbook = None if root is None else desk.runbook(root.runbook_id)
    if runbook is None or not 0 <= rung.rung < len(runbook.escalate):
        return None
    return runbook.escalate[rung.rung].runbook


def lost_rung_alert(rung: StoredRung, facts: Mapping[str, Any], reason: str) -> Mapping[str, Any]:
    """It was told that a runbook follows, and that is gone since: people must know. Equal for the same rung."""
    text = f"nothing is begun for what {rung.root} did not help: {reason}"
    told = {"type": "escalation", "severity": "critical", "message": text, "source": INSIDE}
    about = {"service": facts["service"]} if facts.get("service") else {}
    labels = {ESCALATED_FROM: rung.root}  # no rung: it climbs nothing
    return {**told, **about, "id": f"escalation-{rung.root}-{rung.rung}-lost", "labels": labels}


def body_of(decision: Decision, execution: Execution | None = None) -> dict[str, Any]:
    """A decision as the wire's DECIDED; ``execution``: the one it starts."""
    return {
        "outcome": decision.outcome.value,
        "execution_id": execution.id if execution is not None else decision.execution_id,
        "runbook": decision.runbook.id if decision.runbook is not None else None,
        "reason": decision.reason,
    }
