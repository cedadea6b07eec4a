"""Bridge endpoints: the machine in every state, and the actor with real sockets, pipes, folders and threads."""

from __future__ import annotations

import itertools
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from actors.board import NodeStatus
from actors.bridge_endpoint import BridgeEndpointActor, EndpointPast
from actors.bridge_fsm import (
    ALLOWED,
    Connected,
    Event,
    Exit,
    Heard,
    IllegalTransition,
    LinkRun,
    LinkState,
    LookAt,
    Looked,
    Lost,
    SayReady,
    _to,
    begin,
    step,
)
from actors.bridge_sessions import BridgeSessions
from actors.context import ActorContext, ActorSystem
from actors.endpoints.lines import read_line
from actors.endpoints.transport import EndpointPlan
from actors.endpoints.transports import make_transport
from actors.messages import ChildExited, ChildReady, StopYourself
from actors.refs import ActorRef
from actors.spec import SHUTDOWN, Backoff, ChildSpec, Origin, Pacing
from supervisors import Supervisor
from tests.contracts.test_pykka import Recorder
from tests.support.eventually import eventually, holds_for

EVENTS: list[Event] = [Connected(), Heard(), Heard(is_hello=True), Lost("gone"), Looked()]


@pytest.mark.parametrize(("old", "new"), list(itertools.product(LinkState, LinkState)))
def test_every_transition_is_allowed_or_refused_by_the_table(old: LinkState, new: LinkState) -> None:
    run = LinkRun(3.0, 0.0, old)
    if new in ALLOWED[old]:
        assert _to(run, new).state is new
    else:
        with pytest.raises(IllegalTransition):
            _to(run, new)


@pytest.mark.parametrize("state", list(LinkState))
@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_no_event_is_illegal_in_any_state(state: LinkState, event: Event) -> None:
    after, effects = step(LinkRun(3.0, 0.0, state), event, 10.0)
    assert (after.state is LinkState.ENDED) is (
        any(isinstance(one, Exit) for one in effects) or state is LinkState.ENDED
    )


def test_connect_hello_beat_silence() -> None:
    run, effects = begin(3.0, 100.0)
    assert effects == (LookAt(103.0),)
    run, effects = step(run, Connected(), 101.0)
    assert (run.state, effects) == (LinkState.HELLO, ())
    run, effects = step(run, Heard(is_hello=True), 101.5)
    assert (run.state, effects) == (LinkState.HELLO, ())
    run, effects = step(run, Heard(), 102.0)
    assert (run.state, effects) == (LinkState.BEATING, (SayReady(),))
    run, effects = step(run, Looked(), 103.0)
    assert effects == (LookAt(105.0),)
    run, effects = step(run, Looked(), 105.0)
    (end,) = effects
    assert isinstance(end, Exit)
    assert (end.reason.origin, end.reason.detail) == (Origin.WORLD, "silent for 3.0 s")


def test_the_first_heartbeat_may_come_late_after_a_start_and_no_later_one_may() -> None:
    run, effects = begin(3.0, 100.0, 10.0)
    assert effects == (LookAt(103.0),)
    run, effects = step(run, Looked(), 103.0)
    assert effects == (LookAt(106.0),)
    heard, effects = step(run, Heard(), 105.0)
    assert effects == (SayReady(),)
    assert step(heard, Looked(), 106.0)[1] == (LookAt(108.0),)
    assert step(run, Looked(), 109.9)[1] == (LookAt(110.0),)
    _, (end,) = step(heard, Looked(), 108.0)
    assert isinstance(end, Exit)
    _, (end,) = step(run, Looked(), 110.0)
    assert isinstance(end, Exit)
    assert end.reason.detail == "silent for 10.0 s"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"kind": "hello"}', "Heard"),
        (b'{"kind": "heartbeat"}', "Heard"),
        (b'{"anything": 1}', "Heard"),
        (b'{"kind": "error", "error_code": 4051}', "ErrorHeard"),
        (b"garbage", "Unread"),
        (b"[1]", "Unread"),
        (b"\xff\xff", "Unread"),
        (b"[" * 100000, "Unread"),
        (b'{"kind": "reply", "id": "x-1.s.1", "state": "done"}', "Replied"),
        (b'{"kind": "reply"}', "Heard"),
        (b'{"kind": "error", "text": "\\ud800"}', "ErrorHeard"),
        (b'{"kind": "error", "value": NaN}', "ErrorHeard"),
        (b'{"kind": "error", "text": "\xff"}', "ErrorHeard"),
    ],
)
def test_what_a_line_says(line: bytes, kind: str) -> None:
    assert type(read_line(line)).__name__ == kind


# -- the actor --------------------------------------------------------------------------------------------------------


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    made = ActorSystem()
    yield made
    made.close()


class Endpoint:
    """One endpoint actor under a recorder."""

    def __init__(self, system: ActorSystem, plan: EndpointPlan) -> None:
        self.parent, self.errors, self.sessions = Recorder(), list[tuple[str, Any]](), BridgeSessions()
        self.beats = self.sessions.beats
        self.system = system
        context = ActorContext(plan.name, f"root/bridges/{plan.name}", 1, self.parent, system)
        self.ref = ActorRef(
            BridgeEndpointActor.start(
                context, plan, EndpointPast(), self.sessions, lambda name, error: self.errors.append((name, error))
            )
        )

    def is_ready(self) -> bool:
        return any(isinstance(one, ChildReady) for one in self.parent.told)

    def exit(self) -> ChildExited | None:
        return next(iter(self.parent.exits()), None)

    def stop(self) -> None:
        self.ref.tell(StopYourself(SHUTDOWN))
        eventually(self.exit)


