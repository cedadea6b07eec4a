"""Peers of bridge endpoints that write down what comes over the wire, read by other means than the links' own."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from tests.bridge.test_bridge_endpoint import line

LONG_S: Final = 20.0
SAID: Final = {"value": "{value}", "why": "because {value}.", "deep": [{"value": "{value}"}, "{value}{value}"]}
"""The parameters of a command that has the alert's value in it."""


def said(value: str) -> dict[str, Any]:
    return {"value": value, "why": f"because {value}.", "deep": [{"value": value}, value + value]}


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), f"a key stands there twice: {pairs}"
    return found


def read_json(raw: bytes) -> Any:
    return json.loads(raw, object_pairs_hook=once)


def read_msgpack(raw: bytes) -> Any:
    return msgpack.unpackb(raw, object_pairs_hook=once)


@dataclass
class Far:
    """``heard``: what came, as (request id, body); ``troubles``: what the peer could not read."""

    heard: queue.SimpleQueue[tuple[str, Any]] = field(default_factory=queue.SimpleQueue)
    troubles: list[BaseException] = field(default_factory=list)

    def take(self) -> tuple[str, Any]:
        assert self.troubles == []
        return self.heard.get(timeout=LONG_S)


@contextmanager
def working(far: Far, work: Callable[[threading.Event], None]) -> Iterator[None]:
    """``work`` on a thread, until the event is set."""
    closed = threading.Event()

    def run() -> None:
        try:
            work(closed)
        except BaseException as trouble:
            far.troubles.append(trouble)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        closed.set()
        thread.join(LONG_S)
        assert far.troubles == []


def lines_of(connection: socket.socket, far: Far, closed: threading.Event) -> None:
    connection.settimeout(0.05)
    text = b""
    while not closed.is_set():
        try:
            text += connection.recv(65536)
        except TimeoutError:
            continue
        *whole, text = text.split(b"\n")
        for one in whole:
            body = read_json(one)
            if body.pop("kind") == "command":
                request = body.pop("id")
                far.heard.put((request, body))
                connection.sendall(line(kind="reply", id=request, state="done"))
