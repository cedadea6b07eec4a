"""The timer: one thread, one heap of deadlines. It only puts messages into inboxes, so it never waits for anybody."""

from __future__ import annotations

import heapq
import itertools
import threading
from dataclasses import dataclass, field

from actors.clock import Clock, SystemClock
from actors.refs import Ref


@dataclass(order=True, slots=True)
class Timer:
    """A pending deadline; ``cancel`` it from any thread."""

    at_s: float
    number: int
    ref: Ref | None = field(compare=False)
    message: object = field(compare=False)

    def cancel(self) -> None:
        self.ref = None


class Timers:
    """``after(delay_s, ref, message)`` from any thread. Messages of one deadline go out in the order they came in."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._heap: list[Timer] = []
        self._count = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="timer", daemon=True)
        self._thread.start()

    def after(self, delay_s: float, ref: Ref, message: object) -> Timer:
        timer = Timer(self._clock.now() + max(0.0, delay_s), next(self._count), ref, message)
        with self._changed:
            heapq.heappush(self._heap, timer)
            if self._heap[0] is timer:
                self._changed.notify()
        return timer

    def close(self) -> None:
        """End the thread; what is pending is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while (due := self._next()) is not None:
            ref = due.ref
            if ref is not None:
                ref.tell(due.message)

    def _next(self) -> Timer | None:
        with self._changed:
            while not self._closed:
                if not self._heap:
                    self._changed.wait()
                    continue
                wait_s = self._heap[0].at_s - self._clock.now()
                if wait_s <= 0:
                    return heapq.heappop(self._heap)
                self._changed.wait(wait_s)
        return None
