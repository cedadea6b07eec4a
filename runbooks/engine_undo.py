"""The way back: what may have been applied is undone in reverse order of intent, and the world is looked at. Pure."""

from __future__ import annotations

from dataclasses import replace

from runbooks.engine_asks import UNDO_PAUSE_S, Step, emit, finish, poll, write
from runbooks.engine_words import Kind, Phase, Record, RunCall, State, WakeAt
from runbooks.model import NEEDS_SNAPSHOT, Status
from runbooks.past import without_last


def fail(state: State, reason: str) -> Step:
    """The run has failed: undo what it did, unless its file says that it stays."""
    if not state.undo or not state.plan.rollback_on_failure:
        return end_here(state, reason)
    state = replace(state, failure=reason, trouble="")
    kind = Kind.FAILING if state.cancelled is None else Kind.CANCELLING
    return write(state, Phase.FAILING, Record(kind, detail=reason))


def end_here(state: State, reason: str) -> Step:
    """The run ends where it is: nothing is undone."""
    return _end(replace(state, failure=reason, trouble=""))


def undo_next(state: State) -> Step:
    while state.undo:
        last = state.undo[-1]
        if last.action.rollback is not None:
            return undo_intend(replace(state, index=last.step, bound=last.action, snapshot=last.snapshot, attempt=1))
        state = without_last(state)
    return _end(state)


def undo_intend(state: State) -> Step:
    return write(state, Phase.UNDO_INTENT, state.record(Kind.UNDO_INTENT))


def begin_undo(state: State, now: float) -> Step:
    """An undoing that compares with the snapshot does no harm where nothing was changed: it is made. Of what may not be
    there at all any other is only made when the world is not as before.
    """
    is_doubtful = state.undo[-1].is_doubtful
    if state.attempt == 1 and is_doubtful and state.rollback.call.type not in NEEDS_SNAPSHOT:
        return poll(state, Phase.UNDO_PROBE, state.rollback.verify, now)
    return undo_call(state)


def undo_call(state: State) -> Step:
    call = state.rollback.call
    state = replace(state, phase=Phase.UNDO_CALL)
    return emit(state, Phase.UNDO_CALL, lambda ticket: RunCall(ticket, call, state.snapshot, state.present))


def verify_undo(state: State, now: float) -> Step:
    """Whatever the call said: the world is looked at."""
    return poll(state, Phase.UNDO_VERIFY, state.rollback.verify, now)


def undo_looked(state: State, detail: str, now: float, *, is_yes: bool) -> Step:
    if not is_yes and state.attempt < state.rollback.attempts:
        state = replace(state, attempt=state.attempt + 1)
        return emit(state, Phase.UNDO_PAUSE, lambda ticket: WakeAt(ticket, now + UNDO_PAUSE_S))
    return write(
        replace(state, is_ok=is_yes, trouble=detail),
        Phase.UNDO_VERIFIED,
        state.record(Kind.UNDO_VERIFIED, ok=is_yes, detail=detail),
    )


def undo_verified(state: State) -> Step:
    return undo_next(without_last(state, ok=state.is_ok, detail=state.trouble))


def nobody_knows(state: State, reason: str) -> Step:
    """The end of all automation: nothing is done or undone any more."""
    told = [reason]
    told += [f"rolled back: {', '.join(state.undone)}"] if state.undone else []
    told += _not_undone(replace(state, undo=tuple(intent for intent in state.undo if intent.step != state.index)))
    return finish(state, Status.UNKNOWN, "; ".join(told))


def _not_undone(state: State) -> list[str]:
    stands = [*state.standing, *(intent.action.id for intent in state.undo if not intent.is_doubtful)]
    doubted = [*state.doubted, *(intent.action.id for intent in state.undo if intent.is_doubtful)]
    told = [f"may be applied in part: {', '.join(doubted)}"] if doubted else []
    return [*told, f"stays applied: {', '.join(stands)}"] if stands else told


def _end(state: State) -> Step:
    left = _not_undone(state)
    told = [state.failure]
    told += [f"rolled back: {', '.join(state.undone)}"] if state.undone else []
    told += [f"rollback failed: {', '.join(state.undo_failures)}"] if state.undo_failures else []
    told += left
    if state.undo_failures:
        status = Status.ROLLBACK_FAILED
    elif state.cancelled is not None:
        status = Status.CANCELLED
    else:
        status = Status.ROLLED_BACK if state.undone and not left else Status.FAILED
    return finish(state, status, "; ".join(told))
