"""Freezing a run: SIGSTOP for its whole family, until none of it moves; SIGCONT to let it go on. Runs on the I/O pool.

A stopped process cannot fork, so looking again until everybody stands still leaves nobody out. Signals go only to
processes whose start ticks were checked while a pidfd held the pid (``family.signal_process``).
"""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable
from typing import Final

from actors.runtimes.base import PauseFailed
from actors.runtimes.family import signal_process
from actors.runtimes.procfs import ProcessIdentity, is_alive, is_stopped

FREEZE_S: Final = 5.0
_LOOK_S: Final = 0.002
Family = Callable[[], tuple[ProcessIdentity, ...]]


def freeze(service: str, family: Family, limit_s: float = FREEZE_S) -> None:
    """Stop all members.

    Raises:
        PauseFailed: some still run after ``limit_s`` seconds (a wait in the kernel that no signal ends). What was
            stopped is let go again.
    """
    deadline = time.monotonic() + limit_s
    while moving := [one for one in family() if not is_stopped(one.pid)]:
        for one in moving:
            signal_process(one, signal.SIGSTOP)
        if time.monotonic() >= deadline:
            thaw(family)
            pids = ", ".join(str(one.pid) for one in moving if is_alive(one))
            raise PauseFailed(f"service {service!r}: cannot be paused, these processes do not stop: {pids}")
        if any(not is_stopped(one.pid) and is_alive(one) for one in moving):
            select.select([], [], [], _LOOK_S)  # there is nothing to wait on: a stop is told to the parent only


def thaw(family: Family) -> None:
    """Let all members go on, the descendants first: the main process finds its workers at work."""
    for one in reversed(family()):
        signal_process(one, signal.SIGCONT)
