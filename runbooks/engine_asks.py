"""How the engine asks for something: each request has a ticket, and a phase that waits for its answer. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from runbooks.engine_words import Effect, Finish, Phase, Poll, Record, RunCheck, State, WakeAt, WriteRecord
from runbooks.model import Check, Status

PROBE_PATIENCE_S: Final = 10.0
"""A probe that cannot tell is asked for at least so long: after a restart of the daemon the truth comes late."""
UNDO_PAUSE_S: Final = 1.0
MIN_CALL_S: Final = 1.0

Step = tuple[State, tuple[Effect, ...]]
PROBES: Final = (Phase.PROBE, Phase.RESUME_PROBE, Phase.UNDO_PROBE)
FORWARD: Final = (Phase.PRECONDITION, Phase.VERIFY, Phase.CRITERION, Phase.LEFT)


def must_stop(state: State, now: float) -> str | None:
    """Why nothing more may be begun, if so."""
    if state.cancelled is not None:
        return f"cancelled: {state.cancelled}"
    return too_long(state) if now >= state.deadline_s else None


def too_long(state: State) -> str:
    return f"took longer than {state.plan.max_execution_s:g} s"


def emit(state: State, phase: Phase, effect: Callable[[int], Effect]) -> Step:
    state = replace(state, phase=phase, ticket=state.ticket + 1)
    return state, (effect(state.ticket),)


def write(state: State, phase: Phase, record: Record) -> Step:
    return emit(state, phase, lambda ticket: WriteRecord(ticket, record))


def finish(state: State, status: Status, detail: str) -> Step:
    done = replace(state, phase=Phase.FINISHED, status=status, detail=detail, poll=None)
    return done, (Finish(status, detail),)


def poll(state: State, phase: Phase, check: Check, now: float) -> Step:
    """Look at once, then every ``every_s``. What goes forward ends with the run's deadline, as does what must
    hold; probing does not.
    """
    within_s = max(check.within_s, PROBE_PATIENCE_S) if phase in PROBES else check.within_s
    until_s = min(now + within_s, state.deadline_s) if phase in FORWARD else now + within_s
    return look(replace(state, phase=phase, poll=Poll(check, until_s)))


def look(state: State) -> Step:
    polled = state.polled
    return emit(state, state.phase, lambda ticket: RunCheck(ticket, polled.check.call, state.snapshot, state.present))


def look_again(state: State, at_s: float) -> Step:
    return emit(state, state.phase, lambda ticket: WakeAt(ticket, at_s))
