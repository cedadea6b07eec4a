"""Who asks over HTTP, as far as it is proven. A name in a body or a header proves nothing and is never looked at.

Over the unix socket the kernel says whose program it is (SO_PEERCRED). Over TCP a token does, where the configuration
gives one to an operator. Nobody else may approve anything.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from supervisors.api.crowd import Counted
from supervisors.manager import NotAllowed
from supervisors.people import asking, user_name

PEER: Final = "unix peer "
"""No TCP client's address begins so."""
Tokens = Callable[[], Mapping[str, str]]
"""The tokens of operators by name, as they are now. Raises ValueError: they cannot be used."""


class PeerProtocol(Counted):
    """HTTP whose ``scope["client"]`` tells the user of a unix socket's peer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = peer_user(transport.get_extra_info("socket"))
        if peer is not None:
            self.client = (f"{PEER}{peer}", 0)


def peer_user(connection: socket.socket | None) -> int | None:
    """The user of whoever is on the other side of a unix socket; None: it is none."""
    if connection is None or connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    size = struct.calcsize("3i")
    _pid, user, _group = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return cast("int", user)


def operator_of(request: Request, tokens: Tokens) -> str:
    """The authenticated name: ``user:ann`` over the unix socket, ``token:ann`` over TCP.

    Raises:
        NotAllowed: nobody is proven.
    """
    client: Any = request.scope.get("client")
    host = str(client[0]) if client else ""
    if host.startswith(PEER):
        return f"user:{user_name(int(host.removeprefix(PEER)))}"
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and given:
        return f"token:{_owner(given.strip(), tokens)}"
    raise NotAllowed(
        "who asks is not known: use the unix socket in the state directory, or a token of links.operator.tokens"
        " ($SELFHEAL_TOKEN)"
    )


class KnowsWhoAsks:
    """ASGI middleware: while a request is handled, ``people.asking`` tells who is behind it. It costs nothing until
    a command is recorded.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        def proven() -> str:
            try:
                return operator_of(Request(scope), self._tokens)
            except NotAllowed:
                return ""

        if scope["type"] == "http":
            asking.set(proven)  # each request is handled in a context of its own
        await self._app(scope, receive, send)


def _owner(given: str, tokens: Tokens) -> str:
    try:
        known = tokens()
    except ValueError as error:
        raise NotAllowed(f"no token is taken now: {error}") from None
    found = [name for name, token in known.items() if hmac.compare_digest(token.encode(), given.encode())]
    if len(found) != 1:
        raise NotAllowed("the token is no operator's" if not found else "the token is that of several operators")
    return found[0]
