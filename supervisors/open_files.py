"""How near the daemon is to its limit of open files: strangers who only connect may bring it there. No own thread."""

from __future__ import annotations

import errno
import resource
from pathlib import Path
from typing import Final

ALARM_SHARE: Final = 0.7
_OPEN: Final = Path("/proc/self/fd")


def open_files_trouble() -> str | None:
    """Says so from 70 % of the limit on; None: all is well, or the system does not tell."""
    limit, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        count = sum(1 for _ in _OPEN.iterdir())
    except OSError as error:  # to look takes a file too: when there is none left, that is the answer
        return judged(limit, limit) if error.errno == errno.EMFILE else None
    return judged(count, limit)


def judged(count: int, limit: int) -> str | None:
    """What so many open files mean. Pure."""
    if limit == resource.RLIM_INFINITY or count < ALARM_SHARE * limit:
        return None
    return f"{count} of {limit} files are open; raise LimitNOFILE, or look who connects"
