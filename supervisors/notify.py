"""What the daemon says to systemd (sd_notify, man 3): datagrams to the unix socket named in the environment.

Any thread; never blocks. Without a socket every method does nothing. Nothing is raised: a service manager that does not
hear must not cost a service; ``trouble`` tells.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final, Self

import structlog

ADDRESS: Final = "NOTIFY_SOCKET"
WATCHDOG_PERIOD: Final = "WATCHDOG_USEC"
WATCHDOG_PID: Final = "WATCHDOG_PID"
NOT_FOR_CHILDREN: Final = (ADDRESS, WATCHDOG_PERIOD, WATCHDOG_PID, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""What systemd says to this process alone. A service that inherited it could speak in the daemon's name."""
_MICROSECONDS: Final = 1_000_000


class Notifier:
    """Args:
    address: the socket's path; a leading ``@`` stands for an abstract one. None: nobody listens.
    watchdog_s: silence after which systemd ends the daemon; None: it does not.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s if address is not None else None
        self.trouble: str | None = None
        self._address = "\0" + address[1:] if address is not None and address.startswith("@") else address
        self._lock = threading.Lock()
        self._status: str | None = None
        self._socket: socket.socket | None = None
        if address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    @classmethod
    def take(cls, environ: MutableMapping[str, str], own_pids: frozenset[int] | None = None) -> Self:
        """As ``environ`` says, which loses what is not for our children.

        Args:
            own_pids: the pids ``WATCHDOG_PID`` may name: this process, and the init in front of it.
        """
        address = environ.get(ADDRESS)
        period = environ.get(WATCHDOG_PERIOD, "")
        meant = environ.get(WATCHDOG_PID)
        pids = own_pids or frozenset({os.getpid()})
        for name in NOT_FOR_CHILDREN:
            environ.pop(name, None)
        is_for_us = meant is None or (meant.isdigit() and int(meant) in pids)
        watchdog_s = int(period) / _MICROSECONDS if is_for_us and period.isdigit() and int(period) > 0 else None
        return cls(address if address and address[0] in "/@" else None, watchdog_s)

    @property
    def is_heard(self) -> bool:
        """Whether there is somebody to tell."""
        return self._socket is not None

    # -- what there is to say -----------------------------------------------------------------------------------------

    def ready(self, *, main_pid: int | None = None) -> None:
        """The tree is up; also: a reload is over. ``main_pid`` is the process to watch from now on."""
        self._say("READY=1", *([f"MAINPID={main_pid}"] if main_pid is not None else []))

    def reloading(self) -> None:
        """A reload begins; ``ready`` ends it. The time is what ``Type=notify-reload`` asks for."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._say("STOPPING=1")

    def extend(self, seconds: float) -> None:
        """A start or stop that is slow but goes on needs at most this much longer."""
        self._say(f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}")

    def watchdog(self) -> None:
        """The daemon is well."""
        if self.watchdog_s is not None:
            self._say("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; said when it changed."""
        line = text.replace("\n", " ")
        with self._lock:
            is_news, self._status = line != self._status, line
        if is_news:
            self._say(f"STATUS={line}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, *words: str) -> None:
        sock, address = self._socket, self._address
        if sock is None or address is None:
            return
        try:
            sock.sendto("\n".join(words).encode(), address)
        except OSError as error:
            name = "@" + address[1:] if address[0] == "\0" else str(Path(address))
            trouble = f"cannot tell systemd at {name}: {error.strerror or error}"
            if trouble != self.trouble:
                structlog.get_logger().warning("not heard by systemd", address=name, error=str(error))
            self.trouble = trouble
            return
        self.trouble = None
