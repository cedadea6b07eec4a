"""Zombies nobody waits for: orphans that fell to the daemon because their keeper was killed.

Whoever starts a process here waits for it within moments of its end. A dead child that is still there after a minute is
nobody's, and only its number in the process table is left of it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final

from actors.keeper.kernel import CAN_KEEP, children_of
from actors.runtimes.procfs import read_line

LOOK_S: Final = 10.0
UNCLAIMED_S: Final = 60.0


class Strays:
    """``look`` once in a while, from one thread.

    Args:
        unclaimed_s: seconds a zombie must have been seen before it is reaped.
    """

    def __init__(
        self,
        *,
        look_s: float = LOOK_S,
        unclaimed_s: float = UNCLAIMED_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_s = look_s
        self._unclaimed_s = unclaimed_s
        self._monotonic = monotonic
        self._due_s = 0.0
        self._seen_s: dict[tuple[int, int], float] = {}

    def look(self) -> int:
        """Reap what is nobody's; returns how many."""
        now_s = self._monotonic()
        if not CAN_KEEP or now_s < self._due_s:
            return 0
        self._due_s = now_s + self._look_s
        dead = _dead_children()
        self._seen_s = {one: self._seen_s.get(one, now_s) for one in dead}
        old = [one for one, since_s in self._seen_s.items() if now_s - since_s >= self._unclaimed_s]
        for pid, _ in old:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        return len(old)


def _dead_children() -> set[tuple[int, int]]:
    lines = (read_line(pid) for pid in children_of(os.getpid()))
    return {(line.pid, line.start_ticks) for line in lines if line is not None and line.is_dead}
