"""Whether a child that crashed now would be started again at once, alone, and without another thought. Pure.

A runtime that is given this permit beforehand can start the next run in the very moment of the death, also while the
daemon is busy, frozen or dead. The judgement afterwards must come to the same end, so every condition of
``exits._pace`` stands here too; ``tests/properties`` holds the two against each other.
"""

from __future__ import annotations

from typing import Final

from actors.spec import Restart
from supervisors.decisions.intensity import within_window
from supervisors.decisions.model import Child, Mode, Phase, SupervisorState
from supervisors.decisions.strategy import affected

_JUST_AFTER_S: Final = 0.001  # at the very edge of the window a restart still counts


def restarts_at_once_from(state: SupervisorState, child: Child, now: float) -> float | None:
    """Clock seconds from which a crash of ``child`` is answered by its immediate restart and nothing else.

    None: not as things stand (another fact must change first).
    """
    pacing = child.spec.pacing
    if pacing is None or pacing.backoff.first_s > 0 or not _stands_alone(state, child):
        return None
    stable_from = _stable_from(child)
    at = now if child.failures == 0 and not child.is_exhausted else stable_from
    window = within_window(child.paced_at, pacing.within_s, now)
    if at is None or pacing.max_restarts < 1:
        return None
    if len(window) >= pacing.max_restarts:
        at = max(at, window[len(window) - pacing.max_restarts] + pacing.within_s + _JUST_AFTER_S)
    return max(at, now)


def _stands_alone(state: SupervisorState, child: Child) -> bool:
    is_settled = state.mode is Mode.RUNNING and child.phase is Phase.UP and child.wanted
    is_going = child.held or child.recycle or child.doomed or child.spec.restart is Restart.TEMPORARY
    others = set(affected(state.flags.strategy, tuple(state.children), child.spec.id)) - {child.spec.id}
    return is_settled and not is_going and not others


def _stable_from(child: Child) -> float | None:
    pacing = child.spec.pacing
    if child.ready_at is None or pacing is None:
        return None
    return child.ready_at + pacing.backoff.reset_after_s
