"""From what should be to the next move: stops newest first, then starts oldest first, one at a time. Pure."""

from __future__ import annotations

from actors.messages import StopMode
from actors.spec import BRUTAL_KILL, DEFAULT_WORKER_SHUTDOWN_S, INFINITY, KILLED, SHUTDOWN, Begin, ShutdownKind, WaitFor
from supervisors.decisions.model import (
    ALIVE,
    Child,
    KillActor,
    Mode,
    Phase,
    ReportKind,
    SelfStarted,
    StartActor,
    StopActor,
    WakeAt,
)
from supervisors.decisions.work import Work


def reconcile(work: Work) -> None:
    """Ask for every move that may be made now."""
    if work.mode is Mode.HALTING:
        _halt_further(work)
    if work.mode in (Mode.BOOTING, Mode.RUNNING):
        if work.is_recycling:
            _recycle_further(work)
        if not work.is_recycling:
            _start_further(work)
    if work.mode is Mode.BOOTING and not work.is_starting_one:
        work.mode = Mode.RUNNING
        work.effects.append(SelfStarted())


def stop(work: Work, child: Child, mode: StopMode) -> None:
    """Ask a child to stop, with its deadline; a brutal kill has none (OTP ``shutdown``)."""
    limit = child.spec.shutdown_or_default
    if limit is BRUTAL_KILL:
        kill(work, child)
        return
    stop_by = None if limit is INFINITY else work.now + float(limit)
    work.put(child, phase=Phase.STOPPING, stop_by=stop_by)
    work.effects.append(StopActor(child.spec.id, child.incarnation, SHUTDOWN, mode))
    if stop_by is not None:
        work.effects.append(WakeAt(stop_by))


def kill(work: Work, child: Child) -> None:
    """Nothing is waited for any more: it counts as down, whatever it still says."""
    work.effects.append(KillActor(child.spec.id, child.incarnation))
    work.report(ReportKind.KILLED, child, KILLED)
    work.set_down(child, KILLED)


def _halt_further(work: Work) -> None:
    if _awaits_start(work):
        return
    while (child := _newest_alive(work)) is not None:
        if child.phase is Phase.STOPPING:
            if not work.is_dynamic:
                return
            break
        stop(work, child, work.stop_mode)
    if work.is_dynamic:  # one timer for all: their order means nothing (OTP simple_one_for_one)
        for child in reversed(tuple(work.children.values())):
            if child.phase in (Phase.STARTING, Phase.UP):
                stop(work, child, work.stop_mode)
    if _newest_alive(work) is None:
        work.finish()


def _awaits_start(work: Work) -> bool:
    """A start under way is let finish first (OTP), but not for ever: it may take as long as a stop of it."""
    child = next((child for child in work.children.values() if child.phase is Phase.STARTING), None)
    if child is None:
        return False
    if child.stop_by is not None:
        return work.now < child.stop_by
    limit = child.spec.shutdown_or_default
    until = work.now + (DEFAULT_WORKER_SHUTDOWN_S if isinstance(limit, ShutdownKind) else limit)
    work.put(child, stop_by=until)
    work.effects.append(WakeAt(until))
    return work.now < until


def _newest_alive(work: Work) -> Child | None:
    return next((child for child in reversed(tuple(work.children.values())) if child.phase in ALIVE), None)


def _recycle_further(work: Work) -> None:
    """Bring down, newest first, what a group restart needs down; a child still starting is waited for (OTP)."""
    while True:
        left = [child for child in work.children.values() if child.recycle]
        if not left:
            return
        newest = left[-1]
        if newest.phase is not Phase.UP:
            return
        stop(work, newest, work.recycle_mode)


def _start_further(work: Work) -> None:
    if work.is_group:
        child = _next_in_line(work)
    else:
        child = _next_free(work)
    if child is not None:
        start(work, child)


def start(work: Work, child: Child) -> None:
    work.births += 1
    begin = _begin(child)
    child = work.put(
        child,
        phase=Phase.STARTING,
        incarnation=work.births,
        not_before=None,
        is_ready=False,
        ready_at=None,
        stop_by=None,
        is_resumed=False,
        is_stale=begin is Begin.FRESH,  # until it is ready: nobody knows before that what lives of it
    )
    work.effects.append(StartActor(child.spec, child.incarnation, begin))


def _begin(child: Child) -> Begin:
    if child.is_stale:
        return Begin.FRESH
    return Begin.RESUME if child.is_resumed else Begin.NEW


def _next_in_line(work: Work) -> Child | None:
    """In a group: the first wanted child that is down, when all before it are as far as they must be."""
    for child in work.children.values():
        if not child.wanted:
            if child.phase is Phase.STARTING:
                return None
            continue
        match child.phase:
            case Phase.UP if child.spec.wait_for is WaitFor.READY and not child.is_ready:
                return _asked_for(work)
            case Phase.UP:
                continue
            case Phase.STARTING | Phase.STOPPING:
                return None
            case Phase.DOWN:
                return child
            case Phase.RESTARTING if child.is_tried_again:
                return _asked_for(work)
            case Phase.RESTARTING | Phase.PARKED:
                return _if_due(work, child) or _asked_for(work)
    return None


def _asked_for(work: Work) -> Child | None:
    """A start by a call concerns one child only: it waits for no gate and for no other's next try (OTP)."""
    down = (child for child in work.children.values() if child.wanted and child.phase is Phase.DOWN)
    return next((child for child in down if child.is_new or child.spec.id in work.callers), None)


def _next_free(work: Work) -> Child | None:
    """Without a group: whoever waits longest; starts are serial (OTP), waits are not."""
    if work.is_starting_one:
        return None
    waiting = [child for child in work.children.values() if child.wanted and child.phase not in ALIVE]
    for child in sorted(waiting, key=lambda one: one.turn):
        if child.phase is Phase.DOWN or _if_due(work, child) is not None:
            return child
    return None


def _if_due(work: Work, child: Child) -> Child | None:
    if child.not_before is None:
        return None  # tried again when it is back through the mailbox
    if work.now >= child.not_before:
        return child
    work.effects.append(WakeAt(child.not_before))
    return None
