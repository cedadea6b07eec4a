"""Time as a parameter: the clock every deadline is read from."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds of a clock that never goes back (for deadlines, windows, ages)."""

    def wall(self) -> float:
        """Seconds since the Unix epoch (for people and records only)."""


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
