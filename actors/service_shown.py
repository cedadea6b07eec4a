"""What is shown of a service: from its run's state and its record to the words of the tree. Pure."""

from __future__ import annotations

from typing import Final

from actors.board import LastExit, NodeKind, NodeState, NodeStatus
from actors.ledger import ServiceRecord
from actors.service_fsm import LIVE, RunState, ServiceRun
from actors.spec import ExitKind, ExitReason


def last_exit(record: ServiceRecord, log_tail: tuple[str, ...] = ()) -> LastExit | None:
    facts = record.last_exit
    if facts is None:
        return None
    return LastExit(
        cause=str(facts.get("cause", "unknown")),
        at=float(facts.get("at", 0.0)),
        code=facts.get("code"),
        signal=facts.get("signal"),
        log_tail=log_tail,
    )


def remembered(path: str, runtime: str, record: ServiceRecord) -> NodeStatus:
    """What can be shown of a service that this daemon has not started: its past."""
    return NodeStatus(
        path,
        NodeKind.SERVICE,
        NodeState.WAITING,
        runtime=runtime,
        incarnation=record.run,
        restarts=record.restarts,
        since=float(record.last_exit.get("at", 0.0)) if record.last_exit is not None else 0.0,
        last_exit=last_exit(record),
    )


def shown(run: ServiceRun) -> tuple[NodeState, str | None]:
    """Its own state, unless nobody can tell now, or somebody else changed what fights with us."""
    seen, state = run.seen, _SHOWN[run.state]
    if run.ended is not None:
        return _ended_state(run.ended), run.detail
    if run.state in (RunState.WAITING, RunState.LAUNCHING) and run.unknown is not None:
        return NodeState.UNKNOWN, run.unknown
    if run.state not in LIVE:
        return state, run.detail
    if seen.unknown is not None and not run.rules.is_probed:
        return NodeState.UNKNOWN, seen.unknown
    if seen.drift is not None:
        is_ready = state is NodeState.READY
        return NodeState.DEGRADED if is_ready else state, seen.drift if is_ready else run.detail or seen.drift
    return state, run.detail


def _ended_state(reason: ExitReason) -> NodeState:
    """Until its supervisor has judged: what that will come to."""
    if reason.kind is ExitKind.CRASHED:
        return NodeState.WAITING
    return NodeState.FAILED if reason.evidence.get("failed") else NodeState.STOPPED


_SHOWN: Final = {
    RunState.WAITING: NodeState.WAITING,
    RunState.LAUNCHING: NodeState.STARTING,
    RunState.UP: NodeState.STARTING,
    RunState.READY: NodeState.READY,
    RunState.DEGRADED: NodeState.DEGRADED,
    RunState.PAUSED: NodeState.PAUSED,
    RunState.UNKNOWN: NodeState.UNKNOWN,
    RunState.STOPPING: NodeState.STOPPING,
    RunState.ENDED: NodeState.STOPPED,
}
HEALTH: Final = {RunState.UP: "unproven", RunState.READY: "healthy", RunState.DEGRADED: "degraded"}
