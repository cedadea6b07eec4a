"""An endpoint that waits long for its next try, and the service behind it that is back: real actors, a real socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from actors.board import NodeKind, NodeState, NodeStatus
from actors.bridge_endpoint import BridgeEndpointActor, EndpointPast
from actors.bridge_sessions import BridgeSessions
from actors.context import ActorSystem
from actors.endpoints.transport import EndpointPlan
from actors.refs import ActorRef
from actors.spec import Backoff, ChildSpec, Pacing
from supervisors import Supervisor
from supervisors.decisions.model import Ask, Ok
from supervisors.endpoint_return import EndpointReturn
from supervisors.library import call
from supervisors.supervisor import CallRequest, Result
from tests.support.eventually import eventually, holds_for
from tests.system.running import free_port


@dataclass
class Place:
    system: ActorSystem
    past: EndpointPast
    port: int

    def state(self) -> NodeState:
        node = self.system.board.get("root/desk")
        assert node is not None
        return node.state

    def service(self, name: str, state: NodeState) -> None:
        self.system.board.publish(NodeStatus(f"root/services/{name}", NodeKind.SERVICE, state))


@contextmanager
def parked(run: Callable[[ActorSystem], Callable[[Callable[[], object]], object]]) -> Iterator[Place]:
    """An endpoint ``desk`` that nobody answers for, tried again in an hour; ``gateway`` stands behind it."""
    system, past, port = ActorSystem(), EndpointPast(), free_port()
    plan = EndpointPlan("desk", "tcp", 0.05, address=f"127.0.0.1:{port}", start_period_s=10.0)
    past.is_awaited = False
    spec = ChildSpec(
        id="desk",
        start=BridgeEndpointActor,
        args=(plan, past, BridgeSessions(), lambda *_: None),
        pacing=Pacing(Backoff(initial_s=0.01, max_s=3600.0, jitter=False), max_restarts=1),
    )
    root = Supervisor.start(intensity=0, children=[spec], system=system)

    def ask(what: Ask, endpoint: str) -> Result:
        ref = system.whereis("root")
        assert isinstance(ref, ActorRef)
        return call(ref, CallRequest(what, id=endpoint))

    system.board.listen(EndpointReturn({"desk": "gateway"}, {"desk": past}, ask, run(system)).look)
    place = Place(system, past, port)
    try:
        eventually(lambda: place.state() is NodeState.CRASH_LOOP)
        yield place
    finally:
        root.stop()
        system.close()


def test_it_is_tried_at_once_and_given_time() -> None:
    """What is behind it is ready before it listens."""
    with parked(lambda system: system.io.run) as place:
        runs = place.past.runs
        place.service("bystander", NodeState.READY)
        place.service("gateway", NodeState.STARTING)
        holds_for(lambda: place.state() is NodeState.CRASH_LOOP, 0.3)
        place.service("gateway", NodeState.READY)
        eventually(lambda: place.state() is NodeState.STARTING)
        holds_for(lambda: place.state() is NodeState.STARTING, 0.3)  # six times its silence
        place.service("gateway", NodeState.READY)  # told again, not come again
        with socket.create_server(("127.0.0.1", place.port)) as listener:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b'{"kind": "heartbeat"}\n')
                eventually(lambda: place.state() is NodeState.READY)
        assert place.past.runs == runs + 1


def test_what_has_come_is_not_given_time_when_it_falls_silent() -> None:
    """Its service became ready while the endpoint looked for it already: as at the start of a daemon."""
    with parked(lambda system: system.io.run) as place:
        place.service("gateway", NodeState.READY)
        eventually(lambda: place.state() is NodeState.STARTING)
        place.service("gateway", NodeState.STARTING)
        place.service("gateway", NodeState.READY)
        assert place.past.is_awaited
        with socket.create_server(("127.0.0.1", place.port)) as listener:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b'{"kind": "heartbeat"}\n')
                eventually(lambda: place.state() is NodeState.READY)
        eventually(lambda: not place.past.is_awaited)
        eventually(lambda: place.state() is NodeState.CRASH_LOOP)  # not after the 10 s of a start


def test_a_daemon_that_ends_tries_nothing() -> None:
    def closed(_system: ActorSystem) -> Callable[[Callable[[], object]], object]:
        def refuse(_job: Callable[[], object]) -> object:
            raise RuntimeError("the I/O pool is closed")

        return refuse

    with parked(closed) as place:
        place.service("gateway", NodeState.READY)
        holds_for(lambda: place.state() is NodeState.CRASH_LOOP, 0.3)


@pytest.mark.parametrize("kind", [NodeKind.BRIDGE, NodeKind.LINK])
def test_only_services_come_back(kind: NodeKind) -> None:
    asked: list[Ask] = []

    def ask(what: Ask, _endpoint: str) -> Result:
        asked.append(what)
        return Ok()

    back = EndpointReturn({"desk": "gateway"}, {"desk": EndpointPast()}, ask, lambda job: job())
    back.look(NodeStatus("root/bridges/gateway", kind, NodeState.READY))
    assert asked == []
    back.look(NodeStatus("root/services/gateway", NodeKind.SERVICE, NodeState.READY))
    assert asked == [Ask.RESTART]
