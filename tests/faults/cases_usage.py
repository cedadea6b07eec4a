"""A process that burns CPU, one that leaks memory: seen by the daemon's own watch, answered by a restart."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import psutil

from tests.faults.programs import command
from tests.faults.registry import Case, Ended, Kind
from tests.faults.stage import decided, ended, executions, run_of, send, staged
from tests.support.eventually import eventually
from tests.system.running import SLEEPER, Running

LIMITS: Final[dict[str, dict[str, Any]]] = {"burn": {"cpu_percent": 40}, "leak": {"memory_mb": 120}}
RUNBOOK: Final = {"burn": "high_cpu_usage", "leak": "memory_exhaustion"}


def world(kind: str, folder: Path, *, for_good: bool = False) -> dict[str, Any]:
    patient = command(kind, folder / "go", for_good=for_good)
    return {"patient": {"command": patient, "required_resources": LIMITS[kind]}, "bystander": SLEEPER}


def cured(kind: str, folder: Path, *, acts: bool) -> Ended:
    with staged(folder, world(kind, folder), acts=acts) as selfheal:
        bystander, sick = selfheal.pid("bystander"), selfheal.pid("patient")
        began = time.monotonic()
        (folder / "go").touch()
        end = ended(selfheal, RUNBOOK[kind], began)
        if acts:
            assert selfheal.services()["patient"]["state"] == "ready", end
            assert not psutil.pid_exists(sick)
            assert run_of(selfheal, "patient") == 2
            assert is_well(kind, selfheal)
            assert selfheal.pid("bystander") == bystander
        return end


def is_well(kind: str, selfheal: Running) -> bool:
    process = psutil.Process(selfheal.pid("patient"))
    return process.cpu_percent(0.5) < 40 if kind == "burn" else process.memory_info().rss < 120 * 2**20


def not_cured(kind: str, folder: Path) -> Ended:
    """Every run goes wrong: the criteria do not hold, and the service is wanted and runs, as before."""
    with staged(folder, world(kind, folder, for_good=True)) as selfheal:
        began = time.monotonic()
        (folder / "go").touch()
        end = ended(selfheal, RUNBOOK[kind], began, 120)
        after = eventually(lambda: (one := selfheal.services()["patient"])["state"] == "ready" and one, within_s=30)
        assert after is not False
        assert len(executions(selfheal)) == 1
        return end


def below_the_limit(kind: str, folder: Path) -> Ended:
    """Somebody says so of a service that is ours and well: it is not touched."""
    with staged(folder, world(kind, folder)) as selfheal:
        pid = selfheal.pid("patient")
        label = "limit_cpu_percent" if kind == "burn" else "limit_memory_mb"
        send(selfheal, {"type": RUNBOOK[kind], "service": "patient", "labels": {label: 100}})
        end = ended(selfheal, RUNBOOK[kind], time.monotonic())
        assert selfheal.pid("patient") == pid
        return end


def of_the_box(kind: str, folder: Path) -> Ended:
    """The whole box is over its limit, none of our services is: people are told, nothing is restarted."""
    box: dict[str, Any] = {"cpu_percent": None, "disk_percent": None, "memory_percent": None}
    box |= {"cpu_percent": 0.001} if kind == "burn" else {"memory_percent": 0.1}
    with staged(folder, world(kind, folder), watch={"box": box}) as selfheal:
        pids = selfheal.pids()
        alert = decided(selfheal, RUNBOOK[kind])
        end = ended(selfheal, f"{RUNBOOK[kind]}_box", time.monotonic())
        assert alert.get("service") is None
        assert [one["runbook"] for one in executions(selfheal)] == [f"{RUNBOOK[kind]}_box"]
        assert selfheal.pids() == pids
        return Ended(end.status)


CASES: tuple[Case, ...] = tuple(
    case
    for kind in ("burn", "leak")
    for case in (
        Case(
            RUNBOOK[kind],
            "success",
            Kind.SUCCESS,
            lambda folder, *, acts, kind=kind: cured(kind, folder, acts=acts),
            ("succeeded",),
        ),
        Case(
            RUNBOOK[kind],
            "rollback",
            Kind.ROLLBACK,
            lambda folder, *, acts, kind=kind: not_cured(kind, folder),
            ("rolled_back",),
        ),
        Case(
            RUNBOOK[kind],
            "no-match",
            Kind.NO_MATCH,
            lambda folder, *, acts, kind=kind: below_the_limit(kind, folder),
            ("rejected",),
        ),
        Case(
            f"{RUNBOOK[kind]}_box",
            "told",
            Kind.OBSERVED,
            lambda folder, *, acts, kind=kind: of_the_box(kind, folder),
            ("succeeded",),
        ),
    )
)
