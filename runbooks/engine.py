"""The runbook engine: ``step(state, event, now)`` says what to do next. Pure: no thread, no clock, no I/O.

A step is intent (committed) -> call -> done (committed) -> verified (committed). A mutating call is never repeated
unless a probe says that it did nothing; nobody knowing means the status ``unknown`` and no further automation. A
failure undoes what may have been applied, in reverse order of intent, each undoing verified. One effect at a time.
One machine, hence one file.

``now`` is in seconds of a clock that never goes back; ``resume`` is told how long the run has lasted already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from runbooks.engine_words import (
    Answer,
    CallDone,
    CancelAsked,
    CheckDone,
    Effect,
    Event,
    Fence,
    Fenced,
    Finish,
    Kind,
    Phase,
    Poll,
    Record,
    Recorded,
    RunCall,
    RunCheck,
    SnapshotTaken,
    State,
    TakeSnapshot,
    WakeAt,
    Woke,
    WriteRecord,
)
from runbooks.model import Check, Status
from runbooks.past import fold, not_applied, snapshot_services, with_intent, without_last
from runbooks.plan import Plan

PROBE_PATIENCE_S: Final = 10.0
"""A probe that cannot tell is asked for at least so long: after a restart of the daemon the truth comes late."""
UNDO_PAUSE_S: Final = 1.0
MIN_CALL_S: Final = 1.0

Step = tuple[State, tuple[Effect, ...]]
_PROBES: Final = (Phase.PROBE, Phase.RESUME_PROBE, Phase.UNDO_PROBE)


# -- the three entrances ----------------------------------------------------------------------------------------------


def start(plan: Plan, now: float) -> Step:
    """Begin a run that has no record yet."""
    return _precondition(State(plan, deadline_s=now + plan.max_execution_s), 0, now)


def resume(plan: Plan, records: Sequence[Record], now: float, elapsed_s: float) -> Step:
    """Go on with a run whose ``records`` (oldest first) are all that is known of it; it began ``elapsed_s`` ago."""
    past = fold(plan, records)
    deadline_s = now + plan.max_execution_s - max(0.0, elapsed_s)
    state = replace(past, deadline_s=deadline_s)
    match past.resumed_at:
        case None:
            return _precondition(state, 0, now)
        case Kind.INTENT | Kind.UNDO_INTENT:
            return _emit(state, Phase.FENCING, Fence)
        case Kind.DONE:
            return _done_recorded(state, now)
        case Kind.VERIFIED:
            return _next_action(state, state.index + 1, now)
        case Kind.UNDO_DONE:
            return _verify_undo(state, now)
        case Kind.FAILING | Kind.CANCELLING | Kind.UNDO_VERIFIED:
            return _undo_next(state)


def step(state: State, event: Event, now: float) -> Step:
    """The state after ``event`` and what is to be done now."""
    if state.phase is Phase.FINISHED:
        return state, ()
    if isinstance(event, CancelAsked):
        return _cancel(state, event, now)
    if event.ticket != state.ticket:
        return state, ()
    match event:
        case Recorded():
            return _RECORDED[state.phase](state, now)
        case CheckDone():
            return _looked(state, event, now)
        case CallDone():
            return _call_done(state, event, now)
        case Woke():
            return _woke(state, now)
        case Fenced():
            return _go_on_after_fence(state, now)
        case SnapshotTaken(snapshot=None, error=error):
            return _fail(state, f"step {state.action.id!r}: no snapshot could be taken: {error}")
        case SnapshotTaken(snapshot=snapshot):
            return _intend(replace(state, snapshot=snapshot))


# -- forward ----------------------------------------------------------------------------------------------------------


def _precondition(state: State, number: int, now: float) -> Step:
    if number == len(state.plan.preconditions):
        return _next_action(state, 0, now)
    return _poll(replace(state, index=number), Phase.PRECONDITION, state.plan.preconditions[number], now)


def _next_action(state: State, index: int, now: float) -> Step:
    if (reason := _must_stop(state, now)) is not None:
        return _fail(state, reason)
    if index == len(state.plan.actions):
        return _criterion(state, 0, now)
    state = replace(state, index=index, attempt=1, snapshot=None, trouble="")
    services = snapshot_services(state.action)
    if services:
        return _emit(state, Phase.SNAPSHOT, lambda ticket: TakeSnapshot(ticket, services))
    return _intend(state)


def _intend(state: State) -> Step:
    return _write(state, Phase.INTENT, state.record(Kind.INTENT, snapshot=state.snapshot))


def _intent_recorded(state: State, now: float) -> Step:
    return _call(replace(state, undo=with_intent(state.plan, state.undo, state.index, state.snapshot)), now)


def _call(state: State, now: float) -> Step:
    call = state.action.call
    if call is None:
        return _verify(state, now)
    in_time = replace(call, timeout_s=min(call.timeout_s, max(MIN_CALL_S, state.deadline_s - now)))
    state = replace(state, phase=Phase.CALL)
    return _emit(state, Phase.CALL, lambda ticket: RunCall(ticket, in_time, state.snapshot, state.present))


def _call_done(state: State, event: CallDone, now: float) -> Step:
    if state.phase is Phase.UNDO_CALL:
        return _write(state, Phase.UNDO_DONE, state.record(Kind.UNDO_DONE, ok=event.ok, detail=event.error))
    probe = state.action.probe
    if event.ok or not state.action.mutates or probe is None:
        return _record_done(state, ok=event.ok, detail=event.output if event.ok else event.error)
    return _poll(replace(state, trouble=event.error or "the call failed"), Phase.PROBE, probe, now)


def _record_done(state: State, *, ok: bool, detail: str) -> Step:
    state = replace(state, is_ok=ok, trouble="" if ok else detail)
    return _write(state, Phase.DONE, state.record(Kind.DONE, ok=ok, detail=detail))


def _done_recorded(state: State, now: float) -> Step:
    if state.is_ok:
        return _verify(state, now)
    return _retry_or_fail(not_applied(state), state.trouble, now)


def _retry_or_fail(state: State, trouble: str, now: float) -> Step:
    retry, stop = state.action.retry, _must_stop(state, now)
    if stop is None and state.attempt < retry.attempts:
        pause_s = retry.pause_s(state.attempt)
        return _emit(state, Phase.PAUSE, lambda ticket: WakeAt(ticket, now + pause_s))
    reason = f"step {state.action.id!r}: {trouble}"
    return _fail(state, f"{reason}; {stop}" if stop and stop != trouble else reason)


def _verify(state: State, now: float) -> Step:
    verify = state.action.verify
    if verify is None:
        return _next_action(state, state.index + 1, now)
    return _poll(state, Phase.VERIFY, verify, now)


def _criterion(state: State, number: int, now: float) -> Step:
    if number == len(state.plan.success_criteria):
        return _finish(state, Status.SUCCEEDED, "")
    state = replace(state, index=number, snapshot=None)
    return _poll(state, Phase.CRITERION, state.plan.success_criteria[number], now)


# -- looking ----------------------------------------------------------------------------------------------------------


def _poll(state: State, phase: Phase, check: Check, now: float) -> Step:
    """Look at once, then every ``every_s``. What goes forward ends with the run's deadline; probing does not."""
    within_s = max(check.within_s, PROBE_PATIENCE_S) if phase in _PROBES else check.within_s
    is_forward = phase in (Phase.PRECONDITION, Phase.VERIFY, Phase.CRITERION)
    until_s = min(now + within_s, state.deadline_s) if is_forward else now + within_s
    return _look(replace(state, phase=phase, poll=Poll(check, until_s)))


