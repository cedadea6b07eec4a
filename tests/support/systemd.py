"""Stands for systemd at the other end of a notification socket."""

from __future__ import annotations

import socket
from typing import Final

from tests.support.eventually import eventually

LONG_S: Final = 30.0


class Systemd:
    """Binds the address as systemd does (``@`` is an abstract one) and keeps every message it hears, as its lines."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.heard: list[list[str]] = []

    def listen(self) -> list[list[str]]:
        while True:
            try:
                self.heard.append(self.socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return self.heard

    def lines(self) -> list[str]:
        return [line for message in self.listen() for line in message]

    def until(self, line: str) -> None:
        eventually(lambda: line in self.lines(), within_s=LONG_S, what=line)
