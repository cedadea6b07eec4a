"""Alerts that are one: which earlier run answers this one. Pure."""

from __future__ import annotations

from runbooks.deciding.words import History, PastRun
from runbooks.model import SEVERITIES, OnRepeat, Runbook, Status


def twin(fingerprint: str, runbook: Runbook, severity: str, history: History, now: float) -> PastRun | None:
    """The newest execution of the same alert, unless this one is worse. A time in the future is no reason to fold."""
    for run in history.alike(fingerprint, now, runbook.dedup.window_s):
        if not is_worse(severity, run.severity):
            return run
    return None


def wants_one_more(found: PastRun, runbook: Runbook) -> bool:
    """Whether one more run follows ``found``, which is at work already: it may not have seen what is told now."""
    return runbook.dedup.on_repeat is OnRepeat.QUEUE_ONE and found.status is Status.RUNNING


def is_worse(severity: str, than: str) -> bool:
    return SEVERITIES.index(severity) > SEVERITIES.index(than if than in SEVERITIES else "high")