def _look(state: State) -> Step:
    poll = state.polled
    return _emit(state, state.phase, lambda ticket: RunCheck(ticket, poll.check.call, state.snapshot, state.present))


def _looked(state: State, event: CheckDone, now: float) -> Step:
    poll = state.polled
    if state.phase in _PROBES:
        if event.answer is Answer.UNKNOWN and now < poll.until_s:
            return _look_again(state, now + poll.check.every_s)
        return _decided(state, event.answer, event.detail, now)
    if state.phase is not Phase.UNDO_VERIFY and state.cancelled is not None:
        return _fail(state, f"cancelled: {state.cancelled}")
    if event.answer is not Answer.YES:
        if now < poll.until_s:
            wait_until_s = min(now + poll.check.every_s, poll.until_s)
            return _look_again(replace(state, poll=replace(poll, held_since_s=None)), wait_until_s)
        return _decided(state, Answer.NO, event.detail, now)
    since_s = now if poll.held_since_s is None else poll.held_since_s
    held_at_s = since_s + poll.check.hold_for_s
    if now < held_at_s:
        state = replace(state, poll=replace(poll, held_since_s=since_s))
        return _look_again(state, min(now + poll.check.every_s, held_at_s))
    return _decided(state, Answer.YES, event.detail, now)


def _look_again(state: State, at_s: float) -> Step:
    return _emit(state, state.phase, lambda ticket: WakeAt(ticket, at_s))


