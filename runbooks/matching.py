"""What to do about an alert: ``decide`` names the runbook, or says why none runs. Pure.

Everything it needs to know of the past comes as ``History`` from the journal, so dedup, cooldown and the limit of
concurrent runs hold across restarts. ``now`` is wall time (Unix seconds): it is compared with times in the journal.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from runbooks.model import SEVERITIES, Facts, Runbook, Status
from runbooks.parameters import BadParameter, resolve
from runbooks.plan import bind
from runbooks.predicates import MISSING, holds, pointed, specificity, types_asked, why_not
from runbooks.templating import BadTemplate

MOST_INDEXES: Final = 8


class Outcome(enum.Enum):
    """The answer to an alert."""

    RUN = "run"
    DUPLICATE = "duplicate"
    COOLING = "cooling"
    QUEUED = "queued"
    NO_MATCH = "no_match"
    RECOVERY_OFF = "recovery_off"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Decision:
    """``execution_id`` names the earlier execution for a duplicate; a new one gets its id from whoever records it."""

    outcome: Outcome
    reason: str
    runbook: Runbook | None = None
    target: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    execution_id: str | None = None

    @property
    def starts_execution(self) -> bool:
        return self.outcome in (Outcome.RUN, Outcome.QUEUED)


@dataclass(frozen=True, slots=True)
class PastRun:
    """One execution as matching sees it. Times are wall time (Unix seconds)."""

    execution_id: str
    runbook_id: str
    target: str
    fingerprint: str
    status: Status
    decided_at: float
    ended_at: float | None = None
    severity: str = "high"


@dataclass(frozen=True, slots=True)
class History:
    """Executions that still matter: all unfinished ones, and those that ended lately."""

    runs: tuple[PastRun, ...] = ()
    max_concurrent: int = 5
    is_recovery_on: bool = True

    @property
    def running(self) -> tuple[PastRun, ...]:
        return tuple(run for run in self.runs if run.status is Status.RUNNING)


class Rules(Protocol):
    """The usable runbooks (``parse.Library``)."""

    @property
    def runbooks(self) -> tuple[Runbook, ...]: ...


def decide(alert: Facts, library: Rules, history: History, now: float) -> Decision:
    """What to do about ``alert``.

    Order of candidates: priority, then how much the rule asks for, then id. The first one decides, unless the alert
    lacks what its parameters need: then the next may. Anything that fails on the way is a refusal, never a run.
    """
    try:
        return _decide(alert, library.runbooks, history, now)
    except Exception as error:  # a limiter that breaks must not let runs through
        return Decision(Outcome.REJECTED, f"the alert could not be decided: {type(error).__name__}: {error}")


def _decide(alert: Facts, runbooks: Sequence[Runbook], history: History, now: float) -> Decision:
    if not history.is_recovery_on:
        return Decision(Outcome.RECOVERY_OFF, "recovery is switched off")
    candidates = sorted((r for r in _about(runbooks, alert) if r.enabled and holds(r.match, alert)), key=_rank)
    refusals: list[str] = []
    for runbook in candidates:
        try:
            values = resolve(runbook.parameters, alert)
            target = bind(runbook, values).target
        except (BadParameter, BadTemplate) as bad:
            refusals.append(f"{runbook.id}: {bad}")
            continue
        wanted = Decision(Outcome.RUN, "matched", runbook, target, values, fingerprint(runbook, alert))
        return _limited(wanted, runbook, severity_of(alert), history, now)
    if refusals:
        return Decision(Outcome.REJECTED, "; ".join(refusals))
    return Decision(Outcome.NO_MATCH, _no_match(alert, runbooks))


class _Index:
    """Runbooks by the alert types they ask for: most alerts are about none of them. ``None``: those of any type."""

    def __init__(self, runbooks: Sequence[Runbook]) -> None:
        self.runbooks = runbooks
        self._by_type: dict[str | None, list[Runbook]] = {}
        for runbook in runbooks:
            for kind in types_asked(runbook.match) or (None,):
                self._by_type.setdefault(kind, []).append(runbook)

    def about(self, kind: str) -> Sequence[Runbook]:
        return [*self._by_type.get(kind, ()), *self._by_type.get(None, ())]


_indexes: dict[int, _Index] = {}
"""By the identity of what they are about, which they hold: a library is loaded once."""


def _about(runbooks: Sequence[Runbook], alert: Facts) -> Sequence[Runbook]:
    kind = alert.get("type")
    if type(kind) is not str or type(runbooks) is not tuple:
        return runbooks
    index = _indexes.get(id(runbooks))
    if index is None:
        if len(_indexes) >= MOST_INDEXES:
            _indexes.clear()
        index = _indexes[id(runbooks)] = _Index(runbooks)
    return index.about(kind)


def _rank(runbook: Runbook) -> tuple[int, int, str]:
    return (-runbook.priority, -specificity(runbook.match), runbook.id)


def _no_match(alert: Facts, runbooks: Sequence[Runbook]) -> str:
    if not runbooks:
        return "there are no runbooks"
    kind = pointed(alert, "/type")
    said = "without a type" if kind is MISSING else f"of type {kind!r:.80}"
    return f"no runbook for an alert {said}"


def explain(alert: Facts, library: Rules) -> dict[str, str]:
    """For every runbook, by id: why it does not match ("" when it does)."""
    return {
        runbook.id: why_not(runbook.match, alert) if runbook.enabled else "disabled" for runbook in library.runbooks
    }


def fingerprint(runbook: Runbook, alert: Facts) -> str:
    """Equal for alerts that this runbook takes as one."""
    values = [pointed(alert, pointer) for pointer in runbook.dedup.fingerprint]
    said = [runbook.id, [None if value is MISSING else value for value in values]]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()[:32]


def severity_of(alert: Facts) -> str:
    """The alert's severity; one that is missing or unknown counts as high (the platform's own rule)."""
    severity = pointed(alert, "/severity")
    return severity if isinstance(severity, str) and severity in SEVERITIES else "high"


# -- limits -----------------------------------------------------------------------------------------------------------


def _limited(wanted: Decision, runbook: Runbook, severity: str, history: History, now: float) -> Decision:
    twin = _twin(wanted, runbook, severity, history, now)
    if twin is not None:
        state = "is under way" if not twin.status.is_terminal else "has just been answered"
        return _changed(wanted, Outcome.DUPLICATE, f"the same alert {state}: {twin.execution_id}", twin.execution_id)
    left_s = _cooling_left_s(wanted, runbook, history, now)
    if left_s > 0:
        return _changed(wanted, Outcome.COOLING, f"{wanted.target} was recovered a moment ago; again in {left_s:.0f} s")
    busy = next((run for run in history.runs if run.target == wanted.target and not run.status.is_terminal), None)
    if busy is not None:
        return _changed(wanted, Outcome.QUEUED, f"{busy.execution_id} is at work on {wanted.target}")
    waiting = sum(1 for run in history.runs if run.status is Status.QUEUED)
    if len(history.running) + waiting >= history.max_concurrent:
        return _changed(wanted, Outcome.QUEUED, f"{history.max_concurrent} runbooks may run at once")
    return wanted


def _twin(wanted: Decision, runbook: Runbook, severity: str, history: History, now: float) -> PastRun | None:
    """The newest execution of the same alert, unless this one is worse. A time in the future is no reason to fold."""
    for run in sorted(history.runs, key=lambda one: one.decided_at, reverse=True):
        is_recent = not run.status.is_terminal or 0 <= now - run.decided_at < runbook.dedup.window_s
        if run.fingerprint == wanted.fingerprint and is_recent and not _is_worse(severity, run.severity):
            return run
    return None


def _is_worse(severity: str, than: str) -> bool:
    known = than if than in SEVERITIES else "high"
    return SEVERITIES.index(severity) > SEVERITIES.index(known)


def _cooling_left_s(wanted: Decision, runbook: Runbook, history: History, now: float) -> float:
    ended = [
        run.ended_at
        for run in history.runs
        if run.ended_at is not None
        and run.runbook_id == runbook.id
        and run.target == wanted.target
        and run.status is not Status.REJECTED  # it did nothing
    ]
    left = [runbook.limits.cooldown_s - (now - at) for at in ended if now >= at]
    return max(left, default=0.0)


def _changed(wanted: Decision, outcome: Outcome, reason: str, execution_id: str | None = None) -> Decision:
    return Decision(outcome, reason, wanted.runbook, wanted.target, wanted.parameters, wanted.fingerprint, execution_id)


# -- the queue --------------------------------------------------------------------------------------------------------


def startable(queue: Iterable[tuple[int, PastRun]], history: History) -> tuple[PastRun, ...]:
    """Which queued executions may start now, of (priority, execution): by priority, then the longest waiting.

    Their targets are free and there is room for all of them.
    """
    room = history.max_concurrent - len(history.running)
    busy = {run.target for run in history.running}
    chosen: list[PastRun] = []
    for _, run in sorted(queue, key=lambda one: (-one[0], one[1].decided_at)):
        if len(chosen) < room and run.target not in busy:
            chosen.append(run)
            busy.add(run.target)
    return tuple(chosen)
