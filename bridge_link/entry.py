"""Where peers come in: a bound socket that is unbound before they have taken all the files the process may open.

Owned by the thread of its socket. A descriptor's number is the lowest that was free, so each accepted connection tells
how full it is. Unbinding sends all peers of the socket away, which gives their descriptors back at once; they connect
again by themselves.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import Final

import zmq
from zmq.utils.monitor import recv_monitor_message

from bridge_link.errors import BindFailed

SHUT_MS: Final = 1000
"""For so long nobody comes in then."""
_EVENTS: Final = int(zmq.EVENT_ACCEPTED | zmq.EVENT_ACCEPT_FAILED)
IsFull = Callable[[int], bool]
"""Whether a descriptor with this number means that too many are open."""


def never(descriptor: int) -> bool:
    """Whoever comes may come in."""
    del descriptor
    return False


class Entry:
    """``address`` is where it is bound. Raises BindFailed.

    Args:
        is_full: asked for each connection that came in.
    """

    def __init__(self, socket: zmq.Socket[bytes], wanted: str, is_full: IsFull = never) -> None:
        self._socket = socket
        self._is_full = is_full
        self._log = logging.getLogger("selfheal.links")
        self.is_open = False
        self._shut_at_s = 0.0
        self.monitor = socket.get_monitor_socket(_EVENTS)
        self.monitor.setsockopt(zmq.LINGER, 0)
        self.address = wanted
        self._bind()
        self.address = socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    @property
    def wait_ms(self) -> int | None:
        """How long its thread may wait before it looks again."""
        return None if self.is_open else SHUT_MS

    def look(self) -> None:
        """After each wait."""
        if not self.is_open and time.monotonic() - self._shut_at_s >= SHUT_MS / 1000:
            self._open_again()
        while self.is_open and self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)
            came_in, value = event["event"] == zmq.EVENT_ACCEPTED, event["value"]
            if self._is_full(value) if came_in else value in (errno.EMFILE, errno.ENFILE):
                self._shut()

    def close(self) -> None:
        """Before its socket is closed: events that nobody takes would hold ZeroMQ's thread up."""
        self._socket.disable_monitor()
        self.monitor.close(0)

    def _shut(self) -> None:
        self._log.warning("%s: too many connections: all are sent away", self.address)
        self._socket.unbind(self.address)
        self.is_open = False
        self._shut_at_s = time.monotonic()
        while self.monitor.poll(0):  # they are gone
            recv_monitor_message(self.monitor)

    def _open_again(self) -> None:
        try:
            self._bind()
        except BindFailed as error:  # tried again
            self._shut_at_s = time.monotonic()
            self._log.warning("%s", error)

    def _bind(self) -> None:
        try:
            self._socket.bind(self.address)
        except zmq.ZMQError as error:
            is_taken = error.errno == errno.EADDRINUSE
            why = "is in use by another program" if is_taken else f"cannot listen: {zmq.strerror(error.errno or 0)}"
            raise BindFailed(f"{self.address}: {why}") from None
        self.is_open = True
