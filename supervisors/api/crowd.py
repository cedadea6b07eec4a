"""How many may be connected to the operator's interface, and for how long one may be without asking anything.

On the event loop; ``trouble`` is called on the node's thread. Whoever is cut off may come again at once.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from supervisors.open_files import SHOWN_S, are_too_many

MOST: Final = 100
"""Connections over TCP at once, and as many over the unix socket: strangers keep nobody of the daemon's user out."""
REQUEST_WITHIN_S: Final = 15.0
"""A connection without a whole request for so long is closed, also one whose request does not end."""
YOUNG_S: Final = 1.0
"""When files are scarce those who wait go; not yet one that came so shortly before, whose request is on its way."""


@dataclass
class Crowd:
    """Who is connected. ``are_scarce``: whether a descriptor with this number means that too many files are open.

    Args:
        now: clock seconds.
    """

    are_scarce: Callable[[int], bool] = are_too_many
    now: Callable[[], float] = time.monotonic
    _here: dict[str, dict[Counted, None]] = field(default_factory=lambda: {"tcp": {}, "unix": {}})
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _cut_off: int = 0
    _cut_off_at: float = float("-inf")

    def take(self, one: Counted, descriptor: int) -> None:
        """One has come in: it, or another, may have to go."""
        here = self._here[one.way]
        here[one] = None
        if self.are_scarce(descriptor):
            old = self.now() - YOUNG_S
            waiting = [other for way in self._here.values() for other in way if other.waits_since < old]
            self._cut([*waiting, one], "too many files are open")
        elif len(here) > MOST:
            first = min(here, key=lambda other: other.waits_since)
            self._cut([first if first.waits_since < float("inf") else one], f"{MOST} are open over {one.way}")

    def left(self, one: Counted) -> None:
        self._here[one.way].pop(one, None)

    def loop_says(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler: that nobody can be let in is said once, not for each who waits."""
        if isinstance(context.get("exception"), OSError) and "accept" in str(context.get("message")):
            self._note(0, f"nobody can be let in: {context['exception']}")
        else:
            loop.default_exception_handler(context)

    def trouble(self) -> str | None:
        """While connections are cut off, and for a while afterwards."""
        with self._lock:
            if self._cut_off_at == float("-inf"):
                return None
            if self.now() - self._cut_off_at < SHOWN_S:
                return f"{self._cut_off} connections were cut off; look who connects, or raise LimitNOFILE"
            structlog.get_logger().info("connections are taken again", cut_off=self._cut_off)
            self._cut_off, self._cut_off_at = 0, float("-inf")
            return None

    def _cut(self, some: list[Counted], why: str) -> None:
        for one in some:
            self.left(one)
            one.transport.abort()
        self._note(len(some), why)

    def _note(self, count: int, why: str) -> None:
        with self._lock:
            is_first, self._cut_off_at = self._cut_off_at == float("-inf"), self.now()
            self._cut_off += count
        if is_first:
            structlog.get_logger().warning("connections of operators are cut off", problem=why)


class Counted(H11Protocol):
    """HTTP of one connection, which is ended when no whole request comes. A subclass says of which ``crowd`` it is.

    ``waits_since``: clock seconds; infinity while a request is being answered.
    """

    crowd: Crowd
    way = "tcp"
    waits_since = float("inf")
    _deadline: asyncio.TimerHandle | None = None
    _last: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = cast("socket.socket", transport.get_extra_info("socket"))
        self.way = "unix" if connection.family == socket.AF_UNIX else "tcp"
        self._look()
        self.crowd.take(self, connection.fileno())

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowd.left(self)
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    def _look(self) -> None:
        if self.cycle is not self._last:  # another request: it has its own time
            self._last = self.cycle
            self._wait_no_more()
        cycle = cast("RequestResponseCycle | None", self.cycle)
        is_asked = cycle is not None and not cycle.response_complete
        if is_asked and self.conn.their_state is not h11.SEND_BODY:
            self._wait_no_more()
        elif self._deadline is None and not self.transport.is_closing():
            self.waits_since = self.crowd.now()
            self._deadline = self.loop.call_later(REQUEST_WITHIN_S, self.transport.abort)

    def _wait_no_more(self) -> None:
        self.waits_since = float("inf")
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