class Peer:
    """A TCP peer that does what the test says."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self) -> socket.socket:
        self.listener.settimeout(10)
        connection, _ = self.listener.accept()
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()


def tcp(address: str, silence_s: float = 30.0) -> EndpointPlan:
    return EndpointPlan("mql4", "tcp", silence_s, address=address)


def line(**body: Any) -> bytes:
    return json.dumps(body).encode() + b"\n"


def test_tcp_is_ready_at_its_first_heartbeat_and_greets_first(system: ActorSystem) -> None:
    with Peer() as peer:
        endpoint = Endpoint(system, tcp(peer.address))
        with peer.accept() as connection:
            assert json.loads(connection.makefile().readline()) == {"kind": "hello", "from": "selfheal"}
            connection.sendall(line(kind="hello", name="mql4") + b"garbage\n\xff\n")
            holds_for(lambda: not endpoint.is_ready(), 0.2)
            connection.sendall(line(kind="heartbeat")[:5])
            connection.sendall(line(kind="heartbeat")[5:])
            eventually(endpoint.is_ready)
            endpoint.stop()
            assert connection.recv(100) == b"", "the endpoint closed its end"


def test_tcp_silence_is_a_fault_of_the_world(system: ActorSystem) -> None:
    with Peer() as peer:
        endpoint = Endpoint(system, tcp(peer.address, silence_s=0.4))
        with peer.accept() as connection:
            connection.sendall(line(kind="heartbeat"))
            exited = eventually(endpoint.exit)
    assert exited.reason.origin is Origin.WORLD
    assert "silent for 0." in exited.reason.detail


def test_tcp_a_closed_connection_and_a_refused_one(system: ActorSystem) -> None:
    with Peer() as peer:
        endpoint = Endpoint(system, tcp(peer.address))
        peer.accept().close()
        words = eventually(endpoint.exit).reason.detail
        assert "closed by the peer" in words or "reset by peer" in words
        address = peer.address
    refused = eventually(Endpoint(system, tcp(address, silence_s=0.5)).exit)
    assert (refused.reason.origin, "refused" in refused.reason.detail) == (Origin.WORLD, True)


def test_tcp_a_peer_that_comes_a_little_later_is_no_fault(system: ActorSystem) -> None:
    with Peer() as peer:
        address = peer.address
    endpoint = Endpoint(system, tcp(address, silence_s=20))
    host, _, port = address.rpartition(":")
    holds_for(lambda: endpoint.exit() is None, 0.3)
    with socket.create_server((host, int(port))) as listener:
        listener.settimeout(10)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(line(kind="heartbeat"))
            eventually(endpoint.is_ready)
            endpoint.stop()


def test_an_error_line_is_handed_on(system: ActorSystem) -> None:
    with Peer() as peer:
        endpoint = Endpoint(system, tcp(peer.address))
        with peer.accept() as connection:
            connection.sendall(line(kind="error", error_code=4051, error_message="Invalid function parameter value"))
            eventually(lambda: endpoint.errors)
            endpoint.stop()
    assert endpoint.errors == [
        ("mql4", {"error_code": 4051, "error_message": "Invalid function parameter value"}),
    ]


def test_a_spool_folder_lives_while_files_come(system: ActorSystem, tmp_path: Path) -> None:
    endpoint = Endpoint(system, EndpointPlan("config_sync", "spool", 0.6, directory=tmp_path))

    def drop_and_look() -> bool:
        (tmp_path / "a.csv").write_text("1")
        return endpoint.is_ready()

    eventually(drop_and_look)
    assert "silent" in eventually(endpoint.exit).reason.detail


def test_a_fifo_takes_writers_that_come_and_go(system: ActorSystem, tmp_path: Path) -> None:
    endpoint = Endpoint(system, EndpointPlan("pipe", "fifo", 30.0, directory=tmp_path))
    path = tmp_path / "pipe.fifo"
    eventually(path.exists)
    for _ in range(2):
        fd = os.open(path, os.O_WRONLY)
        os.write(fd, line(kind="heartbeat"))
        os.close(fd)
    eventually(endpoint.is_ready)
    endpoint.stop()


@pytest.mark.parametrize("kind", ["zeromq", "powershell"])
def test_beats_over_the_bridge_link(system: ActorSystem, kind: str) -> None:
    endpoint = Endpoint(system, EndpointPlan("powershell", kind, 30.0))
    eventually(lambda: endpoint.beats.beat("powershell"))
    eventually(endpoint.is_ready)
    assert endpoint.beats.beat("stranger") is False
    endpoint.stop()
    assert endpoint.beats.beat("powershell") is False


def test_a_silent_endpoint_is_started_again_by_its_supervisor(system: ActorSystem) -> None:
    sessions = BridgeSessions()
    plan = EndpointPlan("powershell", "zeromq", 0.2)
    spec = ChildSpec(
        id="powershell",
        start=BridgeEndpointActor,
        args=(plan, EndpointPast(), sessions, lambda *_: None),
        pacing=Pacing(Backoff(initial_s=0.01, jitter=False), max_restarts=100),
    )
    root = Supervisor.start(intensity=0, children=[spec], system=system)
    eventually(lambda: shown(system).restarts >= 2)
    beating = threading.Event()

    def beat() -> None:
        while not beating.wait(0.05):
            sessions.beats.beat("powershell")

    thread = threading.Thread(target=beat)
    thread.start()
    eventually(lambda: shown(system).state.value == "ready")
    beating.set()
    thread.join()
    root.stop()


def shown(system: ActorSystem) -> NodeStatus:
    node = system.board.get("root/powershell")
    assert node is not None
    return node


@pytest.mark.parametrize("kind", ["tcp", "spool", "fifo", "?"])
def test_an_endpoint_without_its_place_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="'x'"):
        make_transport(EndpointPlan("x", kind, 1.0), BridgeSessions(), 1.0)
