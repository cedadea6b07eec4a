"""Stand-ins for what bridge endpoints talk to: ``python -m supervisors.demo.peer --kind tcp --port 18765``.

SIGUSR1 makes a peer fall silent, and speak again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from supervisors.demo.service import say

BEAT_S = 0.5


class Mood:
    """Whether the peer speaks; SIGUSR1 toggles it, SIGTERM ends it."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.is_silent = False
        signal.signal(signal.SIGUSR1, lambda *_: self._toggle())
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: self.stop.set())

    def _toggle(self) -> None:
        self.is_silent = not self.is_silent
        say("silent" if self.is_silent else "speaking again")


def serve_tcp(port: int, mood: Mood) -> int:
    """What MetaTrader's side is: a TCP socket, JSON lines, a hello and heartbeats."""
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        say(f"cannot listen on 127.0.0.1:{port}: {error.strerror}")
        return 1
    say(f"mql4 stand-in on 127.0.0.1:{port}, pid {os.getpid()}")
    listener.settimeout(0.2)
    while not mood.stop.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        threading.Thread(target=_beat_into, args=(connection, mood), daemon=True).start()
    listener.close()
    return 0


def _beat_into(connection: socket.socket, mood: Mood) -> None:
    with connection:
        try:
            connection.sendall(_line({"kind": "hello", "name": "mql4", "version": 1}))
            while not mood.stop.wait(BEAT_S):
                if not mood.is_silent:
                    connection.sendall(_line({"kind": "heartbeat", "name": "mql4", "at": time.time()}))
        except OSError:
            return  # the daemon's end was closed


def _line(body: dict[str, object]) -> bytes:
    return json.dumps(body).encode() + b"\n"


def beat_over_zeromq(name: str, address: str | None, mood: Mood) -> int:
    """What the PowerShell side is: a client of the bridge link. The daemon may come later, or come again."""
    from bridge_link.client import BridgeClient  # noqa: PLC0415  the other kinds need no pyzmq
    from bridge_link.errors import BadAddress, KeyTrouble  # noqa: PLC0415

    client: BridgeClient | None = None
    while not mood.stop.wait(0.1):
        if client is None and not mood.is_silent:
            try:
                client = BridgeClient(address, name=name, beat_every_s=BEAT_S)
            except (BadAddress, KeyTrouble):
                continue
            say(f"{name} stand-in beating, pid {os.getpid()}")
        elif client is not None and mood.is_silent:
            client.close()
            client = None
    if client is not None:
        client.close()
    return 0


def drop_files(directory: Path, mood: Mood) -> int:
    """What the configuration sync is: a fresh file in a spool folder now and then."""
    directory.mkdir(parents=True, exist_ok=True)
    say(f"config_sync stand-in writing to {directory}, pid {os.getpid()}")
    target = directory / "config_sync.csv"
    while not mood.stop.wait(BEAT_S):
        if not mood.is_silent:
            fresh = target.with_suffix(".tmp")
            fresh.write_text(f"{time.time():.3f},ok\n", encoding="ascii")
            fresh.replace(target)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="A stand-in for a peer of the cross-language bridge.")
    parser.add_argument("--kind", choices=["tcp", "zeromq", "spool"], required=True)
    parser.add_argument("--port", type=int, default=18765)
    parser.add_argument("--address", help="of the bridge link; found in the state directory by default")
    parser.add_argument("--name", default="powershell")
    parser.add_argument("--directory", type=Path, default=Path("spool"))
    options = parser.parse_args()
    mood = Mood()
    match options.kind:
        case "tcp":
            return serve_tcp(options.port, mood)
        case "zeromq":
            return beat_over_zeromq(options.name, options.address, mood)
        case _:
            return drop_files(options.directory, mood)


if __name__ == "__main__":
    sys.exit(main())
