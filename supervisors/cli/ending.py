"""Waiting for the end of a process that is no child of ours."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import psutil

_LOOK_S: Final = 0.1
REAPED_WITHIN_S: Final = 1.0
"""Whoever started the daemon gets this long to take note of its end; until then its pid is still there."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A process looked at before it ends, so that a pid used anew is not mistaken for it. ``fd``: its pidfd (Linux)."""

    process: psutil.Process
    fd: int | None

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """None: there is none on this machine."""
        try:
            return cls(psutil.Process(pid), _pidfd(pid))
        except (psutil.Error, ProcessLookupError):
            return None

    def has_ended(self, limit_s: float) -> bool:
        """Wait until all of it is gone: also its last thread, with every lock it held, and its pid where its parent
        takes note of the end soon. To be asked once.
        """
        deadline = time.monotonic() + limit_s
        if self.fd is None:
            is_over = _until(self._is_over, deadline)
        else:
            is_over = _is_readable(self.fd, limit_s)
            os.close(self.fd)
        if not is_over:
            return False
        _until(lambda: not self.process.is_running(), min(deadline, time.monotonic() + REAPED_WITHIN_S))
        return True

    def _is_over(self) -> bool:
        try:
            return not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


def _pidfd(pid: int) -> int | None:
    """None: the system has none. Raises ProcessLookupError."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:  # an old kernel, or a sandbox
        return None


def _is_readable(fd: int, limit_s: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(limit_s * 1000))


def _until(holds: Callable[[], bool], deadline: float) -> bool:
    pause = threading.Event()
    while not holds():
        if time.monotonic() >= deadline:
            return False
        pause.wait(_LOOK_S)
    return True
