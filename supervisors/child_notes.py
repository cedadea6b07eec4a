"""What a supervisor's record of a child adds to the child's own status on the board. Pure."""

from __future__ import annotations

from typing import Any

from actors.board import NodeState
from actors.spec import Origin
from supervisors.decisions.model import Child, Phase
from supervisors.manager import REFUSED


def child_notes(child: Child, now: float, wall: float) -> dict[str, Any]:
    """Fields of ``NodeStatus`` to lay over what the child published; times turned into wall time."""
    notes: dict[str, Any] = {"restarts_in_window": len(child.paced_at), "wanted": child.wanted or not child.held}
    next_try_at = None if child.not_before is None else wall + child.not_before - now
    match child.phase:
        case Phase.PARKED:
            notes |= {"state": NodeState.CRASH_LOOP, "next_try_at": next_try_at, "pid": None, "health": None}
            notes |= _refusal(child)
        case Phase.RESTARTING:
            notes |= {"state": NodeState.WAITING, "next_try_at": next_try_at, "pid": None, "health": None}
            notes |= _refusal(child)
        case Phase.DOWN:
            notes |= _when_down(child)
        case Phase.STOPPING:
            notes |= {"state": NodeState.STOPPING}
        case Phase.UP if child.is_exhausted and not child.is_ready:
            notes |= {"detail": "crash loop: trying again"}
        case _:
            pass
    return notes


def _when_down(child: Child) -> dict[str, Any]:
    down = {"pid": None, "health": None, "ready_since": None}
    if child.held:
        return down | {"state": NodeState.STOPPED}
    if child.wanted:
        return down | {"state": NodeState.WAITING}
    failed = child.last_reason is not None and bool(child.last_reason.evidence.get("failed"))
    return down | {"state": NodeState.FAILED if failed else NodeState.STOPPED} | _refusal(child)


def _refusal(child: Child) -> dict[str, Any]:
    """Why no run came about: what an older run ended of says nothing of that. A run's own end carries its cause."""
    reason = child.last_reason
    if reason is None or reason.origin is not Origin.WORLD:
        return {}
    is_refusal = bool(reason.evidence.get("failed")) and "cause" not in reason.evidence
    return {"detail": f"{REFUSED}{reason.detail}"} if is_refusal else {}
