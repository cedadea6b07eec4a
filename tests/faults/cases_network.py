"""A port that is dropped by the firewall of a network namespace: the rule that let it through is gone."""

from __future__ import annotations

import json
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

from tests.faults.ended import Ended
from tests.faults.registry import Case, Kind, is_root
from tests.faults.tunnel import rule
from tests.faults.ward import LONG_S, Bed, Part, Ward
from tests.support.eventually import eventually
from tests.system.running import SELFHEAL, free_port

RUNBOOK: Final = "network_connectivity"
PLACE: Final = "network"


def trouble() -> str | None:
    missing = [program for program in ("ip", "iptables") if shutil.which(program) is None]
    return is_root() or (f"needs {', '.join(missing)}" if missing else None)


@dataclass(frozen=True)
class Namespace:
    """A network of its own, in which everybody drops what no rule lets through."""

    name: str

    @property
    def inside(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def rules(self, port: int) -> list[str]:
        done = subprocess.run(
            [*self.inside, "iptables", "-w", "-S", "INPUT"], check=True, capture_output=True, text=True
        )
        return [line for line in done.stdout.splitlines() if str(port) in line]

    def run(self, *argv: str) -> None:
        subprocess.run([*self.inside, *argv], check=True, capture_output=True)

    def answers(self, port: int) -> bool:
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1).close()"
        done = subprocess.run([*self.inside, sys.executable, "-S", "-c", code], check=False, capture_output=True)
        return done.returncode == 0


@contextmanager
def namespace() -> Iterator[Namespace]:
    made = Namespace(f"fault{uuid.uuid4().hex[:8]}")
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        made.run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", made.name], check=False)


@dataclass(frozen=True)
class Link:
    """A port that only its own rule lets through, and the service that is answerable for it."""

    bed: Bed
    place: Namespace
    port: int

    @property
    def broken(self) -> Path:
        return self.bed.folder / "broken"

    @property
    def config(self) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.faults.tunnel", str(self.port), str(self.broken)]
        return {"services": {self.bed.name: {"command": command, "graceful_shutdown_timeout": "5s"}}}

    def answers(self) -> bool:
        return self.place.answers(self.port)

    def drop(self) -> None:
        self.place.run("iptables", "-w", "-D", *rule(self.port))
        assert not self.answers()

    def told(self, began: float) -> Ended:
        """Whoever tells of it is inside, where the daemon is."""
        alert = {"type": RUNBOOK, "service": self.bed.name, "severity": "high", "labels": {"port": self.port}}
        file = self.bed.folder / "alert.json"
        file.write_text(json.dumps(alert | {"source": "test"}), encoding="utf-8")
        words = ("alert", "send", "--file", str(file), "--json", "--state", str(self.bed.selfheal.state))
        argv = [*self.place.inside, *SELFHEAL, *words]
        done = subprocess.run(
            argv, check=False, capture_output=True, text=True, timeout=LONG_S, env=self.bed.selfheal.environ
        )
        assert done.stdout, (done.returncode, done.stderr)
        return self.bed.ended(RUNBOOK, f"service:{self.bed.name}", began)

    def await_answer(self) -> None:
        eventually(self.answers, within_s=LONG_S, every_s=0.1, what="the port, before")


def link(bed: Bed) -> Link:
    """Between the port's rule and the drop of everything else to it the rule wins: it is put before."""
    place = bed.ward.shared(PLACE, namespace)
    port = free_port()
    place.run("iptables", "-w", "-A", "INPUT", "-p", "tcp", "--dport", str(port), "-j", "DROP")
    return Link(bed, place, port)


def in_namespace(ward: Ward) -> tuple[str, ...]:
    return ward.shared(PLACE, namespace).inside


@contextmanager
def dropped(bed: Bed) -> Iterator[Part]:
    to = link(bed)

    def run() -> Ended:
        to.await_answer()
        began = time.monotonic()
        to.drop()
        end = to.told(began)
        if bed.acts:
            assert to.answers(), end
            assert bed.runs() == 2
        return end

    yield Part(to.config, run, before=in_namespace(bed.ward))


@contextmanager
def stays_dropped(bed: Bed) -> Iterator[Part]:
    """Its service cannot open it: the service runs and is wanted as before, and the rules are as they were."""
    to = link(bed)

    def run() -> Ended:
        to.await_answer()
        began = time.monotonic()
        to.broken.touch()
        to.drop()
        before = to.place.rules(to.port)
        end = to.told(began)
        assert to.place.rules(to.port) == before, end
        assert bed.service()["state"] == "ready"
        return end

    yield Part(to.config, run, before=in_namespace(bed.ward))


@contextmanager
def answers_already(bed: Bed) -> Iterator[Part]:
    to = link(bed)

    def run() -> Ended:
        to.await_answer()
        pid = bed.pid()
        end = to.told(time.monotonic())
        assert bed.pid() == pid
        assert to.answers()
        return end

    yield Part(to.config, run, before=in_namespace(bed.ward))


CASES: tuple[Case, ...] = (
    Case(RUNBOOK, "dropped", Kind.SUCCESS, dropped, ("succeeded",), trouble, PLACE),
    Case(RUNBOOK, "rollback", Kind.ROLLBACK, stays_dropped, ("rolled_back",), trouble, PLACE),
    Case(RUNBOOK, "no-match", Kind.NO_MATCH, answers_already, ("rejected",), trouble, PLACE),
)
