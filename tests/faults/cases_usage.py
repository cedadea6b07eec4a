"""A process that burns CPU, one that leaks memory: seen by the daemon's own watch, answered by a restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import psutil

from tests.faults.ended import Ended
from tests.faults.programs import command
from tests.faults.registry import Case, Kind
from tests.faults.ward import LONG_S, Bed, Part
from tests.support.eventually import eventually
from tests.system.running import SLEEPER

CPU_PERCENT: Final = 5
MEMORY_MB: Final = 100
LIMITS: Final[dict[str, dict[str, Any]]] = {"burn": {"cpu_percent": CPU_PERCENT}, "leak": {"memory_mb": MEMORY_MB}}
PROGRAM: Final = {"burn": "simmer", "leak": "leak"}
RUNBOOK: Final = {"burn": "high_cpu_usage", "leak": "memory_exhaustion"}
BOX: Final[dict[str, dict[str, Any]]] = {"burn": {"cpu_percent": 0.001}, "leak": {"memory_percent": 0.1}}


def service(bed: Bed, kind: str, *, for_good: bool = False) -> dict[str, Any]:
    patient = command(PROGRAM[kind], bed.folder / "go", for_good=for_good)
    return {"command": patient, "required_resources": LIMITS[kind], "graceful_shutdown_timeout": "2s"}


@contextmanager
def cured(bed: Bed, kind: str) -> Iterator[Part]:
    bystander = f"{bed.name[:50]}-bystander"

    def run() -> Ended:
        beside, sick = bed.pid(bystander), bed.pid()
        began = time.monotonic()
        (bed.folder / "go").touch()
        end = bed.ended(RUNBOOK[kind], f"service:{bed.name}", began)
        if bed.acts:
            assert bed.service()["state"] == "ready", end
            assert not psutil.pid_exists(sick)
            assert bed.runs() == 2
            assert is_well(kind, bed.pid())
            assert bed.pid(bystander) == beside
        return end

    yield Part({"services": {bed.name: service(bed, kind), bystander: SLEEPER}}, run)


def is_well(kind: str, pid: int) -> bool:
    process = psutil.Process(pid)
    if kind == "burn":
        return process.cpu_percent(0.5) < CPU_PERCENT
    return process.memory_info().rss < MEMORY_MB * 2**20


@contextmanager
def not_cured(bed: Bed, kind: str) -> Iterator[Part]:
    """Every run goes wrong: the criteria do not hold, and the service is wanted and runs, as before."""

    def run() -> Ended:
        began = time.monotonic()
        (bed.folder / "go").touch()
        end = bed.ended(RUNBOOK[kind], f"service:{bed.name}", began)
        eventually(lambda: bed.service()["state"] == "ready", within_s=LONG_S, every_s=0.1)
        assert len(bed.executions(RUNBOOK[kind], f"service:{bed.name}")) == 1
        return end

    yield Part({"services": {bed.name: service(bed, kind, for_good=True)}}, run)


@contextmanager
def below_the_limit(bed: Bed, kind: str) -> Iterator[Part]:
    """Somebody says so of a service that is ours and well: it is not touched."""

    def run() -> Ended:
        pid = bed.pid()
        limit: dict[str, Any] = {"limit_cpu_percent" if kind == "burn" else "limit_memory_mb": 100}
        end = bed.answered(RUNBOOK[kind], time.monotonic(), **limit)
        assert bed.pid() == pid
        return end

    yield Part({"services": {bed.name: service(bed, kind)}}, run)


@contextmanager
def of_the_box(bed: Bed, kind: str) -> Iterator[Part]:
    """The whole box is over its limit: people are told, once, and no service is restarted for it."""
    runbook = f"{RUNBOOK[kind]}_box"

    def run() -> Ended:
        pid = bed.pid()
        alert = bed.decided(RUNBOOK[kind], lambda one: one.get("service") is None)
        assert alert["outcome"] == "run", alert
        end = bed.ended(runbook, runbook, time.monotonic())
        assert bed.pid() == pid
        assert bed.runs() == 1
        return Ended(end.status)

    yield Part({"services": {bed.name: SLEEPER}, "watch": {"box": BOX[kind]}}, run)


def _of(kind: str) -> Iterator[Case]:
    def play(how: Any) -> Any:
        def made(bed: Bed) -> AbstractContextManager[Part]:
            found: AbstractContextManager[Part] = how(bed, kind)
            return found

        return made

    runbook = RUNBOOK[kind]
    yield Case(runbook, "success", Kind.SUCCESS, play(cured), ("succeeded",))
    yield Case(runbook, "rollback", Kind.ROLLBACK, play(not_cured), ("rolled_back",))
    yield Case(runbook, "no-match", Kind.NO_MATCH, play(below_the_limit), ("rejected",))
    yield Case(f"{runbook}_box", "told", Kind.OBSERVED, play(of_the_box), ("succeeded",))


CASES: tuple[Case, ...] = (*_of("burn"), *_of("leak"))
