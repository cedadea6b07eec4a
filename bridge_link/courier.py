"""Brings an endpoint's errors to wherever the daemon is, and introduces the endpoint there.

One thread, which owns the channel's life: the daemon may move, and whoever waits for a decision is told it. What the
store holds is sent until the daemon has it on disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from bridge_link.channel import DealerChannel, Exchange
from bridge_link.errors import LinkClosed, LinkError, Refused, StoreUnusable, WireError
from bridge_link.keys import ClientKey
from bridge_link.store import BridgeStore
from bridge_link.wire import Kind, Message, new_id

WINDOW: Final = 64
LOOK_S: Final = 0.2
MURMUR_S: Final = 1.0
"""Unanswered for so long, ``trouble`` says so."""
HELLO_EVERY_S: Final = 5.0
FIND_EVERY_S: Final = 0.5
"""How often it is asked where the daemon is: one that has moved is found before it misses us."""
MOST_LOOSE: Final = 10_000


Whereabouts = tuple[str, ClientKey | None]
"""An address, and the key to speak with there."""


@dataclass(frozen=True, slots=True)
class Letter:
    """An error on its way. ``decision`` completes when it is decided, refused, or the courier is closed."""

    id: str
    body: Mapping[str, Any]
    decision: Future[Mapping[str, Any]] = field(default_factory=Future)


@dataclass(slots=True)
class _Reach:
    """The channel to where the daemon is said to be."""

    where: Whereabouts
    channel: DealerChannel
    heard_at: float
    hello: Exchange | None = None
    hello_at: float = float("-inf")


class Courier:
    """``open_channel`` makes the channel; ``find`` says where the daemon is now, and the key, or raises LinkError."""

    def __init__(
        self,
        store: BridgeStore,
        open_channel: Callable[[Whereabouts], DealerChannel],
        find: Callable[[], Whereabouts],
        hello: Mapping[str, Any],
        troubles: dict[str, str],
    ) -> None:
        self._store = store
        self._open_channel = open_channel
        self._find = find
        self._hello = hello
        self._troubles = troubles
        self._reach: _Reach | None = None
        self._letters: dict[str, Letter] = {}
        self._loose: dict[str, Mapping[str, Any]] = {}
        self._flying: dict[str, Exchange] = {}
        self._stored: set[str] = set()
        self._looked_at = float("-inf")
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bridge-courier", daemon=True)
        self._thread.start()

    def put(self, body: Mapping[str, Any]) -> Letter:
        """Keep an error and send it. Raises StoreUnusable (not kept), LinkClosed."""
        letter = Letter(new_id(), body)
        with self._lock:
            if self._closing.is_set():
                raise LinkClosed("this bridge client is closed")
            self._letters[letter.id] = letter
        try:
            self._store.keep(letter.id, body)
            self._troubles.pop("store", None)
        except StoreUnusable as error:
            self._keep_loosely(letter, error)
        self._wake.set()
        return letter

    def wait_no_more(self, letter: Letter) -> None:
        """Nobody waits for its decision any more."""
        with self._lock:
            self._letters.pop(letter.id, None)
        self._wake.set()

    @property
    def waiting(self) -> int:
        return self._store.count() + len(self._loose)

    def say(self, message: Message) -> None:
        """Send once, if there is a link. From any thread."""
        reach = self._reach
        if reach is not None:
            with suppress(LinkError):  # closed just now: the daemon asks again
                reach.channel.say(message)

    def close(self, timeout_s: float = 5.0) -> None:
        with self._lock:
            self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        for letter in list(self._letters.values()):
            _complete(letter.decision, LinkClosed("the bridge client was closed before a decision came"))

    def _keep_loosely(self, letter: Letter, error: StoreUnusable) -> None:
        """The disk is full: it is sent from memory, as long as there is any."""
        self._troubles["store"] = str(error)
        with self._lock:
            if len(self._loose) >= MOST_LOOSE:
                self._letters.pop(letter.id, None)
                raise error
            self._loose[letter.id] = letter.body

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            for part in (self._settle, self._greet, self._send_loose, self._send_kept):
                self._try(part)  # a disk that fails must not keep from the daemon what is in memory
            self._wake.wait(LOOK_S)
            self._wake.clear()
        self._drop_channel()

    def _try(self, part: Callable[[], None]) -> None:
        try:
            part()
            self._troubles.pop(part.__name__, None)
        except LinkError as error:
            self._troubles[part.__name__] = str(error)
        except Exception as error:  # whatever it is, errors must go on being delivered
            self._troubles[part.__name__] = f"{type(error).__name__}: {error}"

    def _send_loose(self) -> None:
        with self._lock:
            loose = [(one, body) for one, body in self._loose.items() if one not in self._flying]
        self._send(loose)

    def _send_kept(self) -> None:
        room = WINDOW - len(self._flying)
        if room > 0:
            self._send(self._store.waiting(room, self._flying))

    def _send(self, errors: list[tuple[str, Any]]) -> None:
        reach = self._reached()
        if reach is None:
            return
        for error_id, body in errors[: WINDOW - len(self._flying)]:
            try:
                message = Message(Kind.ALERT, error_id, body)
                exchange = reach.channel.begin(message, (Kind.STORED, Kind.DECIDED), is_patient=True)
            except WireError as error:
                self._refused(error_id, Refused(error.code, error.text))
                continue
            if not self._flying:
                reach.heard_at = max(reach.heard_at, time.monotonic())  # the silence begins with the question
            for answer in exchange.answers.values():
                answer.add_done_callback(lambda _future: self._wake.set())
            self._flying[error_id] = exchange

    def _settle(self) -> None:
        """What came back. People are told first; should the disk fail then, the daemon is asked again."""
        ended = {one: exchange for one, exchange in self._flying.items() if exchange.answers[Kind.STORED].done()}
        errors = {one: exchange.answers[Kind.STORED].exception() for one, exchange in ended.items()}
        stored = [one for one, error in errors.items() if error is None and one not in self._stored]
        self._stored.update(stored)
        with self._lock:
            for error_id in stored:
                self._loose.pop(error_id, None)
        if ended and self._reach is not None:
            self._reach.heard_at = time.monotonic()
            self._troubles.pop("reach", None)
        self._tell_decisions()
        if any(error is not None and not isinstance(error, Refused) for error in errors.values()):
            self._drop_channel()  # its thread has ended
        self._tell_key_trouble()
        if stored:
            self._store.delivered(stored)
        for error_id, error in errors.items():
            if isinstance(error, Refused):
                self._flying.pop(error_id, None)
                self._refused(error_id, error)

    def _tell_decisions(self) -> None:
        """One that is stored is on its way only for as long as somebody waits for its decision."""
        for error_id in list(self._stored):
            exchange = self._flying.get(error_id)
            with self._lock:
                letter = self._letters.get(error_id)
            decided = None if exchange is None else exchange.answers[Kind.DECIDED]
            if letter is not None and decided is not None and not decided.done():
                continue
            if letter is not None and decided is not None:
                _complete(letter.decision, decided.exception() or decided.result())
            if exchange is not None:
                exchange.forget()
                del self._flying[error_id]
            self._stored.discard(error_id)

    def _tell_key_trouble(self) -> None:
        """Whoever waits hears at once that the key is refused; the errors wait for another key, or a better day."""
        refused = {one: exchange.key_trouble for one, exchange in self._flying.items() if exchange.key_trouble}
        if not refused:
            self._troubles.pop("key", None)
        for error_id, trouble in refused.items():
            self._troubles["key"] = f"{trouble}; errors wait for a key that is taken"
            with self._lock:
                letter = self._letters.get(error_id)
            if letter is not None:
                _complete(letter.decision, trouble)

    def _refused(self, error_id: str, error: Refused) -> None:
        with self._lock:
            self._loose.pop(error_id, None)
            letter = self._letters.get(error_id)
        if letter is not None:
            _complete(letter.decision, error)
        self._store.bury(error_id, error.code, error.text)

    # -- the channel ----------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        """Say who we are, now and then: the answer shows that the daemon is there, a new one learns of us."""
        now_s, reach = time.monotonic(), self._reached()
        if reach is None:
            return
        if reach.hello is not None and reach.hello.answers[Kind.ANSWER].done():
            error = reach.hello.answers[Kind.ANSWER].exception()
            if isinstance(error, Refused):
                self._troubles["hello"] = str(error)
            elif error is None:
                self._troubles.pop("hello", None)
            reach.heard_at = now_s
            self._troubles.pop("reach", None)
            reach.hello = None
        if reach.hello is None and now_s - reach.hello_at >= HELLO_EVERY_S:
            if not self._flying:
                reach.heard_at = max(reach.heard_at, now_s)  # the silence begins with the question
            reach.hello = reach.channel.begin(Message(Kind.HELLO, new_id(), self._hello), (Kind.ANSWER,))
            reach.hello.answers[Kind.ANSWER].add_done_callback(lambda _future: self._wake.set())
            reach.hello_at = now_s

    def _reached(self) -> _Reach | None:
        """The channel to where the daemon is said to be: a new one as soon as it is said to be somewhere else."""
        now_s, reach = time.monotonic(), self._reach
        if now_s - self._looked_at < FIND_EVERY_S:
            return reach
        self._looked_at = now_s
        is_asked = reach is not None and (bool(self._flying) or reach.hello is not None)
        if reach is not None and is_asked and now_s - reach.heard_at > MURMUR_S:
            text = f"no answer for {now_s - reach.heard_at:.0f} s; does the daemon run, and know this key?"
            self._troubles["reach"] = reach.channel.trouble or f"{reach.channel.address}: {text}"
        try:
            where = self._find()
            if reach is None or where != reach.where or not reach.channel.is_open:
                channel = self._open_channel(where)
                self._drop_channel()
                self._reach = reach = _Reach(where, channel, now_s)
                for old in ("reach", "hello"):  # with another daemon or key it begins anew
                    self._troubles.pop(old, None)
        except LinkError as error:
            self._troubles["reach"] = str(error)
        return reach

    def _drop_channel(self) -> None:
        """What was on its way is sent again by the next one, also to hear a decision that somebody waits for."""
        reach, self._reach = self._reach, None
        self._looked_at = float("-inf")
        self._flying.clear()
        with self._lock:
            self._loose |= {one: self._letters[one].body for one in self._stored if one in self._letters}
        self._stored.clear()
        if reach is not None:
            reach.channel.close()


def _complete(future: Future[Mapping[str, Any]], what: Mapping[str, Any] | BaseException) -> None:
    with suppress(InvalidStateError):
        if isinstance(what, BaseException):
            future.set_exception(what)
        else:
            future.set_result(what)
