"""Stopped services leave nothing behind and no stranger is touched, whoever the daemon is: the real daemon, as itself
and as a user without any right.
"""

from __future__ import annotations

import os
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from actors.runtimes.procfs import read_line
from tests.support.docker_engine import IMAGE, engine_client, require_engine
from tests.support.escapees import ESCAPES, NOBODY, as_nobody, escape, give_to_nobody, lives_lived, storm
from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, Running, daemon, of_state, write_config

LONG_S = 30.0
GRACE_S = 1.0
pytestmark = pytest.mark.timeout(180)


def lives(pid: int) -> bool:
    line = read_line(pid)
    return line is not None and not line.is_dead


def service(command: tuple[str, ...]) -> dict[str, Any]:
    words = [word.replace("$", "$$") for word in command]  # a single one begins a variable in the configuration
    return {"command": words, "graceful_shutdown_timeout": f"{GRACE_S:g}s"}


def stopped(running: Running, name: str) -> float:
    """Stop a service; the seconds from the wish to the answer that it is down."""
    address = running.ready_line.split()[1]
    begun_s = time.monotonic()
    answer = httpx.post(f"{address}/services/{name}/stop", timeout=LONG_S)
    assert answer.status_code == 200, answer.text
    return time.monotonic() - begun_s


@pytest.fixture
def hiding(tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    """A configuration with a service for each way to hide, and the files that tell who hides."""
    place = give_to_nobody(tmp_path / "place")
    files = {how: place / how for how in ESCAPES}
    services = {how: service(escape(how, file)) for how, file in files.items()}
    services |= {"storm": service(storm(place / "lives", 4)), "bystander": SLEEPER}
    return write_config(place, services), files


@pytest.mark.parametrize("way", ["as-root", "as-root-without-cgroups", "as-nobody"])
def test_a_stop_leaves_nothing_behind(tmp_path: Path, hiding: tuple[Path, dict[str, Path]], way: str) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to become another user")
    config, files = hiding
    state = give_to_nobody(tmp_path / "state") if way == "as-nobody" else tmp_path / "state"
    more = {"SELFHEAL_CGROUPS": "off"} if way == "as-root-without-cgroups" else {}
    with daemon(config, state, before=as_nobody() if way == "as-nobody" else (), environment=more) as selfheal:
        before = selfheal.until_ready(within_s=LONG_S)
        uid = psutil.Process(before["storm"]["pid"]).uids().real
        assert uid == (NOBODY if way == "as-nobody" else 0)
        eventually(lambda: all(file.exists() for file in files.values()), within_s=LONG_S)
        hidden = {how: int(file.read_text()) for how, file in files.items()}
        assert all(lives(pid) for pid in hidden.values())
        by_group = eventually(lambda: _ways(before), within_s=LONG_S)
        assert by_group == ({True} if way == "as-root" and _has_v2() else {False})
        for how, pid in hidden.items():
            stopped(selfheal, how)
            assert not lives(pid), how
        eventually(lambda: min(lives_lived(config.parent / "lives")) > 20, within_s=LONG_S)
        took_s = stopped(selfheal, "storm")
        last = lives_lived(config.parent / "lives")
        holds_for(lambda: lives_lived(config.parent / "lives") == last, 0.5)
        assert took_s < GRACE_S + 1.0
        assert selfheal.pid("bystander") == before["bystander"]["pid"]
        assert [one.pid for one in of_state(state)] == [before["bystander"]["pid"]]
        assert selfheal.stop() == 0
    assert of_state(state) == []


def _ways(services: dict[str, Any]) -> set[bool] | None:
    """Whether each is in a control group of ours; None while they differ (they are moved one after the other)."""
    found = {"/selfheal-" in Path(f"/proc/{one['pid']}/cgroup").read_text() for one in services.values()}
    return found if len(found) == 1 and (found == {True} or not _has_v2() or _is_settled(services)) else None


def _is_settled(services: dict[str, Any]) -> bool:
    """Up for so long that a move would have been made."""
    started = min(psutil.Process(one["pid"]).create_time() for one in services.values())
    return time.time() - started > 2.0


def _has_v2() -> bool:
    return " cgroup2 " in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("groups", ["on", "off"])
def test_an_end_is_seen_although_a_grandchild_holds_the_output(tmp_path: Path, groups: str) -> None:
    """The next run comes at once, with the code of the last one known, and not beside the grandchild."""
    pid_file, state = tmp_path / "pid", tmp_path / "state"
    holder = f"echo \\$\\$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000"
    first = f'setsid sh -c "{holder}" & while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; exit 3'
    config = write_config(tmp_path, {"a": service(("sh", "-c", f"[ -e {tmp_path}/go ] && exec sleep 1000; {first}"))})
    with daemon(config, state, environment={"SELFHEAL_CGROUPS": groups}) as selfheal:
        before = selfheal.until_ready()["a"]
        eventually(pid_file.exists, within_s=LONG_S)
        grandchild = int(pid_file.read_text())
        log = (state / "logs" / "a.log").stat()
        assert Path(f"/proc/{grandchild}/fd/1").stat().st_ino == log.st_ino
        (tmp_path / "go").touch()
        after = eventually(lambda: _ready_run(selfheal, 2), within_s=LONG_S)
        assert (after["last_exit"]["cause"], after["last_exit"]["code"]) == ("exit 3", 3)
        took = datetime.fromisoformat(after["since"]) - datetime.fromisoformat(after["last_exit"]["at"])
        assert took.total_seconds() < 2.0
        assert not lives(grandchild)
        assert [one.pid for one in of_state(state)] == [after["pid"]] != [before["pid"]]


def _ready_run(running: Running, run: int) -> dict[str, Any] | None:
    one = running.services()["a"]
    return one if (one["incarnation"], one["state"]) == (run, "ready") else None


@pytest.mark.docker
def test_a_stopped_container_leaves_nothing_behind(tmp_path: Path) -> None:
    """The engine sees to it: whoever left the session is in the container's pid namespace all the same."""
    require_engine()
    name = f"escape-{uuid.uuid4().hex[:8]}"
    command = ["sh", "-c", "busybox setsid sh -c 'busybox setsid sleep 1000 & sleep 1000' & exec sleep 1000"]
    services = {name: {"runtime": "docker", "image": IMAGE, "command": command, "graceful_shutdown_timeout": "1s"}}
    client = engine_client()
    try:
        with daemon(write_config(tmp_path, services), tmp_path / "state") as selfheal:
            container_id = selfheal.until_ready(within_s=60)[name]["container_id"]
            container = client.containers.get(container_id)
            pids = eventually(lambda: _three(container.top()["Processes"]), within_s=LONG_S)
            assert all(lives(pid) for pid in pids)
            stopped(selfheal, name)
            assert not any(lives(pid) for pid in pids)
    finally:
        for left in client.containers.list(all=True, filters={"name": name}):
            left.remove(force=True)
        client.close()


def _three(lines: list[list[str]]) -> list[int] | None:
    """The host's numbers of the container's processes, once all three sleep."""
    sleeping = [int(line[1]) for line in lines if "sleep 1000" in line[-1] and "sh -c" not in line[-1]]
    return [int(line[1]) for line in lines] if len(sleeping) == 3 else None