def _decided(state: State, answer: Answer, detail: str, now: float) -> Step:
    what = state.polled.check.call.type.value
    is_yes = answer is Answer.YES
    state = replace(state, poll=None)
    match state.phase:
        case Phase.PRECONDITION if is_yes:
            return _precondition(state, state.index + 1, now)
        case Phase.PRECONDITION:
            return _finish(state, Status.REJECTED, f"precondition {state.index + 1} ({what}) does not hold: {detail}")
        case Phase.VERIFY if is_yes:
            return _write(state, Phase.VERIFIED, state.record(Kind.VERIFIED, ok=True, detail=detail))
        case Phase.VERIFY:
            return _not_verified(state, f"not verified ({what}): {detail}", now)
        case Phase.CRITERION if is_yes:
            return _criterion(state, state.index + 1, now)
        case Phase.CRITERION:
            return _fail(state, f"success criterion {state.index + 1} ({what}) does not hold: {detail}")
        case Phase.UNDO_VERIFY:
            return _undo_looked(state, f"{what}: {detail}", now, is_yes=is_yes)
        case _:
            return _probed(state, answer, f"{what}: {detail}", now)


def _not_verified(state: State, trouble: str, now: float) -> Step:
    """What mutates is undone rather than done twice; the rest may be tried again."""
    if state.action.mutates:
        return _fail(state, f"step {state.action.id!r}: {trouble}")
    return _retry_or_fail(state, trouble, now)


def _probed(state: State, answer: Answer, detail: str, now: float) -> Step:
    if answer is Answer.UNKNOWN:
        name = state.action.id
        return _finish(state, Status.UNKNOWN, f"step {name!r}: nobody can tell whether it was applied: {detail}")
    is_applied = answer is Answer.YES
    if state.phase is Phase.UNDO_PROBE:
        if is_applied:
            return _write(state, Phase.UNDO_DONE, state.record(Kind.UNDO_DONE, ok=True, detail=detail))
        return _undo_call(state)
    if is_applied:
        said = f"{state.trouble}; " if state.trouble else ""
        return _record_done(state, ok=True, detail=f"{said}the probe says that it was applied: {detail}")
    if state.phase is Phase.RESUME_PROBE:
        stop = _must_stop(state, now)
        return _call(state, now) if stop is None else _record_done(state, ok=False, detail=stop)
    return _record_done(state, ok=False, detail=state.trouble)


# -- coming back ------------------------------------------------------------------------------------------------------


def _go_on_after_fence(state: State, now: float) -> Step:
    """An intent without done: look before anything is done again."""
    action = state.action
    if state.resumed_at is Kind.UNDO_INTENT:
        return _poll(state, Phase.UNDO_PROBE, state.rollback.verify, now)
    if action.mutates and action.probe is not None:
        return _poll(state, Phase.RESUME_PROBE, action.probe, now)
    stop = _must_stop(state, now)
    return _call(state, now) if stop is None else _fail(state, stop)


def _woke(state: State, now: float) -> Step:
    if state.phase is not Phase.PAUSE:
        return _undo_intend(state) if state.phase is Phase.UNDO_PAUSE else _look(state)
    if (reason := _must_stop(state, now)) is not None:
        return _fail(state, reason)
    return _intend(replace(state, attempt=state.attempt + 1))


def _cancel(state: State, event: CancelAsked, now: float) -> Step:
    """Acts at the next safe place: a call under way is awaited, an undoing goes on."""
    if state.is_undoing or state.cancelled is not None:
        return state, ()
    state = replace(state, cancelled=event.reason)
    return _woke(state, now) if state.phase is Phase.PAUSE else (state, ())


