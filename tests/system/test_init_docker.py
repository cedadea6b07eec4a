"""The real daemon as PID 1 of a real container: stopped, killed, given orphans, ended with a service's exit code."""

from __future__ import annotations

import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from docker import DockerClient
from docker.models.containers import Container

from tests.support.docker_engine import IMAGE
from tests.support.eventually import eventually
from tests.support.host_python import environment, read_only_mounts
from tests.system.running import SLEEPER, write_config
from tests.system.test_init import command_of, zombies_under

LONG_S = 30.0
pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


@pytest.fixture
def made(engine: DockerClient) -> Iterator[list[Container]]:
    """Containers of this test, removed at its end."""
    containers: list[Container] = []
    yield containers
    for container in containers:
        container.remove(force=True)


def contained(engine: DockerClient, made: list[Container], config: Path, *words: str) -> Container:
    """No ``init``, no shell: the daemon itself is PID 1."""
    folder = str(config.parent)
    container = engine.containers.run(
        IMAGE,
        [sys.executable, "-m", "supervisors.cli", "run", "--config", str(config), "--state", f"{folder}/state", *words],
        name=f"selfheal-pid1-{uuid.uuid4().hex[:8]}",
        environment=environment(),
        volumes={**read_only_mounts(), folder: {"bind": folder, "mode": "rw"}},
        network_mode="none",
        detach=True,
    )
    made.append(container)
    return container


def until_ready(container: Container, times: int = 1) -> None:
    eventually(lambda: said(container).count("\nready ") >= times, within_s=LONG_S, what="ready", every_s=0.1)


def said(container: Container) -> str:
    return "\n" + container.logs(stdout=True, stderr=True).decode()


def pid1(container: Container) -> psutil.Process:
    """As this machine sees it."""
    container.reload()
    return psutil.Process(container.attrs["State"]["Pid"])


def daemon_of(init: psutil.Process) -> psutil.Process:
    found = [one for one in init.children() if "supervisors.cli" in command_of(one)]
    assert len(found) == 1, found
    return found[0]


def sleepers(init: psutil.Process) -> set[int]:
    return {one.pid for one in init.children(recursive=True) if command_of(one)[:1] == ["sleep"]}


def exit_code(container: Container) -> int:
    code: int = container.wait(timeout=LONG_S)["StatusCode"]
    return code


def test_docker_stop_and_a_killed_daemon_and_orphans(
    engine: DockerClient, made: list[Container], tmp_path: Path
) -> None:
    order = tmp_path / "order"
    last_words = {
        name: {"command": ["sh", "-c", f"trap 'echo {name} >> {order}; exit 0' TERM; sleep 1000 & wait"]}
        for name in ("a", "b", "c")
    }
    container = contained(engine, made, write_config(tmp_path, last_words))
    until_ready(container)
    init = pid1(container)
    assert init.name() == "selfheal-init"
    before, first = sleepers(init), daemon_of(init)
    assert len(before) == 3

    first.send_signal(signal.SIGKILL)
    until_ready(container, times=2)
    assert daemon_of(init).pid != first.pid
    assert sleepers(init) == before, "adopted, none twice"

    assert container.exec_run(["sh", "-c", "sleep 0.3 & exit 0"]).exit_code == 0

    eventually(lambda: sleepers(init) == before and not zombies_under(init), within_s=LONG_S)
    container.stop(timeout=20)
    assert exit_code(container) == 0
    assert order.read_text().split() == ["c", "b", "a"]


def test_the_containers_exit_code_is_the_services(engine: DockerClient, made: list[Container], tmp_path: Path) -> None:
    job: dict[str, Any] = {"command": ["sh", "-c", "kill -9 $$$$"], "restart_policy": "never"}  # $$ is a dollar
    config = write_config(tmp_path, {"a": SLEEPER, "job": job}, exit_with="job")
    assert exit_code(contained(engine, made, config)) == 128 + signal.SIGKILL
