"""The daemon's side of a bridge link without the rest of the daemon, and an endpoint's client as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from actors.bridge_commands import BridgeCommands
from actors.bridge_sessions import BridgeSessions
from bridge_link.pump import Incoming, RouterPump
from bridge_link.wire import Message
from runbooks.ports import BridgeAnswer, BridgeRequest
from tests.support.eventually import eventually

CLIENT = """
import sys, threading, time
from pathlib import Path
from bridge_link import BridgeClient

where, name, witness, folder = sys.argv[1:5]
place = {"address": where} if where.startswith("tcp:") else {"state_dir": where}

def work(parameters):
    with open(witness, "a") as file:
        file.write(f"{parameters.get('n')}\\n")
    deadline = time.monotonic() + float(parameters.get("takes_s", 0))
    while time.monotonic() < deadline and not Path(witness + ".go").exists():
        threading.Event().wait(0.01)
    if parameters.get("fails"):
        raise RuntimeError("it cannot")
    return {"n": parameters.get("n")}

with BridgeClient(**place, name=name, folder=folder or None, beat_every_s=0.1, commands={"work": work}) as bridge:
    print("up", flush=True)
    sys.stdin.read()
"""


@dataclass
class Desk:
    """Its link has no keys: all it hears is of one client, ``local``."""

    sessions: BridgeSessions = field(default_factory=BridgeSessions)
    heard: list[Message] = field(default_factory=list)
    pump: RouterPump = field(init=False)

    def __post_init__(self) -> None:
        self.commands = BridgeCommands(self.sessions, lambda _endpoint: True)
        self._open("tcp://127.0.0.1:0")

    def _open(self, address: str) -> None:
        self.pump = RouterPump(address, self._take, "desk")
        self.pump.start()
        self.address = str(self.pump.address)

    def again(self) -> None:
        """Another daemon at the same address, which knows nothing."""
        self.pump.close()
        self.sessions = BridgeSessions()
        self.commands = BridgeCommands(self.sessions, lambda _endpoint: True)
        self._open(self.address)

    def _take(self, incoming: Incoming) -> None:
        self.heard.append(incoming.message)
        peer, encoding = incoming.peer, incoming.message.content_type
        self.sessions.take(incoming, lambda reply: self.pump.send(peer, replace(reply, content_type=encoding)))

    def order(self, request: BridgeRequest, timeout_s: float = 20.0, **parameters: Any) -> BridgeAnswer:
        return self.commands.command("mql4", "work", parameters, request, timeout_s)

    def asked(self, request: BridgeRequest, timeout_s: float = 20.0) -> BridgeAnswer:
        return self.commands.asked("mql4", request, timeout_s)


@contextmanager
def desk() -> Iterator[Desk]:
    made = Desk()
    try:
        yield made
    finally:
        made.pump.close()


@dataclass
class Endpoint:
    """A bridge client in a process of its own; what its command ``work`` did stands in ``witness``. ``where``: the
    address of the daemon, or its state directory.
    """

    where: str
    folder: Path
    is_durable: bool = True
    name: str = "mql4"
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.start()

    @property
    def witness(self) -> Path:
        return self.folder / "witness"

    def start(self) -> None:
        own = str(self.folder / "own") if self.is_durable else ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, self.where, self.name, str(self.witness), own],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"

    def done(self) -> list[str]:
        return self.witness.read_text().split() if self.witness.exists() else []

    def let_go(self) -> None:
        (self.folder / "witness.go").touch()

    def kill(self) -> None:
        self.process.kill()
        self._end()

    def kill_and_start(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(20)
        self._end()

    def _end(self) -> None:
        self.process.wait(20)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def endpoint(where: str, folder: Path, *, is_durable: bool = True, name: str = "mql4") -> Iterator[Endpoint]:
    made = Endpoint(where, folder, is_durable, name)
    try:
        yield made
    finally:
        made.close()


def once_done(one: Endpoint, *numbers: str) -> None:
    eventually(lambda: one.done() == list(numbers))
