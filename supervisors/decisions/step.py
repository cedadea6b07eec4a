"""``step(state, event, now) -> (state, effects)``: the whole judgement of a supervisor. Pure.

The rules are those of OTP's ``supervisor`` module (stdlib 4.2); the differences in shape, not in outcome:

* it never waits: a start or a stop is an effect, its end an event. While OTP would be deaf (a child's start, a group's
  stop-and-start), events that would have waited in its mailbox wait in ``deferred``;
* a stop lets a start under way finish (for a limited time), but cuts a group restart short, where OTP would start
  everything once more before it stops it;
* beyond OTP: readiness gates inside a group, backoff and parking per child for faults of the world, held children.

Every event about a child names its incarnation; one of an older run is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from actors.messages import ChildExited, ChildIgnored, ChildReady, ChildStarted, ChildStartFailed, StopMode
from actors.spec import BadSpec, ChildPast, ChildSpec, ExitReason, WaitFor
from supervisors.decisions import calls, exits
from supervisors.decisions.model import (
    Boot,
    Call,
    Child,
    Effect,
    Event,
    Flags,
    Mode,
    Ok,
    Phase,
    Refused,
    ReportKind,
    StopRequested,
    SupervisorState,
    TryAgain,
    Woke,
)
from supervisors.decisions.reconcile import kill, reconcile
from supervisors.decisions.work import NOPROC, Work

__all__ = ["initial", "past_of", "step"]


def initial(flags: Flags, specs: Iterable[ChildSpec], pasts: Mapping[str, ChildPast] | None = None) -> SupervisorState:
    """The state before ``Boot``. Specs and flags are checked already (``admission``).

    Args:
        pasts: what an earlier supervisor of these children knew of their failures.
    """
    known = pasts or {}
    return SupervisorState(flags, {spec.id: _recalled(flags, spec, known.get(spec.id)) for spec in specs})


def _recalled(flags: Flags, spec: ChildSpec, past: ChildPast | None) -> Child:
    """A child that was waiting for its next try goes on waiting; in a group it is tried at once, since those behind it
    may be running and must be taken on.
    """
    child = Child(spec, held=spec.id in flags.held)
    if past is None or spec.pacing is None:
        return child
    child = replace(
        child,
        failures=past.failures,
        is_exhausted=past.is_exhausted,
        paced_at=past.paced_at,
        is_stale=past.is_stale and flags.strategy.is_group,
    )
    if past.not_before is None or child.held or flags.strategy.is_group:
        return child
    phase = Phase.PARKED if past.is_exhausted else Phase.RESTARTING
    return replace(child, phase=phase, not_before=past.not_before)


def past_of(child: Child) -> ChildPast:
    """What the next supervisor of this child must know."""
    is_waiting = child.phase in (Phase.RESTARTING, Phase.PARKED)
    not_before = child.not_before if is_waiting else None
    return ChildPast(child.failures, child.is_exhausted, child.paced_at, not_before, child.is_stale)


def step(
    state: SupervisorState, event: Event, now: float, roll: float = 0.5
) -> tuple[SupervisorState, tuple[Effect, ...]]:
    """Take one event at clock second ``now``; ``roll`` in [0, 1) is this step's jitter."""
    work = Work.of(state, now, roll)
    _take(work, event)
    _take_deferred(work)
    return work.frozen(), tuple(work.effects)


def _take(work: Work, event: Event) -> None:
    if _must_wait(work, event):
        work.deferred.append(event)
        return
    _handle(work, event)
    reconcile(work)


def _take_deferred(work: Work) -> None:
    """Serve what waited, oldest first, as long as something of it need not wait any more."""
    is_moving = True
    while is_moving:
        is_moving = False
        for event in tuple(work.deferred):
            if not _must_wait(work, event):
                work.deferred.remove(event)
                _handle(work, event)
                reconcile(work)
                is_moving = True
                break


def _must_wait(work: Work, event: Event) -> bool:
    """Whether OTP would have left this event in the mailbox for now."""
    if work.mode in (Mode.HALTING, Mode.DONE):
        return False
    match event:
        case Call():
            return work.mode is Mode.NEW or work.is_busy or calls.waits_for_child(work, event)
        case ChildExited(id=child_id, incarnation=incarnation):
            child = work.children.get(child_id)
            if child is None or child.incarnation != incarnation or child.phase is not Phase.UP or child.recycle:
                return False
            return work.is_busy and child.spec.wait_for is WaitFor.STARTED and child.spec.pacing is None
        case TryAgain():
            return work.is_busy
        case _:
            return False


def _handle(work: Work, event: Event) -> None:
    match event:
        case Boot():
            work.mode = Mode.BOOTING
            for known in tuple(work.children.values()):
                child = _waiting_no_longer_than_it_may(work, known)
                if not child.held:
                    work.want(child, is_resumed=True)
        case StopRequested(reason, mode):
            _stop(work, reason, mode)
        case Woke():
            for child in tuple(work.children.values()):
                if child.phase is Phase.STOPPING and child.stop_by is not None and work.now >= child.stop_by:
                    kill(work, child)
        case TryAgain(child_id):
            exits.try_again(work, child_id)
        case Call():
            _call(work, event)
        case _:
            _child_event(work, event)


def _waiting_no_longer_than_it_may(work: Work, child: Child) -> Child:
    """What it waits for was written down by somebody else: with a shorter backoff now, or damaged since."""
    pacing = child.spec.pacing
    if child.not_before is None or pacing is None:
        return child
    latest = work.now + max(pacing.backoff.first_s, pacing.backoff.max_s)
    return child if child.not_before <= latest else work.put(child, not_before=latest)


def _stop(work: Work, reason: ExitReason, mode: StopMode) -> None:
    if work.mode is Mode.HALTING:
        work.stop_mode = mode
    elif work.mode is not Mode.DONE:
        work.halt(reason, mode)


def _call(work: Work, call: Call) -> None:
    if work.mode in (Mode.HALTING, Mode.DONE):
        work.reply(call.number, Refused(NOPROC))
        return
    try:
        calls.serve(work, call)
    except BadSpec as bad:
        work.reply(call.number, Refused(bad.kind, bad.detail))


def _child_event(work: Work, event: ChildStarted | ChildIgnored | ChildStartFailed | ChildReady | ChildExited) -> None:
    child = work.children.get(event.id)
    if child is None or child.incarnation != event.incarnation:
        return  # late, of an older run
    match event:
        case ChildStarted() if child.phase is Phase.STARTING:
            work.put(child, phase=Phase.UP, is_new=False)
            work.report(ReportKind.STARTED, child, None)
            work.answer(event.id, Ok(event.id))
        case ChildReady(since=since) if child.phase in (Phase.STARTING, Phase.UP) and not child.is_ready:
            ready_at = work.now if since is None else min(since, work.now)
            work.put(child, is_ready=True, ready_at=ready_at, is_stale=False)
            work.report(ReportKind.READY, child, None)
        case ChildIgnored() if child.phase in (Phase.STARTING, Phase.STOPPING):
            exits.ignored(work, child)
        case ChildStartFailed(reason=reason) if child.phase in (Phase.STARTING, Phase.STOPPING):
            exits.start_failed(work, child, reason)
        case ChildExited(reason=reason) if child.phase in (Phase.STARTING, Phase.UP, Phase.STOPPING):
            exits.exited(work, child, reason)
        case _:
            pass  # a second notice of the same fact
