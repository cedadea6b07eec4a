"""A wire that goes dead: what a peer says arrives up to a byte, and nothing after it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import zmq

from bridge_link.keys import ClientKey
from tests.links.guarded import raw_client

FRAME = 60_000


@dataclass
class Relay:
    """``address`` is where a client connects; ``peer`` is who the daemon sees."""

    target: tuple[str, int]
    limit: int
    peer: str = ""
    is_dead: threading.Event = field(default_factory=threading.Event)
    is_cut: threading.Event = field(default_factory=threading.Event)
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextmanager
    def open(self) -> Iterator[Relay]:
        onward = socket.create_connection(self.target)
        self.peer = "{}:{}".format(*onward.getsockname())
        thread = threading.Thread(target=self._forward, args=(onward,))
        thread.start()
        try:
            yield self
        finally:
            with suppress(OSError):
                onward.shutdown(socket.SHUT_RDWR)
            thread.join()
            onward.close()
            self._listener.close()

    def _forward(self, onward: socket.socket) -> None:
        client, _address = self._listener.accept()
        with client:
            back = threading.Thread(target=self._back, args=(onward, client))
            back.start()
            left = self.limit
            with suppress(OSError):
                while left and (data := client.recv(min(left, 1 << 20))):
                    onward.sendall(data)
                    left -= len(data)
            self.is_dead.set()
            back.join()

    def _back(self, onward: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := onward.recv(65536):
                client.sendall(data)
        self.is_cut.set()
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def without_an_end(target: tuple[str, int], key: ClientKey | None, size: int) -> Iterator[Relay]:
    """So many bytes of one message of an authenticated peer, and never its last frame."""
    with Relay(target, size).open() as relay, raw_client(relay.address, key) as dealer:
        chunk = zmq.Frame(bytes(FRAME), copy=False)
        for _ in range(size // FRAME + 2):
            dealer.send(chunk, zmq.SNDMORE, copy=False)
        dealer.send(b"")
        yield relay
