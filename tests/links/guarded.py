"""A scripted daemon whose link has keys, with the real keyring and the real book behind it; and raw clients of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import zmq

from actors.access.audit import Audit
from actors.access.book import ClientBook
from actors.access.keyring import Keyring, utc_now
from actors.access.table import Line
from actors.clock import SystemClock
from bridge_link.keys import ClientKey, new_client_key, read_key_file
from bridge_link.sockets import make_dealer
from bridge_link.wire import Kind, Message, decode, encode, new_id
from tests.links.scripted_daemon import Script, ScriptedDaemon, obliging


@dataclass
class Guarded:
    state: Path
    keyring: Keyring
    book: ClientBook
    scripted: ScriptedDaemon
    address: str
    told: list[tuple[str, Mapping[str, Any]]]

    def local(self) -> ClientKey:
        key = read_key_file(self.state / "keys" / "local.key")
        assert key is not None
        return key

    def new(self, name: str, *roles: str, **facts: Any) -> ClientKey:
        """A client more; the book has read it."""
        key = add_client(self.state, name, *roles, **facts)
        assert self.book.look() is None
        return key

    def stranger(self, name: str = "stranger") -> ClientKey:
        """A key for this daemon that nobody gave out."""
        return new_client_key(name, self.local().server)


def add_client(state: Path, name: str, *roles: str, **facts: Any) -> ClientKey:
    keyring = Keyring(state)
    key = new_client_key(name, keyring.server_key().public)
    line: dict[str, Any] = {"name": name, "public": key.public, "roles": roles or ("guardian",), "made_at": utc_now()}
    keyring.add(Line(**line | facts), key, state / "keys" / f"{name}.key")
    return key


def revoke(state: Path, name: str, at: datetime | None = None) -> None:
    Keyring(state).change_table(lambda table: table.with_revoked(name, at or utc_now()))


@contextmanager
def guarded(state: Path, script: Script = obliging) -> Iterator[Guarded]:
    told: list[tuple[str, Mapping[str, Any]]] = []
    clock = SystemClock()
    keyring = Keyring(state)
    book = ClientBook(keyring, clock, Audit(clock, lambda _event, text, evidence: told.append((text, evidence))))
    book.open()
    scripted = ScriptedDaemon(script, book.guard)
    address = scripted.open()
    try:
        yield Guarded(state, keyring, book, scripted, address, told)
    finally:
        scripted.pump.close()


@contextmanager
def raw_client(address: str, key: ClientKey | None, routing_id: bytes | None = None) -> Iterator[zmq.Socket[bytes]]:
    """A DEALER as any language has it: nothing is sent again, nothing is made anew."""
    with zmq.Context() as context, make_dealer(context, key) as socket:
        if routing_id is not None:
            socket.setsockopt(zmq.ROUTING_ID, routing_id)
        socket.setsockopt(zmq.IMMEDIATE, 0)
        socket.connect(address)
        yield socket


def said(socket: zmq.Socket[bytes], kind: Kind, body: Mapping[str, Any], message_id: str | None = None) -> str:
    message = Message(kind, message_id or new_id(), body)
    socket.send_multipart(encode(message))
    return message.id


def heard(socket: zmq.Socket[bytes], within_ms: int = 5000) -> Message | None:
    return decode(socket.recv_multipart()) if socket.poll(within_ms) else None
