"""Edits of containers under the real daemon: kept, replaced, added to a daemon that had none, left where not ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from tests.support.docker_engine import IMAGE
from tests.system.running import SLEEPER, write_config
from tests.system.test_reload import actions, asked

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]


def box(seconds: str = "1000", **more: Any) -> dict[str, Any]:
    command = ["sleep", seconds]
    return {"runtime": "docker", "image": IMAGE, "command": command, "graceful_shutdown_timeout": "1s"} | more


def containers(engine: DockerClient, tag: str) -> dict[str, str]:
    """The containers with the tag in their names, running or not: what they run by id."""
    found = [one for one in engine.containers.list(all=True, ignore_removed=True) if tag in (one.name or "")]
    return {str(one.id): " ".join(one.attrs["Config"]["Cmd"] or ()) for one in found}


def test_containers_are_kept_replaced_and_removed_as_planned(engine: DockerClient, tag: str, tmp_path: Path) -> None:
    name, replica = f"{tag}-c", f"{tag}-c.2"
    config = write_config(tmp_path, {"a": SLEEPER})
    with asked(config, tmp_path / "state") as selfheal:
        kept = selfheal.until_ready()["a"]["pid"]
        write_config(tmp_path, {"a": SLEEPER, name: box()})
        assert selfheal.manager.apply(by="ann")["ok"]
        first = selfheal.until_ready()[name]["container_id"]
        assert selfheal.manager.wait_for("docker-watcher", "ready", timeout_s=20)["state"] == "ready"

        write_config(tmp_path, {"a": SLEEPER, name: box(max_restarts=2)})
        assert actions(selfheal.manager.apply(by="ann")) == {name: "update_in_place"}
        assert selfheal.until_ready()[name]["container_id"] == first

        assert selfheal.manager.scale(name, 2, by="ann")["ok"]
        both = selfheal.until_ready()
        assert set(containers(engine, tag)) == {both[name]["container_id"], both[replica]["container_id"]}
        assert selfheal.manager.scale(name, 1, by="ann")["ok"]
        assert set(containers(engine, tag)) == {first}, "the replica that went has left no container"

        write_config(tmp_path, {"a": SLEEPER, name: box("1001")})
        assert actions(selfheal.manager.apply(by="ann")) == {name: "restart"}
        second = selfheal.until_ready()[name]["container_id"]
        assert containers(engine, tag) == {second: "sleep 1001"}

        write_config(tmp_path, {"a": SLEEPER})
        assert actions(selfheal.manager.apply(by="ann")) == {name: "remove"}
        assert containers(engine, tag) == {}
        assert selfheal.pids() == {"a": kept}


def test_an_attached_container_taken_out_of_the_file_is_left_running(
    engine: DockerClient, tag: str, tmp_path: Path
) -> None:
    theirs = engine.containers.run(IMAGE, ["sleep", "1000"], name=f"{tag}-theirs", detach=True)
    attached = {"runtime": "docker", "container": f"{tag}-theirs"}
    config = write_config(tmp_path, {"a": SLEEPER, "db": attached})
    with asked(config, tmp_path / "state") as selfheal:
        selfheal.until_ready()
        refused = selfheal.running.call("services", "scale", "db", "2")
        assert (refused.returncode, "attached container" in refused.stderr) == (1, True)
        write_config(tmp_path, {"a": SLEEPER})
        assert actions(selfheal.manager.apply(by="ann")) == {"db": "remove"}
        assert set(selfheal.services()) == {"a"}
        theirs.reload()
        assert theirs.status == "running"
