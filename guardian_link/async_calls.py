"""What a client does for asyncio: on threads of its own, so that the loop's default ones stay other people's.

* ``decided``: alerts are kept one after another on one thread, and then wait for their decision on no thread.
* ``asked``: questions. ``waited``: ends of executions, which hold up nothing else.
* ``apart``: what must not wait for any of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

from guardian_link.bounded import on_own_thread

T = TypeVar("T")
AT_ONCE: Final = 32
"""Questions, and ends of executions, that are waited for at the same time; further ones wait for their turn."""


class AsyncCalls:
    def __init__(self) -> None:
        self._keep = ThreadPoolExecutor(1, "guardian-keep")
        self._ask = ThreadPoolExecutor(AT_ONCE, "guardian-ask")
        self._wait = ThreadPoolExecutor(AT_ONCE, "guardian-wait")

    async def kept(self, call: Callable[[], T]) -> T:
        """In the order of the calls. Who is cancelled meanwhile has kept it all the same."""
        return await awaited(self._keep.submit(call))

    async def decided(self, begin: Callable[[], Future[T]]) -> T:
        """Begin it as ``kept``, then await what it becomes."""
        return await awaited(await self.kept(begin))

    async def asked(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._ask, call)

    async def waited(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._wait, call)

    def close(self) -> None:
        """Nothing more is taken. What was kept is kept; does not wait for those who wait."""
        self._keep.shutdown(wait=True)
        self._ask.shutdown(wait=False)
        self._wait.shutdown(wait=False)


async def apart(call: Callable[[], T]) -> T:
    """On a thread for this call alone."""
    return await awaited(on_own_thread("guardian-apart", call))


async def awaited(future: Future[T]) -> T:
    """Its result. A cancelled wait does not cancel it."""
    await ended(future)
    return future.result()


async def ended(future: Future[Any]) -> None:
    """Wait for its end. A cancelled wait does not cancel it."""
    loop = asyncio.get_running_loop()
    is_done = asyncio.Event()

    def ring(_future: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(is_done.set)

    future.add_done_callback(ring)
    await is_done.wait()
