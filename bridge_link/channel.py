"""A client's end of a link: one thread that owns a DEALER socket and sends everything again until it is answered.

Made for foreign programs: needs pyzmq and msgpack only. ``begin`` may be called from any thread; answers complete
futures. What has been sent is nothing; what has been answered is done (messages may be lost and doubled on the way).
Alerts that are to be sent at the same time go in one message; sent again, each goes alone.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Final

import zmq

from bridge_link.batch import each_answer, frames_of_batch, grouped
from bridge_link.errors import LinkClosed, LinkUnusable, Refused, WireError
from bridge_link.keys import ClientKey
from bridge_link.sockets import check_address, check_room, make_dealer
from bridge_link.wakeup import WakeUp
from bridge_link.wire import KEY_REFUSED, ContentType, Kind, Message, decode, encode, new_id

FIRST_RESEND_S: Final = 0.5
LAST_RESEND_S: Final = 30.0
SILENCE_S: Final = 6.0
"""Unanswered for so long, the socket is made anew: a refused handshake leaves a dead one behind for ever."""

BEAT_AGAIN_S: Final = 0.1
"""A heartbeat that found no connection is tried again so soon: the first thing after a reconnect."""
NO_WAY_S: Final = 0.05
"""While there is no connection, it is tried again so often."""
MOST_BATCHES: Final = 256
"""Messages with many alerts whose answers are known again."""
PUSHED: Final = frozenset({Kind.OUTCOME, Kind.COMMAND})

Answer = Mapping[str, Any]


@dataclass(slots=True)
class Exchange:
    """A message on its way and the answers it waits for. ``answers`` completes one future for each expected kind.

    ``is_patient``: a refused key does not end it. ``key_trouble``: that its key is refused, for as long as it is.
    """

    message: Message
    answers: dict[Kind, Future[Answer]]
    frames: list[bytes]
    address: str = ""
    next_send_at: float = 0.0
    tries: int = 0
    is_over: bool = False
    is_patient: bool = False
    key_trouble: Refused | None = None

    @property
    def is_done(self) -> bool:
        return self.is_over or all(future.done() for future in self.answers.values())

    @property
    def is_batchable(self) -> bool:
        """An alert that was never sent: it may go with others. Later ones go alone: nobody knows what went wrong."""
        return self.message.kind is Kind.ALERT and self.tries == 0 and self.message.content_type is ContentType.MSGPACK

    @property
    def is_unheard(self) -> bool:
        """It was given up before anything came back."""
        return self.is_over and not any(future.done() for future in self.answers.values())

    def is_rival_of(self, other: Exchange) -> bool:
        """It waits for answers that could be the other's: they have an id only, and the bodies differ."""
        if self.is_done or self.frames == other.frames:
            return False
        return decode(self.frames).body != decode(other.frames).body  # in another order, or encoding, it is the same

    def forget(self) -> None:
        """Do not send it again."""
        self.is_over = True

    def take(self, message: Message, now: float) -> None:
        if message.kind is Kind.NACK:
            self._refused(message, now)
        elif (future := self.answers.get(message.kind)) is not None:
            self.key_trouble = None
            _complete(future, message.body)

    def fail(self, error: Exception) -> None:
        for future in self.answers.values():
            if not future.done():
                future.set_exception(error)

    def _refused(self, nack: Message, now: float) -> None:
        code, text = str(nack.body.get("code")), str(nack.body.get("text"))
        self.key_trouble = Refused(code, text, is_final=False) if code == KEY_REFUSED else None
        if nack.body.get("permanent"):
            self.fail(Refused(code, text))
        elif self.key_trouble is not None and not self.is_patient:
            self.fail(self.key_trouble)
        else:
            wait_ms = nack.body.get("retry_after_ms", 0)
            self.next_send_at = now + (wait_ms / 1000 if isinstance(wait_ms, int) else FIRST_RESEND_S)


def _complete(future: Future[Answer], body: Answer) -> None:
    try:
        future.set_result(body)
    except InvalidStateError:
        return  # answered before: the same answer again


