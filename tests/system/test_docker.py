"""Containers under the real daemon on a real engine: stopped or killed they are back, strangers are untouched."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from docker.errors import NotFound

from tests.support.docker_engine import IMAGE
from tests.support.eventually import eventually, holds_for
from tests.system.running import daemon, write_config

SLEEP = ["sleep", "1000"]
pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


def ours(name: str) -> dict[str, Any]:
    command = ["sleep", "1000"]
    return {name: {"runtime": "docker", "image": IMAGE, "command": command, "graceful_shutdown_timeout": "2s"}}


@pytest.mark.parametrize("act", ["stop", "kill"])
def test_a_container_we_made_is_back_after_docker_stop_and_docker_kill(
    engine: DockerClient, tag: str, act: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemon(write_config(tmp_path, ours(f"{tag}-a") | ours(f"{tag}-b")), tmp_path / "state") as selfheal:
        before = selfheal.until_ready(within_s=40)
        container = engine.containers.get(before[f"{tag}-a"]["container_id"])
        started_before = container.attrs["State"]["StartedAt"]
        began = time.monotonic()
        if act == "stop":
            container.stop(timeout=1)
        else:
            container.kill()
        ended = time.monotonic()

        def is_back() -> bool:
            state = engine.containers.get(f"selfheal-{tag}-a").attrs["State"]
            return bool(state["Running"]) and state["StartedAt"] != started_before

        eventually(is_back, within_s=30)
        took_s = time.monotonic() - ended
        with capsys.disabled():
            print(f"\ndocker {act}: took {ended - began:.2f} s, running again {took_s:.2f} s later", flush=True)
        assert took_s < 30
        after = selfheal.until_ready(within_s=30)
        assert after[f"{tag}-a"]["restarts"] == 1
        assert after[f"{tag}-b"]["container_id"] == before[f"{tag}-b"]["container_id"]
        assert after[f"{tag}-b"]["restarts"] == 0
        assert selfheal.stop() == 0
    for name in (f"{tag}-a", f"{tag}-b"):
        assert engine.containers.list(filters={"label": f"selfheal.service={name}", "status": "running"}) == []


@pytest.mark.parametrize("how", ["name", "compose"])
def test_an_attached_container_is_kept_up_and_left_running_at_the_end(
    engine: DockerClient, tag: str, how: str, tmp_path: Path
) -> None:
    labels = {"com.docker.compose.project": tag, "com.docker.compose.service": "redis"}
    theirs = engine.containers.run(
        IMAGE, ["sleep", "1000"], name=f"{tag}-theirs", labels=labels, detach=True, init=True
    )
    attach: dict[str, Any] = (
        {"container": f"{tag}-theirs"} if how == "name" else {"compose": {"project": tag, "service": "redis"}}
    )
    with daemon(write_config(tmp_path, {"redis": {"runtime": "docker"} | attach}), tmp_path / "state") as selfheal:
        assert selfheal.until_ready(within_s=40)["redis"]["container_id"] == theirs.id
        theirs.stop(timeout=1)
        eventually(lambda: engine.containers.get(f"{tag}-theirs").status == "running", within_s=30)
        assert selfheal.until_ready(within_s=30)["redis"]["restarts"] == 1
        assert selfheal.stop() == 0
    theirs.reload()
    assert theirs.status == "running"


def test_a_strangers_container_is_never_touched(engine: DockerClient, tag: str, tmp_path: Path) -> None:
    """Also when it has the very name we would give."""
    name = f"{tag}-a"
    stranger = engine.containers.run(IMAGE, SLEEP, name=f"selfheal-{name}", detach=True, init=True)
    assert stranger.id is not None
    with daemon(write_config(tmp_path, ours(name)), tmp_path / "state") as selfheal:
        eventually(lambda: f"selfheal-{name}" in selfheal.call("tree").stdout, within_s=20)
        holds_for(lambda: selfheal.services()[name]["state"] != "ready", 1.0)
        selfheal.stop()
    fresh = engine.containers.get(stranger.id)
    assert fresh.status == "running"
    assert fresh.attrs["State"]["StartedAt"] == stranger.attrs["State"]["StartedAt"] or fresh.attrs["RestartCount"] == 0


def test_a_missing_image_is_said_and_leaves_nothing(engine: DockerClient, tag: str, tmp_path: Path) -> None:
    service = {f"{tag}-a": {"runtime": "docker", "image": f"no-such-image:{tag}", "command": ["x"]}}
    with daemon(write_config(tmp_path, service), tmp_path / "state") as selfheal:
        eventually(lambda: f"no-such-image:{tag}" in selfheal.call("tree").stdout, within_s=20)
        selfheal.stop()
    with pytest.raises(NotFound):
        engine.containers.get(f"selfheal-{tag}-a")


def test_without_an_engine_containers_are_unknown_and_processes_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    services = ours("contained") | {"plain": {"command": ["sleep", "1000"]}}
    with daemon(write_config(tmp_path, services), tmp_path / "state") as selfheal:
        selfheal.until_ready("plain")
        shown = eventually(lambda: _unknown(selfheal.services()["contained"]))
        assert "engine" in shown["detail"]
        assert selfheal.call("tree").returncode == 3


def _unknown(service: dict[str, Any]) -> dict[str, Any] | None:
    return service if service["state"] == "unknown" else None
