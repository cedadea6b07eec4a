"""What awaits approval, for people. Pure."""

from __future__ import annotations

from typing import Any

from actors.journal.consents import Case
from runbooks.approval import plan_words, rules_of
from runbooks.parse import BadRunbook, parse
from runbooks.templating import BadTemplate


def shown(found: Case, expires_at: float) -> dict[str, Any]:
    """The plan in words, its hash, who may agree and who has, and until when (Unix seconds)."""
    execution, request = found.execution, found.request
    facts: dict[str, Any] = {
        "execution_id": execution.id,
        "runbook": execution.runbook,
        "target": execution.target,
        "severity": execution.severity,
        "alert": {key: found.facts[key] for key in ("type", "service", "message") if found.facts.get(key)},
        "expires_at": expires_at,
        "votes": [{"who": one.who, "says": one.says.value} for one in found.votes],
    }
    try:
        runbook = parse(execution.source, execution.runbook)
        rules = rules_of(runbook)
        facts |= {
            "name": runbook.name,
            "steps": plan_words(runbook, execution.parameters, found.facts),
            "approvers": list(rules.approvers),
            "quorum": rules.quorum,
            "four_eyes": rules.four_eyes,
            "on_timeout": rules.safe_action or rules.on_timeout.value,
        }
    except (BadRunbook, BadTemplate) as bad:
        facts["error"] = str(bad)
    if request is not None:
        facts |= {"plan": request.plan_hash, "asked_by": list(request.asked_by), "asked_at": request.asked_at}
        facts["seen"] = [
            {"call": one.call.type.value, "answer": one.answer, "value": one.seen} for one in request.readings
        ]
    return facts
