"""``GET /v1/logs/{service}``: the last lines as JSON, or followed as a stream of JSON lines.

A follower holds one thread of a limiter of its own, so that followers cannot keep other requests waiting. The stream
ends when its reader goes away or the server closes, and says ``{}`` now and then so that a silent one shows it lives.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Annotated, Any, Final
from weakref import WeakSet

import anyio
import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from supervisors.api.failures import failure
from supervisors.manager import SCHEMA, Manager

FOLLOWERS_MAX: Final = 16
KEEP_ALIVE_S: Final = 1.0
_LOOK_UP_S: Final = 0.2
_END: Final = object()


def logs_router(manager: Manager) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["looking"])
    followers: WeakSet[threading.Event] = WeakSet()  # a stream that never began leaves no trace

    @routes.get("/logs/{service:path}")
    def logs(
        request: Request,
        service: str,
        lines: Annotated[int, Query(ge=0, le=10_000)] = 50,
        follow: Annotated[bool, Query(description="go on with new lines, as JSON lines")] = False,
    ) -> Response:
        if not follow:
            return JSONResponse({"schema": SCHEMA, "service": service, "lines": manager.log_tail(service, lines)})
        if len(followers) >= FOLLOWERS_MAX:
            return failure(503, "busy", f"{FOLLOWERS_MAX} readers follow logs already; end one of them")
        closed = threading.Event()
        source = _Source(manager.log_follow(service, lines, closed=closed), closed)
        followers.add(closed)
        stream = _stream(source, closed, request.app.state.closing, followers)
        return StreamingResponse(stream, media_type="application/x-ndjson")

    return routes


class _Source:
    """A follower's lines. ``end`` closes it for certain, also when the thread that read it was left behind."""

    def __init__(self, lines: Iterator[str], closed: threading.Event) -> None:
        self._lines = lines
        self._closed = closed
        self._lock = threading.Lock()

    def step(self) -> Any:
        with self._lock:
            return _END if self._closed.is_set() else next(self._lines, _END)

    def end(self) -> None:
        """Waits for a ``step`` under way: it ends by itself once ``closed`` is set."""
        with self._lock:
            if isinstance(self._lines, Generator):
                self._lines.close()


async def _stream(
    source: _Source, closed: threading.Event, closing: threading.Event, followers: WeakSet[threading.Event]
) -> AsyncIterator[str]:
    limiter = anyio.CapacityLimiter(1)
    loop = asyncio.get_running_loop()
    said_at = loop.time()
    pending: asyncio.Task[Any] | None = None
    try:
        yield "{}\n"
        while not closing.is_set():
            if pending is None:
                step = anyio.to_thread.run_sync(source.step, limiter=limiter, abandon_on_cancel=True)
                pending = asyncio.ensure_future(step)
            await asyncio.wait({pending}, timeout=_LOOK_UP_S)
            if pending.done():
                line, pending = pending.result(), None
                if line is _END:
                    return
                said_at = loop.time()
                yield json.dumps({"line": line}, ensure_ascii=False) + "\n"
            elif loop.time() - said_at >= KEEP_ALIVE_S:
                said_at = loop.time()
                yield "{}\n"
    finally:
        closed.set()  # the thread that waits in ``next`` leaves by itself
        followers.discard(closed)
        if pending is not None:
            pending.cancel()
        threading.Thread(target=source.end, name="follower-end", daemon=True).start()
