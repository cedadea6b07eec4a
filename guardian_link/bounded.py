"""Calls into code that may never return: so many at once, each on a thread of its own that holds up no one's end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class BoundedCalls:
    """At most ``most`` calls under way. Any thread may ``start`` one."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._slots = threading.Semaphore(most)

    def start(self, call: Callable[[], T], *, by_s: float) -> Future[T] | None:
        """Begin the call; wait for a free place until ``by_s`` (``time.monotonic``). None: there was none."""
        if not self._slots.acquire(timeout=max(0.0, by_s - time.monotonic())):
            return None
        future: Future[T] = Future()
        try:
            threading.Thread(target=self._make, args=(call, future), name=self._name, daemon=True).start()
        except RuntimeError:  # no more threads
            self._slots.release()
            return None
        return future

    def _make(self, call: Callable[[], T], future: Future[T]) -> None:
        try:
            result = call()
        except BaseException as error:
            self._slots.release()
            future.set_exception(error)
        else:
            self._slots.release()
            future.set_result(result)
