"""Alerts that somebody waits for: one thread looks after all of them, however many there are.

Each is sent until it is stored and decided, or its time is over; should the daemon be said to be elsewhere meanwhile,
there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from bridge_link.channel import Answer, Exchange
from bridge_link.errors import LinkClosed, LinkError
from bridge_link.wire import Kind
from guardian_link.errors import DaemonUnreachable, GuardianError
from guardian_link.exchanges import answer_to, begin_alerts
from guardian_link.messages import Ack, Alert, Decision
from guardian_link.reach import FIND_AGAIN_S, Reach

LOOK_S: Final = 0.05
"""How often it is looked whose time is over."""
LOG: Final = logging.getLogger("guardian_link")


@dataclass(eq=False, slots=True)
class Sending:
    """An alert on its way. ``result`` fails with what ``GuardianClient.send`` raises.

    Args:
        limit_s: for how many seconds it may take, as said to people.
        by_s: until when (``time.monotonic``).
    """

    alert: Alert
    exchange: Exchange
    limit_s: float
    by_s: float
    result: Future[Ack] = field(default_factory=Future)


class SendDesk:
    """``take`` begins and returns at once.

    Args:
        settle: told which have ended, after those who wait for them; it must answer for what it raises.
    """

    def __init__(self, reach: Reach, settle: Callable[[Sequence[Sending]], object]) -> None:
        self._reach = reach
        self._settle = settle
        self._changed = threading.Condition()
        self._open: dict[Sending, None] = {}
        self._answered: deque[Sending] = deque()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def take(self, alert: Alert, limit_s: float, by_s: float) -> Future[Ack]:
        """Send it. Raises AlertRefused, DaemonUnreachable: it is not on its way."""
        with self._changed:
            self._begin_thread()
        (exchange,) = begin_alerts(self._reach, [alert])
        sending = Sending(alert, exchange, limit_s, by_s)
        sending.result.set_running_or_notify_cancel()  # who waits no more does not end it
        with self._changed:
            if self._is_closed:
                exchange.forget()
                raise DaemonUnreachable("this client is closed")
            self._open[sending] = None
            self._changed.notify()
        self._listen(sending)
        return sending.result

    def close(self, timeout_s: float = 2.0) -> None:
        """Whoever waits is let go with DaemonUnreachable."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _begin_thread(self) -> None:
        if self._thread is None and not self._is_closed:
            thread = threading.Thread(target=self._run, name="guardian-sending", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads
                raise DaemonUnreachable(f"nobody can wait for an answer: {error}") from None
            self._thread = thread

    def _listen(self, sending: Sending) -> None:
        def ring(_done: Future[Answer]) -> None:
            with self._changed:
                self._answered.append(sending)
                self._changed.notify()

        for future in sending.exchange.answers.values():
            future.add_done_callback(ring)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        find_again_s = look_again_s = 0.0
        while True:
            with self._changed:
                if not (self._answered or self._is_closed):
                    self._changed.wait(LOOK_S if self._open else None)
                looked = [one for one in dict.fromkeys(self._answered) if one in self._open]
                self._answered.clear()
                now_s = time.monotonic()
                if self._is_closed or now_s >= look_again_s:
                    looked, look_again_s = list(self._open), now_s + LOOK_S
                if self._is_closed and not self._open:
                    return
            try:
                self._end([one for one in looked if self._is_over(one)])
                if now_s >= find_again_s or any(_has_lost_its_channel(one) for one in looked):
                    find_again_s = now_s + FIND_AGAIN_S
                    self._follow()
            except Exception:  # whatever it is: others wait, and each has its time
                LOG.exception("what is being sent could not be looked after")

    def _follow(self) -> None:
        """To where the daemon is said to be now."""
        waiting = [one for one in list(self._open) if _is_not_stored(one)]
        if not waiting:
            return
        with suppress(LinkError, GuardianError):  # nobody knows where it is now: it may come back to where it was
            address = self._reach.channel().address
            for one in waiting:
                if one.exchange.address != address or _has_lost_its_channel(one):
                    one.exchange.forget()
                    (one.exchange,) = begin_alerts(self._reach, [one.alert])
                    self._listen(one)

    def _is_over(self, one: Sending) -> bool:
        if self._is_closed or time.monotonic() >= one.by_s:
            return True
        return not _is_not_stored(one) and (_is_refused(one) or one.exchange.answers[Kind.DECIDED].done())

    def _end(self, over: Sequence[Sending]) -> None:
        if not over:
            return
        with self._changed:
            for one in over:
                del self._open[one]
        for one in over:
            try:
                ack = self._ack(one)
            except Exception as error:  # whatever it is, it is for the one who waits
                one.result.set_exception(error)
            else:
                one.result.set_result(ack)
            finally:
                one.exchange.forget()
        self._settle(over)

    def _ack(self, one: Sending) -> Ack:
        stored = answer_to(self._reach, one.exchange, Kind.STORED, 0.0, one.limit_s)
        status = str(stored.get("status", "stored"))
        try:
            decided = answer_to(self._reach, one.exchange, Kind.DECIDED, 0.0)
        except DaemonUnreachable:
            return Ack(one.alert.id, status)
        return Ack(one.alert.id, status, Decision.from_body(decided))


def _has_lost_its_channel(one: Sending) -> bool:
    """The daemon has moved, or has other keys."""
    stored = one.exchange.answers[Kind.STORED]
    return stored.done() and isinstance(stored.exception(), LinkClosed)


def _is_not_stored(one: Sending) -> bool:
    return not one.exchange.answers[Kind.STORED].done() or _has_lost_its_channel(one)


def _is_refused(one: Sending) -> bool:
    return one.exchange.answers[Kind.STORED].exception() is not None
