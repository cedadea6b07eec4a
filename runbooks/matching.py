"""What to do about an alert: ``decide`` names the runbook, or says why none runs. Pure.

Everything it needs to know of the past comes as ``History`` from the journal, so what limits a run holds across
restarts. ``now`` is on the scale of ``deciding.timing``, which no clock that is set can move. docs/deciding.md has the
order of the questions.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from runbooks.approval import needs_approval
from runbooks.choosing import Chosen, chosen, fingerprint, first_of, is_in_use, may_fit, rank
from runbooks.deciding import breaker, gate, holding, limits, quiet, radius, repeats
from runbooks.deciding.words import Decision, Health, History, Outcome, PastRun, Silence, Waits
from runbooks.model import SEVERITIES, Action, Facts, Mode, OnRepeat, Runbook, Status
from runbooks.plan import bind, resolved
from runbooks.predicates import why_not

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
    "foregone",
    "is_in_use",
    "rank",
    "severity_of",
]
MOST_REASON_CHARS: Final = 2000
NOTHING_PASSED: Final[frozenset[Waits]] = frozenset()
AT_WORK: Final = (Status.RUNNING, Status.QUEUED)
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
        found = chosen(alert, library.runbooks) if only is None else first_of((only,), alert)
        if found is None:  # as nearly always
            return _no_match(alert, library.runbooks)
        if found.runbook is None:
            return Decision(Outcome.REJECTED, found.refusals)
        return _limited(found, found.runbook, alert, history, now, _Asked(seq, passed))
    except Exception as error:  # a limiter that breaks must not let runs through
        return Decision(Outcome.REJECTED, f"the alert could not be decided: {type(error).__name__}: {error}")


def foregone(kind: str, library: Rules) -> Decision | None:
    """What ``decide`` says about every alert of this type while recovery is on, whatever was before: that no runbook
    asks for it. None: it has to be asked. From any thread.
    """
    try:
        return None if may_fit(kind, library.runbooks) else _no_match({"type": kind}, library.runbooks)
    except Exception:  # ``decide`` finds it too, and says it
        return None


class _Asked(NamedTuple):
    seq: int
    passed: frozenset[Waits]


def _no_match(alert: Facts, runbooks: Sequence[Runbook]) -> Decision:
    if not runbooks:
        return Decision(Outcome.NO_MATCH, "there are no runbooks")
    kind = alert.get("type")
    if type(kind) is str:
        return _none_for(kind)
    said = f"of type {kind!r:.80}" if "type" in alert else "without a type"
    return Decision(Outcome.NO_MATCH, f"no runbook for an alert {said}")


@functools.lru_cache(maxsize=1024)
def _none_for(kind: str) -> Decision:
    return Decision(Outcome.NO_MATCH, f"no runbook for an alert of type {kind!r:.80}")


def explain(alert: Facts, library: Rules) -> dict[str, str]:
    """For every runbook, by id: why it does not match ("" when it does)."""
    return {
        runbook.id: why_not(runbook.match, alert) if is_in_use(runbook) else _not_in_use(runbook)
        for runbook in library.runbooks
    }


def _not_in_use(runbook: Runbook) -> str:
    return "disabled" if not runbook.enabled else "its mode is off"


def severity_of(alert: Facts) -> str:
    """The alert's severity; one that is missing or unknown counts as high (the platform's own rule)."""
    severity = alert.get("severity")
    return severity if isinstance(severity, str) and severity in SEVERITIES else "high"


# -- the questions, in their order ------------------------------------------------------------------------------------


def _limited(found: Chosen, runbook: Runbook, alert: Facts, history: History, now: float, asked: _Asked) -> Decision:
    severity = severity_of(alert)
    twin = repeats.twin(found.fingerprint, runbook, severity, history, now)
    is_one_more = twin is not None and repeats.wants_one_more(twin, runbook)
    if twin is not None and not is_one_more:
        return _folded(found, runbook, twin)
    kept_quiet = _quiet(found, runbook, alert, history, now)
    if kept_quiet is not None:
        return _made(found, *kept_quiet)
    about = holding.About(alert, asked.seq, found.fingerprint, severity, asked.passed)
    held = holding.held(runbook, about, history, now)
    if isinstance(held, holding.Held):
        outcome = Outcome.PENDING if held.is_new else Outcome.DUPLICATE
        return _made(found, outcome, held.reason, pending=held.pending)
    outcome, reason = _room(found, runbook, history, now, is_one_more=is_one_more)
    if runbook.mode is not Mode.AUTO:
        outcome, reason = Outcome.OBSERVED, _observed(outcome, reason, runbook, found)
    return _made(found, outcome, reason, settles=held, severity=holding.severity_of_all(held, severity, history))


def _made(
    found: Chosen,
    outcome: Outcome,
    reason: str,
    twin_id: str | None = None,
    *,
    pending: Any = None,
    settles: str = "",
    severity: str = "high",
) -> Decision:
    values = dict(found.values)  # each decision's own: what was chosen is remembered
    return Decision(
        outcome, reason, found.runbook, found.target, values, found.fingerprint, twin_id, pending, settles, severity
    )


def _folded(found: Chosen, runbook: Runbook, twin: PastRun) -> Decision:
    state = "has just been answered" if twin.status.is_terminal else "is under way"
    reason = f"the same alert {state}: {twin.execution_id}"
    if runbook.dedup.on_repeat is OnRepeat.IGNORE:
        return _made(found, Outcome.DUPLICATE, f"ignored: {reason}")
    return _made(found, Outcome.DUPLICATE, reason, twin.execution_id)


_Answer = tuple[Outcome, str]


def _quiet(found: Chosen, runbook: Runbook, alert: Facts, history: History, now: float) -> _Answer | None:
    """Not answered, although the runbook fits."""
    silence = quiet.silenced_by(alert, history, now) if history.silences else None
    if silence is not None:
        why = f": {silence.why}" if silence.why else ""
        return Outcome.SILENCED, f"{quiet.said(silence, now)}{why}"
    if found.target in history.latches:
        way = f"'selfheal recovery release {found.target} --why ...' when it has been looked at"
        return Outcome.LATCHED, f"{history.latches[found.target]}; {way}"
    other = quiet.inhibitor(runbook, alert, history)
    if other is not None:
        return Outcome.INHIBITED, f"{other.execution_id} of {other.runbook_id} is first"
    return None


def _room(found: Chosen, runbook: Runbook, history: History, now: float, *, is_one_more: bool) -> _Answer:
    target = found.target
    broken = breaker.broken(runbook, target, history, now)
    if broken:
        return Outcome.BREAKER_OPEN, broken
    cooling = limits.cooling(runbook, target, history, now)
    if cooling:
        return Outcome.COOLING, cooling
    too_often = limits.limited(runbook, target, history, now)
    if too_often:
        return Outcome.LIMITED, too_often
    too_wide = radius.too_wide(runbook, history, now)
    if too_wide:
        return Outcome.BLAST_RADIUS, too_wide
    if needs_approval(runbook):
        return Outcome.AWAITING_APPROVAL, "somebody must approve it"
    busy = next((run for run in history.open_on(target) if run.status in AT_WORK), None)
    if busy is not None:
        after = ", once more after it" if is_one_more else ""
        return Outcome.QUEUED, f"{busy.execution_id} is at work on {target}{after}"
    crowded = gate.crowded(runbook, history, with_queued=True)
    if crowded:
        return Outcome.QUEUED, crowded
    if history.open_count >= history.max_concurrent:
        return Outcome.QUEUED, f"{history.max_concurrent} runbooks may run at once"
    return Outcome.RUN, _MATCHED


def _observed(outcome: Outcome, reason: str, runbook: Runbook, found: Chosen) -> str:
    """What it would have done; of a dry run, with the values it would have done it with."""
    why = "" if reason == _MATCHED else f": {reason}"
    would = f"would {_WOULD.get(outcome, 'not run')}{why}"
    if runbook.mode is Mode.DRY_RUN:
        hidden = {one.name: "***" for one in runbook.parameters if one.redact}
        plan = resolved(bind(runbook, {**found.values, **hidden}))
        text = f"{runbook.id} is a dry run; it {would} ({'; '.join(map(_shown, plan.actions))})"
    else:
        text = f"{runbook.id} only observes; it {would} ({', '.join(action.id for action in runbook.actions)})"
    return text[:MOST_REASON_CHARS]


def _shown(action: Action) -> str:
    if action.call is None:
        return f"{action.id}: waits"
    given = ", ".join(f"{name}={value!r}" for name, value in action.call.arguments.items())
    return f"{action.id}: {action.call.type.value}({given})"


_MATCHED: Final = "matched"
_WOULD: Final = {
    Outcome.RUN: "run",
    Outcome.QUEUED: "wait in the queue",
    Outcome.AWAITING_APPROVAL: "ask for approval",
}
