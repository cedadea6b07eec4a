"""Keeps the first requests waiting until the daemon has taken on what lived before it. Pure ASGI, on the event loop."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

LOOK_S: Final = 0.005


class AnswersWhenOpen:
    """ASGI middleware: a request waits for ``is_open``, which is set within seconds of the daemon's start."""

    def __init__(self, app: ASGIApp, is_open: threading.Event) -> None:
        self._app = app
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while scope["type"] == "http" and not self._is_open.is_set():  # noqa: ASYNC110  a thread sets it, once
            await asyncio.sleep(LOOK_S)
        await self._app(scope, receive, send)
