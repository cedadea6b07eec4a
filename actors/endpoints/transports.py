"""Which transport an endpoint kind has."""

from __future__ import annotations

from pathlib import Path

from actors.bridge_sessions import BridgeSessions
from actors.endpoints.beats import BeatBoard, BeatTransport
from actors.endpoints.executor import ExecutorTransport
from actors.endpoints.fifo import FifoTransport
from actors.endpoints.spool import SpoolTransport
from actors.endpoints.tcp import TcpTransport
from actors.endpoints.transport import EndpointPlan, Transport

__all__ = ["BeatBoard", "make_transport"]


def make_transport(plan: EndpointPlan, sessions: BridgeSessions, patience_s: float) -> Transport:
    """The transport of an endpoint kind. ``patience_s``: how long its other side may take to come.

    Raises:
        ValueError: the kind is unknown, or has not the place it needs.
    """
    match plan:
        case EndpointPlan(kind="tcp", address=str(address)):
            return TcpTransport(plan.name, address, patience_s, plan.silence_s, sessions)
        case EndpointPlan(kind="spool", directory=Path() as directory):
            return SpoolTransport(plan.name, directory, plan.silence_s)
        case EndpointPlan(kind="fifo", directory=Path() as directory):
            return FifoTransport(plan.name, directory / f"{plan.name}.fifo")
        case EndpointPlan(kind="powershell", executor=argv) if argv:
            return ExecutorTransport(plan.name, argv, plan.silence_s)
        case EndpointPlan(kind="zeromq" | "powershell"):
            return BeatTransport(plan.name, sessions.beats)
        case _:
            raise ValueError(f"bridge {plan.name!r}: kind {plan.kind!r} has no address or directory")
