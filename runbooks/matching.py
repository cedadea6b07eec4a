"""What to do about an alert: ``decide`` names the runbook, or says why none runs. Pure.

Everything it needs to know of the past comes as ``History`` from the journal, so what limits a run holds across
restarts. ``now`` is on the scale of ``deciding.timing``, which no clock that is set can move. docs/deciding.md has the
order of the questions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from runbooks.approval import needs_approval
from runbooks.deciding import breaker, gate, holding, limits, quiet, radius, repeats
from runbooks.deciding.words import Decision, Health, History, Outcome, PastRun, Silence, Waits
from runbooks.model import SEVERITIES, Action, Facts, Mode, OnRepeat, Runbook, Status
from runbooks.parameters import BadParameter, resolve
from runbooks.plan import bind, resolved
from runbooks.predicates import MISSING, holds, pointed, specificity, types_asked, why_not
from runbooks.templating import BadTemplate

__all__ = [
    "Decision",
    "Health",
    "History",
    "Outcome",
    "PastRun",
    "Rules",
    "Silence",
    "Waits",
    "decide",
    "explain",
    "fingerprint",
    "severity_of",
]
MOST_INDEXES: Final = 8
MOST_TARGETS: Final = 4096
MOST_REASON_CHARS: Final = 2000
NOTHING_PASSED: Final[frozenset[Waits]] = frozenset()
AT_WORK: Final = frozenset({Status.RUNNING, Status.QUEUED})
"""What awaits approval holds no target."""


class Rules(Protocol):
    """The usable runbooks (``parse.Library``)."""

    @property
    def runbooks(self) -> tuple[Runbook, ...]: ...


def decide(
    alert: Facts,
    library: Rules,
    history: History,
    now: float,
    *,
    seq: int = 0,
    passed: frozenset[Waits] = NOTHING_PASSED,
    only: Runbook | None = None,
) -> Decision:
    """What to do about ``alert``.

    Order of candidates: priority, then how much the rule asks for, then id. The first one decides, unless the alert
    lacks what its parameters need: then the next may. Anything that fails on the way is a refusal, never a run.

    Args:
        seq: the alert's number in the journal, remembered of one that waits.
        passed: what it has waited for already.
        only: this runbook, whether its rule fits or not (an escalation); nothing when it is not in use.
    """
    try:
        if only is not None and not is_in_use(only):
            return Decision(Outcome.NO_MATCH, f"{only.id} is not in use: {_not_in_use(only)}")
        if not history.is_recovery_on:
            return Decision(Outcome.RECOVERY_OFF, "recovery is switched off")
        candidates = _candidates(alert, library.runbooks) if only is None else (only,)
        if not candidates:  # as nearly always
            return Decision(Outcome.NO_MATCH, _no_match(alert, library.runbooks))
        return _chosen(alert, candidates, history, now, _Asked(seq, passed))
    except Exception as error:  # a limiter that breaks must not let runs through
        return Decision(Outcome.REJECTED, f"the alert could not be decided: {type(error).__name__}: {error}")


class _Asked(NamedTuple):
    seq: int
    passed: frozenset[Waits]


def _chosen(alert: Facts, candidates: Sequence[Runbook], history: History, now: float, asked: _Asked) -> Decision:
    refusals: list[str] = []
    for runbook in candidates:
        try:
            values = resolve(runbook.parameters, alert)
            target = _target(runbook, values)
        except (BadParameter, BadTemplate) as bad:
            refusals.append(f"{runbook.id}: {bad}")
            continue
        wanted = Decision(Outcome.RUN, "matched", runbook, target, values, fingerprint(runbook, alert))
        return _limited(wanted, runbook, alert, history, now, asked)
    return Decision(Outcome.REJECTED, "; ".join(refusals))


_targets: dict[tuple[int, str], tuple[Runbook, str]] = {}
"""What was bound before, by the runbook's identity (which is held) and the values: alerts are much alike."""


def _target(runbook: Runbook, values: Mapping[str, Any]) -> str:
    """The target, once it is sure that everything can be filled. Raises BadTemplate."""
    key = (id(runbook), repr(values))
    known = _targets.get(key)
    if known is not None:
        return known[1]
    if len(_targets) >= MOST_TARGETS:
        _targets.clear()
    target = bind(runbook, values).target
    _targets[key] = (runbook, target)
    return target


def _candidates(alert: Facts, runbooks: Sequence[Runbook]) -> Sequence[Runbook]:
    fitting = [one for one in _about(runbooks, alert) if is_in_use(one) and holds(one.match, alert)]
    return fitting if len(fitting) < 2 else sorted(fitting, key=rank)


def is_in_use(runbook: Runbook) -> bool:
    return runbook.enabled and runbook.mode is not Mode.OFF


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


def rank(runbook: Runbook) -> tuple[int, int, str]:
    """The order in which runbooks that fit are asked: priority, then how much the rule asks for, then the id."""
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
        runbook.id: why_not(runbook.match, alert) if is_in_use(runbook) else _not_in_use(runbook)
        for runbook in library.runbooks
    }


def _not_in_use(runbook: Runbook) -> str:
    return "disabled" if not runbook.enabled else "its mode is off"


def fingerprint(runbook: Runbook, alert: Facts) -> str:
    """Equal for alerts that this runbook takes as one."""
    values = [pointed(alert, pointer) for pointer in runbook.dedup.fingerprint]
    said = [runbook.id, [None if value is MISSING else value for value in values]]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()[:32]


def severity_of(alert: Facts) -> str:
    """The alert's severity; one that is missing or unknown counts as high (the platform's own rule)."""
    severity = pointed(alert, "/severity")
    return severity if isinstance(severity, str) and severity in SEVERITIES else "high"


