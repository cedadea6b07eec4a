"""Peers of bridge endpoints that go wrong when they are told to: ``python -m tests.faults.bridge_peers FAULT FILE``.

Each beats and takes commands until ``FILE`` is there, and then goes wrong. It takes the file away first, so that its
next run is well; with ``--for-good`` the file stays, and every run goes wrong. What it was told stands beside it.

* ``hang``: it keeps the connection and says nothing more; a client of the link is stopped as a whole (SIGSTOP).
* ``refuse``: it lives, and nobody listens any more.
* ``garbage``: it sends lines that say nothing, and one that never ends.
* ``err``: it reports an error, and says that it is not well until the command ``--cure``; for good: none helps.
* ``idle``: it drops no more files into its folder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from bridge_link import BridgeClient

BEAT_S: Final = 0.1
FILLER: Final = b"\x00\xff not a line of ours " * 100
Handler = Callable[[Mapping[str, Any]], Any]
_pause = threading.Event()


def command(fault: str, file: Path, name: str, *more: str, for_good: bool = False) -> list[str]:
    """The command of such a service. ``more``: ``--port N``, ``--spool DIR``, or neither for the bridge link."""
    last = ["--for-good"] if for_good else []
    return [sys.executable, "-m", "tests.faults.bridge_peers", fault, str(file), "--name", name, *more, *last]


class Health:
    """What it is like: well, until the fault; what commands do about it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._file: Path = options.file
        self._cure: str = options.cure
        self._for_good: bool = options.for_good
        self.error: dict[str, Any] | None = None

    @property
    def commands(self) -> dict[str, Handler]:
        return {"health": self._health} | {one: self._doer(one) for one in ("reset", "reconnect", "reload", "resync")}

    def fails(self, error: dict[str, Any]) -> None:
        self.error = error

    def _health(self, _parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        said = self.error
        return {"status": "healthy"} if said is None else {"status": "unhealthy", "error": said["error_message"]}

    def _doer(self, name: str) -> Handler:
        def do(_parameters: Mapping[str, Any]) -> str:
            with self._file.with_suffix(".told").open("a", encoding="ascii") as told:
                told.write(f"{name}\n")
            if self._for_good:
                raise RuntimeError("it cannot")
            if name == self._cure:
                self.error = None
            return name

        return do


class Peer:
    """One side of a TCP endpoint."""

    def __init__(self, options: argparse.Namespace, health: Health) -> None:
        self._health = health
        self._listener = socket.create_server(("127.0.0.1", options.port))
        self._fault: str | None = None
        self._table: dict[str, Mapping[str, Any]] = {}
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def goes_wrong(self, fault: str) -> None:
        self._fault = fault
        if fault == "refuse":
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for one in self._connections:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def report(self, error: Mapping[str, Any]) -> None:
        self._say(self._connections[-1], {"kind": "error", **error})

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                for part in (self._beat, self._obey):
                    threading.Thread(target=part, args=(connection,), daemon=True).start()

    def _beat(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._fault is None or self._fault == "err":
                self._say(connection, {"kind": "hello", "name": "peer", "commands": sorted(self._health.commands)})
            while True:
                match self._fault:
                    case None | "err":
                        self._say(connection, {"kind": "heartbeat"})
                    case "garbage":
                        connection.sendall(b"[1, 2]\nnothing\n" + FILLER)
                _pause.wait(BEAT_S)

    def _obey(self, connection: socket.socket) -> None:
        with suppress(OSError), connection.makefile("rb") as lines:
            for line in lines:
                asked = json.loads(line)
                if asked.get("kind") == "command" and self._fault in (None, "err"):
                    self._say(connection, {"kind": "reply", "id": asked["id"], **self._answer(asked)})

    def _answer(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """Each command once; its end is answered again from the table."""
        known = self._table.get(asked["id"])
        if known is None:
            if asked.get("ask"):
                return {"state": "never"}
            try:
                known = {"state": "done", "result": self._health.commands[asked["command"]](asked["parameters"])}
            except RuntimeError as error:
                known = {"state": "failed", "error": str(error)}
            self._table[asked["id"]] = known
        return known

    @staticmethod
    def _say(connection: socket.socket, body: Mapping[str, Any]) -> None:
        connection.sendall(json.dumps(body).encode() + b"\n")


def drop(folder: Path, wrong: threading.Event) -> None:
    folder.mkdir(exist_ok=True)
    number = 0
    while not wrong.is_set():
        number += 1
        (folder / "settings.tmp").write_text(f"{number}\n", encoding="ascii")
        (folder / "settings.tmp").replace(folder / "settings.csv")
        wrong.wait(BEAT_S)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("fault", choices=("hang", "refuse", "garbage", "err", "idle"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int)
    parser.add_argument("--spool", type=Path)
    parser.add_argument("--cure", default="")
    parser.add_argument("--error", default="it failed")
    parser.add_argument("--system", default="")
    parser.add_argument("--for-good", action="store_true")
    options = parser.parse_args()
    health, wrong = Health(options), threading.Event()
    peer = Peer(options, health) if options.port is not None else None
    client = None
    if options.spool is not None:
        threading.Thread(target=drop, args=(options.spool, wrong), daemon=True).start()
    elif peer is None:
        client = BridgeClient(name=options.name, beat_every_s=BEAT_S, commands=health.commands)
    while not options.file.exists():
        _pause.wait(0.02)
    if not options.for_good:
        options.file.unlink()
    wrong.set()
    if peer is not None:
        peer.goes_wrong(options.fault)
    if options.fault == "err":
        error = {"error_type": "PeerError", "error_message": options.error, "severity": "high"}
        health.fails(error)
        if peer is not None:
            peer.report(error)
        elif client is not None:
            client.post_error(error | {"endpoint": options.name, "system": options.system})
    elif client is not None:
        os.kill(os.getpid(), signal.SIGSTOP)
    _pause.wait()


if __name__ == "__main__":
    main()
