"""The daemon's end of a link: one thread that owns a ROUTER socket from birth to close.

``on_message`` is called on that thread and must be quick; ``send`` may be called from any thread. Nothing a peer sends
ends the thread: bad frames are counted and, where an id could be read, answered with a permanent NACK.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from bridge_link.errors import BindFailed, WireError
from bridge_link.sockets import check_address, make_router
from bridge_link.wakeup import WakeUp
from bridge_link.wire import Message, decode, encode, nack

MAX_PER_POLL = 256
"""Messages taken before answers get their turn again."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message and the routing id of the peer that sent it (good for answers, never for trust)."""

    peer: bytes
    message: Message


@dataclass(slots=True)
class Counters:
    received: int = 0
    malformed: int = 0
    sent: int = 0
    unroutable: int = 0
    failed: int = 0


OnMessage = Callable[[Incoming], None]


class RouterPump:
    """``start`` binds; ``send`` answers; ``close`` ends. One pump can be started again after ``close``."""

    def __init__(self, address: str, on_message: OnMessage, name: str = "link") -> None:
        self._wanted = address
        self._on_message = on_message
        self._name = name
        self._log = logging.getLogger(f"selfheal.{name}")
        self._outbox: deque[tuple[bytes, Message]] = deque()
        self._closing = threading.Event()
        self._wake: WakeUp | None = None
        self._thread: threading.Thread | None = None
        self.counters = Counters()
        self.address: str | None = None

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Bind and begin.

        Raises:
            BadAddress: it is none, or not on loopback.
            BindFailed: it is taken.
        """
        check_address(self._wanted)
        self._closing.clear()
        self._wake = WakeUp()
        begun: deque[Exception | None] = deque()
        is_bound = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(begun, is_bound), name=f"pump:{self._name}", daemon=True
        )
        self._thread.start()
        is_bound.wait()
        if (error := begun[0]) is not None:
            self._thread.join()
            raise error

    def send(self, peer: bytes, message: Message) -> None:
        """Answer a peer. A peer that is gone is no error: it will ask again."""
        self._outbox.append((peer, message))
        wake = self._wake
        if wake is not None:
            wake.ring()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what is waiting, then end."""
        self._closing.set()
        if self._wake is not None:
            self._wake.ring()
        if self._thread is not None:
            self._thread.join(timeout_s)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self, begun: deque[Exception | None], is_bound: threading.Event) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = make_router(context)
        wake = self._wake
        assert wake is not None  # noqa: S101  set by start
        try:
            try:
                socket.bind(self._wanted)
            except zmq.ZMQError as error:
                begun.append(BindFailed(f"{self._wanted}: cannot listen: {error.strerror}; is another daemon there?"))
                return
            self.address = socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
            begun.append(None)
            is_bound.set()
            self._pump(socket, wake)
        finally:
            socket.close(0)
            context.term()
            wake.close()
            is_bound.set()

    def _pump(self, socket: zmq.Socket[bytes], wake: WakeUp) -> None:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(wake.fileno(), zmq.POLLIN)
        while not self._closing.is_set():
            ready = dict(poller.poll())
            if wake.fileno() in ready:
                wake.hear()
            self._send_waiting(socket)
            if socket in ready:
                self._receive_some(socket)
                self._send_waiting(socket)
        self._send_waiting(socket)

    def _receive_some(self, socket: zmq.Socket[bytes]) -> None:
        for _ in range(MAX_PER_POLL):
            try:
                peer, *frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._take(peer, frames)

    def _take(self, peer: bytes, frames: list[bytes]) -> None:
        try:
            message = decode(frames)
        except WireError as error:
            self.counters.malformed += 1
            if error.message_id is not None:
                self._outbox.append((peer, nack(error.message_id, error.code, error.text, permanent=True)))
            return
        self.counters.received += 1
        try:
            self._on_message(Incoming(peer, message))
        except Exception:
            self.counters.failed += 1
            self._log.exception("message %s of kind %s could not be handled", message.id, message.kind.name)

    def _send_waiting(self, socket: zmq.Socket[bytes]) -> None:
        while self._outbox:
            peer, message = self._outbox.popleft()
            try:
                socket.send_multipart([peer, *encode(message)], zmq.NOBLOCK)
                self.counters.sent += 1
            except zmq.ZMQError:  # the peer is gone (EHOSTUNREACH) or does not read (EAGAIN): it asks again
                self.counters.unroutable += 1
            except WireError as error:
                self.counters.failed += 1
                self._log.error("answer %s is no message: %s", message.id, error)
