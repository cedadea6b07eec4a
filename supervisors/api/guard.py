"""Keeps browsers of strangers away from a daemon on loopback. Pure ASGI; runs on the event loop; no I/O of its own.

A page anywhere can make a browser send requests to 127.0.0.1. Two checks stop it: the Host header must name loopback
(else a name of the page's owner was pointed at 127.0.0.1: DNS rebinding), and a request that changes something must
not come from a page of another origin.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def is_loopback(host: str) -> bool:
    """Whether a host name or address (no port) is this machine's own."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def refusal(method: str, headers: Mapping[str, str]) -> str | None:
    """Why a request is refused, or None. ``headers`` have lower-case names."""
    host = headers.get("host", "")
    if not is_loopback(_host_of(f"//{host}") or ""):
        return f"the Host header {host!r} is not a loopback name; use 127.0.0.1 or localhost"
    if method in _READING:
        return None
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return f"a page of {origin!r} may not change anything here"
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "a page of another site may not change anything here"
    return None


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class LoopbackOnly:
    """ASGI middleware: answers 403 to what ``refusal`` refuses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = refusal(scope.get("method", "GET"), headers)
        if refused is None:
            await self._app(scope, receive, send)
        else:
            answer = JSONResponse({"error": refused, "kind": "refused", "suggestion": None}, status_code=403)
            await answer(scope, receive, send)
