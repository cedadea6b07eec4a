"""Jobs that wait for their turn: bounded, in order, on threads of their own that hold up no one's end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

Job = Callable[[], object]
"""What it raises is not caught: it must answer for itself."""


class Lane:
    """Jobs in order, on up to ``threads`` threads, begun when they are needed. ``put`` never waits.

    Any thread may put.
    """

    def __init__(self, name: str, most: int, threads: int) -> None:
        self._name = name
        self._most = most
        self._most_threads = threads
        self._idle = 0
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads: list[threading.Thread] = []

    def put(self, job: Job) -> bool:
        """False: there is no room, it is closed, or there is no thread for it."""
        with self._changed:
            if self._is_closed or len(self._jobs) >= self._most:
                return False
            if len(self._jobs) >= self._idle and not self._has_thread():
                return False
            self._jobs.append(job)
            self._changed.notify()
        return True

    def _has_thread(self) -> bool:
        """Begins one more, if there may be more; False: there is none at all."""
        if len(self._threads) < self._most_threads:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            with suppress(RuntimeError):  # no more threads: those there are have more to do
                thread.start()
                self._threads.append(thread)
        return bool(self._threads)

    def close(self, timeout_s: float) -> int:
        """Do what was put, for ``timeout_s`` seconds at most; returns how many jobs were left undone."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return len(self._jobs)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._jobs or self._is_closed)
                self._idle -= 1
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            job()
