"""Every socket option in one place, and what an address may be. Sockets are made, used and closed by one thread.

This is also where keys (CURVE) will be applied; until then only loopback addresses are taken.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import zmq

from bridge_link.bodies import MAX_BODY_BYTES
from bridge_link.errors import BadAddress

HEARTBEAT_IVL_MS, HEARTBEAT_TIMEOUT_MS, HEARTBEAT_TTL_MS = 2000, 6000, 9000


def check_address(address: str) -> str:
    """The address, when it is ``tcp://`` with a loopback host and a port (0: any free one).

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
    if not _is_loopback(host):
        raise BadAddress(f"{address!r} is not on loopback, and links have no keys yet; use tcp://127.0.0.1:{port}")
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


def make_router(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.ROUTER)
    _common(socket)
    socket.setsockopt(zmq.SNDHWM, 1000)
    socket.setsockopt(zmq.RCVHWM, 1000)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 3000)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # else an answer to a peer that is gone vanishes in silence
    socket.setsockopt(zmq.ROUTER_HANDOVER, 0)  # nobody takes over another's answers by naming itself like it
    socket.setsockopt(zmq.BACKLOG, 128)
    socket.setsockopt(zmq.IPV6, 0)
    return socket


def make_dealer(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    _common(socket)
    socket.setsockopt(zmq.SNDHWM, 200)
    socket.setsockopt(zmq.RCVHWM, 200)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued to a pipe that leads nowhere
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
    return socket
