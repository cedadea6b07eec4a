"""What the records of a run say about it: the state to go on from, and the steps people see. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from runbooks.engine_words import Intent, Kind, Record, Snapshot, State
from runbooks.model import NEEDS_SNAPSHOT, Action, Call, Status
from runbooks.plan import Plan


def fold(plan: Plan, records: Iterable[Record]) -> State:
    """The state after ``records``; ``resumed_at`` is the last one's kind. The deadline is the caller's to set."""
    state = State(plan, deadline_s=0.0)
    for record in records:
        state = replace(_folded(state, record), resumed_at=record.kind)
    return state


def _folded(state: State, record: Record) -> State:
    at = replace(state, index=max(record.step, 0), attempt=max(record.attempt, 1), is_ok=record.ok is not False)
    match record.kind:
        case Kind.INTENT:
            at = replace(at, snapshot=record.snapshot, trouble="")
            return replace(at, undo=with_intent(at.plan, at.undo, record.step, record.snapshot))
        case Kind.DONE:
            return not_applied(replace(at, trouble=record.detail)) if not at.is_ok else replace(at, trouble="")
        case Kind.VERIFIED:
            return at
        case Kind.FAILING:
            return replace(state, failure=record.detail)
        case Kind.CANCELLING:
            return replace(state, failure=record.detail, cancelled=record.detail)
        case Kind.UNDO_INTENT:
            while at.undo and at.undo[-1].step != record.step:
                at = without_last(at)
            return replace(at, snapshot=at.undo[-1].snapshot if at.undo else None)
        case Kind.UNDO_DONE:
            return at
        case Kind.UNDO_VERIFIED:
            return without_last(at, ok=at.is_ok, detail=record.detail)


def with_intent(plan: Plan, undo: tuple[Intent, ...], step: int, snapshot: Snapshot | None) -> tuple[Intent, ...]:
    """The intents to undo, with this action's; one that changes nothing is none. A later attempt adds nothing."""
    action = plan.actions[step]
    can_stand = action.call is not None and (action.mutates or action.rollback is not None)
    if not can_stand or any(intent.step == step for intent in undo):
        return undo
    return (*undo, Intent(step, snapshot))


def not_applied(state: State) -> State:
    """The present action's call failed. Where it mutates, the probe has said that nothing of it is there to undo."""
    if not state.action.mutates:
        return state
    return replace(state, undo=tuple(intent for intent in state.undo if intent.step != state.index))


def without_last(state: State, *, ok: bool | None = None, detail: str = "") -> State:
    """The last intent is dealt with: undone (``ok``), not undone (False), or never to be undone (None)."""
    action = state.plan.actions[state.undo[-1].step]
    state = replace(state, undo=state.undo[:-1])
    if ok is None:
        why = f" ({action.irreversible_reason})" if action.irreversible_reason else ""
        return replace(state, standing=(*state.standing, action.id + why))
    if ok:
        return replace(state, undone=(*state.undone, action.id))
    return replace(state, undo_failures=(*state.undo_failures, f"{action.id} ({detail})"))


def snapshot_services(action: Action) -> tuple[str, ...]:
    """The services whose state before the action has to be known to probe, verify or undo it."""
    checks = [check.call for check in (action.probe, action.verify) if check is not None]
    calls: list[Call] = checks
    if action.rollback is not None:
        calls += [action.rollback.call, action.rollback.verify.call]
    names = {str(call.arguments["service"]): None for call in calls if call.type in NEEDS_SNAPSHOT}
    return tuple(names)


# -- for people -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepView:
    """One step as ``selfheal executions`` shows it. Times are wall time (Unix seconds)."""

    id: str
    status: str
    attempts: int
    started_at: float
    ended_at: float | None = None
    error: str | None = None


def step_views(records: Sequence[tuple[float, Record]], status: Status, ended_at: float | None) -> tuple[StepView, ...]:
    """The steps begun so far, in order, from (time, record) pairs; ``status`` is that of the whole run."""
    views: dict[str, StepView] = {}
    for at, record in records:
        if record.step >= 0:
            views[record.step_id] = _seen(views.get(record.step_id), at, record)
    last = next(reversed(views), None)
    if last is not None and status.is_terminal and views[last].status in ("running", "verifying"):
        views[last] = replace(views[last], status=_ending(status), ended_at=ended_at)
    return tuple(views.values())


def _ending(status: Status) -> str:
    return "unknown" if status is Status.UNKNOWN else "succeeded" if status is Status.SUCCEEDED else "failed"


def _seen(view: StepView | None, at: float, record: Record) -> StepView:
    if view is None:
        view = StepView(record.step_id, "running", 1, at)
    error = record.detail or None
    match record.kind:
        case Kind.INTENT:
            return replace(view, status="running", attempts=record.attempt, ended_at=None)
        case Kind.DONE if record.ok:
            return replace(view, status="verifying", ended_at=at, error=None)
        case Kind.DONE:
            return replace(view, status="failed", ended_at=at, error=error)
        case Kind.VERIFIED:
            return replace(view, status="succeeded", ended_at=at, error=None)
        case Kind.UNDO_INTENT:
            return replace(view, status="rolling_back", ended_at=None)
        case Kind.UNDO_VERIFIED:
            return replace(view, status="rolled_back" if record.ok else "rollback_failed", ended_at=at)
        case _:
            return view
