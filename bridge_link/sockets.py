"""Every socket option in one place, and what an address may be. Sockets are made, used and closed by one thread.

Without keys only loopback addresses are taken.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from typing import Final
from urllib.parse import urlsplit

import zmq

from bridge_link.bodies import MAX_BODY_BYTES
from bridge_link.errors import BadAddress, LinkUnusable
from bridge_link.keys import ClientKey
from bridge_link.zap import DOMAIN

ZAP_ENFORCE_DOMAIN: Final = 93
"""Not every pyzmq names it: without a ZAP handler nobody is let in, instead of everybody."""
NEEDED_FILES: Final = 12
"""Descriptors that a context with one connection takes, and some to spare."""
HEARTBEAT_IVL_MS, HEARTBEAT_TIMEOUT_MS, HEARTBEAT_TTL_MS = 2000, 6000, 9000


def check_address(address: str, *, is_guarded: bool = False) -> str:
    """The address, when it is ``tcp://`` with a host and a port (0: any free one). Without keys (``is_guarded``) the
    host must be a loopback one.

    Raises:
        BadAddress: it is not.
    """
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "tcp" or host is None or port is None:
        raise BadAddress(f"{address!r} is no address; write it as tcp://127.0.0.1:5570")
    if host == "*":
        raise BadAddress(f"{address!r} names no interface; write 0.0.0.0 for all of them")
    if not is_guarded and not _is_loopback(host):
        raise BadAddress(
            f"{address!r} is not on loopback, and without keys that is refused: set links.curve to true, "
            f"or use tcp://127.0.0.1:{port}"
        )
    return address


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _common(socket: zmq.Socket[bytes]) -> None:
    options = {
        zmq.LINGER: 0,  # what is not acknowledged is kept elsewhere; the default waits for ever at the end
        zmq.HEARTBEAT_IVL: HEARTBEAT_IVL_MS,  # half-open TCP
        zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
        zmq.HEARTBEAT_TTL: HEARTBEAT_TTL_MS,
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: 30,
        zmq.TCP_KEEPALIVE_INTVL: 10,
        zmq.TCP_KEEPALIVE_CNT: 3,
        zmq.MAXMSGSIZE: 2 * MAX_BODY_BYTES,  # beyond it the peer is cut off; below it a NACK says why
    }
    for option, value in options.items():
        socket.setsockopt(option, value)


def guard(socket: zmq.Socket[bytes], secret: str) -> None:
    """Make a socket that is not bound yet a CURVE server: who comes in is asked of the context's ZAP handler."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret.encode("ascii"))
    socket.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
    try:
        socket.setsockopt(ZAP_ENFORCE_DOMAIN, 1)
    except zmq.ZMQError as error:  # the check of each message's User-Id holds all the same
        logging.getLogger("selfheal.links").warning("libzmq has no ZAP_ENFORCE_DOMAIN: %s", error.strerror)


def _listening(socket: zmq.Socket[bytes], secret: str | None) -> None:
    """What all of the daemon's own sockets have; with ``secret`` a CURVE server."""
    _common(socket)
    if secret is not None:
        guard(socket, secret)
    socket.setsockopt(zmq.SNDHWM, 1000)
    socket.setsockopt(zmq.RCVHWM, 1000)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 3000)
    socket.setsockopt(zmq.BACKLOG, 128)
    socket.setsockopt(zmq.IPV6, 0)


def make_router(context: zmq.Context[zmq.Socket[bytes]], secret: str | None = None) -> zmq.Socket[bytes]:
    """With the server's ``secret`` key a CURVE server."""
    socket = context.socket(zmq.ROUTER)
    _listening(socket, secret)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # else an answer to a peer that is gone vanishes in silence
    socket.setsockopt(zmq.ROUTER_HANDOVER, 0)  # nobody takes over another's answers by naming itself like it
    return socket


def make_publisher(context: zmq.Context[zmq.Socket[bytes]], secret: str | None = None) -> zmq.Socket[bytes]:
    """XPUB: its owner knows whether anybody listens. A slow subscriber loses messages, it never holds others up. With
    the server's ``secret`` key a CURVE server.
    """
    socket = context.socket(zmq.XPUB)
    _listening(socket, secret)
    return socket


def make_subscriber(context: zmq.Context[zmq.Socket[bytes]], key: ClientKey | None = None) -> zmq.Socket[bytes]:
    """To all topics; with a ``key`` a CURVE client."""
    socket = context.socket(zmq.SUB)
    _common(socket)
    if key is not None:
        _present(socket, key)
    socket.setsockopt(zmq.RCVHWM, 1000)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    return socket


def check_room(fileno: int) -> None:
    """Before a context is made: libzmq ends the whole process when it finds some of its descriptors missing.

    Args:
        fileno: an open descriptor, to ask for room with.

    Raises:
        LinkUnusable: there are not as many descriptors left as a context and its first connection may take.
    """
    taken: list[int] = []
    try:
        while len(taken) < NEEDED_FILES:
            taken.append(os.dup(fileno))
    except OSError as error:
        raise LinkUnusable(f"{error.strerror}: a connection takes up to {NEEDED_FILES}") from None
    finally:
        for one in taken:
            os.close(one)


def _present(socket: zmq.Socket[bytes], key: ClientKey) -> None:
    socket.setsockopt(zmq.CURVE_SERVERKEY, key.server.encode("ascii"))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public.encode("ascii"))
    socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret.encode("ascii"))


def make_dealer(context: zmq.Context[zmq.Socket[bytes]], key: ClientKey | None = None) -> zmq.Socket[bytes]:
    """With a ``key`` a CURVE client."""
    socket = context.socket(zmq.DEALER)
    _common(socket)
    if key is not None:
        _present(socket, key)
    socket.setsockopt(zmq.SNDHWM, 200)
    socket.setsockopt(zmq.RCVHWM, 200)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued to a pipe that leads nowhere
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
    return socket
