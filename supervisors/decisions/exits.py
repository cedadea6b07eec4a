"""What the end of a child means: nothing, a restart of some, parking, or the end of the supervisor. Pure."""

from __future__ import annotations

from actors.messages import StopMode
from actors.spec import NORMAL, SHUTDOWN, ExitKind, ExitReason, OnExhausted, Origin, Pacing, Restart
from supervisors.decisions.backoff import backoff_delay_s, spread_s
from supervisors.decisions.intensity import within_window
from supervisors.decisions.model import (
    ALIVE,
    AutoShutdown,
    Child,
    Mode,
    Ok,
    Phase,
    Refused,
    ReportKind,
    Requeue,
)
from supervisors.decisions.strategy import affected, should_restart
from supervisors.decisions.work import Work


def exited(work: Work, child: Child, reason: ExitReason) -> None:
    """A child ended: expectedly (it was being stopped), or by itself."""
    expected = work.mode is Mode.HALTING or child.phase is Phase.STOPPING or child.recycle
    work.report(ReportKind.STOPPED if expected else ReportKind.EXITED, child, reason)
    if expected:
        if child.spec.pacing is not None and _was_stable(work, child, child.spec.pacing):
            child = work.put(child, failures=0, is_exhausted=False)  # its next start begins with a clean slate
        work.set_down(child, reason)
        return
    child = work.put(child, last_reason=reason)
    if should_restart(child.spec.restart, reason):
        _restart(work, child, reason)
    else:
        _ended_for_good(work, child, reason)


def ignored(work: Work, child: Child) -> None:
    """It declined to start: the spec is kept without a child, unless it is temporary or dynamic (OTP, Elixir)."""
    if work.mode is Mode.HALTING or child.phase is Phase.STOPPING:
        work.set_down(child, NORMAL)
        return
    number = work.callers.pop(child.spec.id, None)
    work.set_down(work.put(child, wanted=False, is_new=False), NORMAL)
    work.reply(number, Ok(None))


def start_failed(work: Work, child: Child, reason: ExitReason) -> None:
    """Its start failed: at boot that ends the supervisor, in a call it is the answer, else it is tried again."""
    work.report(ReportKind.START_FAILED, child, reason)
    number = work.callers.pop(child.spec.id, None)
    if work.mode is Mode.HALTING or child.phase is Phase.STOPPING:
        work.set_down(child, reason)
        work.reply(number, Refused("noproc") if work.mode is Mode.HALTING else Ok())
    elif work.mode is Mode.BOOTING:
        work.set_down(child, reason)
        work.abort_boot(child, reason)
    elif number is not None or child.is_new:
        _refuse_start(work, child, reason, number)
    else:
        work.put(child, phase=Phase.RESTARTING, recycle=False, not_before=None, last_reason=reason)
        work.effects.append(Requeue(child.spec.id))


def _refuse_start(work: Work, child: Child, reason: ExitReason, number: int | None) -> None:
    """The failed start was asked for by a call: a new child is forgotten, a known one stays down (OTP)."""
    work.set_down(work.put(child, wanted=False, doomed=child.is_new), reason)
    work.reply(number, Refused("start_failed", reason))


def try_again(work: Work, child_id: str) -> None:
    """A failed restart comes back: it counts again, and the strategy decides again (OTP ``try_again_restart``)."""
    child = work.children.get(child_id)
    if work.mode is not Mode.RUNNING or child is None or not child.is_tried_again:
        return
    _restart(work, child, child.last_reason or SHUTDOWN)


def _restart(work: Work, child: Child, reason: ExitReason) -> None:
    pacing = child.spec.pacing
    if reason.origin is Origin.WORLD and pacing is not None:
        child = work.put(child, phase=Phase.DOWN, is_ready=False)
        if not _pace(work, child, pacing, reason):
            return
        mode = StopMode.TERMINATE
    else:
        mode = StopMode.DETACH if reason.origin is Origin.OURS else StopMode.TERMINATE
        child = work.put(child, phase=Phase.DOWN, is_ready=False, ready_at=None)
        if not work.charge():
            work.give_up(child, reason, mode)
            return
        work.want(child, phase=Phase.DOWN, not_before=None, is_resumed=mode is StopMode.DETACH)
        work.report(ReportKind.RESTARTING, child, reason, 0.0)
    _take_along(work, child, mode)


def _pace(work: Work, child: Child, pacing: Pacing, reason: ExitReason) -> bool:
    """When a world-faulted child may come back; False when the supervisor gives up instead."""
    was_stable = _was_stable(work, child, pacing)
    failures = 0 if was_stable else child.failures
    window = within_window(child.paced_at, pacing.within_s, work.now)
    is_exhausted = (child.is_exhausted and not was_stable) or len(window) >= pacing.max_restarts
    if is_exhausted and pacing.on_exhausted is OnExhausted.ESCALATE:
        work.give_up(child, reason, StopMode.TERMINATE)
        return False
    if is_exhausted:
        delay_s = spread_s(pacing.backoff.max_s, work.roll, jitter=pacing.backoff.jitter)
        phase, kind = Phase.PARKED, ReportKind.RESTARTING if child.is_exhausted else ReportKind.PARKED
    else:
        delay_s = backoff_delay_s(pacing.backoff, failures + 1, work.roll)
        window = (*window, work.now)
        phase, kind = Phase.RESTARTING, ReportKind.RESTARTING
    child = work.want(
        child,
        phase=phase,
        not_before=work.now + delay_s,
        ready_at=None,
        failures=failures + 1,
        paced_at=window,
        is_exhausted=is_exhausted,
    )
    work.report(kind, child, reason, delay_s)
    return True


def _was_stable(work: Work, child: Child, pacing: Pacing) -> bool:
    return child.ready_at is not None and work.now - child.ready_at >= pacing.backoff.reset_after_s


def _take_along(work: Work, child: Child, mode: StopMode) -> None:
    """Those the strategy restarts with it: all kept specs, whether or not they ran; temporary ones are dropped."""
    work.recycle_mode = mode
    is_stale, is_resumed = mode is StopMode.TERMINATE, mode is StopMode.DETACH
    for other_id in affected(work.flags.strategy, tuple(work.children), child.spec.id):
        other = work.children[other_id]
        if other_id == child.spec.id or other.held:
            continue
        if other.spec.restart is Restart.TEMPORARY:
            work.put(other, wanted=False, recycle=other.phase in ALIVE, doomed=True)
        elif other.phase in ALIVE:
            work.want(other, recycle=True, is_stale=is_stale, is_resumed=is_resumed)
            work.report(ReportKind.RESTARTING, other, ExitReason(ExitKind.SHUTDOWN, f"with {child.spec.id}"))
        elif other.not_before is None:
            work.want(other, phase=Phase.DOWN, is_stale=is_stale, is_resumed=is_resumed)


def _ended_for_good(work: Work, child: Child, reason: ExitReason) -> None:
    is_held = bool(reason.evidence.get("hold"))
    work.set_down(work.put(child, wanted=False, held=is_held, not_before=None), reason)
    if not child.spec.significant or work.flags.auto_shutdown is AutoShutdown.NEVER:
        return
    others = [other for other in work.children.values() if other.spec.significant and other.phase is not Phase.DOWN]
    if work.flags.auto_shutdown is AutoShutdown.ANY_SIGNIFICANT or not others:
        work.halt(SHUTDOWN, StopMode.TERMINATE)