def resend_delay_s(tries: int, roll: float) -> float:
    """Before the next try: 0.5 s doubled each time, at most 30 s, spread by a fifth either way."""
    return float(min(LAST_RESEND_S, FIRST_RESEND_S * 2 ** min(tries, 10)) * (0.8 + 0.4 * roll))


@dataclass(slots=True)
class Beat:
    """A heartbeat: its body is asked for each time."""

    every_s: float
    body: Callable[[], Mapping[str, Any]]
    next_at: float = 0.0


@dataclass(slots=True)
class _Socket:
    address: str
    key: ClientKey | None
    socket: zmq.Socket[bytes] | None = None
    heard_at: float = field(default_factory=time.monotonic)
    _context: zmq.Context[zmq.Socket[bytes]] | None = None
    _poller: zmq.Poller | None = None

    def open(self, fileno: int) -> zmq.Socket[bytes]:
        """A new one in place of the old. Raises LinkUnusable, ZMQError: there is none then.

        Args:
            fileno: an open descriptor, to ask for room with.
        """
        self.shut()
        check_room(fileno)
        if self._context is None:
            self._context = zmq.Context()
        socket = make_dealer(self._context, self.key)
        try:
            socket.connect(self.address)
        except zmq.ZMQError:
            socket.close(0)
            raise
        self.socket = socket
        self.heard_at = time.monotonic()
        return socket

    def shut(self) -> None:
        """What was to be sent over it is lost."""
        socket, self.socket, self._poller = self.socket, None, None
        if socket is not None:
            socket.close(0)

    def end(self) -> None:
        self.shut()
        if self._context is not None:
            self._context.term()

    def poller(self, fileno: int) -> zmq.Poller:
        """For the socket there is now and ``fileno``."""
        if self._poller is None:
            self._poller = zmq.Poller()
            self._poller.register(self.socket, zmq.POLLIN)
            self._poller.register(fileno, zmq.POLLIN)
        return self._poller


