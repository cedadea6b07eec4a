"""The fate of one run: told exactly once, kept when nobody was there to be told. Shared by all runtimes.

Any thread may call; one lock a run, held while ``on_exit`` puts its message into an inbox.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

import structlog

from actors.runtimes.base import ExitStatus, Handle, OnExit

H = TypeVar("H", bound=Handle)


class Run(Generic[H]):
    """A run from its launch or adoption to its end.

    ``asked`` is set before our own stop or kill sends its first signal, so that the exit is classified as wanted.
    """

    def __init__(self, handle: H, on_exit: OnExit) -> None:
        self.handle = handle
        self.asked = False
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._status: ExitStatus | None = None
        self._is_told = False

    @property
    def status(self) -> ExitStatus | None:
        """How it ended; None while it lives."""
        return self._status

    def finish(self, status: ExitStatus) -> bool:
        """The run has ended. The first call counts and tells ``on_exit``; returns whether this was the first."""
        with self._lock:
            if self._status is not None:
                return False
            self._status = status
            self._tell(status)
        self._ended.set()
        return True

    def take_over(self, on_exit: OnExit) -> bool:
        """Replace ``on_exit``. False when the run's end was told to somebody already: there is nothing to take over."""
        with self._lock:
            if self._is_told:
                return False
            self._on_exit = on_exit
            if self._status is not None:
                self._tell(self._status)
            return True

    def wait(self, timeout_s: float | None) -> ExitStatus | None:
        """The status once the run has ended and been told, or None after ``timeout_s`` seconds."""
        return self._status if self._ended.wait(timeout_s) else None

    def _tell(self, status: ExitStatus) -> None:
        try:
            self._is_told = self._on_exit(status) is not False
        except Exception as error:  # a watcher thread serves all runs: one bad listener must not end it
            structlog.get_logger().error(
                "exit listener failed", service=self.handle.service, run=self.handle.run, exc_info=error
            )
