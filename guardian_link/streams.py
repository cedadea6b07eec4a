"""A stream of events to iterate over, blocking or in asyncio. Dropped or closed, its thread ends."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from bridge_link.errors import LinkError
from guardian_link.async_calls import apart
from guardian_link.errors import GuardianError
from guardian_link.events import Event
from guardian_link.reader import EventReader


class EventStream:
    """``for event in stream``: in order of ``seq``, each event once; it waits for the next, also while no daemon runs.

    Iterating raises ``EventsLost`` where events are gone for good; iterate on and it continues with what there is.
    ``AlertRefused``: this client may not follow events. Several threads may take from one stream.
    """

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader
        self._finalizer = weakref.finalize(self, reader.stop)

    @property
    def trouble(self) -> str | None:
        """Why nothing comes now (the daemon does not answer); None when all is well."""
        return self._reader.trouble

    def get(self, timeout_s: float | None = None) -> Event | None:
        """The next event, or None when none comes within ``timeout_s`` seconds or the stream is closed."""
        return self._reader.shelf.take(timeout_s)

    def close(self) -> None:
        """Whoever waits for an event is let go."""
        self._reader.close()

    def stop(self) -> None:
        """As ``close``, without waiting for its thread."""
        self._reader.stop()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncEventStream:
    """``async for event in stream``. It begins with the first event that is waited for. For one task at a time."""

    def __init__(self, begin: Callable[[], EventReader]) -> None:
        self._begin = begin
        self._reader: EventReader | None = None
        self._starting: asyncio.Future[EventReader] | None = None
        self._ready = asyncio.Event()
        self._is_closed = False

    @property
    def trouble(self) -> str | None:
        return None if self._reader is None else self._reader.trouble

    async def start(self) -> Self:
        """Begin now: what happens from here on is heard. Raises as ``GuardianClient.subscribe``."""
        await self._started()
        return self

    async def _started(self) -> EventReader:
        if self._reader is not None:
            return self._reader
        if self._starting is None:
            self._starting = asyncio.ensure_future(apart(self._begin))
        starting = self._starting
        try:
            return self._take_on(await asyncio.shield(starting))  # a cancelled wait loses no thread
        finally:
            if starting.done():
                self._starting = None

    def _take_on(self, reader: EventReader) -> EventReader:
        if self._reader is not None:
            return self._reader
        loop, ready = asyncio.get_running_loop(), self._ready

        def ring() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ready.set)

        self._reader = reader
        weakref.finalize(self, reader.stop)
        reader.shelf.on_change = ring
        ready.set()  # for what came before somebody was told of it
        return reader

    async def close(self) -> None:
        self._is_closed = True
        self._ready.set()
        if self._starting is not None:
            with suppress(GuardianError, LinkError):
                self._take_on(await asyncio.shield(self._starting))
        if self._reader is not None:
            await apart(self._reader.close)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        reader = await self._started()
        while not (self._is_closed or reader.shelf.is_over):
            self._ready.clear()
            event = reader.shelf.take(0.0)
            if event is not None:
                return event
            await self._ready.wait()
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()
