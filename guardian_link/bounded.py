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
        try:
            return on_own_thread(self._name, call, after=self._slots.release)
        except RuntimeError:  # no more threads
            self._slots.release()
            return None


def on_own_thread(name: str, call: Callable[[], T], *, after: Callable[[], object] = lambda: None) -> Future[T]:
    """Begin the call; ``after`` is called when it has ended, before the future is. Raises RuntimeError: no thread."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # who waits no more does not end it
    threading.Thread(target=_make, args=(call, after, future), name=name, daemon=True).start()
    return future


def _make(call: Callable[[], T], after: Callable[[], object], future: Future[T]) -> None:
    try:
        result = call()
    except BaseException as error:
        after()
        future.set_exception(error)
    else:
        after()
        future.set_result(result)
