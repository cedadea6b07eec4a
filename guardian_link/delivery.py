"""From the outbox to the daemon: a thread that sends what waits until the daemon has it on disk.

The daemon may come later, go, and come back at another address; the program may die at any instant and start again.
What was acknowledged leaves the outbox, what is refused for good becomes a dead letter, all else is sent again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bridge_link.channel import SILENCE_S, DealerChannel, Exchange
from bridge_link.errors import LinkError, Refused, WireError
from bridge_link.keys import ClientKey
from bridge_link.wire import Kind, Message
from guardian_link.errors import OutboxUnusable
from guardian_link.late import LateAlerts, OnLate
from guardian_link.messages import Alert
from guardian_link.outbox import Outbox

WINDOW: Final = 64
"""Alerts on their way at once."""
LOOK_S: Final = 0.2
MURMUR_S: Final = 1.0
"""Unanswered for so long, ``trouble`` says so."""
OFFICE_S: Final = 1.0
"""How often one who does not deliver asks whether it may."""
NEGLECTED_S: Final = 4.0
"""The same alert is the first in the outbox for so long: one who is not to deliver does so too."""


@dataclass(slots=True)
class _Reach:
    """The channel to where the daemon is said to be."""

    address: str
    channel: DealerChannel
    heard_at: float


class Delivery:
    """Delivers from ``outbox`` for as long as it lives.

    Args:
        find: where the daemon is now; raises LinkError when nobody knows.
        find_key: with which key it is spoken to now; raises LinkError when there is none.
        on_late: called, on threads of its own, with each alert that the daemon does not have within a second; it goes
            on being sent. Once, unless the program dies meanwhile. An exception of it, and a call that does not return,
            is told in ``trouble``.
    """

    def __init__(
        self,
        outbox: Outbox,
        find: Callable[[], str],
        *,
        find_key: Callable[[], ClientKey | None] = lambda: None,
        on_late: OnLate | None = None,
        window: int = WINDOW,
    ) -> None:
        self._troubles: dict[str, str] = {}
        self._outbox = outbox
        self._find = find
        self._find_key = find_key
        self._window = window
        self._reach: _Reach | None = None
        self._flying: dict[str, Exchange] = {}
        self._handed: Counter[str] = Counter()
        self._first: tuple[int | None, float] = (None, 0.0)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._run, name="delivery", daemon=True)]
        if on_late is not None:
            late = LateAlerts(outbox, on_late)
            teller = threading.Thread(target=self._tell_late, args=(late,), name="delivery-late", daemon=True)
            self._threads.append(teller)
        for thread in self._threads:
            thread.start()

    @property
    def trouble(self) -> str | None:
        """What is wrong now, in one line; None when all is well."""
        return "; ".join(list(self._troubles.values())) or None

    def look(self) -> None:
        """Something was put."""
        self._wake.set()

    def hand_over(self, message_id: str) -> None:
        """Somebody else is sending this one for now."""
        with self._lock:
            self._handed[message_id] += 1

    def take_back(self, message_ids: Iterable[str]) -> None:
        """Once for each time that it was handed over."""
        with self._lock:
            self._handed.subtract(message_ids)
            self._handed = +self._handed
        self._wake.set()

    def close(self, timeout_s: float = 5.0) -> None:
        self._closing.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(timeout_s)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        may_ask_at = 0.0
        is_ours = is_neglected = False
        while not self._closing.is_set():
            try:
                if not is_ours and time.monotonic() >= may_ask_at:
                    is_ours, may_ask_at = self._outbox.take_office(), time.monotonic() + OFFICE_S
                    is_neglected = self._is_neglected(is_ours=is_ours)
                if is_ours or is_neglected or self._flying:
                    self._turn()
                elif self._reach is not None or "reach" in self._troubles:
                    self._drop_channel()
                    self._say("reach", None)  # it is the other's
                self._troubles.pop("turn", None)
            except OutboxUnusable as error:
                self._troubles["turn"] = str(error)
            except Exception as error:  # whatever it is: what waits is tried again, over a new channel
                self._troubles["turn"] = f"{type(error).__name__}: {error}"
                self._drop_channel()
            self._wake.wait(LOOK_S)
            self._wake.clear()
        self._drop_channel()

    def _is_neglected(self, *, is_ours: bool) -> bool:
        """Whether nothing leaves the outbox, and it is another's to deliver from it: it may have been stopped, or hang.
        That both send the same harms nobody; the daemon knows an id again.
        """
        first, now_s = None if is_ours else self._outbox.first(), time.monotonic()
        if first is None or first != self._first[0]:
            self._first = (first, now_s)
        waits_s = now_s - self._first[1]
        is_neglected = first is not None and waits_s > NEGLECTED_S
        text = f"nothing has left {self._outbox.path} for {waits_s:.0f} s, and another program is to deliver from it"
        self._say("office", f"{text}; this one does so too" if is_neglected else None)
        return is_neglected

    def _drop_channel(self) -> None:
        reach, self._reach = self._reach, None
        self._flying.clear()
        if reach is not None:
            reach.channel.close()

    def _turn(self) -> None:
        self._settle()
        reach = self._reached()
        if reach is None:
            return
        with self._lock:
            handed = set(self._handed)
        room = self._window - len(self._flying)
        wanted = (one for one in self._outbox.waiting(self._window) if one.id not in self._flying)
        self._send(reach, [one for one in wanted if one.id not in handed][:room])

    def _send(self, reach: _Reach, alerts: Sequence[Alert]) -> None:
        """All at once, so that they go together."""
        exchanges: dict[str, Exchange] = {}
        for alert in alerts:
            try:
                message = Message(Kind.ALERT, alert.id, alert.to_body())
                exchange = reach.channel.prepared(message, (Kind.STORED,), is_patient=True)
            except WireError as error:
                self._outbox.bury(alert.id, error.code, error.text)
                continue
            exchange.answers[Kind.STORED].add_done_callback(lambda _future: self._wake.set())
            exchanges[alert.id] = exchange
        if not exchanges:
            return
        if not self._flying:
            reach.heard_at = time.monotonic()  # the silence begins with the question
        reach.channel.begin_all(list(exchanges.values()))
        self._flying |= exchanges

    def _settle(self) -> None:
        """What came back: the acknowledged leave, the refused are buried, the rest is still on its way."""
        ended = {message_id: one for message_id, one in self._flying.items() if one.answers[Kind.STORED].done()}
        stored, is_broken = [], False
        for message_id, exchange in ended.items():
            error = exchange.answers[Kind.STORED].exception()
            if error is None:
                stored.append(message_id)
            elif isinstance(error, Refused):
                self._outbox.bury(message_id, error.code, error.text)
            else:
                is_broken = True  # the channel's thread has ended
        if stored:
            self._outbox.delivered(stored)
        for message_id in ended:  # only now: what could not be noted is asked again
            del self._flying[message_id]
        if is_broken:
            self._drop_channel()
        if ended and self._reach is not None:
            self._reach.heard_at = time.monotonic()
            self._troubles.pop("reach", None)

    def _reached(self) -> _Reach | None:
        """The channel; a new one when the daemon is said to be elsewhere, or to have other keys, and nobody answers."""
        now_s, reach = time.monotonic(), self._reach
        silence_s = now_s - reach.heard_at if reach is not None and self._flying else 0.0
        self._murmur(silence_s)
        if reach is not None and silence_s <= SILENCE_S:
            return reach
        try:
            address, key = self._find(), self._find_key()
            if reach is None or (address, key) != (reach.address, reach.channel.key):
                channel = DealerChannel(address, key=key)
                self._drop_channel()
                self._reach = reach = _Reach(address, channel, now_s)
                self._troubles.pop("reach", None)
        except LinkError as error:
            self._troubles["reach"] = str(error)
        return reach

    def _murmur(self, silence_s: float) -> None:
        """Say why nothing is taken: the key is refused, or nobody answers (a new session's refused key too)."""
        troubles = (one.key_trouble for one in self._flying.values() if one.key_trouble is not None)
        if (refused := next(troubles, None)) is not None:
            self._troubles["reach"] = f"{refused}; alerts wait for a key that is taken"
        elif self._reach is not None and silence_s > MURMUR_S:
            text = f"no answer for {silence_s:.0f} s; does the daemon run, and know this key?"
            self._troubles["reach"] = self._reach.channel.trouble or f"{self._reach.address}: {text}"

    # -- the other thread -------------------------------------------------------------------------------------------

    def _tell_late(self, late: LateAlerts) -> None:
        has_more = False
        while not self._closing.wait(0.0 if has_more else LOOK_S):
            has_more = False
            try:
                has_more = late.turn()
                self._troubles.pop("late", None)
            except OutboxUnusable as error:
                self._troubles["late"] = str(error)
            except Exception as error:  # whatever it is: this is the way round a daemon that is away
                self._troubles["late"] = f"{type(error).__name__}: {error}"
            self._say("on_late", late.trouble)
        late.close()

    def _say(self, what: str, trouble: str | None) -> None:
        if trouble is None:
            self._troubles.pop(what, None)
        else:
            self._troubles[what] = trouble
