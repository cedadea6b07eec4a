"""The HTTP server of the daemon: its sockets and its one thread.

Sockets are bound by the caller of ``start``, so that a port in use is the caller's error. The thread (and the workers
it makes) are daemons: no request that hangs can keep the process from ending.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI

from supervisors.api.crowd import Crowd
from supervisors.api.guard import is_loopback
from supervisors.api.identity import PeerProtocol

UNIX_PATH_MAX: Final = 107
"""Bytes of ``sockaddr_un.sun_path`` on Linux, less the end mark."""
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})
BACKLOG: Final = 128
"""Who waits to be let in, in the kernel."""
LET_IN_AT_ONCE: Final = 8
"""Before it is looked how many files are open."""
_START_LIMIT_S: Final = 10.0
_DRAIN_S: Final = 1
"""Requests still running at the close get this long."""


class OperatorUnavailable(Exception):
    """The operator's interface cannot be opened; the text says which address, why, and what to do."""


class NoRoom(OperatorUnavailable):
    """The unix socket cannot be made where it belongs: the disk is full or read-only."""


class _Server(uvicorn.Server):
    """Lets in a few at a time."""

    def __init__(self, config: uvicorn.Config, crowd: Crowd) -> None:
        super().__init__(config)
        self._crowd = crowd

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._crowd.loop_says)
        await super().startup(sockets)
        for one in sockets or ():  # what the loop takes at once is the kernel's queue to it
            one.listen(BACKLOG)


class ApiServer:
    """Serves ``app`` (of ``create_app``) on a loopback TCP address, on a unix socket, or on both.

    Args:
        tcp_address: ``127.0.0.1:8090`` (port 0: any free one), or None.
        unix_path: where the unix socket goes (mode 0600); one too long for the system is left out, and a free port on
            loopback opened in its place when there is no ``tcp_address``.
        address_file: gets the line ``http://127.0.0.1:8090`` while the server runs, for clients without the socket.
    """

    def __init__(
        self, app: FastAPI, tcp_address: str | None, unix_path: Path | None, *, address_file: Path | None = None
    ) -> None:
        self._app = app
        self._unix_path = unix_path if unix_path is not None and fits(unix_path) else None
        self._tcp_address = tcp_address
        if tcp_address is None and self._unix_path is None:
            self._tcp_address = "127.0.0.1:0"
        self._address_file = address_file
        self._unwritten: str | None = None
        self._no_unix: str | None = None
        self._crowd = Crowd()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self.address: str | None = None

    @property
    def unix_path(self) -> Path | None:
        """The unix socket, if there is one."""
        return self._unix_path

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Bind and serve. May be called again after ``close``. Raises OperatorUnavailable."""
        sockets = self._bind()
        self._app.state.closing.clear()

        class Protocol(PeerProtocol):
            crowd = self._crowd

        config = uvicorn.Config(
            self._app,
            http=Protocol,
            backlog=LET_IN_AT_ONCE,
            log_config=None,
            access_log=False,
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=_DRAIN_S,
        )
        self._server = _Server(config, self._crowd)
        begun = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(self._server, sockets, begun), name="operator:http", daemon=True
        )
        self._thread.start()
        if not begun.wait(_START_LIMIT_S):
            self.close(0)
            raise OperatorUnavailable(f"the HTTP server did not start within {_START_LIMIT_S:g} s")
        self._write_address()

    def close(self, timeout_s: float = 5.0) -> bool:
        """End streams, let requests finish for a moment, and end. False when the thread is still there in the end."""
        self._app.state.closing.set()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout_s)
        for path in (self._unix_path, self._address_file):
            if path is not None:
                with suppress(OSError):  # read-only: the next one finds it stale
                    path.unlink(missing_ok=True)
        return not self.is_alive

    def look(self) -> str | None:
        """Once in a while: write the address file if it could not be written. Returns what is wrong, also with who
        connects.

        Where the unix socket could not be made, clients find the loopback address in that file.
        """
        if self._unwritten is not None and self._is_rid_of_stale_socket():
            self._write_address()
        if self._unwritten is None:
            return self._crowd.trouble()
        return f"{self._no_unix}; {self._unwritten}" if self._no_unix else self._unwritten

    def _is_rid_of_stale_socket(self) -> bool:
        """A dead one would keep clients from looking at the address."""
        if self._no_unix is None or self._unix_path is None:
            return True
        with suppress(OSError):
            self._unix_path.unlink(missing_ok=True)
            return True
        return False

    # -- inside -----------------------------------------------------------------------------------------------------

    def _write_address(self) -> None:
        """For clients that look into the state directory; half an address is worse than none."""
        file, self._unwritten = self._address_file, None
        if self.address is None or file is None:
            return
        fresh = file.with_suffix(".new")
        try:
            fresh.write_text(self.address + "\n", encoding="utf-8")
            fresh.replace(file)
        except OSError as error:
            self._unwritten = f"cannot write {file}: {error.strerror}; use --address {self.address}"
            with suppress(OSError):
                fresh.unlink()

    @staticmethod
    def _serve(server: uvicorn.Server, sockets: list[socket.socket], begun: threading.Event) -> None:
        # The sockets listen already: a client that is early waits in the backlog, so the thread's start is enough.
        begun.set()
        server.run(sockets=sockets)

    def _bind(self) -> list[socket.socket]:
        sockets: list[socket.socket] = []
        self._no_unix = None
        try:
            if self._unix_path is not None:
                try:
                    sockets.append(_bind_unix(self._unix_path))
                except NoRoom as trouble:  # a full or read-only disk: loopback needs neither
                    self._no_unix = str(trouble)
            if self._tcp_address is not None or not sockets:
                sockets.append(_bind_tcp(self._tcp_address or "127.0.0.1:0"))
                host, port = sockets[-1].getsockname()[:2]
                self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        except BaseException:
            for one in sockets:
                one.close()
            raise
        return sockets


def fits(path: Path) -> bool:
    """Whether the system takes a unix socket of that path."""
    return len(os.fsencode(path)) <= UNIX_PATH_MAX


def _bind_tcp(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    if not is_loopback(host) or not port.isdecimal():
        raise OperatorUnavailable(f"operator address {address!r}: only loopback can be bound, e.g. 127.0.0.1:8090")
    bare = host.strip("[]")
    listening = socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((bare, int(port)))
        listening.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        why = "is in use by another program" if getattr(error, "errno", None) == errno.EADDRINUSE else str(error)
        raise OperatorUnavailable(f"operator address {address}: {why}; change links.operator.address") from error
    return listening


def _bind_unix(path: Path) -> socket.socket:
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(0o600)  # before anybody can connect
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        kind = NoRoom if error.errno in NO_ROOM else OperatorUnavailable
        raise kind(f"operator socket {path}: {error.strerror or error}") from error
    return listening


def _remove_stale(path: Path) -> None:
    """Take away a socket nobody listens on any more. Raises OperatorUnavailable when somebody does."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OperatorUnavailable(f"operator socket {path}: something else is there; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            _unlink(path)
            return
        except OSError as error:
            raise OperatorUnavailable(f"operator socket {path}: {error.strerror or error}") from error
    raise OperatorUnavailable(f"operator socket {path}: another daemon listens there; 'selfheal stop' ends it")


def _unlink(path: Path) -> None:
    """Raises NoRoom: the directory is read-only."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise NoRoom(f"operator socket {path}: {error.strerror}") from error
