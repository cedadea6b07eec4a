"""The daemon's end of a link: one thread that owns a ROUTER socket from birth to close.

``on_message`` is called on that thread and must be quick; ``send`` may be called from any thread. Nothing a peer sends
ends the thread: bad frames are counted and, where an id could be read, answered with a permanent NACK. With a ``Guard``
the same thread answers handshakes: nobody is let in when it is dead, and who is not in the guard's table now is refused
although an old session of his lives.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import zmq

from bridge_link.entry import Entry, IsFull, never
from bridge_link.errors import WireError
from bridge_link.keys import LOCAL
from bridge_link.sockets import check_address, make_router
from bridge_link.wakeup import WakeUp
from bridge_link.wire import FRAMES, KEY_REFUSED, KEY_REFUSED_MS, Message, decode, encode, encoding_of, nack
from bridge_link.zap import Guard, answer_some, open_handler

_LAST: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
"""As numbers: pyzmq's own names for them are slow to combine for each frame."""
MAX_PER_POLL = 256
"""Messages taken before answers get their turn again."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message, the routing id of the peer that sent it (good for answers, never for trust), and the authenticated
    name of who that is (``local`` on a link without keys).
    """

    peer: bytes
    message: Message
    client: str = LOCAL


@dataclass(slots=True)
class Counters:
    received: int = 0
    malformed: int = 0
    sent: int = 0
    unroutable: int = 0
    failed: int = 0
    unknown: int = 0


OnMessage = Callable[[Incoming], None]
Decode = Callable[[Sequence[bytes]], Message]
"""As ``bridge_link.wire.decode``: frames to a message. Raises WireError, and nothing else."""
Answer = tuple[bytes, Message | list[bytes]]
"""The peer, and a message or its frames."""


