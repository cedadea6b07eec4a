"""The daemon's fast path for events: one thread that owns an XPUB socket from birth to close.

What is published is read anew from where events are kept (``read``), so nothing is queued here and the order is theirs.
``ring`` may be called from any thread. A subscriber may miss messages (it comes late, it is slow): each carries its
number, and what is missing is asked for over the guardian link.

With a ``Guard`` the same thread answers handshakes. Nobody can be put out of a publisher's socket alone: when one who
came in may not follow any more, the socket is made anew, and the others come in again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import zmq

from bridge_link.entry import Entry, IsFull, never
from bridge_link.errors import LinkError
from bridge_link.sockets import check_address, make_publisher
from bridge_link.wakeup import WakeUp
from bridge_link.wire import Message, encode
from bridge_link.zap import Guard, answer_some, open_handler

LOOK_MS: Final = 1000
"""How often those who came in are looked up again."""


@dataclass(frozen=True, slots=True)
class Place:
    """How far an event stream has come: the journal's identity and the number of the last event."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Events behind a place as (topic, message), and the place behind them. ``is_all``: there are no more for now."""

    place: Place
    messages: Sequence[tuple[str, Message]] = ()
    is_all: bool = True


Read = Callable[[Place | None], Batch | None]
"""What comes behind a place; with None only where the end is now. None: it cannot be read at this moment."""


@dataclass(slots=True)
class Figures:
    published: int = 0
    failed: int = 0


@dataclass
class EventPublisher:
    """``start`` binds, ``ring`` says that there may be new events, ``close`` ends. Can be started again."""

    wanted: str
    read: Read
    guard: Guard | None = None
    is_full: IsFull = never
    address: str | None = None
    figures: Figures = field(default_factory=Figures)
    _topics: set[bytes] = field(default_factory=set)
    _place: Place | None = None
    _came_in: set[str] = field(default_factory=set)
    _closing: threading.Event = field(default_factory=threading.Event)
    _wake: WakeUp | None = None
    _thread: threading.Thread | None = None

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Bind and begin.

        Raises:
            BadAddress: it is none, or off loopback without a guard.
            BindFailed: it is taken.
        """
        check_address(self.wanted, is_guarded=self.guard is not None)
        self._closing.clear()
        self._wake = WakeUp()
        begun: deque[Exception | None] = deque()
        is_bound = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(begun, is_bound), name="publisher", daemon=True)
        self._thread.start()
        is_bound.wait()
        if (error := begun[0]) is not None:
            self._thread.join()
            raise error

    def ring(self) -> None:
        if self._topics and self._wake is not None:  # nobody listens: nothing to do
            self._wake.ring()

    def close(self, timeout_s: float = 2.0) -> None:
        self._closing.set()
        if self._wake is not None:
            self._wake.ring()
        if self._thread is not None:
            self._thread.join(timeout_s)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self, begun: deque[Exception | None], is_bound: threading.Event) -> None:
        wake = self._wake
        assert wake is not None  # noqa: S101  set by start
        try:
            address = self.wanted
            while not self._closing.is_set():
                self._serve_at(address, wake, begun, is_bound)
                address = self.address or self.wanted
        except Exception as error:
            if is_bound.is_set():
                raise  # the node that stands for this thread starts another
            begun.append(error)
        finally:
            wake.close()
            is_bound.set()

    def _serve_at(self, address: str, wake: WakeUp, begun: deque[Exception | None], is_bound: threading.Event) -> None:
        """Until it is closed, or one who came in may not be there any more. Raises BindFailed."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        sockets: list[zmq.Socket[bytes]] = []
        self._topics.clear()
        self._came_in.clear()
        try:
            guard = self._noting(self.guard)
            doors = None
            if guard is not None:
                doors = open_handler(context)
                sockets.append(doors)
            socket = make_publisher(context, None if guard is None else guard.secret)
            sockets.append(socket)
            entry = Entry(socket, address, self.is_full)
            self.address = entry.address
            if not is_bound.is_set():
                begun.append(None)
                is_bound.set()
            try:
                self._serve(socket, wake, doors, guard, entry)
            finally:
                entry.close()
        finally:
            self._topics.clear()
            for opened in sockets:
                opened.close(0)
            context.term()

    def _noting(self, guard: Guard | None) -> Guard | None:
        if guard is None:
            return None

        def admits(public: str, address: str) -> bool:
            is_admitted = guard.admits(public, address)
            if is_admitted:
                self._came_in.add(public)
            return is_admitted

        return replace(guard, admits=admits)

    def _serve(
        self,
        socket: zmq.Socket[bytes],
        wake: WakeUp,
        doors: zmq.Socket[bytes] | None,
        guard: Guard | None,
        entry: Entry,
    ) -> None:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(wake.fileno(), zmq.POLLIN)
        if doors is not None:
            poller.register(doors, zmq.POLLIN)
        poller.register(entry.monitor, zmq.POLLIN)
        while not self._closing.is_set():
            ready = dict(poller.poll(entry.wait_ms if guard is None or not self._came_in else LOOK_MS))
            if entry.monitor in ready or not entry.is_open:
                entry.look()
            if wake.fileno() in ready:
                wake.hear()
            if guard is not None and any(guard.name_of(public) is None for public in self._came_in):
                return
            if doors is not None and guard is not None and doors in ready:
                answer_some(doors, guard)
            if socket in ready:
                self._hear_subscribers(socket)
            if self._topics:
                self._publish(socket)

    def _hear_subscribers(self, socket: zmq.Socket[bytes]) -> None:
        """A subscription is the byte 1 and a topic, its end the byte 0; all else a peer sends is nothing."""
        while True:
            try:
                frame = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            if frame[:1] == b"\1":
                self._topics.add(frame[1:])
            elif frame[:1] == b"\0":
                self._topics.discard(frame[1:])
        if not self._topics:
            self._place = None

    def _publish(self, socket: zmq.Socket[bytes]) -> None:
        is_all = False
        while not is_all and not self._closing.is_set():
            try:
                batch = self.read(self._place)
            except Exception:
                self.figures.failed += 1
                logging.getLogger("selfheal.events").exception("events could not be read")
                return
            if batch is None:
                return  # not now: subscribers ask by themselves
            self._place, is_all = batch.place, batch.is_all
            for topic, message in batch.messages:
                self._send(socket, topic, message)

    def _send(self, socket: zmq.Socket[bytes], topic: str, message: Message) -> None:
        try:
            socket.send_multipart([topic.encode(), *encode(message)], zmq.NOBLOCK)
            self.figures.published += 1
        except (zmq.ZMQError, LinkError):
            self.figures.failed += 1
