"""A port that is dropped by the firewall of a network namespace: the rule that let it through is gone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.faults.registry import Case, Ended, Kind
from tests.faults.stage import LONG_S, ended, executions, is_root, run_of, send, staged
from tests.faults.tunnel import rule
from tests.support.eventually import eventually
from tests.system.running import Running

RUNBOOK: Final = "network_connectivity"
PORT: Final = 8443


def trouble() -> str | None:
    missing = [program for program in ("ip", "iptables") if shutil.which(program) is None]
    return is_root() or (f"needs {', '.join(missing)}" if missing else None)


@dataclass(frozen=True)
class Namespace:
    """A network of its own, in which only port 8443 is closed."""

    name: str

    @property
    def inside(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def rules(self) -> str:
        return subprocess.run(
            [*self.inside, "iptables", "-w", "-S", "INPUT"], check=True, capture_output=True, text=True
        ).stdout

    def run(self, *argv: str) -> None:
        subprocess.run([*self.inside, *argv], check=True, capture_output=True)

    def answers(self) -> bool:
        code = f"import socket; socket.create_connection(('127.0.0.1', {PORT}), 1).close()"
        done = subprocess.run([*self.inside, sys.executable, "-c", code], check=False, capture_output=True)
        return done.returncode == 0


@contextmanager
def namespace() -> Iterator[Namespace]:
    made = Namespace(f"fault{uuid.uuid4().hex[:8]}")
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        made.run("ip", "link", "set", "lo", "up")
        made.run("iptables", "-w", "-A", "INPUT", "-p", "tcp", "--dport", str(PORT), "-j", "DROP")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", made.name], check=False)


def world(folder: Path) -> dict[str, Any]:
    tunnel = [sys.executable, "-m", "tests.faults.tunnel", str(PORT), str(folder / "broken")]
    return {"tunnel": {"command": tunnel}}


@contextmanager
def connected(folder: Path, *, acts: bool = True) -> Iterator[tuple[Namespace, Running]]:
    with namespace() as place, staged(folder, world(folder), acts=acts, before=place.inside) as selfheal:
        eventually(place.answers, within_s=LONG_S, what="the port, before")
        yield place, selfheal


def tell(place: Namespace, selfheal: Running) -> None:
    labels = {"host": "127.0.0.1", "port": PORT}
    send(selfheal, {"type": RUNBOOK, "service": "tunnel", "labels": labels}, before=place.inside)


def dropped(folder: Path, *, acts: bool) -> Ended:
    with connected(folder, acts=acts) as (place, selfheal):
        began = time.monotonic()
        place.run("iptables", "-w", "-D", *rule(PORT))
        assert not place.answers()
        tell(place, selfheal)
        end = ended(selfheal, RUNBOOK, began, 120)
        if acts:
            assert place.answers(), end
            assert run_of(selfheal, "tunnel") == 2
        return end


def stays_dropped(folder: Path, *, acts: bool) -> Ended:
    """Its service cannot open it: the service runs and is wanted as before, and the rules are as they were."""
    del acts
    with connected(folder) as (place, selfheal):
        began = time.monotonic()
        (folder / "broken").touch()
        place.run("iptables", "-w", "-D", *rule(PORT))
        before = place.rules()
        tell(place, selfheal)
        end = ended(selfheal, RUNBOOK, began, 150)
        assert place.rules() == before, end
        assert selfheal.services()["tunnel"]["state"] == "ready"
        return end


def answers_already(folder: Path, *, acts: bool) -> Ended:
    del acts
    with connected(folder) as (place, selfheal):
        pid = selfheal.pid("tunnel")
        tell(place, selfheal)
        end = ended(selfheal, RUNBOOK, time.monotonic())
        assert selfheal.pid("tunnel") == pid
        assert len(executions(selfheal)) == 1
        return end


CASES: tuple[Case, ...] = (
    Case(RUNBOOK, "dropped", Kind.SUCCESS, dropped, ("succeeded",), trouble),
    Case(RUNBOOK, "rollback", Kind.ROLLBACK, stays_dropped, ("rolled_back",), trouble),
    Case(RUNBOOK, "no-match", Kind.NO_MATCH, answers_already, ("rejected",), trouble),
)
