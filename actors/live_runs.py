"""Which runs live: the one table that any thread may ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from actors.runtimes.base import Handle, LaunchError, Runtime


@dataclass(eq=False)
class LiveRuns:
    """Which runtime and handle each live service has: for usage figures and last-resort kills. Any thread."""

    by_service: dict[str, tuple[Runtime, Handle]] = field(default_factory=dict)
    crash_logs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The last lines of output of the run that crashed last."""
    _turn: threading.Condition = field(default_factory=threading.Condition)
    _launching: int = 0
    _is_over: bool = False

    @contextmanager
    def launching(self, service: str) -> Iterator[None]:
        """Around a launch, until its run stands in ``by_service``. Raises LaunchError after ``no_more``."""
        with self._turn:
            if self._is_over:
                raise LaunchError(f"service {service!r}: the daemon ends and starts nothing any more")
            self._launching += 1
        try:
            yield
        finally:
            with self._turn:
                self._launching -= 1
                self._turn.notify_all()

    def no_more(self) -> None:
        """Whoever is killed from now on is not started again."""
        with self._turn:
            self._is_over = True

    def await_launched(self, timeout_s: float) -> bool:
        """Whether no launch is under way any more, at most after ``timeout_s`` seconds."""
        with self._turn:
            return self._turn.wait_for(lambda: not self._launching, timeout_s)
