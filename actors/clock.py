"""Time as a parameter: the clock every deadline is read from."""

from __future__ import annotations

import time
from functools import cache
from typing import Protocol

from actors.runtimes.procfs import boot_id
from runbooks.deciding.timing import Moment


class Clock(Protocol):
    def now(self) -> float:
        """Seconds of a clock that never goes back (for deadlines, windows, ages)."""

    def wall(self) -> float:
        """Seconds since the Unix epoch (for people and records only)."""

    def moment(self) -> Moment:
        """Now, as it is stored: what outlives this process and does not jump when the clock is set."""


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def moment(self) -> Moment:
        return Moment(time.time(), _boot(), time.clock_gettime(_SINCE_BOOT))


_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_boot = cache(boot_id)
