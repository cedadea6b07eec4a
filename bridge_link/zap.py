"""Who may come in: the ZeroMQ Authentication Protocol (RFC 27), answered by the thread that owns the guarded socket.

There is no authenticator thread that could die unnoticed or be missing: what receives messages answers handshakes. A
client's User-Id is its public key, so that a name given to another key later does not let an old session pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import zmq
from zmq.utils import z85

ADDRESS: Final = "inproc://zeromq.zap.01"
DOMAIN: Final = "selfheal"
MAX_PER_TURN: Final = 64
_CURVE_FRAMES: Final = 9
_log: Final = logging.getLogger("selfheal.zap")


class CannotDecide(Exception):
    """Nobody can say now who may come in: the client tries again by itself. Any other refusal ends its socket."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What guards a socket. Called on the socket's thread; must be quick.

    Args:
        secret: the server's secret key, Z85.
        admits: whether a public key (Z85), coming from an address, may come in; raises CannotDecide.
        name_of: the name of the client with this public key, as the table is now; None: nobody's.
    """

    secret: str = field(repr=False)
    admits: Callable[[str, str], bool]
    name_of: Callable[[str], str | None]


def open_handler(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """Must be there before a guarded socket of the same context is bound: without it nobody is let in."""
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.bind(ADDRESS)
    return socket


def answer_some(socket: zmq.Socket[bytes], guard: Guard) -> None:
    """Answer the handshakes that wait. Raises nothing that a request could cause."""
    for _ in range(MAX_PER_TURN):
        try:
            request = socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        reply = answered(request, guard.admits)
        if reply is not None:
            try:
                socket.send_multipart(reply, zmq.NOBLOCK)
            except zmq.ZMQError as error:  # the connection is gone already
                _log.debug("a handshake could not be answered: %s", error.strerror)


def answered(request: Sequence[bytes], admits: Callable[[str, str], bool]) -> list[bytes] | None:
    """The reply to one request as a ROUTER sees it; None: no reply is possible. Pure but for ``admits`` and a log."""
    if len(request) < 4:
        return None
    peer, empty, _version, request_id = request[:4]

    def reply(status: bytes, text: bytes, user_id: bytes = b"") -> list[bytes]:
        return [peer, empty, b"1.0", request_id, status, text, user_id, b""]

    if len(request) != _CURVE_FRAMES or request[2] != b"1.0" or request[7] != b"CURVE" or len(request[8]) != 32:
        return reply(b"400", b"only CURVE is taken")
    try:
        public = z85.encode(request[8])
        if admits(public.decode("ascii"), request[5].decode("ascii", "replace")):
            return reply(b"200", b"OK", public)
        return reply(b"400", b"this key is not known here")
    except CannotDecide:
        return reply(b"300", b"cannot be decided now")
    except Exception:  # whatever it is: nobody comes in by it
        _log.exception("a handshake is refused: who may come in could not be looked up")
        return reply(b"400", b"cannot be decided")
