"""Hostile strings in the step ``bridge_command``: each reaches a real peer inside the one text it was put into.

What is looked at is what comes over the wire, read by other means than the links' own.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pytest
import zmq

from actors.bridge_commands import BridgeCommands
from actors.bridge_sessions import BridgeSessions
from actors.context import ActorSystem
from bridge_link import BridgeClient
from bridge_link.wire import ContentType, Kind, Message, encode, new_id
from runbooks.calls.family import CallOutcome
from runbooks.commands import LocalCommands
from runbooks.engine_words import Try
from runbooks.model import Action, Runbook
from runbooks.network import LocalHttp, LocalTcp
from runbooks.ports import Ports
from runbooks.steps import make_call
from tests.actions.place import NoServices
from tests.bridge.desk import desk
from tests.bridge.test_bridge_endpoint import Endpoint, Peer, line, tcp
from tests.injection.books import made, step
from tests.injection.hearing import bound, listening
from tests.injection.peers import SAID, Far, lines_of, read_json, read_msgpack, said, working
from tests.links.guarded import raw_client
from tests.support.eventually import eventually
from tests.support.plain_links import key_file

__all__ = ["key_file"]


def command(**more: Any) -> Runbook:
    return made("bridge", step("bridge_command", {"endpoint": "mql4", "command": "work", "parameters": SAID, **more}))


def ports_of(sessions: BridgeSessions) -> Ports:
    """As runbooks have them; whatever its name, every endpoint's node is ready."""
    bridges = BridgeCommands(sessions, lambda _endpoint: True)
    return Ports(NoServices(), LocalCommands(), LocalHttp(), LocalTcp(), bridges=bridges)


def outcome(action: Action, ports: Ports, number: int) -> CallOutcome:
    assert action.call is not None
    return make_call(action.call, None, ports, f"x-{number:08}", Try("do_it", 1))


def accepted(book: Runbook, corpus: tuple[str, ...]) -> list[tuple[str, Action]]:
    """The strings that come as far as a step; an empty one is the parameter's default there."""
    found = [(value or "none", action) for value in corpus if (action := bound(book, value)) is not None]
    assert len(found) > len(corpus) * 0.8
    return found


# -- peers ------------------------------------------------------------------------------------------------------------


@contextmanager
def on_the_link(encoding: ContentType, *, commands: list[str] | None) -> Iterator[tuple[Far, BridgeSessions]]:
    """A client in whatever language: it sees bare frames."""
    read = read_json if encoding is ContentType.JSON else read_msgpack
    hello = {"name": "mql4", "session": new_id(), "commands": commands}
    with desk() as daemon, raw_client(daemon.address, None) as dealer:
        far = Far()
        dealer.send_multipart(encode(Message(Kind.HELLO, new_id(), hello, encoding)))
        answer = dealer.recv_multipart()
        assert answer[1] == b"ANSWER"

        def work(closed: threading.Event) -> None:
            while not closed.is_set():
                if not dealer.poll(50, zmq.POLLIN):
                    continue
                magic, kind, content, request, body = dealer.recv_multipart()
                assert (magic, kind, content) == (b"SH1", b"CMD", encoding.value)
                far.heard.put((request.decode("ascii"), read(body)))
                reply = Message(Kind.REPLY, request.decode("ascii"), {"state": "done"}, encoding)
                dealer.send_multipart(encode(reply))

        with working(far, work):
            yield far, daemon.sessions


@contextmanager
def over_tcp() -> Iterator[tuple[Far, BridgeSessions]]:
    """A peer that speaks lines."""
    system = ActorSystem()
    try:
        with Peer() as peer:
            endpoint = Endpoint(system, tcp(peer.address))
            far = Far()
            with peer.accept() as connection:
                connection.sendall(line(kind="hello", name="mql4", commands=["work"]) + line(kind="heartbeat"))
                eventually(lambda: endpoint.sessions.session("mql4"))
                with working(far, lambda closed: lines_of(connection, far, closed)):
                    yield far, endpoint.sessions
                endpoint.stop()
    finally:
        system.close()


PEERS: Final[Mapping[str, Callable[[], Any]]] = {
    "json": lambda: on_the_link(ContentType.JSON, commands=["work"]),
    "msgpack": lambda: on_the_link(ContentType.MSGPACK, commands=["work"]),
    "tcp": over_tcp,
}


@pytest.mark.parametrize("kind", PEERS)
def test_a_peer_gets_one_command_with_the_value_inside_its_text(kind: str, corpus: tuple[str, ...]) -> None:
    fixed = {"command": "work", "instead_of": [], "asked_before": False}
    with PEERS[kind]() as (far, sessions), listening() as heard:
        ports = ports_of(sessions)
        for number, (value, action) in enumerate(accepted(command(), corpus)):
            done = outcome(action, ports, number)
            assert done.ok, (value, done)
            assert far.take() == (f"x-{number:08}.do_it.1", {**fixed, "parameters": said(value)})
        assert far.heard.empty()
    assert (heard.processes, heard.written, heard.connections) == ([], [], [])


def test_a_handler_of_a_client_gets_the_value(corpus: tuple[str, ...]) -> None:
    got: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
    with desk() as daemon, BridgeClient(daemon.address, name="mql4", beat_every_s=0.1, commands={"work": got.put}):
        eventually(lambda: getattr(daemon.sessions.session("mql4"), "commands", None) is not None)
        ports = ports_of(daemon.sessions)
        with listening() as heard:
            for number, (value, action) in enumerate(accepted(command(), corpus)):
                done = outcome(action, ports, number)
                assert done.ok, (value, done)
                assert got.get_nowait() == said(value)
        assert got.empty()
    assert (heard.processes, heard.written) == ([], [])


def test_a_command_or_endpoint_that_is_none_is_not_even_sent(corpus: tuple[str, ...]) -> None:
    other_command = command(command="{value}")
    elsewhere = {"endpoint": "{value}", "command": "work", "parameters": SAID}
    other_endpoint = made("bridge", step("bridge_command", elsewhere, timeout="1ms"))
    with on_the_link(ContentType.JSON, commands=["work"]) as (far, sessions):
        ports = ports_of(sessions)
        for book, said_of_it in ((other_command, "has no command"), (other_endpoint, "nobody speaks for it")):
            for number, (value, action) in enumerate(accepted(book, corpus)):
                done = outcome(action, ports, number)
                assert (done.ok, said_of_it in done.error) == (False, True), (value, done)
        assert far.heard.empty()


def test_a_command_is_one_text_to_a_peer_that_does_not_say_what_it_knows(corpus: tuple[str, ...]) -> None:
    with on_the_link(ContentType.JSON, commands=None) as (far, sessions):
        ports = ports_of(sessions)
        for number, (value, action) in enumerate(accepted(command(command="{value}", parameters={}), corpus)):
            assert outcome(action, ports, number).ok
            _, body = far.take()
            assert body == {"command": value, "parameters": {}, "instead_of": [], "asked_before": False}
        assert far.heard.empty()
