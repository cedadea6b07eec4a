"""The TCP connections of our links, found among the open files: who has sent how much, and cutting off. No own thread.

ZeroMQ names no connection and closes none alone. A connection shut down under it is to it one that broke: it drops what
had come of an unfinished message, and the peer connects again. Linux only; elsewhere there are none to be seen.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_OPEN: Final = Path("/proc/self/fd")
_TCP_INFO: Final = getattr(socket, "TCP_INFO", None)
_RECEIVED: Final = struct.Struct("=Q")
_RECEIVED_AT: Final = 128
"""Where ``tcpi_bytes_received`` is in the kernel's ``tcp_info``; an old kernel's is shorter."""


def received(ports: Collection[int]) -> dict[str, int]:
    """Bytes each peer of these ports of ours has sent so far, by its ``address:port``."""
    found: dict[str, int] = {}
    for peer, one in _connections(ports):
        with suppress(OSError):
            info = b"" if _TCP_INFO is None else one.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256)
            if len(info) >= _RECEIVED_AT + _RECEIVED.size:
                (found[peer],) = _RECEIVED.unpack_from(info, _RECEIVED_AT)
    return found


def cut_off(ports: Collection[int], peers: Collection[str]) -> None:
    """End the connections of these peers."""
    for peer, one in _connections(ports):
        if peer in peers:
            with suppress(OSError):  # it has ended by itself
                one.shutdown(socket.SHUT_RDWR)


def _connections(ports: Collection[int]) -> Iterator[tuple[str, socket.socket]]:
    try:
        names = [int(one.name) for one in _OPEN.iterdir()]
    except OSError:
        return
    for one in filter(None, map(_copied, names)):
        with one:
            try:
                is_ours = one.family == socket.AF_INET and one.getsockname()[1] in ports
                host, port = one.getpeername() if is_ours else ("", 0)
            except OSError:  # it listens, or is gone already
                continue
            if is_ours:
                yield f"{host}:{port}", one


def _copied(name: int) -> socket.socket | None:
    """A copy stays the same connection while its owner closes his. None: closed meanwhile, or no socket."""
    try:
        if not stat.S_ISSOCK(os.fstat(name).st_mode):
            return None
        copy = os.dup(name)
    except OSError:
        return None
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