# -- undoing ----------------------------------------------------------------------------------------------------------


def _fail(state: State, reason: str) -> Step:
    state = replace(state, failure=reason, trouble="")
    if not state.undo or not state.plan.rollback_on_failure:
        return _finish_undone(state)
    kind = Kind.FAILING if state.cancelled is None else Kind.CANCELLING
    return _write(state, Phase.FAILING, Record(kind, detail=reason))


def _undo_next(state: State) -> Step:
    while state.undo:
        last = state.undo[-1]
        if state.plan.actions[last.step].rollback is not None:
            return _undo_intend(replace(state, index=last.step, snapshot=last.snapshot, attempt=1))
        state = without_last(state)
    return _finish_undone(state)


def _undo_intend(state: State) -> Step:
    return _write(state, Phase.UNDO_INTENT, state.record(Kind.UNDO_INTENT))


def _undo_call(state: State) -> Step:
    call = state.rollback.call
    state = replace(state, phase=Phase.UNDO_CALL)
    return _emit(state, Phase.UNDO_CALL, lambda ticket: RunCall(ticket, call, state.snapshot, state.present))


def _verify_undo(state: State, now: float) -> Step:
    """Whatever the call said: the world is looked at."""
    return _poll(state, Phase.UNDO_VERIFY, state.rollback.verify, now)


def _undo_looked(state: State, detail: str, now: float, *, is_yes: bool) -> Step:
    if not is_yes and state.attempt < state.rollback.attempts:
        state = replace(state, attempt=state.attempt + 1)
        return _emit(state, Phase.UNDO_PAUSE, lambda ticket: WakeAt(ticket, now + UNDO_PAUSE_S))
    return _write(
        replace(state, is_ok=is_yes, trouble=detail),
        Phase.UNDO_VERIFIED,
        state.record(Kind.UNDO_VERIFIED, ok=is_yes, detail=detail),
    )


def _undo_verified(state: State) -> Step:
    return _undo_next(without_last(state, ok=state.is_ok, detail=state.trouble))


def _finish_undone(state: State) -> Step:
    standing = state.standing + tuple(state.plan.actions[intent.step].id for intent in state.undo)
    told = [state.failure]
    told += [f"rolled back: {', '.join(state.undone)}"] if state.undone else []
    told += [f"rollback failed: {', '.join(state.undo_failures)}"] if state.undo_failures else []
    told += [f"stays applied: {', '.join(standing)}"] if standing else []
    if state.undo_failures:
        status = Status.ROLLBACK_FAILED
    elif state.cancelled is not None:
        status = Status.CANCELLED
    else:
        status = Status.ROLLED_BACK if state.undone and not standing else Status.FAILED
    return _finish(state, status, "; ".join(told))


# -- small ones -------------------------------------------------------------------------------------------------------


_RECORDED: Final[dict[Phase, Callable[[State, float], Step]]] = {
    Phase.INTENT: _intent_recorded,
    Phase.DONE: _done_recorded,
    Phase.VERIFIED: lambda state, now: _next_action(state, state.index + 1, now),
    Phase.FAILING: lambda state, _: _undo_next(state),
    Phase.UNDO_INTENT: lambda state, _: _undo_call(state),
    Phase.UNDO_DONE: _verify_undo,
    Phase.UNDO_VERIFIED: lambda state, _: _undo_verified(state),
}


def _must_stop(state: State, now: float) -> str | None:
    """Why nothing more may be begun, if so."""
    if state.cancelled is not None:
        return f"cancelled: {state.cancelled}"
    return f"took longer than {state.plan.max_execution_s:g} s" if now >= state.deadline_s else None


def _emit(state: State, phase: Phase, effect: Callable[[int], Effect]) -> Step:
    state = replace(state, phase=phase, ticket=state.ticket + 1)
    return state, (effect(state.ticket),)


def _write(state: State, phase: Phase, record: Record) -> Step:
    return _emit(state, phase, lambda ticket: WriteRecord(ticket, record))


def _finish(state: State, status: Status, detail: str) -> Step:
    done = replace(state, phase=Phase.FINISHED, status=status, detail=detail, poll=None)
    return done, (Finish(status, detail),)
