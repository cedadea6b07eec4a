"""The I/O pool: bounded threads that do what actors must not (launch, stop, probe, runbook steps).

A job's result goes back as one ``IoDone`` to the actor that asked, also when the job raised.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Final

from actors.messages import IoDone
from actors.refs import Ref

_END: Final = None
Job = tuple[Callable[[], Any], Ref | None, object]


class IoPool:
    """``run(job, ref, tag)`` from any thread. Threads are made as jobs wait, at most ``size``."""

    def __init__(self, size: int = 32, name: str = "io") -> None:
        self._size = size
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._free = 0
        self._closed = False

    def run(self, job: Callable[[], Any], ref: Ref | None = None, tag: object = None) -> None:
        """Run ``job()`` on a pool thread; ``ref`` gets ``IoDone(tag, result, error)``.

        Raises:
            RuntimeError: the pool is closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the I/O pool is closed")
            if self._free > 0:
                self._free -= 1
            elif len(self._threads) < self._size:
                self._grow()
        self._jobs.put((job, ref, tag))

    def close(self, timeout_s: float = 5.0) -> None:
        """No new jobs; those under way may end within ``timeout_s`` seconds in all."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
        for _ in threads:
            self._jobs.put(_END)
        for thread in threads:
            thread.join(timeout_s / max(1, len(threads)))

    def _grow(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (taken := self._jobs.get()) is not _END:
            job, ref, tag = taken
            done = _outcome(job, tag)
            del job, taken
            with self._lock:
                self._free += 1
            if ref is not None:
                ref.tell(done)


def _outcome(job: Callable[[], Any], tag: object) -> IoDone:
    try:
        return IoDone(tag, result=job())
    except BaseException as error:  # a job's SystemExit must not end a pool thread: the asker judges it
        return IoDone(tag, error=error)
