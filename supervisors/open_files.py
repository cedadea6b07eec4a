"""How near the daemon is to its limit of open files: strangers who only connect may bring it there. No own thread."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ALARM_SHARE: Final = 0.7
KEPT_SHARE: Final = 0.25
KEPT: Final = 128
"""Descriptors kept for supervising: a share of the limit, and at most so many. They are given lowest first: one with a
number beyond the others' says that so many are open."""
SHOWN_S: Final = 10.0
_OPEN: Final = Path("/proc/self/fd")


@dataclass
class OpenFiles:
    """``is_full`` is called on link pumps, ``trouble`` on the link nodes' threads.

    Args:
        now: clock seconds.
    """

    now: Callable[[], float]
    _full: tuple[float, int] | None = None

    def is_full(self, descriptor: int) -> bool:
        """Whether peers must go again, as one came in by this descriptor: what is left is for supervising."""
        if not are_too_many(descriptor):
            return False
        self._full = (self.now(), descriptor)
        return True

    def trouble(self) -> str | None:
        """From 70 % of the limit on, and for a while after peers were sent away. None: all is well, or not known."""
        limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        full = self._full
        if full is not None and self.now() - full[0] < SHOWN_S:
            return f"{judged(full[1], limit)}; all peers of the link were sent away, they come again"
        try:
            count = sum(1 for _ in _OPEN.iterdir())
        except OSError as error:  # to look takes a file too: when there is none left, that is the answer
            return judged(limit, limit) if error.errno == errno.EMFILE else None
        return judged(count, limit)


def are_too_many(descriptor: int) -> bool:
    """Whether a descriptor with this number means that only what is kept for supervising is left. Any thread."""
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit != resource.RLIM_INFINITY and descriptor >= limit - min(KEPT_SHARE * limit, KEPT)


def judged(count: int, limit: int) -> str | None:
    """What so many open files mean. Pure."""
    if limit == resource.RLIM_INFINITY or count < ALARM_SHARE * limit:
        return None
    return f"{count} of {limit} files are open; raise LimitNOFILE, or look who connects"