class RouterPump:
    """``start`` binds; ``send`` answers; ``close`` ends. One pump can be started again after ``close``.

    Args:
        on_drained: called on the pump's thread when all that had come was given to ``on_message``.
        is_full: whether so many files are open that peers must be sent away.
        read: what makes messages of frames.
    """

    def __init__(
        self,
        address: str,
        on_message: OnMessage,
        name: str = "link",
        *,
        guard: Guard | None = None,
        on_drained: Callable[[], object] = lambda: None,
        is_full: IsFull = never,
        read: Decode = decode,
    ) -> None:
        self._read = read
        self._wanted = address
        self._guard = guard
        self._on_message = on_message
        self._on_drained = on_drained
        self._is_full = is_full
        self._name = name
        self._log = logging.getLogger(f"selfheal.{name}")
        self._outbox: deque[Answer] = deque()
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
            BadAddress: it is none, or off loopback without a guard.
            BindFailed: it is taken.
        """
        check_address(self._wanted, is_guarded=self._guard is not None)
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
        self._ring()

    def send_frames(self, answers: Iterable[tuple[bytes, list[bytes]]]) -> None:
        """Many answers at once, (peer, frames) each, as ``send``."""
        self._outbox.extend(answers)
        self._ring()

    def _ring(self) -> None:
        if (wake := self._wake) is not None and threading.current_thread() is not self._thread:
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
        wake = self._wake
        assert wake is not None  # noqa: S101  set by start
        try:
            try:
                doors, socket, entry = self._open(context)
            except Exception as error:
                begun.append(error)
                return
            begun.append(None)
            is_bound.set()
            try:
                self._pump(socket, wake, doors, entry)
            finally:
                entry.close()
        finally:
            context.destroy(linger=0)
            wake.close()
            is_bound.set()

    def _open(
        self, context: zmq.Context[zmq.Socket[bytes]]
    ) -> tuple[zmq.Socket[bytes] | None, zmq.Socket[bytes], Entry]:
        """Who answers handshakes is there before there is anything to come in by. Raises BindFailed."""
        doors = None if self._guard is None else open_handler(context)
        socket = make_router(context, None if self._guard is None else self._guard.secret)
        entry = Entry(socket, self._wanted, self._is_full)
        self.address = entry.address
        return doors, socket, entry

    def _pump(self, socket: zmq.Socket[bytes], wake: WakeUp, doors: zmq.Socket[bytes] | None, entry: Entry) -> None:
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(wake.fileno(), zmq.POLLIN)
        if doors is not None:
            poller.register(doors, zmq.POLLIN)
        poller.register(entry.monitor, zmq.POLLIN)
        while not self._closing.is_set():
            ready = dict(poller.poll(entry.wait_ms))
            if entry.monitor in ready or not entry.is_open:
                entry.look()
            if wake.fileno() in ready:
                wake.hear()
            if doors is not None and self._guard is not None and doors in ready:
                answer_some(doors, self._guard)
            self._send_waiting(socket)
            if socket in ready:
                self._receive_some(socket)
                self._drained()
                self._send_waiting(socket)
        self._send_waiting(socket)

    def _receive_some(self, socket: zmq.Socket[bytes]) -> None:
        for _ in range(MAX_PER_POLL):
            try:
                first = socket.recv(zmq.NOBLOCK, copy=False)  # only this frame is asked who sent it: that costs time
            except zmq.Again:
                return
            frames: list[bytes] = []
            more = bool(first.more)
            while more:
                frame = socket.recv(copy=False)  # knows by itself whether more follow
                more = bool(frame.more)
                if len(frames) <= FRAMES:  # more are no message whatever they hold
                    frames.append(frame.bytes)
            self._take(first.bytes, self._sender(first), frames)

    def _drained(self) -> None:
        try:
            self._on_drained()
        except Exception:
            self.counters.failed += 1
            self._log.exception("what had come could not be handed on")

    def _sender(self, first: zmq.Frame) -> str | None:
        """The authenticated name, as the guard's table is now; None: nobody's."""
        if self._guard is None:
            return LOCAL
        try:
            user_id = first.get("User-Id")
        except zmq.ZMQError:  # it has none: no handler was asked
            return None
        return self._guard.name_of(user_id) if isinstance(user_id, str) and user_id else None

    def _take(self, peer: bytes, client: str | None, frames: list[bytes]) -> None:
        try:
            message = self._read(frames)
        except WireError as error:
            self.counters.malformed += 1
            if error.message_id is not None:
                refusal = nack(error.message_id, error.code, error.text, permanent=True)
                self._outbox.append((peer, replace(refusal, content_type=encoding_of(frames))))
            return
        if client is None:
            self.counters.unknown += 1
            text = "this key is not known here (any more)"
            refusal = nack(message.id, KEY_REFUSED, text, permanent=False, retry_after_ms=KEY_REFUSED_MS)
            self._outbox.append((peer, replace(refusal, content_type=message.content_type)))
            return
        self.counters.received += 1
        try:
            self._on_message(Incoming(peer, message, client))
        except Exception:
            self.counters.failed += 1
            self._log.exception("message %s of kind %s could not be handled", message.id, message.kind.name)

    def _send_waiting(self, socket: zmq.Socket[bytes]) -> None:
        while self._outbox:
            peer, answer = self._outbox.popleft()
            try:
                frames = answer if isinstance(answer, list) else encode(answer)
                socket.send(peer, _MORE)
                for frame in frames[:-1]:
                    socket.send(frame, _MORE)
                socket.send(frames[-1], _LAST)
                self.counters.sent += 1
            except zmq.ZMQError:  # the peer is gone (EHOSTUNREACH) or does not read (EAGAIN): it asks again
                self.counters.unroutable += 1
            except WireError as error:
                self.counters.failed += 1
                self._log.error("an answer is no message: %s: %s", _named(answer), error)


def _named(answer: Message | list[bytes]) -> str:
    """For the log: never the whole of what is too large to be sent, at each resend."""
    return f"{answer.kind.name} {answer.id}" if isinstance(answer, Message) else f"{len(answer)} frames"