class DealerChannel:
    """``begin`` starts an exchange; ``on_push`` gets what was not asked for (outcomes, commands), on this thread.

    Whatever goes wrong on the thread (no descriptors are left), it begins anew, later and later each time, and
    ``trouble`` says so; what waits for an answer goes on waiting.

    Raises:
        BadAddress: it is none.
        LinkUnusable: there are no descriptors, or no thread, for a channel now.
    """

    def __init__(
        self,
        address: str,
        *,
        key: ClientKey | None = None,
        on_push: Callable[[Message], None] | None = None,
        beat: Beat | None = None,
    ) -> None:
        self.address = check_address(address, is_guarded=key is not None)
        self.key = key
        self._on_push = on_push
        self._beat = beat
        self._new: deque[Exchange | Message] = deque()
        self._pending: dict[str, list[Exchange]] = {}
        self._due: list[tuple[float, int, Exchange]] = []
        self._count = itertools.count()
        self._batches: dict[str, list[Exchange]] = {}
        self._is_beat_stuck = False
        self._is_unheard = False
        self._failures = 0
        self.trouble: str | None = None
        """Why there is no connection to be had now, in one line; None: there is no reason of ours."""
        self._closing = threading.Event()
        self._lock = threading.Lock()
        try:
            self._wake = WakeUp()
        except OSError as error:
            raise LinkUnusable(f"{address}: no connection can be made: {error.strerror}") from error
        self._thread = threading.Thread(target=self._run, name=f"channel:{address}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._wake.close()
            raise LinkUnusable(f"{address}: no connection can be made: {error}") from error

    @property
    def is_open(self) -> bool:
        """Whether it takes anything more."""
        return not self._closing.is_set()

    def begin(self, message: Message, expects: tuple[Kind, ...], *, is_patient: bool = False) -> Exchange:
        """Send a message until everything it expects has come, or it is refused.

        Args:
            is_patient: go on when the key is refused: it may be good again, or the channel be closed for another.

        Raises:
            WireError: it is too large or cannot be written; nothing was sent.
            LinkClosed: the channel is closed.
        """
        exchange = self.prepared(message, expects, is_patient=is_patient)
        self.begin_all([exchange])
        return exchange

    def prepared(self, message: Message, expects: tuple[Kind, ...], *, is_patient: bool = False) -> Exchange:
        """One for ``begin_all``; nothing is sent yet. Raises WireError as ``begin``."""
        answers: dict[Kind, Future[Answer]] = {kind: Future() for kind in expects}
        return Exchange(message, answers, encode(message), self.address, is_patient=is_patient)

    def begin_all(self, exchanges: Sequence[Exchange]) -> None:
        """Send these at the same time: what can go in one message does. Raises LinkClosed."""
        self._put(exchanges)

    def say(self, message: Message) -> None:
        """Send once, without waiting for anything. Raises as ``begin``."""
        encode(message)
        self._put([message])

    def close(self, timeout_s: float = 2.0) -> None:
        """End the thread; what is unanswered fails with LinkClosed."""
        self._closing.set()
        self._wake.ring()
        self._thread.join(timeout_s)

    def _put(self, items: Sequence[Exchange | Message]) -> None:
        with self._lock:
            if self._closing.is_set():
                raise LinkClosed(f"the channel to {self.address} is closed")
            self._new.extend(items)
            self._wake.ring()

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        link = _Socket(self.address, self.key)
        try:
            while not self._closing.is_set():
                try:
                    self._turn(link, link.socket or link.open(self._wake.fileno()))
                except Exception as error:  # whatever it is, what waits must go on being sent
                    self._begin_anew(link, error)
        finally:
            with self._lock:
                self._closing.set()
            for item in (*itertools.chain(*self._pending.values()), *self._new):
                if isinstance(item, Exchange):
                    item.fail(LinkClosed(f"the channel to {self.address} was closed before an answer came"))
            link.end()
            self._wake.close()

    def _begin_anew(self, link: _Socket, error: Exception) -> None:
        self.trouble = f"no connection can be made: {type(error).__name__}: {error}"
        link.shut()
        pause_s = resend_delay_s(self._failures, random.random())  # noqa: S311  jitter
        self._failures += 1
        self._closing.wait(pause_s)
        self._due.clear()  # one that was being sent is in no plan
        for exchange in itertools.chain(*self._pending.values()):
            self._plan(exchange, max(exchange.next_send_at, time.monotonic()))

    def _turn(self, link: _Socket, socket: zmq.Socket[bytes]) -> None:
        ready = dict(link.poller(self._wake.fileno()).poll(self._pause_ms()))
        if self._wake.fileno() in ready:
            self._wake.hear()
        if socket in ready:
            link.heard_at = time.monotonic()
            self._is_unheard = False
            self._receive(socket)
        if self._is_dead(link):
            socket = link.open(
                self._wake.fileno()
            )  # before anything is sent: closing the old one would throw that away
        self._take_new(socket)
        self._send_due(socket)
        self._failures, self.trouble = 0, None

    def _is_dead(self, link: _Socket) -> bool:
        """Whether there was silence for too long, and somebody waits for an answer, or a word to leave."""
        if not (self._pending or self._is_beat_stuck or self._is_unheard):
            link.heard_at = time.monotonic()  # silence begins with a question, or a word that does not leave
            return False
        if time.monotonic() - link.heard_at <= SILENCE_S:
            return False
        self._drop_done()
        return bool(self._pending or self._is_beat_stuck or (self._is_unheard and self._new))

    def _pause_ms(self) -> int:
        due = self._due[0][0] if self._due else float("inf")
        if self._beat is not None:
            due = min(due, self._beat.next_at)
        return round(1000 * max(0.0, min(due - time.monotonic(), 0.5)))

    def _receive(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                message = decode(frames)
            except WireError:
                continue  # no message of ours: what was asked is asked again
            if message.kind in PUSHED:
                if self._on_push is not None:
                    self._on_push(message)
            elif message.id in self._batches:
                self._take_batch(message)
            else:
                self._take(message)

    def _take_batch(self, message: Message) -> None:
        for answer in each_answer(message):
            self._take(answer)
        if message.kind is Kind.NACK:  # one who knows no batches, or not this one: each goes alone
            now = time.monotonic()
            for exchange in self._batches.pop(message.id):
                self._plan(exchange, now)
        elif all(exchange.is_done for exchange in self._batches[message.id]):
            del self._batches[message.id]

    def _take(self, message: Message) -> None:
        asked = self._pending.get(message.id, [])
        for exchange in asked:  # the same alert may have been sent by several threads
            exchange.take(message, time.monotonic())
            if message.kind is Kind.NACK and not exchange.is_done:
                self._plan(exchange, exchange.next_send_at)
        if asked and all(exchange.is_done for exchange in asked):
            del self._pending[message.id]

    def _plan(self, exchange: Exchange, at: float) -> None:
        exchange.next_send_at = at
        heapq.heappush(self._due, (at, next(self._count), exchange))

    def _take_new(self, socket: zmq.Socket[bytes]) -> None:
        while self._new:
            item = self._new.popleft()
            if isinstance(item, Exchange):
                asked = self._pending.setdefault(item.message.id, [])
                if asked and any(one.is_rival_of(item) for one in asked):
                    item.fail(Refused("conflict", f"another body is being sent under the id {item.message.id}"))
                    continue
                asked.append(item)
                self._plan(item, item.next_send_at)
            else:
                _send(socket, encode(item))

    def _send_due(self, socket: zmq.Socket[bytes]) -> None:
        now = time.monotonic()
        fresh: list[Exchange] = []
        while self._due and self._due[0][0] <= now:
            at, _, exchange = heapq.heappop(self._due)
            if exchange.is_done:
                self._forget(exchange)
            elif at == exchange.next_send_at:  # else it was planned anew
                if exchange.is_batchable:
                    fresh.append(exchange)
                else:
                    self._sent(exchange, now, went=_send(socket, exchange.frames))
        self._send_together(socket, fresh, now)
        if self._beat is not None and now >= self._beat.next_at:
            went = _send(socket, encode(Message(Kind.HEARTBEAT, new_id(), self._beat.body())))
            self._is_beat_stuck = not went
            self._beat.next_at = now + (self._beat.every_s if went else BEAT_AGAIN_S)

    def _send_together(self, socket: zmq.Socket[bytes], fresh: list[Exchange], now: float) -> None:
        by_id = {exchange.message.id: exchange for exchange in fresh}
        for group in grouped((message_id, exchange.frames[-1]) for message_id, exchange in by_id.items()):
            exchanges = [by_id[message_id] for message_id, _ in group]
            if len(exchanges) == 1:
                went = _send(socket, exchanges[0].frames)
            else:
                batch_id = new_id()
                went = _send(socket, frames_of_batch(batch_id, group))
                if went:
                    self._batches[batch_id] = exchanges
                    _bound(self._batches)
            for exchange in exchanges:
                self._sent(exchange, now, went=went)
        for exchange in fresh:  # twins, with the same body: whoever asks the same is answered with it
            if by_id[exchange.message.id] is not exchange:
                self._sent(exchange, now, went=True)

    def _sent(self, exchange: Exchange, now: float, *, went: bool) -> None:
        pause_s = resend_delay_s(exchange.tries, random.random()) if went else NO_WAY_S  # noqa: S311  jitter
        exchange.tries += went
        self._plan(exchange, now + pause_s)

    def _forget(self, exchange: Exchange) -> None:
        """One that was given up without an answer leaves its silence behind: the next may be as impatient."""
        self._is_unheard = self._is_unheard or exchange.is_unheard
        left = [one for one in self._pending.get(exchange.message.id, ()) if not one.is_done]
        if left:
            self._pending[exchange.message.id] = left
        else:
            self._pending.pop(exchange.message.id, None)

    def _drop_done(self) -> None:
        for exchanges in list(self._pending.values()):
            for exchange in exchanges:
                if exchange.is_done:
                    self._forget(exchange)


def _bound(batches: dict[str, list[Exchange]]) -> None:
    while len(batches) > MOST_BATCHES:
        del batches[next(iter(batches))]


def _send(socket: zmq.Socket[bytes], frames: list[bytes]) -> bool:
    """False when there is no connection now."""
    try:
        socket.send_multipart(frames, zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True
