"""A recovery of real parts (journal, intake, link, actors, runbooks) whose services are a small world in memory.

The world fulfils ``runbooks.ports.Services``; the real one (steering of the tree) is tried in ``tests/system``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from actors.clock import Clock
from actors.context import ActorSystem
from runbooks.ports import PortError, RunInfo, ServiceView
from supervisors import Strategy, Supervisor
from supervisors.recovery import Recovery, RecoveryPlan


@dataclass
class World:
    """Services by name: run number and readiness. ``gate`` holds a restart up; ``broken`` ones do not become ready."""

    runs: dict[str, int] = field(default_factory=lambda: {"a": 1, "b": 1})
    broken: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    restarts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def status(self, name: str) -> ServiceView | None:
        if name not in self.runs:
            return None
        return ServiceView(name, name not in self.broken, self.runs[name], "ready")

    def restart(self, name: str, timeout_s: float) -> RunInfo:
        self.restarts.append(name)
        self.gate.wait(timeout_s)
        if name in self.refused:
            raise PortError(f"{name}: its supervisor is not up")
        self.runs[name] += 1
        return RunInfo(self.runs[name])

    def start(self, name: str, timeout_s: float, decided: str | None = None) -> RunInfo:
        return self.restart(name, timeout_s)

    def stop(self, name: str, timeout_s: float) -> None:
        self.broken.add(name)


@dataclass
class Place:
    recovery: Recovery
    world: World
    root: Supervisor
    system: ActorSystem
    address: str


@contextmanager
def recovering(
    folder: Path,
    world: World | None = None,
    *,
    enabled: bool = True,
    max_concurrent: int = 5,
    runbooks: tuple[Path, ...] = (),
    plan: RecoveryPlan | None = None,
    warm_up_s: float = 0.0,
    clock: Clock | None = None,
) -> Iterator[Place]:
    """The recovery part of a daemon under a real root supervisor. Clients find its key by ``$SELFHEAL_STATE``.

    ``runbooks``: more directories of them; ``plan`` says all by itself.
    """
    system = ActorSystem() if clock is None else ActorSystem(clock)
    world = world or World()
    folder.mkdir(exist_ok=True)
    every_link = "tcp://127.0.0.1:0"
    plan = plan or RecoveryPlan(folder, enabled, max_concurrent, runbooks, every_link, every_link, warm_up_s=warm_up_s)
    recovery = Recovery(plan, system, world)
    links = Supervisor.spec("links", strategy=Strategy.ONE_FOR_ONE, intensity=5, period_s=60, children=recovery.links())
    root = Supervisor.start(
        strategy=Strategy.REST_FOR_ONE,
        intensity=5,
        period_s=60,
        children=[recovery.journal_spec(), recovery.runbooks_spec(), links],
        system=system,
    )
    before = os.environ.get("SELFHEAL_STATE")
    os.environ["SELFHEAL_STATE"] = str(folder)
    try:
        address = (folder / "guardian.address").read_text(encoding="ascii").strip()
        yield Place(recovery, world, root, system, address)
    finally:
        _put_back(before)
        world.gate.set()
        root.stop(30)
        recovery.close()
        system.close()


def _put_back(state: str | None) -> None:
    os.environ.pop("SELFHEAL_STATE", None)
    if state is not None:
        os.environ["SELFHEAL_STATE"] = state
