"""Who is affected, and whether an end is a reason to restart at all. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from actors.spec import ExitReason, Restart
from supervisors.decisions.model import Strategy


def should_restart(restart: Restart, reason: ExitReason) -> bool:
    """OTP: permanent after any end, transient only after an abnormal one, temporary never."""
    match restart:
        case Restart.PERMANENT:
            return True
        case Restart.TRANSIENT:
            return not reason.is_clean
        case Restart.TEMPORARY:
            return False


def affected(strategy: Strategy, order: Sequence[str], failed: str) -> tuple[str, ...]:
    """The ids a restart of ``failed`` concerns, in start order."""
    match strategy:
        case Strategy.ONE_FOR_ALL:
            return tuple(order)
        case Strategy.REST_FOR_ONE:
            return tuple(order[order.index(failed) :])
        case Strategy.ONE_FOR_ONE | Strategy.SIMPLE_ONE_FOR_ONE:
            return (failed,)
