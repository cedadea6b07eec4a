"""Jobs that wait for their turn: bounded, in order, on threads of their own that hold up no one's end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

Job = Callable[[], object]
"""What it raises is not caught: it must answer for itself."""


class Lane:
    """Jobs in order, on ``threads`` threads. ``put`` never waits: False when there is no room or it is closed."""

    def __init__(self, name: str, most: int, threads: int) -> None:
        self._most = most
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def put(self, job: Job) -> bool:
        with self._changed:
            if self._is_closed or len(self._jobs) >= self._most:
                return False
            self._jobs.append(job)
            self._changed.notify()
        return True

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
                self._changed.wait_for(lambda: self._jobs or self._is_closed)
                if not self._jobs:
                    return
                job = self._jobs.popleft()
            job()
