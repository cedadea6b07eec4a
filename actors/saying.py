"""Who says each thing once, until there are too many of them: then how many there were is said once a second.

Safe from any thread. Imports nothing of ours.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

PER_SECOND: Final = 100
MOST_KINDS: Final = 20


class Sayer:
    """Ask ``may_say`` before each line; ``look`` about once a second.

    Args:
        sum_up: called with how many of each kind were not said, and their number.
    """

    def __init__(self, sum_up: Callable[[int, Mapping[str, int]], object], per_second: int = PER_SECOND) -> None:
        self._sum_up = sum_up
        self._per_second = per_second
        self._lock = threading.Lock()
        self._second = 0
        self._said = 0
        self._unsaid: Counter[str] = Counter()

    def may_say(self, kind: str) -> bool:
        """False: it is counted instead."""
        with self._lock:
            self._begin_second()
            self._said += 1
            if self._said <= self._per_second:
                return True
            self._count(kind, 1)
            return False

    def may_say_some(self, kind: str, count: int) -> int:
        """How many of so many of one kind, as if each was asked for by itself."""
        with self._lock:
            self._begin_second()
            room = max(0, min(count, self._per_second - self._said))
            self._said += count
            if count > room:
                self._count(kind, count - room)
            return room

    def look(self) -> None:
        """Say what was counted in the seconds before."""
        with self._lock:
            if int(time.monotonic()) != self._second:
                self._tell()

    def _begin_second(self) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._said = second, 0
            self._tell()

    def _count(self, kind: str, count: int) -> None:
        known = kind in self._unsaid or len(self._unsaid) < MOST_KINDS
        self._unsaid[kind if known else "others"] += count

    def _tell(self) -> None:
        unsaid, self._unsaid = self._unsaid, Counter()
        if unsaid:
            self._sum_up(unsaid.total(), dict(unsaid))
