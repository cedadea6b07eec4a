"""A way to wake a thread that waits in a poll: callable from any thread, needs no ZeroMQ socket per caller."""

from __future__ import annotations

import socket


class WakeUp:
    """``fileno`` goes into the poller; ``ring`` makes it readable; the poller's thread calls ``hear``."""

    def __init__(self) -> None:
        self._hears, self._rings = socket.socketpair()
        self._hears.setblocking(False)
        self._rings.setblocking(False)

    def fileno(self) -> int:
        return self._hears.fileno()

    def ring(self) -> None:
        try:
            self._rings.send(b"x")
        except (BlockingIOError, OSError):
            return  # full: it is ringing already; closed: nobody listens any more

    def hear(self) -> None:
        try:
            while self._hears.recv(4096):
                continue
        except BlockingIOError:
            return

    def close(self) -> None:
        self._hears.close()
        self._rings.close()
