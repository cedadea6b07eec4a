"""Freezing, letting go on and stopping of one service's run, one after the other. Runs on the I/O pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from actors.runtimes.base import ExitStatus, Handle, PauseFailed, Runtime


@dataclass
class Stillness:
    """One for each service actor. What is asked for twice in a hurry ends as it was asked for last."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _may_be_frozen: bool = False

    def settle(self, runtime: Runtime, handle: Handle, is_wanted: Callable[[], bool]) -> None:
        """Freeze it, or let it go on, as is wanted by now. Raises PauseFailed."""
        with self._lock:
            if is_wanted():
                runtime.arm(handle, lambda: None)  # one that dies while it is paused stays down
                self._may_be_frozen = True
                runtime.pause(handle)
            elif self._may_be_frozen:
                runtime.resume(handle)
                self._may_be_frozen = False

    def stop(self, runtime: Runtime, handle: Handle, grace_s: float) -> ExitStatus:
        """``runtime.stop``; a frozen run is let go on first, so that it can end in order. Raises StopFailed."""
        with self._lock:
            if self._may_be_frozen:
                try:
                    runtime.resume(handle)
                except PauseFailed as error:
                    structlog.get_logger().warning("not let go on before its stop", error=str(error))
        return runtime.stop(handle, grace_s)
