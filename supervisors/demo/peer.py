"""Stand-ins for what bridge endpoints talk to: ``python -m supervisors.demo.peer --kind tcp --port 18765``.

SIGUSR1 makes a peer fall silent, and speak again. SIGUSR2 gives one that takes commands an error: it reports it, and
says that it is not well until it is told to ``reset``.
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
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from supervisors.demo.service import say

BEAT_S = 0.5
Handler = Callable[[Mapping[str, Any]], Any]


ERROR: Final = {"error_type": "DemoError", "error_code": 4051, "error_message": "a demo error", "severity": "high"}


class Mood:
    """Whether the peer speaks; SIGUSR1 toggles it, SIGTERM ends it. SIGUSR2: it has an error, yet to be said."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.is_silent = False
        self.has_error = self.is_unsaid = False
        signal.signal(signal.SIGUSR1, lambda *_: self._toggle())
        signal.signal(signal.SIGUSR2, lambda *_: self._fail())
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, lambda *_: self.stop.set())

    def _toggle(self) -> None:
        self.is_silent = not self.is_silent
        say("silent" if self.is_silent else "speaking again")

    def _fail(self) -> None:
        self.has_error = self.is_unsaid = True
        say(f"error {ERROR['error_code']}: {ERROR['error_message']}")

    def unsaid(self) -> dict[str, object] | None:
        """The error, once."""
        was_unsaid, self.is_unsaid = self.is_unsaid, False
        return dict(ERROR) if was_unsaid else None

    def commands(self, *others: str) -> dict[str, Handler]:
        """What it may be told: ``others`` change nothing about its error."""
        return {"health": self._health, "reset": self._reset} | dict.fromkeys(others, lambda _: "nothing to do")

    def _health(self, _parameters: Mapping[str, Any]) -> Mapping[str, str]:
        return (
            {"status": "unhealthy", "error": str(ERROR["error_message"])} if self.has_error else {"status": "healthy"}
        )

    def _reset(self, _parameters: Mapping[str, Any]) -> str:
        self.has_error = False
        say("reset")
        return "well again"


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
    known = mood.commands("reconnect")
    session = uuid.uuid4().hex
    with connection:
        try:
            hello = {"kind": "hello", "name": "mql4", "version": 1, "session": session, "commands": sorted(known)}
            connection.sendall(_line(hello))
            threading.Thread(target=_obey, args=(connection, mood, known), daemon=True).start()
            while not mood.stop.wait(BEAT_S):
                if not mood.is_silent:
                    connection.sendall(_line({"kind": "heartbeat", "name": "mql4", "at": time.time()}))
                    if (error := mood.unsaid()) is not None:
                        connection.sendall(_line({"kind": "error", **error}))
        except OSError:
            return  # the daemon's end was closed


def _obey(connection: socket.socket, mood: Mood, known: Mapping[str, Handler]) -> None:
    """Each command once for this connection, which is a session of its own; what another one did is not known."""
    table: dict[str, Mapping[str, object]] = {}
    with suppress(OSError), connection.makefile("rb") as lines:
        for line in lines:
            asked = json.loads(line)
            if asked.get("kind") == "command" and not mood.is_silent:
                answer = _answer(asked, table, known)
                connection.sendall(_line({"kind": "reply", "id": asked["id"], **answer}))


def _answer(
    asked: Mapping[str, Any], table: dict[str, Mapping[str, object]], known: Mapping[str, Handler]
) -> Mapping[str, object]:
    if asked["id"] in table:
        return table[asked["id"]]
    if asked.get("asked_before"):
        return {"state": "unknown"}
    if asked.get("ask"):
        return {"state": "never"}
    if asked.get("command") not in known:
        return {"state": "refused", "error": f"there is only {', '.join(sorted(known))}"}
    result = known[asked["command"]](asked.get("parameters") or {})
    return table.setdefault(asked["id"], {"state": "done", "result": result})


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
                client = BridgeClient(address, name=name, beat_every_s=BEAT_S, commands=mood.commands("reload"))
            except (BadAddress, KeyTrouble):
                continue
            say(f"{name} stand-in beating, pid {os.getpid()}")
        elif client is not None and mood.is_silent:
            client.close()
            client = None
        if client is not None and (error := mood.unsaid()) is not None:
            client.post_error({"system": name, "endpoint": name, **error})
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
