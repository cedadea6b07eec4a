"""An endpoint that listens on ``host:port`` and speaks JSON lines: hello, heartbeat, error, reply."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from actors.bridge_fsm import Connected, Heard, Lost
from actors.bridge_sessions import BridgeSessions
from actors.endpoints.lines import CHUNK_BYTES, Replied, read_lines
from actors.endpoints.transport import Tell, ThreadedTransport
from bridge_link.wire import new_id

RETRY_S: Final = 0.2
CLIENT: Final = "tcp socket"
"""Who speaks for a TCP endpoint: whoever listens at the configured address. No key has such a name."""


class TcpTransport(ThreadedTransport):
    """Connects, reads lines, and writes commands for as long as the peer takes them.

    Args:
        connect_timeout_s: a peer that is only just starting is no fault for so long.
        send_timeout_s: how long the peer may take to read what is written to it.
    """

    def __init__(
        self, name: str, address: str, connect_timeout_s: float, send_timeout_s: float, sessions: BridgeSessions
    ) -> None:
        super().__init__(name)
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._send_timeout_s = send_timeout_s
        self._sessions = sessions
        self._to_send: deque[bytes] = deque()
        self._session = new_id()

    def _run(self, tell: Tell) -> None:
        connection = self._connected(tell)
        if connection is None:
            return
        with connection:
            connection.settimeout(self._send_timeout_s)  # of writing; reading is done when there is something
            connection.sendall(_line({"kind": "hello", "from": "selfheal"}))
            tell(Connected())
            try:
                read_lines(
                    connection.fileno(),
                    lambda: connection.recv(CHUNK_BYTES),
                    self._wake,
                    self._closed,
                    lambda fact: self._hear(fact, tell),
                    lambda: self._write(connection),
                )
            finally:
                self._sessions.ended(self._name, self._session)

    def _hear(self, fact: object, tell: Tell) -> None:
        self._sessions.heard(self._name, self._session)
        match fact:
            case Heard(is_hello=True, facts=facts):
                self._greeted(facts or {})
                tell(fact)
            case Replied(request_id, body):
                self._sessions.replied(CLIENT, request_id, body)
                tell(Heard())
            case _:
                tell(fact)

    def _greeted(self, hello: Mapping[str, Any]) -> None:
        """A peer that names commands takes them. One that names its session is known again after a reconnect."""
        if isinstance(hello.get("commands"), list):
            if isinstance(hello.get("session"), str):
                self._session = hello["session"]
            self._sessions.opened(self._name, CLIENT, self._session, self._say, hello, math.inf)

    def _say(self, request_id: str, body: Mapping[str, Any]) -> None:
        """From any thread."""
        self._to_send.append(_line({"kind": "command", "id": request_id, **body}))
        self._wake.ring()

    def _write(self, connection: socket.socket) -> str | None:
        while self._to_send:
            try:
                connection.sendall(self._to_send.popleft())
            except TimeoutError:
                return f"the peer did not read for {self._send_timeout_s:g} s"
        return None

    def _connected(self, tell: Tell) -> socket.socket | None:
        host, _, port = self._address.rpartition(":")
        deadline = time.monotonic() + self._connect_timeout_s
        while not self._closed.is_set():
            try:
                connection = socket.create_connection((host.strip("[]"), int(port)), self._connect_timeout_s)
                if connection.getsockname() != connection.getpeername():
                    return connection
                connection.close()  # where nobody listens, a socket may come to be connected to itself
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            except OSError as error:
                if time.monotonic() + RETRY_S >= deadline:
                    tell(Lost(f"{self._address}: {error.strerror or 'no answer'}"))
                    return None
            self._closed.wait(RETRY_S)
        return None


def _line(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode() + b"\n"
