"""Containers when records are lost, cannot be kept, or tell of what happened while no daemon lived."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from tests.support.docker_engine import IMAGE
from tests.support.eventually import eventually, holds_for
from tests.system.running import LINKS, Running, daemon, free_port, write_config
from tests.system.small_disk import needs_root, read_only
from tests.system.test_daemon_death import killed

LONG_S = 60.0
pytestmark = [pytest.mark.docker, pytest.mark.timeout(240)]


def box(*command: str, **more: Any) -> dict[str, Any]:
    words = list(command) or ["sleep", "1000"]
    return {"runtime": "docker", "image": IMAGE, "command": words, "graceful_shutdown_timeout": "1s"} | more


def started(engine: DockerClient, service: str) -> list[str]:
    """When each container of the service, running or not, was started."""
    found = engine.containers.list(all=True, filters={"label": f"selfheal.service={service}"})
    return [one.attrs["State"]["StartedAt"] for one in found]


@pytest.mark.parametrize("lost", ["ledger.jsonl", "journal.db", "both"])
def test_a_container_whose_record_is_lost_is_taken_on(
    engine: DockerClient, tag: str, tmp_path: Path, lost: str
) -> None:
    config, state = write_config(tmp_path, {tag: box()}), tmp_path / "state"
    with daemon(config, state) as first:
        before = first.until_ready(within_s=LONG_S)[tag]
        killed(first)
        for name in ("ledger.jsonl", "journal.db") if lost == "both" else (lost,):
            assert (state / name).exists()
            for file in state.glob(f"{name}*"):
                file.unlink()
        with daemon(config, state) as second:
            after = second.until_ready(within_s=LONG_S)[tag]
            assert (after["container_id"], after["restarts"]) == (before["container_id"], 0)
            assert len(started(engine, tag)) == 1
            engine.containers.get(after["container_id"]).kill()
            eventually(lambda: second.services()[tag]["restarts"] == 1, within_s=LONG_S)
            second.until_ready(within_s=LONG_S)
            assert len(started(engine, tag)) == 1


@needs_root
def test_a_container_under_a_daemon_that_may_write_nothing(engine: DockerClient, tag: str, tmp_path: Path) -> None:
    port = free_port()
    config = write_config(tmp_path, {tag: box()}, links=LINKS | {"operator": {"address": f"127.0.0.1:{port}"}})
    state = tmp_path / "state"
    with daemon(config, state) as first:
        before = first.until_ready(within_s=LONG_S)[tag]
        killed(first)
        with read_only(state), daemon(config, state) as second:
            assert second.until_ready(tag, within_s=LONG_S)[tag]["container_id"] == before["container_id"]
            engine.containers.get(before["container_id"]).kill()
            eventually(lambda: second.services()[tag]["restarts"] == 1, within_s=LONG_S)
            second.until_ready(tag, within_s=LONG_S)
            assert len(started(engine, tag)) == 1
            killed(second)
        with daemon(config, state) as third:
            third.until_ready(tag, within_s=LONG_S)
            assert len(started(engine, tag)) == 1


def paused(running: Running, name: str) -> bool:
    return bool(running.services()[name]["state"] == "paused")


def test_a_paused_container_stays_paused_over_the_death_of_the_daemon(
    engine: DockerClient, tag: str, tmp_path: Path
) -> None:
    config, state = write_config(tmp_path, {tag: box()}), tmp_path / "state"
    with daemon(config, state) as first:
        container_id = first.until_ready(within_s=LONG_S)[tag]["container_id"]
        assert first.call("services", "pause", tag, "--why", "a test").returncode == 0
        assert engine.containers.get(container_id).status == "paused"
        killed(first)
        with daemon(config, state) as second:
            eventually(lambda: paused(second, tag), within_s=LONG_S)
            holds_for(lambda: engine.containers.get(container_id).status == "paused", 1.0)
            assert second.services()[tag]["desired"]["why"] == "a test"
            assert second.call("services", "resume", tag).returncode == 0
            after = second.until_ready(within_s=LONG_S)[tag]
            assert (after["container_id"], after["restarts"]) == (container_id, 0)
            assert engine.containers.get(container_id).status == "running"


def test_work_that_a_container_has_done_is_not_done_again_after_a_killed_daemon(
    engine: DockerClient, tag: str, tmp_path: Path
) -> None:
    job = box("sh", "-c", "exit 0", restart_policy="on_failure")
    config, state = write_config(tmp_path, {tag: job, f"{tag}-b": box()}), tmp_path / "state"

    def is_done(running: Running) -> bool:
        one = running.services()[tag]
        return (one["state"], (one.get("last_exit") or {}).get("code")) == ("stopped", 0)

    with daemon(config, state) as first:
        first.until_ready(f"{tag}-b", within_s=LONG_S)
        eventually(lambda: is_done(first), within_s=LONG_S)
        before = started(engine, tag)
        assert len(before) == 1
        killed(first)
        with daemon(config, state) as second:
            second.until_ready(f"{tag}-b", within_s=LONG_S)
            eventually(lambda: is_done(second), within_s=LONG_S)
            holds_for(lambda: started(engine, tag) == before, 1.0)


def test_a_container_that_died_while_no_daemon_lived_takes_its_group_along(
    engine: DockerClient, tag: str, tmp_path: Path
) -> None:
    names = [f"{tag}-{one}" for one in "abc"]
    groups = {"g": {"strategy": "rest_for_one", "services": names}}
    config, state = write_config(tmp_path, {name: box() for name in names}, groups=groups), tmp_path / "state"
    with daemon(config, state) as first:
        first.until_ready(within_s=LONG_S)
        before = {name: started(engine, name) for name in names}
        killed(first)
        engine.containers.get(f"selfheal-{names[1]}").kill()
        with daemon(config, state) as second:
            after = second.until_ready(within_s=LONG_S)
            assert [name for name in names if started(engine, name) != before[name]] == names[1:]
            assert [after[name]["restarts"] for name in names] == [0, 1, 1]
