"""How far back deciding looks: what is older may be forgotten. Pure."""

from __future__ import annotations

from runbooks.model import Runbook


def looks_back_s(runbook: Runbook) -> float:
    """How many seconds back any question about this runbook goes: repeats, limits, breaker, and its escalations."""
    limits, breaker = runbook.limits, runbook.limits.breaker
    return max(
        runbook.dedup.window_s,
        limits.cooldown_s,
        *(rule.per_s for rule in limits.max_runs),
        0.0 if breaker is None else breaker.per_s + breaker.open_for_s,
        sum(rung.after_s for rung in runbook.escalate) + runbook.max_execution_s * len(runbook.escalate),
    )
