"""Alerts as people always had them: told first, by a way that needs no journal, no actor, no pool and no disk.

``offer`` is called on link pumps before anything else is done with an alert, and only hands over. One thread passes on,
and each sink has a thread of its own: a webhook that hangs holds up nobody else. Every queue has an end; what finds
none is counted, and the count is told. In a storm the first of each second are told one by one, the others summed up;
critical ones have a number of their own.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

import structlog

from actors.recent import Recent
from actors.saying import Sayer

MOST_WAITING: Final = 2_000
"""Alerts that wait for one sink."""
MOST_KNOWN: Final = 10_000
"""Alerts remembered, so that one sent again is told once."""
TICK_S: Final = 1.0
PAUSES_S: Final = (0.2, 1.0)
"""A sink that failed is tried again after these."""
SHOWN_S: Final = 60.0
"""How long it is shown that alerts were lost; the number of them stays in the statistics."""
CRITICAL: Final = "critical"
_END: Final = None

Told = Mapping[str, Any]
"""An alert, or a sum: ``{"kind": "alerts", "more": 120, "types": {"noise": 120}}``. JSON values."""


class Sink(Protocol):
    """Where alerts are told. ``tell`` may block for a few seconds, and raises SinkTrouble when it was not told."""

    @property
    def name(self) -> str: ...

    def tell(self, told: Told) -> None: ...


class SinkTrouble(Exception):
    """The text says which sink and why, and holds no secret."""


@dataclass(slots=True)
class SinkFigures:
    """Since the daemon began. ``dropped``: there was no room to wait; ``failed``: it was tried, and not told."""

    told: int = 0
    failed: int = 0
    dropped: int = 0
    trouble: str | None = None


@dataclass
class _Outlet:
    """One sink with its queue and its thread."""

    sink: Sink
    closed: threading.Event
    figures: SinkFigures = field(default_factory=SinkFigures)
    waiting: queue.SimpleQueue[Told | None] = field(default_factory=queue.SimpleQueue)
    thread: threading.Thread | None = None

    def begin(self) -> None:
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self._run, name=f"plain:{self.sink.name}", daemon=True)
            self.thread.start()

    def put(self, told: Told) -> None:
        if self.waiting.qsize() >= MOST_WAITING:
            self.figures.dropped += 1
        else:
            self.waiting.put(told)

    def _run(self) -> None:
        while (told := self.waiting.get()) is not _END:
            try:
                self._tell(told)
            except SinkTrouble as trouble:
                self._failed(str(trouble))
            except Exception as error:  # a sink's fault must cost one alert, not all that follow
                structlog.get_logger().exception("a sink for plain alerts broke", sink=self.sink.name)
                self._failed(f"{self.sink.name}: {type(error).__name__}")
            else:
                self.figures.told += 1
                self.figures.trouble = None

    def _tell(self, told: Told) -> None:
        """Raises SinkTrouble: the last time it was tried."""
        for pause_s in PAUSES_S:
            try:
                self.sink.tell(told)
            except SinkTrouble:
                if self.closed.wait(pause_s):
                    raise
            else:
                return
        self.sink.tell(told)

    def _failed(self, text: str) -> None:
        self.figures.failed += 1
        if self.figures.trouble is None:
            structlog.get_logger().error("plain alerts are not told", sink=self.sink.name, trouble=text)
        self.figures.trouble = text


class PlainAlerts:
    """``begin`` first (again after a fault of ours); ``offer`` from any thread; ``close`` tells what waits.

    Without sinks nothing is told.
    """

    def __init__(self, sinks: Sequence[Sink], wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._closed = threading.Event()
        self._outlets = tuple(_Outlet(sink, self._closed) for sink in sinks)
        self._offered: queue.SimpleQueue[Told | None] = queue.SimpleQueue()
        self._known = Recent(2 * MOST_KNOWN)  # each by its id, and with what was said
        self._known_lock = threading.Lock()
        self._worst = Sayer(self._sum_up)
        self._others = Sayer(self._sum_up)
        self._summed: Counter[str] = Counter()
        self._dropped = 0
        self._lost = 0
        self._lost_s = float("-inf")
        self._thread: threading.Thread | None = None

    # -- on link pumps ------------------------------------------------------------------------------------------------

    def offer(self, client: str, msg_id: str, facts: Told) -> None:
        """Tell this alert, unless one with this id was, whatever its text is by now. Never blocks, never raises."""
        if (client, msg_id) not in self._known:
            self._offer(client, [(msg_id, facts)])

    def offer_all(self, client: str, alerts: Sequence[tuple[str, Told]]) -> None:
        """Tell each of them (id, facts), unless it was told. One that says something else under an id that was told is
        another: the daemon refuses it, people hear of it.
        """
        known = self._known
        self._offer(
            client,
            [one for one in alerts if (client, one[0]) not in known or (client, one[0], _said(one[1])) not in known],
        )

    def _offer(self, client: str, fresh: Sequence[tuple[str, Told]]) -> None:
        kinds = [(facts.get("severity") == CRITICAL, str(facts.get("type"))) for _, facts in fresh]
        room = {
            kind: (self._worst if kind[0] else self._others).may_say_some(kind[1], count)
            for kind, count in Counter(kinds).items()
        }
        if not any(room.values()):
            return
        for kind, (msg_id, facts) in zip(kinds, fresh, strict=True):
            if room[kind]:
                room[kind] -= 1
                self._tell(client, msg_id, facts)

    def _tell(self, client: str, msg_id: str, facts: Told) -> None:
        with self._known_lock:
            self._known.add((client, msg_id))
            self._known.add((client, msg_id, _said(facts)))
        if self._offered.qsize() >= MOST_WAITING:
            self._dropped += 1
            return
        self._offered.put(
            {
                "kind": "alert",
                "alert": msg_id,
                "type": facts.get("type"),
                "service": facts.get("service"),
                "severity": facts.get("severity"),
                "message": facts.get("message", ""),
                "source": facts.get("source"),
                "client": client,
                "at": self._wall(),
            }
        )

    # -- its own threads ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        for outlet in self._outlets:
            outlet.begin()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="plain-alerts", daemon=True)
            self._thread.start()

    @property
    def is_alive(self) -> bool:
        threads = [self._thread, *(outlet.thread for outlet in self._outlets)]
        return all(thread is not None and thread.is_alive() for thread in threads)

    def close(self, timeout_s: float = 2.0) -> None:
        """What waits is told, for as long as there is time."""
        deadline_s = time.monotonic() + timeout_s
        self._offered.put(_END)
        if self._thread is not None:
            self._thread.join(max(0.0, deadline_s - time.monotonic()))
        self._closed.set()
        for outlet in self._outlets:
            outlet.waiting.put(_END)
        for outlet in self._outlets:
            if outlet.thread is not None:
                outlet.thread.join(max(0.0, deadline_s - time.monotonic()))

    def _run(self) -> None:
        while True:
            try:
                told = self._offered.get(timeout=TICK_S)
            except queue.Empty:
                self._look()
                continue
            if told is _END:
                self._look()
                return
            self._pass_on(told)
            self._look()

    def _look(self) -> None:
        self._worst.look()
        self._others.look()

    def _pass_on(self, told: Told) -> None:
        for outlet in self._outlets:
            outlet.put(told)

    def _sum_up(self, count: int, kinds: Mapping[str, int]) -> None:
        """From whichever thread finds that a second is over."""
        self._summed.update({"alerts": count})
        self._pass_on({"kind": "alerts", "more": count, "types": dict(kinds), "at": self._wall()})

    # -- how it is ----------------------------------------------------------------------------------------------------

    def trouble(self) -> str | None:
        """What keeps alerts from being told now, or was lost; None: all were told."""
        now_s = time.monotonic()
        bad = [outlet.figures for outlet in self._outlets if outlet.figures.trouble is not None]
        lost = self._dropped + sum(outlet.figures.dropped for outlet in self._outlets)
        words = [f"{figures.trouble} ({figures.failed} not told)" for figures in bad]
        if lost > self._lost:
            self._lost, self._lost_s = lost, now_s
        if now_s - self._lost_s < SHOWN_S:
            words.append(f"{lost} alerts were not told: too many waited")
        return "; ".join(words) or None

    def figures(self) -> dict[str, Any]:
        """For statistics."""
        sinks = {
            outlet.sink.name: {**asdict(outlet.figures), "waiting": outlet.waiting.qsize()} for outlet in self._outlets
        }
        return {"summed": self._summed["alerts"], "dropped": self._dropped, "sinks": sinks}


def _said(facts: Told) -> int:
    """What people are told of it, in few bytes."""
    return hash(tuple(facts.get(key) for key in ("type", "service", "severity", "message", "source")))
