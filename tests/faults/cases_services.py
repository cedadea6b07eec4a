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
from typing import Any, Final

from tests.faults.ended import Ended
from tests.faults.programs import command
from tests.faults.registry import Case, Kind
from tests.faults.ward import LONG_S, Bed, Part
from tests.support.docker_engine import IMAGE, engine_client
from tests.support.docker_engine import trouble as no_engine
from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, free_port

RUNBOOK: Final = "service_failure"
DOWN: Final = "service_down"
ENDS_AT_ONCE: Final = "[ -e {file} ] && exit 3; exec sleep 1000"
"""Once the file is there. A shell is down again before anybody takes it for ready."""


def is_down(bed: Bed) -> bool:
    return bed.service()["state"] in ("stopped", "failed", "crash_loop")


def until_down(bed: Bed) -> None:
    eventually(lambda: is_down(bed), within_s=LONG_S, every_s=0.05, what=f"{bed.name} down")


def process(bed: Bed, kind: str = "die", **more: Any) -> dict[str, Any]:
    """Its next run is well."""
    patient = command(kind, bed.folder / "go", port=more.pop("port", None))
    service = {"command": patient, "restart_policy": "never", "graceful_shutdown_timeout": "1s", **more}
    return {"services": {bed.name: service}}


@contextmanager
def killed(bed: Bed) -> Iterator[Part]:
    bystander = f"{bed.name[:50]}-bystander"

    def run() -> Ended:
        beside = bed.pid(bystander)
        began = time.monotonic()
        os.kill(bed.pid(), signal.SIGKILL)
        until_down(bed)
        end = bed.answered(DOWN, began)
        if bed.acts:
            assert bed.service()["state"] == "ready", end
            assert bed.runs() == 2
            assert bed.pid(bystander) == beside
        return end

    config = process(bed)
    config["services"][bystander] = SLEEPER
    yield Part(config, run)


@contextmanager
def hangs(bed: Bed) -> Iterator[Part]:
    """It lives and does not answer: its health check says so, and nobody else."""
    port = free_port()

    def run() -> Ended:
        began = time.monotonic()
        (bed.folder / "go").touch()
        eventually(lambda: bed.service()["state"] != "ready", within_s=LONG_S, every_s=0.05)
        end = bed.answered(RUNBOOK, began)
        if bed.acts:
            assert bed.service()["state"] == "ready", end
            assert bed.runs() == 2
        return end

    check = {"tcp": f"127.0.0.1:{port}", "interval": "200ms", "timeout": "1s", "retries": 2}
    yield Part(process(bed, "hang", port=port, health_check=check), run)


@contextmanager
def gone_for_good(bed: Bed) -> Iterator[Part]:
    """It ends at each start. What it was before is what it is after: down, and not wanted to run by itself."""
    go = bed.folder / "go"

    def run() -> Ended:
        began = time.monotonic()
        go.touch()
        os.kill(bed.pid(), signal.SIGKILL)
        until_down(bed)
        end = bed.answered(DOWN, began)
        until_down(bed)
        holds_for(lambda: is_down(bed), 1, every_s=0.2)
        return end

    patient = {"command": ["sh", "-c", ENDS_AT_ONCE.format(file=go)], "restart_policy": "never"}
    yield Part({"services": {bed.name: patient}}, run)


@contextmanager
def nobody_of_ours(bed: Bed) -> Iterator[Part]:
    """A name that is no service's is refused; another type of alert about a service of ours is not answered at all."""

    def run() -> Ended:
        pid = bed.pid()
        ack = bed.send("service_is_slow")
        assert ack.decision is not None
        end = bed.answered(DOWN, time.monotonic(), service=f"{bed.name}-nobody")
        assert end.status == "rejected", end
        assert bed.pid() == pid
        return Ended(ack.decision.outcome)

    yield Part(process(bed), run)


@contextmanager
def stopped_by_a_person(bed: Bed) -> Iterator[Part]:
    """Whoever misses it may say so as often as he likes."""

    def run() -> Ended:
        assert bed.selfheal.call("services", "stop", bed.name).returncode == 0
        end = bed.answered(DOWN, time.monotonic())
        assert "stopped by hand" in end.detail, end
        assert bed.service()["state"] == "stopped"
        return end

    yield Part(process(bed), run)


@contextmanager
def container(bed: Bed) -> Iterator[tuple[str, dict[str, Any]]]:
    """A container of somebody else's that is ours to watch, under a name of its own. Once the file ``go`` is there it
    ends at each start.
    """
    name = f"fault-{uuid.uuid4().hex[:12]}"
    client = engine_client()
    command = ["sh", "-c", ENDS_AT_ONCE.format(file="/bed/go")]
    made = client.containers.create(
        IMAGE, command, name=name, init=True, network_mode="none", volumes=[f"{bed.folder}:/bed:ro"]
    )
    try:
        made.start()
        service = {"runtime": "docker", "container": name, "restart_policy": "never"}
        yield name, {"services": {bed.name: service}}
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


@contextmanager
def container_killed(bed: Bed) -> Iterator[Part]:
    with container(bed) as (name, config):

        def run() -> Ended:
            first = container_state(name)["StartedAt"]
            began = time.monotonic()
            kill_container(name)
            until_down(bed)
            end = bed.answered(DOWN, began)
            if bed.acts:
                state = container_state(name)
                assert state["Running"], end
                assert state["StartedAt"] != first
            return end

        yield Part(config, run)


@contextmanager
def container_gone_for_good(bed: Bed) -> Iterator[Part]:
    with container(bed) as (name, config):

        def run() -> Ended:
            began = time.monotonic()
            (bed.folder / "go").touch()
            kill_container(name)
            until_down(bed)
            end = bed.answered(DOWN, began)
            until_down(bed)
            assert not container_state(name)["Running"], end
            return end

        yield Part(config, run)


CASES: tuple[Case, ...] = (
    Case(RUNBOOK, "process", Kind.SUCCESS, killed, ("succeeded",)),
    Case(RUNBOOK, "hangs", Kind.SUCCESS, hangs, ("succeeded",)),
    Case(RUNBOOK, "process-rollback", Kind.ROLLBACK, gone_for_good, ("rolled_back",)),
    Case(RUNBOOK, "no-match", Kind.NO_MATCH, nobody_of_ours, ("no_match",)),
    Case(RUNBOOK, "stopped", Kind.LEFT, stopped_by_a_person, ("rejected",)),
    Case(RUNBOOK, "container", Kind.SUCCESS, container_killed, ("succeeded",), no_engine),
    Case(RUNBOOK, "container-rollback", Kind.ROLLBACK, container_gone_for_good, ("rolled_back",), no_engine),
)
