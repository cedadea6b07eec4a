"""Transports of bridge endpoints: a thread each that owns its socket, FIFO or folder, and tells what it hears.

``tell`` is called on the transport's thread and must only put a message into an inbox. ``close`` may be called from any
thread and ends the transport within a moment.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from actors.bridge_fsm import Connected, Heard, Lost
from bridge_link.wakeup import WakeUp

MAX_LINE_BYTES: Final = 64 * 1024
RETRY_S: Final = 0.2


class ErrorHeard:
    """The endpoint reported an error: a bridge error dictionary."""

    __slots__ = ("error",)

    def __init__(self, error: Mapping[str, Any]) -> None:
        self.error = error


Tell = Callable[[object], object]


class Transport(Protocol):
    def start(self, tell: Tell) -> None: ...
    def close(self) -> None: ...


class _Threaded:
    """A transport with a thread; ``_run`` ends when ``_closed`` is set or the endpoint is lost."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._closed = threading.Event()
        self._wake = WakeUp()

    def start(self, tell: Tell) -> None:
        threading.Thread(target=self._guarded, args=(tell,), name=f"endpoint:{self._name}", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._wake.ring()

    def _guarded(self, tell: Tell) -> None:
        try:
            self._run(tell)
        except Exception as error:  # whatever it is, the actor must hear that its transport has ended
            if not self._closed.is_set():
                tell(Lost((error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__))
        finally:
            self._wake.close()

    def _run(self, tell: Tell) -> None:
        raise NotImplementedError


class TcpTransport(_Threaded):
    """Connects to ``host:port`` and reads JSON lines: hello, heartbeat, error."""

    def __init__(self, name: str, address: str, connect_timeout_s: float) -> None:
        super().__init__(name)
        self._address = address
        self._connect_timeout_s = connect_timeout_s

    def _run(self, tell: Tell) -> None:
        connection = self._connected(tell)
        if connection is None:
            return
        with connection:
            connection.sendall(json.dumps({"kind": "hello", "from": "selfheal"}).encode() + b"\n")
            connection.settimeout(None)
            tell(Connected())
            read_lines(connection.fileno(), lambda: connection.recv(65536), self._wake, self._closed, tell)

    def _connected(self, tell: Tell) -> socket.socket | None:
        """Try until the endpoint has been silent for too long: a peer that is only just starting is no fault."""
        host, _, port = self._address.rpartition(":")
        deadline = time.monotonic() + self._connect_timeout_s
        while not self._closed.is_set():
            try:
                return socket.create_connection((host, int(port)), self._connect_timeout_s)
            except OSError as error:
                if time.monotonic() + RETRY_S >= deadline:
                    tell(Lost(f"{self._address}: {error.strerror or 'no answer'}"))
                    return None
            self._closed.wait(RETRY_S)
        return None


class FifoTransport(_Threaded):
    """Reads JSON lines from a named pipe, which it makes when it is missing."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name)
        self._path = path

    def _run(self, tell: Tell) -> None:
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.mkfifo(self._path, 0o600)
        fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)  # also for writing: writers may come and go
        try:
            tell(Connected())
            read_lines(fd, lambda: os.read(fd, 65536), self._wake, self._closed, tell)
        finally:
            os.close(fd)


def read_lines(fd: int, read: Callable[[], bytes], wake: WakeUp, closed: threading.Event, tell: Tell) -> None:
    """Tell what each line says until the stream ends or ``closed`` is set."""
    rest = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(wake.fileno(), select.POLLIN)
    while not closed.is_set():
        if fd not in {ready for ready, _ in poll.poll()}:
            continue
        got = read()
        if not got:
            tell(Lost("the connection was closed by the peer"))
            return
        *lines, rest = (rest + got).split(b"\n")
        for line in lines:
            if (fact := read_line(line)) is not None:
                tell(fact)
        if len(rest) > MAX_LINE_BYTES:
            tell(Lost(f"a line of more than {MAX_LINE_BYTES} bytes"))
            return


def read_line(line: bytes) -> object | None:
    """What one line says: anything that is JSON shows that the endpoint lives; the rest is noise."""
    try:
        body = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    match body.get("kind"):
        case "hello":
            return Heard(is_hello=True)
        case "error":
            return ErrorHeard({key: value for key, value in body.items() if key != "kind"})
        case _:
            return Heard()


class SpoolTransport(_Threaded):
    """Watches a folder: a file that became newer is a sign of life."""

    def __init__(self, name: str, directory: Path, silence_s: float) -> None:
        super().__init__(name)
        self._directory = directory
        self._every_s = min(1.0, silence_s / 3)

    def _run(self, tell: Tell) -> None:
        newest = self._newest()
        if newest is not None:
            tell(Connected())
        while not self._closed.wait(self._every_s):
            found = self._newest()
            if found is not None and found != newest:
                newest = found
                tell(Heard())

    def _newest(self) -> float | None:
        try:
            with os.scandir(self._directory) as entries:
                return max((entry.stat().st_mtime for entry in entries if entry.is_file()), default=None)
        except FileNotFoundError:
            return None


class BeatBoard:
    """Heartbeats that come over the bridge link, by endpoint name. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tells: dict[str, Tell] = {}
        self.unknown: dict[str, int] = {}

    def beat(self, name: str) -> bool:
        """An endpoint was heard. False when nobody waits for one of that name."""
        with self._lock:
            tell = self._tells.get(name)
            if tell is None:
                self.unknown[name] = self.unknown.get(name, 0) + 1 if len(self.unknown) < 1000 else 1
                return False
        tell(Heard())
        return True

    def subscribe(self, name: str, tell: Tell) -> None:
        with self._lock:
            self._tells[name] = tell

    def unsubscribe(self, name: str, tell: Tell) -> None:
        """Only its own subscription: a newer incarnation's stays."""
        with self._lock:
            if self._tells.get(name) is tell:
                del self._tells[name]


class BeatTransport:
    """No thread of its own: the bridge link's pump hears the beats."""

    def __init__(self, name: str, beats: BeatBoard) -> None:
        self._name = name
        self._beats = beats
        self._tell: Tell | None = None

    def start(self, tell: Tell) -> None:
        self._tell = tell
        self._beats.subscribe(self._name, tell)

    def close(self) -> None:
        if self._tell is not None:
            self._beats.unsubscribe(self._name, self._tell)
