"""What the records of a run say about it: the state to go on from. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from runbooks.engine_words import Intent, Kind, Record, State
from runbooks.model import Trouble
from runbooks.plan import Plan, bound_action, digest
from runbooks.templating import BadTemplate


def fold(plan: Plan, records: Iterable[Record]) -> State:
    """The state after ``records``; ``resumed_at`` is the last one's kind. The deadline is the caller's to set.

    A record that stands there twice (its commit was said to have failed, and had not) says nothing more than once. What
    fits no run makes the state ``strange``.
    """
    state = State(plan, deadline_s=0.0)
    for record in records:
        state = replace(_folded(state, record), resumed_at=record.kind)
    return state


def _folded(state: State, record: Record) -> State:
    index = max(record.step, 0)
    bound = state.bound if index == state.index else None  # what was bound is of one step: it is none of the next
    at = replace(state, index=index, attempt=max(record.attempt, 1), is_ok=record.ok is not False, bound=bound)
    match record.kind:
        case Kind.INTENT:
            at = _bound_again(replace(at, snapshot=record.snapshot, trouble="", bound=None), record)
            return with_intent(at)
        case Kind.DONE if at.is_ok:
            at = applied(with_outputs(replace(at, trouble=""), record))
            return at if at.action.verify is not None else passed(at)
        case Kind.DONE:
            trouble, kind = record.detail, _trouble(record)
            return not_applied(replace(at, trouble=trouble, trouble_kind=kind, is_untouched=record.untouched))
        case Kind.VERIFIED | Kind.SKIPPED:
            return passed(at)
        case Kind.STEP_FAILED:
            return failed(at, record.detail)
        case Kind.FAILING:
            return replace(state, failure=record.detail)
        case Kind.CANCELLING:
            return replace(state, failure=record.detail, cancelled=record.detail)
        case Kind.UNDO_INTENT:
            if all(intent.step != record.step for intent in at.undo):
                return replace(state, strange=f"step {record.step_id!r} is undone, and was not begun")
            while at.undo[-1].step != record.step:
                at = without_last(at)
            last = at.undo[-1]
            return replace(at, snapshot=last.snapshot, bound=last.action)
        case Kind.UNDO_DONE:
            return at
        case Kind.UNDO_VERIFIED:
            is_known = not at.undo or at.undo[-1].step != record.step
            return at if is_known else without_last(at, ok=at.is_ok, detail=record.detail)


def _bound_again(state: State, record: Record) -> State:
    """The action as it was bound when its intent was written: of the same values it must become the same."""
    try:
        bound = bound_action(state.plan, state.index, state.outputs)
    except BadTemplate as bad:
        return replace(state, strange=f"step {record.step_id!r}: {bad}")
    if record.bound and digest(bound) != record.bound:
        return replace(state, strange=f"step {record.step_id!r} would not do again what it was about to do")
    return replace(state, bound=bound)


def _trouble(record: Record) -> Trouble:
    known = {one.value: one for one in Trouble}
    return known.get(record.trouble, Trouble.OTHER)


def with_outputs(state: State, record: Record) -> State:
    """The present action is done; what it gave back is known to those after it."""
    return replace(state, outputs={**state.outputs, **record.outputs}) if record.outputs else state


def passed(state: State) -> State:
    """The present action is done with: those that depend on it may begin."""
    return replace(state, passed=state.passed | {state.action.id})


def failed(state: State, reason: str) -> State:
    """The present action failed, and the run goes on without it."""
    if any(name == state.action.id for name, _ in state.failed):
        return state
    return replace(state, failed=(*state.failed, (state.action.id, reason)))


def with_intent(state: State) -> State:
    """Its intents to undo, with the present action; one that changes nothing is none, a later attempt adds nothing."""
    action = state.action
    can_stand = action.call is not None and (action.mutates or action.rollback is not None)
    if not can_stand or any(intent.step == state.index for intent in state.undo):
        return state
    return replace(state, undo=(*state.undo, Intent(state.index, action, state.snapshot)))


def applied(state: State) -> State:
    """The present action is there, whatever its earlier attempts left."""
    return _doubting(state, is_doubtful=False)


def not_applied(state: State) -> State:
    """The present action's call failed, and where it mutates the probe has said no: it is not there, or in part. Only
    where it is certain that neither this attempt nor an earlier one changed anything is there nothing to undo.
    """
    if not state.action.mutates:
        return state
    if not state.is_untouched or any(one.step == state.index and one.is_doubtful for one in state.undo):
        return _doubting(state, is_doubtful=True)
    return replace(state, undo=tuple(intent for intent in state.undo if intent.step != state.index))


def _doubting(state: State, *, is_doubtful: bool) -> State:
    undo = tuple(replace(one, is_doubtful=is_doubtful) if one.step == state.index else one for one in state.undo)
    return replace(state, undo=undo)


def without_last(state: State, *, ok: bool | None = None, detail: str = "") -> State:
    """The last intent is dealt with: undone (``ok``), not undone (False), or never to be undone (None)."""
    action, is_doubtful = state.undo[-1].action, state.undo[-1].is_doubtful
    state = replace(state, undo=state.undo[:-1])
    if ok is None:
        named = action.id + (f" ({action.irreversible_reason})" if action.irreversible_reason else "")
        if is_doubtful:
            return replace(state, doubted=(*state.doubted, named))
        return replace(state, standing=(*state.standing, named))
    if ok:
        return replace(state, undone=(*state.undone, action.id))
    return replace(state, undo_failures=(*state.undo_failures, f"{action.id} ({detail})"))
