"""Services that are gone: a process that ended, one that does not answer, a container that was killed. Their restart
policy leaves them down, so that only the runbook brings them back.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.faults.programs import command
from tests.faults.registry import Case, Ended, Kind
from tests.faults.stage import LONG_S, decided, ended, executions, run_of, send, staged
from tests.support.docker_engine import IMAGE, engine_client
from tests.support.docker_engine import trouble as no_engine
from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, Running

RUNBOOK: Final = "service_failure"
DOWN: Final[dict[str, Any]] = {"type": "service_down", "service": "patient", "message": "no heartbeat"}


def is_down(selfheal: Running) -> bool:
    return selfheal.services()["patient"]["state"] in ("stopped", "failed", "crash_loop")


def kill_process(selfheal: Running) -> None:
    os.kill(selfheal.pid("patient"), signal.SIGKILL)
    eventually(lambda: is_down(selfheal), within_s=LONG_S)


def process(folder: Path, *, for_good: bool = False) -> dict[str, Any]:
    """``for_good``: once the fault is there, every run ends at once."""
    patient = command("die", folder / "go", for_good=for_good)
    return {"patient": {"command": patient, "restart_policy": "never"}, "bystander": SLEEPER}


def process_back(folder: Path, *, acts: bool) -> Ended:
    with staged(folder, process(folder), acts=acts) as selfheal:
        bystander = selfheal.pid("bystander")
        began = time.monotonic()
        kill_process(selfheal)
        send(selfheal, DOWN)
        end = ended(selfheal, RUNBOOK, began)
        if acts:
            assert selfheal.services()["patient"]["state"] == "ready", end
            assert run_of(selfheal, "patient") == 2
            assert selfheal.pid("bystander") == bystander
        return end


def process_gone_for_good(folder: Path, *, acts: bool) -> Ended:
    """It ends at each start. What it was before is what it is after: down, and not wanted to run by itself."""
    del acts
    with staged(folder, process(folder, for_good=True)) as selfheal:
        began = time.monotonic()
        (folder / "go").touch()
        eventually(lambda: is_down(selfheal), within_s=LONG_S)
        send(selfheal, DOWN)
        end = ended(selfheal, RUNBOOK, began, 150)
        eventually(lambda: is_down(selfheal), within_s=LONG_S)
        holds_for(lambda: is_down(selfheal), 1)
        assert len(executions(selfheal)) == 1
        return end


def nobody_of_ours(folder: Path, *, acts: bool) -> Ended:
    del acts
    with staged(folder, process(folder)) as selfheal:
        pids = selfheal.pids()
        send(selfheal, {"type": "price_data_stale", "service": "patient"})
        outcome = decided(selfheal, "price_data_stale")["outcome"]
        send(selfheal, DOWN | {"service": "nobody"})
        end = ended(selfheal, RUNBOOK, time.monotonic())
        assert end.status == "rejected", end
        assert selfheal.pids() == pids
        return Ended(outcome)


@contextmanager
def container() -> Iterator[tuple[str, dict[str, Any]]]:
    """A container of somebody else's that is ours to watch, under a name of its own."""
    name = f"fault-{uuid.uuid4().hex[:12]}"
    client = engine_client()
    made = client.containers.create(IMAGE, ["sleep", "1000"], name=name, init=True, network_mode="none")
    try:
        made.start()
        yield name, {"patient": {"runtime": "docker", "container": name, "restart_policy": "never"}}
    finally:
        made.remove(force=True)
        client.close()


def kill_container(name: str) -> None:
    client = engine_client()
    try:
        client.containers.get(name).kill()
    finally:
        client.close()


def container_state(name: str) -> dict[str, Any]:
    client = engine_client()
    try:
        state: dict[str, Any] = client.api.inspect_container(name)["State"]
        return state
    finally:
        client.close()


def container_back(folder: Path, *, acts: bool) -> Ended:
    with container() as (name, services), staged(folder, services, acts=acts) as selfheal:
        first = container_state(name)["StartedAt"]
        began = time.monotonic()
        kill_container(name)
        eventually(lambda: is_down(selfheal), within_s=LONG_S)
        send(selfheal, DOWN)
        end = ended(selfheal, RUNBOOK, began)
        if acts:
            state = container_state(name)
            assert state["Running"], end
            assert state["StartedAt"] != first
            assert selfheal.services()["patient"]["state"] == "ready"
        return end


def container_gone(folder: Path, *, acts: bool) -> Ended:
    """It was removed: nothing can be started, and nothing is."""
    del acts
    with container() as (name, services), staged(folder, services) as selfheal:
        began = time.monotonic()
        kill_container(name)
        eventually(lambda: is_down(selfheal), within_s=LONG_S)
        client = engine_client()
        try:
            client.api.rename(name, f"{name}-away")
            send(selfheal, DOWN)
            end = ended(selfheal, RUNBOOK, began, 150)
            client.api.rename(f"{name}-away", name)
        finally:
            client.close()
        assert not container_state(name)["Running"]
        return end


CASES: tuple[Case, ...] = (
    Case(RUNBOOK, "process", Kind.SUCCESS, process_back, ("succeeded",)),
    Case(RUNBOOK, "process-rollback", Kind.ROLLBACK, process_gone_for_good, ("rolled_back",)),
    Case(RUNBOOK, "no-match", Kind.NO_MATCH, nobody_of_ours, ("no_match",)),
    Case(RUNBOOK, "container", Kind.SUCCESS, container_back, ("succeeded",), no_engine),
    Case(RUNBOOK, "container-rollback", Kind.ROLLBACK, container_gone, ("rolled_back",), no_engine),
)
