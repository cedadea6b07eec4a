"""Names and echo requests: what a host name leads to, and whether somebody answers there. Runs on the I/O pool."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from typing import Any, Final

from icmplib import ICMPRequest, ICMPv4Socket, ICMPv6Socket
from icmplib.exceptions import (
    DestinationUnreachable,
    ICMPError,
    ICMPLibError,
    SocketPermissionError,
    TimeoutExceeded,
)
from icmplib.utils import unique_identifier

from runbooks.ports import PortError

MOST_WAIT_S: Final = 2.0
"""For one answer."""
_NO_NAME: Final = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


class LocalHosts:
    """Fulfils ``ports.Hosts``. Names are asked of the system, as services ask it (hosts file and all)."""

    def addresses(self, host: str, timeout_s: float) -> tuple[str, ...]:
        answer: list[Any] = []

        def ask() -> None:
            try:
                answer.append(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
            except Exception as error:  # handed to who waits
                answer.append(error)

        # the system's resolver knows no deadline; its own ends this thread after a while
        asking = threading.Thread(target=ask, name="resolve", daemon=True)
        asking.start()
        asking.join(timeout_s)
        if not answer:
            raise PortError(f"{host}: no answer from the name service within {timeout_s:g} s")
        found = answer[0]
        if isinstance(found, socket.gaierror):
            if found.errno in _NO_NAME:
                return ()
            raise PortError(f"{host}: {found.strerror}")
        if isinstance(found, Exception):
            raise PortError(f"{host!r}: cannot be a host name: {found}")
        return tuple(dict.fromkeys(str(one[4][0]) for one in found))

    def answers(self, host: str, count: int, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        addresses = self.addresses(host, timeout_s)
        if not addresses:
            raise PortError(f"{host}: there is no such host")
        said = ""
        with _socket(addresses[0]) as sock:
            number = unique_identifier()
            for sequence in range(max(1, count)):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    break
                try:
                    request = ICMPRequest(addresses[0], number, sequence)
                    sock.send(request)
                    sock.receive(request, min(left_s, MOST_WAIT_S)).raise_for_status()
                except TimeoutExceeded:
                    continue
                except DestinationUnreachable as error:
                    said = str(error)
                    continue
                except (ICMPError, ICMPLibError, OSError) as error:
                    raise PortError(f"ping {host} ({addresses[0]}): {error}") from error
                else:
                    return True
        if said:
            return False
        raise PortError(f"ping {host} ({addresses[0]}): nobody answered")


def _socket(address: str) -> Any:
    """Without rights where the system allows that (``net.ipv4.ping_group_range``), else as root."""
    kind = ICMPv6Socket if ipaddress.ip_address(address.partition("%")[0]).version == 6 else ICMPv4Socket
    for is_privileged in (False, True):
        try:
            return kind(privileged=is_privileged)
        except SocketPermissionError:
            continue
        except (ICMPLibError, OSError) as error:
            raise PortError(f"no echo request can be sent from here: {error}") from error
    raise PortError(
        "no echo request can be sent by this user: widen net.ipv4.ping_group_range, or ask with tcp_connect instead"
    )
