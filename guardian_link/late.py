"""Whoever is to be told of alerts that the daemon does not have in time: the user's own code.

It may raise, block or be slow: it is called on threads of its own, a bounded number at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from guardian_link.errors import OutboxUnusable
from guardian_link.lane import Lane
from guardian_link.messages import Alert
from guardian_link.outbox import Outbox

LATE_S: Final = 0.6
"""An alert that waits for so long is told: with the next look that is within a second."""
AT_ONCE: Final = 8
PAGE: Final = 1_000
MOST_WAITING: Final = 5 * PAGE
"""Alerts that wait in memory for a call of ``on_late``; others wait in the outbox."""
HANGS_S: Final = 2.0
"""A call that has not returned for so long is said in ``trouble``."""
END_S: Final = 1.0

OnLate = Callable[[Alert], object]


class LateAlerts:
    """``turn`` again and again, on one thread: begins to tell what is late, and notes what was told."""

    def __init__(self, outbox: Outbox, tell: OnLate) -> None:
        self._outbox = outbox
        self._tell = tell
        self._lane = Lane("delivery-on-late", MOST_WAITING, AT_ONCE)
        self._behind = 0
        self._open = 0
        self._told: deque[str] = deque()
        self._lock = threading.Lock()
        self._under_way: dict[str, float] = {}
        self._failure: str | None = None

    @property
    def trouble(self) -> str | None:
        """What is wrong with ``on_late``."""
        with self._lock:
            began = dict(self._under_way)
        if began:
            message_id, began_s = min(began.items(), key=lambda one: one[1])
            if (for_s := time.monotonic() - began_s) > HANGS_S:
                return f"on_late has not returned for {for_s:.0f} s from alert {message_id} ({len(began)} such calls)"
        return self._failure

    def turn(self) -> bool:
        """True: there is more to be told now. Raises OutboxUnusable."""
        if self._hand_on():
            return True
        self._note()
        if self._open == 0:
            self._behind = 0  # one before it may be late only now
        return False

    def _hand_on(self) -> bool:
        page = self._outbox.late(LATE_S, behind=self._behind, most=PAGE)
        for number, alert in page:
            if not self._lane.put(partial(self._call, alert)):
                return False
            self._behind = number
            self._open += 1
        return len(page) == PAGE

    def close(self) -> None:
        """What is being told has a moment to end."""
        self._lane.close(END_S)
        with suppress(OutboxUnusable):  # it is told again
            self._note()

    def _call(self, alert: Alert) -> None:
        with self._lock:
            self._under_way[alert.id] = time.monotonic()
        try:
            self._tell(alert)
        except BaseException as error:  # the user's own code
            self._failure = f"on_late failed for alert {alert.id}: {type(error).__name__}: {error}"
        else:
            self._failure = None
        with self._lock:
            del self._under_way[alert.id]
        self._told.append(alert.id)

    def _note(self) -> None:
        """Told first, noted afterwards, with one commit: a death in between tells them again, not never."""
        ids = list(self._told)
        if ids:
            self._outbox.told(ids)
        for _ in ids:
            self._told.popleft()
            self._open -= 1
