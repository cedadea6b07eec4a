"""A wire that lets handshakes and questions through and holds every answer back: a ZMTP 3 TCP proxy.

With it a daemon dies between having stored a message and being heard to say so, certainly, whatever the timing.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Final

GREETING_BYTES: Final = 64
_COMMAND, _LONG = 4, 2
_SHAKING: Final = (b"\x07WELCOME", b"\x05READY", b"\x05ERROR")
"""What a daemon says before it can answer anything."""


class HeldAnswers:
    """Listens on ``address``; connects each peer to what ``forward_to`` names then (a port of this machine)."""

    def __init__(self, forward_to: Callable[[], int]) -> None:
        self._forward_to = forward_to
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._holds = True
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._spawn(self._accept)

    def let_through(self) -> None:
        """From now on answers are passed on; what was held is gone, with its connections."""
        self._holds = False
        self._hang_up()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._forward_to()), timeout=5)
            except OSError:  # nobody is there just now: the peer tries again
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._open |= {near, far}
            ends = threading.Barrier(2)
            self._spawn(self._pass_on, near, far, _everything, ends)
            self._spawn(self._pass_on, far, near, _handshake if self._holds else _everything, ends)

    def _pass_on(
        self,
        source: socket.socket,
        sink: socket.socket,
        what: Callable[[socket.socket, socket.socket], None],
        ends: threading.Barrier,
    ) -> None:
        with contextlib.suppress(OSError):
            what(source, sink)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(threading.BrokenBarrierError):
            if ends.wait(30) == 0:  # the last to leave closes both
                with self._lock:
                    self._open -= {source, sink}
                source.close()
                sink.close()

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        threading.Thread(target=target, args=args, daemon=True).start()


def _everything(source: socket.socket, sink: socket.socket) -> None:
    while block := source.recv(65536):
        sink.sendall(block)


def _handshake(source: socket.socket, sink: socket.socket) -> None:
    """The greeting and the handshake's commands; then nothing more, for as long as the source speaks."""
    for _ in range(GREETING_BYTES):  # each side waits for some of the other's before it goes on
        sink.sendall(_exactly(source, 1))
    while True:
        head = _exactly(source, 1)
        head += _exactly(source, 8 if head[0] & _LONG else 1)
        body = _exactly(source, int.from_bytes(head[1:], "big"))
        if not head[0] & _COMMAND or not body.startswith(_SHAKING):
            break
        sink.sendall(head + body)
    while source.recv(65536):
        pass


def _exactly(source: socket.socket, size: int) -> bytes:
    made = b""
    while len(made) < size:
        block = source.recv(size - len(made))
        if not block:
            raise ConnectionError("the other side has hung up")
        made += block
    return made
