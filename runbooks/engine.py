"""The runbook engine: ``step(state, event, now)`` says what to do next. Pure: no thread, no clock, no I/O.

A step is bound (once), then intent (committed) -> call -> done (committed) -> verified (committed). A mutating call is
never repeated unless a probe says that it is not, or not wholly, done; nobody knowing means the status ``unknown`` and
no further automation. What was begun and failed is undone even so, unless it is certain that nothing was changed. A
failure undoes what may have been applied, in reverse order of intent, each undoing verified
(``engine_undo``), unless the step's ``on_failure`` says otherwise. One effect at a time.

``now`` is in seconds of a clock that never goes back; ``resume`` is told how long the run has lasted already.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from runbooks import engine_asks
from runbooks.engine_asks import (
    FORWARD,
    MIN_CALL_S,
    PROBES,
    emit,
    finish,
    look,
    look_again,
    must_stop,
    poll,
    too_long,
    write,
)
from runbooks.engine_undo import (
    begin_undo,
    end_here,
    fail,
    nobody_knows,
    undo_call,
    undo_intend,
    undo_looked,
    undo_next,
    undo_verified,
    verify_undo,
)
from runbooks.engine_words import (
    ESCALATED,
    Answer,
    CallDone,
    CancelAsked,
    CheckDone,
    Event,
    Fence,
    Fenced,
    Kind,
    Phase,
    Record,
    Recorded,
    RunCall,
    SnapshotTaken,
    State,
    TakeSnapshot,
    WakeAt,
    Woke,
)
from runbooks.model import Action, Expect, OnFailure, Status, Trouble
from runbooks.past import applied, failed, fold, not_applied, passed, with_intent, with_outputs
from runbooks.plan import Plan, bound_action, bound_criterion, digest, jitter_share, skipped_because
from runbooks.predicates import MISSING, pointed
from runbooks.templating import BadTemplate

Step = engine_asks.Step
MAX_OUTPUT_CHARS: Final = 65536
"""Of the outputs of one step, as JSON. What is larger is not kept: nothing after it can use it."""

# -- the three entrances ----------------------------------------------------------------------------------------------


def start(plan: Plan, now: float, cancel: CancelAsked | None = None) -> Step:
    """Begin a run that has no record yet. ``cancel``: somebody has asked for its end already."""
    state = _asked_to_end(State(plan, deadline_s=now + plan.max_execution_s), cancel)
    reason = must_stop(state, now)
    return _precondition(state, 0, now) if reason is None else _stop(state, reason)


def resume(
    plan: Plan, records: Sequence[Record], now: float, elapsed_s: float, cancel: CancelAsked | None = None
) -> Step:
    """Go on with a run whose ``records`` (oldest first) are all that is known of it; it began ``elapsed_s`` ago."""
    past = fold(plan, records)
    deadline_s = now + plan.max_execution_s - max(0.0, elapsed_s)
    state = replace(past, deadline_s=deadline_s)
    if not state.is_undoing and state.resumed_at not in _ON_THE_WAY_BACK:
        state = _asked_to_end(state, cancel)
    if state.strange:
        return nobody_knows(state, state.strange)
    match past.resumed_at:
        case None:
            return _precondition(state, 0, now)
        case Kind.INTENT | Kind.UNDO_INTENT:
            return emit(state, Phase.FENCING, Fence)
        case Kind.DONE:
            return _done_recorded(state, now)
        case Kind.VERIFIED | Kind.SKIPPED | Kind.STEP_FAILED:
            return _next_action(state, state.index + 1, now)
        case Kind.UNDO_DONE:
            return verify_undo(state, now)
        case Kind.FAILING | Kind.CANCELLING | Kind.UNDO_VERIFIED:
            return undo_next(state)


_ON_THE_WAY_BACK: Final = (
    Kind.FAILING,
    Kind.CANCELLING,
    Kind.UNDO_INTENT,
    Kind.UNDO_DONE,
    Kind.UNDO_VERIFIED,
)


def step(state: State, event: Event, now: float) -> Step:
    """The state after ``event`` and what is to be done now."""
    if state.phase is Phase.FINISHED:
        return state, ()
    if isinstance(event, CancelAsked):
        return _cancel(state, event)
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
        case Fenced(error=error) if error:
            return nobody_knows(state, f"step {state.action.id!r}: what was begun is still under way: {error}")
        case Fenced():
            return _go_on_after_fence(state, now)
        case SnapshotTaken(snapshot=None, error=error):
            return _step_failed(state, f"no snapshot could be taken: {error}")
        case SnapshotTaken(snapshot=snapshot):
            return _intend(replace(state, snapshot=snapshot))


# -- forward ----------------------------------------------------------------------------------------------------------


def _precondition(state: State, number: int, now: float) -> Step:
    if number == len(state.plan.preconditions):
        return _next_action(state, 0, now)
    return poll(replace(state, index=number), Phase.PRECONDITION, state.plan.preconditions[number], now)


def _next_action(state: State, index: int, now: float) -> Step:
    if (reason := must_stop(state, now)) is not None:
        return _stop(state, reason)
    if index == len(state.plan.actions):
        return _criterion(state, 0, now)
    state = replace(state, index=index, attempt=1, snapshot=None, trouble="", bound=None)
    action = state.action
    if blocked_by := [name for name in action.dependencies if name not in state.passed]:
        return _step_failed(state, f"blocked: {', '.join(blocked_by)} did not succeed")
    if why := skipped_because(state.plan, action, state.outputs):
        return write(state, Phase.SKIPPED, state.record(Kind.SKIPPED, detail=why))
    try:
        state = replace(state, bound=bound_action(state.plan, index, state.outputs))
    except BadTemplate as bad:
        return _step_failed(state, str(bad))
    calls = state.action.snapshot_calls
    if calls:
        return emit(state, Phase.SNAPSHOT, lambda ticket: TakeSnapshot(ticket, calls))
    return _intend(state)


def _intend(state: State) -> Step:
    state = replace(state, is_untouched=False, is_again=False)
    record = state.record(Kind.INTENT, snapshot=state.snapshot, bound=digest(state.action))
    return write(state, Phase.INTENT, record)


def _intent_recorded(state: State, now: float) -> Step:
    """A record may take long to write: whose end was asked for meanwhile is not begun any more."""
    state = with_intent(state)
    stop = must_stop(state, now)
    return _call(state, now) if stop is None else _record_done(replace(state, is_untouched=True), ok=False, detail=stop)


def _call(state: State, now: float) -> Step:
    call = state.action.call
    if call is None:
        return _verify(state, now)
    in_time = replace(call, timeout_s=min(call.timeout_s, max(MIN_CALL_S, state.deadline_s - now)))
    state = replace(state, phase=Phase.CALL)
    return emit(state, Phase.CALL, lambda ticket: RunCall(ticket, in_time, state.snapshot, state.present))


def _call_done(state: State, event: CallDone, now: float) -> Step:
    if event.is_lost and (state.action.mutates or state.phase is Phase.UNDO_CALL):
        return nobody_knows(state, f"step {state.action.id!r}: {event.error}")
    if state.phase is Phase.UNDO_CALL:
        return write(state, Phase.UNDO_DONE, state.record(Kind.UNDO_DONE, ok=event.ok, detail=event.error))
    is_untouched = event.is_untouched and not state.is_again
    state = replace(state, trouble_kind=event.trouble, result=event.result, is_untouched=is_untouched)
    probe = state.action.probe
    if event.ok or not state.action.mutates or probe is None:
        return _record_done(state, ok=event.ok, detail=event.output if event.ok else event.error)
    return poll(replace(state, trouble=event.error or "the call failed"), Phase.PROBE, probe, now)


def _record_done(state: State, *, ok: bool, detail: str) -> Step:
    state = replace(state, is_ok=ok, trouble="" if ok else detail)
    record = state.record(
        Kind.DONE,
        ok=ok,
        detail=detail,
        outputs=_outputs(state.action, state.result) if ok else None,
        trouble="" if ok else state.trouble_kind.value,
        untouched=not ok and state.action.mutates and state.is_untouched,
    )
    return write(with_outputs(state, record), Phase.DONE, record)


def _outputs(action: Action, result: Any) -> Mapping[str, Any] | None:
    """What the step gave back, just as it will be read from its record: the same values live and resumed."""
    found = {name: pointed(result, pointer) for name, pointer in action.outputs.items()}
    said = json.dumps({name: value for name, value in found.items() if value is not MISSING}, default=str)
    read: dict[str, Any] = json.loads(said)
    return read if read and len(said) <= MAX_OUTPUT_CHARS else None


def _done_recorded(state: State, now: float) -> Step:
    state = replace(state, result=None)
    if state.is_ok:
        return _verify(applied(state), now)
    return _retry_or_fail(not_applied(state), state.trouble, now)


def _retry_or_fail(state: State, trouble: str, now: float) -> Step:
    if (stop := must_stop(state, now)) is not None:
        reason = f"step {state.action.id!r}: {trouble}"
        return _stop(state, reason if trouble == stop else f"{reason}; {stop}")
    retry = state.action.retry
    if state.attempt < retry.attempts and retry.is_worth(state.trouble_kind):
        pause_s = retry.pause_s(state.attempt, jitter_share(state.plan, state.action, state.attempt))
        return emit(state, Phase.PAUSE, lambda ticket: WakeAt(ticket, now + pause_s))
    return _step_failed(state, trouble)


def _verify(state: State, now: float) -> Step:
    verify = state.action.verify
    if verify is None:
        return _next_action(passed(state), state.index + 1, now)
    return poll(state, Phase.VERIFY, verify, now)


def _verified(state: State, now: float) -> Step:
    return _next_action(passed(state), state.index + 1, now)


def _criterion(state: State, number: int, now: float) -> Step:
    if (reason := must_stop(state, now)) is not None:
        return _stop(state, reason)
    if number == len(state.plan.success_criteria):
        return _succeed(state, now)
    state = replace(state, index=number, snapshot=None, bound=None)
    try:
        criterion = bound_criterion(state.plan, number, state.outputs)
    except BadTemplate as bad:
        return fail(state, f"success criterion {number + 1}: {bad}")
    return poll(state, Phase.CRITERION, criterion, now)


def _succeed(state: State, now: float) -> Step:
    """All criteria hold. A step that failed is named; what it may have left half done is no success."""
    names = {name for name, _ in state.failed}
    left = [one.action.id for one in state.undo if one.action.id in names and not one.is_doubtful]
    if left:
        return fail(state, f"{_failed_steps(state)}; what {', '.join(left)} did is not verified")
    return _left(state, -1, now)


def _failed_steps(state: State) -> str:
    return "; ".join(f"step {name!r}: {reason}" for name, reason in state.failed)


def _left(state: State, after: int, now: float) -> Step:
    """Of a step that failed and was passed over something may be left, or nothing: its undoing's look can tell. What
    nothing can undo is only named.
    """
    for one in state.undo:
        if one.step > after and one.is_doubtful and one.action.rollback is not None:
            state = replace(state, index=one.step, bound=one.action, snapshot=one.snapshot, attempt=1)
            return poll(state, Phase.LEFT, one.action.rollback.verify, now)
    told = [f"although {_failed_steps(state)}"] if state.failed else []
    doubted = [one.action.id for one in state.undo if one.is_doubtful and one.action.rollback is None]
    told += [f"may be applied in part: {', '.join(doubted)}"] if doubted else []
    return finish(state, Status.SUCCEEDED, "; ".join(told))


# -- failing ----------------------------------------------------------------------------------------------------------


def _step_failed(state: State, trouble: str) -> Step:
    """The present step failed: what its file says becomes of the run."""
    action = state.plan.actions[state.index]
    reason = f"step {action.id!r}: {trouble}"
    match action.on_failure:
        case OnFailure.CONTINUE:
            return write(
                replace(state, trouble=trouble), Phase.STEP_FAILED, state.record(Kind.STEP_FAILED, detail=trouble)
            )
        case OnFailure.HALT:
            return end_here(state, f"halted: {reason}")
        case OnFailure.ESCALATE:
            return end_here(state, f"{ESCALATED}{reason}")
        case OnFailure.ROLLBACK:
            return fail(state, reason)


def _stop(state: State, reason: str) -> Step:
    """Nothing more is begun: the time is over, or somebody wants the end."""
    return end_here(state, reason) if state.keeps and state.cancelled is not None else fail(state, reason)


# -- looking ----------------------------------------------------------------------------------------------------------


def _looked(state: State, event: CheckDone, now: float) -> Step:
    polled = state.polled
    event = replace(event, answer=heard(polled.check.expect, event.answer))
    if state.phase in PROBES:
        if event.answer is Answer.UNKNOWN and now < polled.until_s:
            return look_again(state, now + polled.check.every_s)
        state = replace(state, is_untouched=state.is_untouched or event.is_untouched)
        return _decided(state, event.answer, event.detail, now)
    is_kept = state.phase is Phase.UNDO_VERIFY or (state.keeps and state.phase is Phase.VERIFY)
    if not is_kept and state.cancelled is not None:
        return _stop(state, f"cancelled: {state.cancelled}")
    if event.answer is not Answer.YES:
        if now < polled.until_s:
            wait_until_s = min(now + polled.check.every_s, polled.until_s)
            return look_again(replace(state, poll=replace(polled, held_since_s=None)), wait_until_s)
        return _decided(state, Answer.NO, event.detail, now)
    since_s = now if polled.held_since_s is None else polled.held_since_s
    held_at_s = since_s + polled.check.hold_for_s
    if now < held_at_s:
        if state.phase in FORWARD and now >= state.deadline_s:
            held = f"it held for {now - since_s:g} s of {polled.check.hold_for_s:g} s"
            return _decided(state, Answer.NO, f"{held}, and the run {too_long(state)}", now)
        wait_until_s = min(now + polled.check.every_s, held_at_s)
        wait_until_s = min(wait_until_s, state.deadline_s) if state.phase in FORWARD else wait_until_s
        state = replace(state, poll=replace(polled, held_since_s=since_s))
        return look_again(state, wait_until_s)
    return _decided(state, Answer.YES, event.detail, now)


def heard(expect: Expect, answer: Answer) -> Answer:
    """What an answer says to who expected something: yes for what was expected; what nobody can tell is only expected
    where a no is no better.
    """
    if expect is Expect.YES or (answer is Answer.UNKNOWN and expect is Expect.NO):
        return answer
    return Answer.NO if answer is Answer.YES else Answer.YES


def _decided(state: State, answer: Answer, detail: str, now: float) -> Step:
    what = state.polled.check.call.type.value
    is_yes = answer is Answer.YES
    state = replace(state, poll=None)
    match state.phase:
        case Phase.PRECONDITION if is_yes:
            return _precondition(state, state.index + 1, now)
        case Phase.PRECONDITION:
            return finish(state, Status.REJECTED, f"precondition {state.index + 1} ({what}) does not hold: {detail}")
        case Phase.VERIFY if is_yes:
            return write(state, Phase.VERIFIED, state.record(Kind.VERIFIED, ok=True, detail=detail))
        case Phase.VERIFY:
            return _not_verified(state, f"not verified ({what}): {detail}", now)
        case Phase.CRITERION if is_yes:
            return _criterion(state, state.index + 1, now)
        case Phase.CRITERION:
            return fail(state, f"success criterion {state.index + 1} ({what}) does not hold: {detail}")
        case Phase.LEFT if is_yes:
            return _left(state, state.index, now)
        case Phase.LEFT:
            return fail(state, f"{_failed_steps(state)}; what {state.action.id} left is not undone ({what}): {detail}")
        case Phase.UNDO_VERIFY:
            return undo_looked(state, f"{what}: {detail}", now, is_yes=is_yes)
        case _:
            return _probed(state, answer, f"{what}: {detail}", now)


def _not_verified(state: State, trouble: str, now: float) -> Step:
    """What mutates is undone rather than done twice; the rest may be tried again."""
    if state.action.mutates:
        return _step_failed(state, trouble)
    return _retry_or_fail(replace(state, trouble_kind=Trouble.UNVERIFIED), trouble, now)


def _probed(state: State, answer: Answer, detail: str, now: float) -> Step:
    if answer is Answer.UNKNOWN:
        name = state.action.id
        return nobody_knows(state, f"step {name!r}: nobody can tell whether it was applied: {detail}")
    is_applied = answer is Answer.YES
    if state.phase is Phase.UNDO_PROBE:
        if is_applied:
            return write(state, Phase.UNDO_DONE, state.record(Kind.UNDO_DONE, ok=True, detail=detail))
        return undo_call(state)
    if is_applied:
        said = f"{state.trouble}; " if state.trouble else ""
        return _record_done(state, ok=True, detail=f"{said}the probe says that it was applied: {detail}")
    if state.phase is Phase.RESUME_PROBE:
        stop = must_stop(state, now)
        if stop is not None:
            return _record_done(state, ok=False, detail=stop)
        return _call(replace(state, is_again=not state.is_untouched, is_untouched=False), now)
    return _record_done(state, ok=False, detail=state.trouble)


# -- coming back ------------------------------------------------------------------------------------------------------


def _go_on_after_fence(state: State, now: float) -> Step:
    """An intent without done: look before anything is done again."""
    action = state.action
    if state.resumed_at is Kind.UNDO_INTENT:
        return poll(state, Phase.UNDO_PROBE, state.rollback.verify, now)
    if action.mutates and action.probe is not None:
        return poll(state, Phase.RESUME_PROBE, action.probe, now)
    stop = must_stop(state, now)
    return _call(state, now) if stop is None else _stop(state, stop)


def _woke(state: State, now: float) -> Step:
    if state.phase is not Phase.PAUSE:
        return undo_intend(state) if state.phase is Phase.UNDO_PAUSE else look(state)
    if (reason := must_stop(state, now)) is not None:
        return _stop(state, reason)
    return _intend(replace(state, attempt=state.attempt + 1))


def _cancel(state: State, event: CancelAsked) -> Step:
    """Acts at the next safe place: a call under way is awaited, an undoing goes on. Looks are not waited for."""
    if state.is_undoing or state.cancelled is not None:
        return state, ()
    state = _asked_to_end(state, event)
    is_safe = state.phase in (Phase.PAUSE, Phase.PRECONDITION, Phase.SNAPSHOT, Phase.CRITERION, Phase.LEFT)
    if is_safe or (state.phase is Phase.VERIFY and not state.keeps):
        return _stop(state, f"cancelled: {state.cancelled}")
    return state, ()


def _asked_to_end(state: State, cancel: CancelAsked | None) -> State:
    return state if cancel is None else replace(state, cancelled=cancel.reason, keeps=cancel.keeps)


_RECORDED: Final[dict[Phase, Callable[[State, float], Step]]] = {
    Phase.INTENT: _intent_recorded,
    Phase.DONE: _done_recorded,
    Phase.VERIFIED: _verified,
    Phase.SKIPPED: _verified,
    Phase.STEP_FAILED: lambda state, now: _next_action(failed(state, state.trouble), state.index + 1, now),
    Phase.FAILING: lambda state, _: undo_next(state),
    Phase.UNDO_INTENT: begin_undo,
    Phase.UNDO_DONE: verify_undo,
    Phase.UNDO_VERIFIED: lambda state, _: undo_verified(state),
}
