"""``exit_with``: the real daemon ends with one service and has its exit code."""

from __future__ import annotations

import json
import os
import signal
import uuid
from pathlib import Path

import pytest
from docker import DockerClient

from tests.support.docker_engine import IMAGE
from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, daemon, of_state, write_config

LONG_S = 30.0
pytestmark = pytest.mark.timeout(180)


def test_a_stop_by_hand_is_no_end_but_a_death_is(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"job": SLEEPER | {"restart_policy": "never"}, "other": SLEEPER})
    with daemon(config, tmp_path / "state", words=("--exit-with", "job")) as selfheal:
        selfheal.until_ready()
        assert selfheal.call("services", "stop", "job").returncode == 0
        holds_for(lambda: selfheal.process.poll() is None, 1.0)
        assert selfheal.call("services", "start", "job").returncode == 0
        os.kill(selfheal.pid("job"), signal.SIGKILL)
        assert selfheal.process.wait(LONG_S) == 128 + signal.SIGKILL
        assert not of_state(selfheal.state)


def test_a_crash_loop_is_an_end(tmp_path: Path) -> None:
    job = {"command": ["sh", "-c", f"echo run >> {tmp_path}/runs; exit 9"], "max_restarts": 1}
    config = write_config(tmp_path, {"job": job, "other": SLEEPER}, exit_with="job")
    with daemon(config, tmp_path / "state", wait=False) as selfheal:
        assert selfheal.process.wait(LONG_S) == 9
        assert not of_state(selfheal.state)
    assert (tmp_path / "runs").read_text() == "run\nrun\n", "restarted as often as its policy says"


def test_a_program_that_does_not_exist_is_said_as_an_error(tmp_path: Path) -> None:
    job = {"command": ["no-such-program"], "restart_policy": "never"}
    with daemon(write_config(tmp_path, {"job": job}, exit_with="job"), tmp_path / "state", wait=False) as running:
        assert running.process.wait(LONG_S) == 127
        said = [json.loads(line) for line in running.log.read_text().splitlines() if line.startswith("{")]
    (error,) = [one for one in said if one["level"] == "error" and one.get("exit_code") == 127]
    assert error["event"].startswith("job could not be started: ")
    assert "no-such-program" in error["event"]


def test_a_service_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"job": SLEEPER})
    with daemon(config, tmp_path / "state", wait=False, words=("--exit-with", "jobb")) as selfheal:
        assert selfheal.process.wait(LONG_S) == 2
    assert "--exit-with: there is no service 'jobb'; did you mean 'job'?" in selfheal.log.read_text()


@pytest.mark.docker
def test_a_container_can_be_the_one(engine: DockerClient, tmp_path: Path) -> None:
    name = f"t{uuid.uuid4().hex[:8]}-job"
    job = {"runtime": "docker", "image": IMAGE, "command": ["sh", "-c", "exit 4"], "restart_policy": "never"}
    config = write_config(tmp_path, {"other": SLEEPER, name: job}, exit_with=name)
    with daemon(config, tmp_path / "state", wait=False) as selfheal:
        assert selfheal.process.wait(LONG_S) == 4
        assert not of_state(selfheal.state)
    left = engine.containers.list(all=True, filters={"label": f"selfheal.service={name}"})
    for container in left:
        container.remove(force=True)
    assert not [one for one in left if one.status == "running"]


def test_an_end_while_no_daemon_lived_is_the_next_ones_end(tmp_path: Path) -> None:
    job = {"command": ["sh", "-c", f"while [ ! -e {tmp_path}/end ]; do sleep 0.1; done; exit 6"]}
    config = write_config(tmp_path, {"job": job | {"restart_policy": "never"}}, exit_with="job")
    state = tmp_path / "state"
    with daemon(config, state) as first:
        first.until_ready()
        first.process.kill()
        first.process.wait()
        (tmp_path / "end").touch()
        eventually(lambda: not of_state(state), within_s=LONG_S)
        with daemon(config, state, wait=False) as second:
            assert second.process.wait(LONG_S) == 6
