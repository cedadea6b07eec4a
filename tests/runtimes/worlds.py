"""One world per runtime for the contract tests: the same scripts, crashes and second daemons on each."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Protocol

from actors.clock import SystemClock
from actors.exit_watcher import ExitWatcher
from actors.keeper.client import Hello
from actors.ledger import Ledger
from actors.runtimes.base import ExitStatus, Handle, LaunchSpec, Runtime
from actors.runtimes.cgroups import Cgroups, open_cgroups
from actors.runtimes.kept import KeeperNursery
from actors.runtimes.launching import Spawner
from actors.runtimes.memory import MemoryRuntime, MemoryWorld
from actors.runtimes.process import ProcessRuntime
from actors.runtimes.procfs import is_stopped, read_line
from tests.support.eventually import eventually

RUNS = ("sh", "-c", "echo ready; exec sleep 1000")
STUBBORN = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
LONG_S = 20.0


def exits(code: int) -> tuple[str, ...]:
    return ("sh", "-c", f"exit {code}")


class Exits:
    """An ``on_exit`` that remembers; ``answers`` is what it says to each call (False: nobody was there)."""

    def __init__(self, answer: bool | None = None) -> None:
        self.seen: list[ExitStatus] = []
        self._answer = answer

    def __call__(self, status: ExitStatus) -> bool | None:
        self.seen.append(status)
        return self._answer

    def one(self) -> ExitStatus:
        """Wait for the first exit."""
        eventually(lambda: self.seen, within_s=LONG_S, what="on_exit")
        return self.seen[0]


class World(Protocol):
    def daemon(self) -> Runtime:
        """A runtime as a (further) daemon on the same state would make it."""

    def spec(self, service: str, command: tuple[str, ...]) -> LaunchSpec: ...

    def wait_ready(self, handle: Handle) -> None:
        """Until the script has said ``ready`` (its traps are set)."""

    def crash(self, handle: Handle) -> None:
        """SIGKILL from outside."""

    def is_alive(self, handle: Handle) -> bool: ...

    def is_frozen(self, handle: Handle) -> bool: ...

    def close(self) -> None: ...


class MemoryPlace:
    """Scripts are told by their words, see ``actors.runtimes.memory``."""

    def __init__(self) -> None:
        self.world = MemoryWorld()
        self._daemons: list[MemoryRuntime] = []

    def daemon(self) -> MemoryRuntime:
        self._daemons.append(MemoryRuntime(self.world))
        return self._daemons[-1]

    def spec(self, service: str, command: tuple[str, ...]) -> LaunchSpec:
        known: dict[tuple[str, ...], tuple[str, ...]] = {RUNS: ("run",), STUBBORN: ("stubborn",)}
        script = known.get(command) or tuple(command[-1].split())
        return LaunchSpec(service, script)

    def wait_ready(self, handle: Handle) -> None:
        assert self.is_alive(handle)

    def crash(self, handle: Handle) -> None:
        self._daemons[-1].crash(handle.service)

    def is_alive(self, handle: Handle) -> bool:
        return self.world.living(handle.service) == handle

    def is_frozen(self, handle: Handle) -> bool:
        return handle.pid in self.world.frozen

    def close(self) -> None:
        for daemon in self._daemons:
            daemon.close()


class ProcessPlace:
    has_cgroups = False

    def __init__(self, folder: Path, *, use_pidfd: bool = True) -> None:
        self.folder = folder
        self._use_pidfd = use_pidfd
        self._daemons: list[tuple[ProcessRuntime, Ledger]] = []
        self.pids: set[int] = set()

    def daemon(self) -> ProcessRuntime:
        ledger = Ledger(self.folder / "ledger.jsonl")
        runtime = ProcessRuntime(ledger, ExitWatcher(use_pidfd=self._use_pidfd), cgroups=self.cgroups())
        self._daemons.append((runtime, ledger))
        return runtime

    def spec(self, service: str, command: tuple[str, ...]) -> LaunchSpec:
        return LaunchSpec(service, command, log_path=self.folder / "logs" / f"{service}.log")

    def wait_ready(self, handle: Handle) -> None:
        log = self.folder / "logs" / f"{handle.service}.log"
        eventually(lambda: log.read_text().endswith("ready\n"), within_s=LONG_S)

    def crash(self, handle: Handle) -> None:
        assert handle.pid is not None
        os.kill(handle.pid, signal.SIGKILL)

    def is_alive(self, handle: Handle) -> bool:
        assert handle.pid is not None
        line = read_line(handle.pid)
        return line is not None and not line.is_dead

    def cgroups(self) -> Cgroups | None:
        """What the next daemon uses."""
        return open_cgroups(self.folder) if self.has_cgroups else None

    def is_frozen(self, handle: Handle) -> bool:
        assert handle.pid is not None
        return self.is_alive(handle) and is_stopped(handle.pid)

    def keepers(self) -> set[int]:
        return set()

    def close(self) -> None:
        for runtime, ledger in self._daemons:
            for run in runtime._runs.values():
                if run.status is None:
                    runtime.kill(run.handle)
            runtime.close()
            ledger.close()


class KeptPlace(ProcessPlace):
    """Processes are children of a keeper; each daemon connects to the same one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.nurseries: list[KeeperNursery] = []

    def daemon(self) -> ProcessRuntime:
        for earlier in self.nurseries:
            earlier.close()
        ledger, clock = Ledger(self.folder / "ledger.jsonl"), SystemClock()
        hello = Hello(ledger.path, dict(os.environ), 0.0, {})
        nursery = KeeperNursery(self.folder, hello, ExitWatcher(), Spawner(), clock)
        nursery.ensure()
        assert nursery.trouble is None
        self.nurseries.append(nursery)
        runtime = ProcessRuntime(ledger, clock=clock, nursery=nursery, cgroups=self.cgroups())
        self._daemons.append((runtime, ledger))
        return runtime

    def keepers(self) -> set[int]:
        """The pids of the keepers that live; the last one is the last daemon's."""
        return {nursery.pid for nursery in self.nurseries if nursery.pid is not None}

    def close(self) -> None:
        keepers = self.keepers()
        for runtime, _ in self._daemons[-1:]:
            for run in runtime._runs.values():
                if run.status is None:
                    runtime.kill(run.handle)
        if self.nurseries:
            self.nurseries[-1].leave()
        for runtime, ledger in self._daemons:
            runtime.close()
            ledger.close()
        eventually(lambda: all(_is_gone(pid) for pid in keepers), within_s=LONG_S, what="the keeper's end")


def _is_gone(pid: int) -> bool:
    """Dead; reaped too, if it is a child of ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    line = read_line(pid)
    return line is None or line.is_dead