# -- the questions, in their order ------------------------------------------------------------------------------------


def _limited(wanted: Decision, runbook: Runbook, alert: Facts, history: History, now: float, asked: _Asked) -> Decision:
    severity = severity_of(alert)
    twin = repeats.twin(wanted.fingerprint, runbook, severity, history, now)
    is_one_more = twin is not None and repeats.wants_one_more(twin, runbook)
    if twin is not None and not is_one_more:
        return _folded(wanted, runbook, twin)
    quiet_ = _quiet(wanted, runbook, alert, history, now)
    if quiet_ is not None:
        return quiet_
    about = holding.About(alert, asked.seq, wanted.fingerprint, severity, asked.passed)
    held = holding.held(runbook, about, history, now)
    if isinstance(held, holding.Held):
        outcome = Outcome.PENDING if held.is_new else Outcome.DUPLICATE
        return replace(wanted, outcome=outcome, reason=held.reason, pending=held.pending)
    wanted = replace(wanted, settles=held)
    answer = _room(wanted, runbook, history, now, is_one_more=is_one_more)
    return answer if runbook.mode is Mode.AUTO else _observed(answer, runbook)


def _folded(wanted: Decision, runbook: Runbook, twin: PastRun) -> Decision:
    state = "is under way" if not twin.status.is_terminal else "has just been answered"
    if runbook.dedup.on_repeat is OnRepeat.IGNORE:
        return replace(
            wanted, outcome=Outcome.DUPLICATE, reason=f"ignored: the same alert {state}: {twin.execution_id}"
        )
    reason = f"the same alert {state}: {twin.execution_id}"
    return replace(wanted, outcome=Outcome.DUPLICATE, reason=reason, execution_id=twin.execution_id)


def _quiet(wanted: Decision, runbook: Runbook, alert: Facts, history: History, now: float) -> Decision | None:
    """Not answered, although the runbook fits."""
    silence = quiet.silenced_by(alert, history, now)
    if silence is not None:
        why = f": {silence.why}" if silence.why else ""
        left = f"for another {silence.until - now:.0f} s"
        return replace(wanted, outcome=Outcome.SILENCED, reason=f"silence {silence.id} by {silence.by} {left}{why}")
    if wanted.target in history.latches:
        way = f"'selfheal recovery release {wanted.target} --why ...' when it has been looked at"
        return replace(wanted, outcome=Outcome.LATCHED, reason=f"{history.latches[wanted.target]}; {way}")
    other = quiet.inhibitor(runbook, alert, history)
    if other is not None:
        return replace(wanted, outcome=Outcome.INHIBITED, reason=f"{other.execution_id} of {other.runbook_id} is first")
    return None


def _room(wanted: Decision, runbook: Runbook, history: History, now: float, *, is_one_more: bool) -> Decision:
    target = wanted.target
    broken = breaker.broken(runbook, target, history, now)
    if broken:
        return replace(wanted, outcome=Outcome.BREAKER_OPEN, reason=broken)
    left_s = limits.cooling_left_s(runbook, target, history, now)
    if left_s > 0:
        return replace(
            wanted, outcome=Outcome.COOLING, reason=f"{target} was recovered a moment ago; again in {left_s:.0f} s"
        )
    too_often = limits.limited(runbook, target, history, now)
    if too_often:
        return replace(wanted, outcome=Outcome.LIMITED, reason=too_often)
    too_wide = radius.too_wide(runbook, history, now)
    if too_wide:
        return replace(wanted, outcome=Outcome.BLAST_RADIUS, reason=too_wide)
    if needs_approval(runbook):
        return replace(wanted, outcome=Outcome.AWAITING_APPROVAL, reason="somebody must approve it")
    busy = next((run for run in history.open_on(target) if run.status in AT_WORK), None)
    if busy is not None:
        after = ", once more after it" if is_one_more else ""
        return replace(wanted, outcome=Outcome.QUEUED, reason=f"{busy.execution_id} is at work on {target}{after}")
    crowded = gate.crowded(runbook, history, with_queued=True)
    if crowded:
        return replace(wanted, outcome=Outcome.QUEUED, reason=crowded)
    if history.open_count >= history.max_concurrent:
        return replace(wanted, outcome=Outcome.QUEUED, reason=f"{history.max_concurrent} runbooks may run at once")
    return wanted


def _observed(answer: Decision, runbook: Runbook) -> Decision:
    """What it would have done; of a dry run, with the values it would have done it with."""
    why = "" if answer.reason == "matched" else f": {answer.reason}"
    would = f"would {_WOULD.get(answer.outcome, 'not run')}{why}"
    if runbook.mode is Mode.DRY_RUN:
        hidden = {one.name: "***" for one in runbook.parameters if one.redact}
        plan = resolved(bind(runbook, {**answer.parameters, **hidden}))
        text = f"{runbook.id} is a dry run; it {would} ({'; '.join(map(_shown, plan.actions))})"
    else:
        text = f"{runbook.id} only observes; it {would} ({', '.join(action.id for action in runbook.actions)})"
    return replace(answer, outcome=Outcome.OBSERVED, reason=text[:MOST_REASON_CHARS])


def _shown(action: Action) -> str:
    if action.call is None:
        return f"{action.id}: waits"
    given = ", ".join(f"{name}={value!r}" for name, value in action.call.arguments.items())
    return f"{action.id}: {action.call.type.value}({given})"


_WOULD: Final = {
    Outcome.RUN: "run",
    Outcome.QUEUED: "wait in the queue",
    Outcome.AWAITING_APPROVAL: "ask for approval",
}
