"""Nothing of a run is alive after its stop, whatever it did to hide: by control group, and without any."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.runtimes.cgroups import _bases, open_cgroups
from actors.runtimes.process import ProcessHandle, ProcessRuntime
from actors.runtimes.procfs import TokenScan, read_line
from tests.runtimes.worlds import LONG_S, RUNS, Exits, KeptPlace, ProcessPlace
from tests.support.eventually import eventually, holds_for

FORK_STORM = """
import mmap, os, sys, time
runners, end = int(sys.argv[2]), time.monotonic() + 60
with open(sys.argv[1], "w+b") as file:
    file.truncate(8 * runners)
    lives = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
for one in range(runners):
    if os.fork() == 0:
        while time.monotonic() < end:  # one life of a millisecond after the other, each in a session of its own
            if os.fork():
                os._exit(0)
            os.setsid()
            lives[one] += 1
        os._exit(0)
print("ready", flush=True)
time.sleep(60)
"""
ESCAPES = {
    "setsid": "setsid sh -c '{say}' &",
    "double-fork": "(setsid sh -c '(setsid sh -c \"{say_inner}\" &)' &) ;",
    "clean-environment": "env -i setsid /bin/sh -c '{say}' &",
    "ignores-TERM": "setsid sh -c 'trap \"\" TERM; {say}' &",
}


def script(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


def lives(pid: int) -> bool:
    line = read_line(pid)
    return line is not None and not line.is_dead


def escape(how: str, pid_file: Path, then: str = "exec sleep 1000") -> tuple[str, ...]:
    """A main process with a descendant that says its pid and lives on."""
    say = f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000"
    text = ESCAPES[how].format(say=say, say_inner=say.replace("$", "\\$"))
    return script(f"{text} while [ ! -e {pid_file} ]; do sleep 0.01; done; echo ready; {then}")


def pid_in(path: Path) -> int:
    eventually(lambda: path.exists() and path.read_text().endswith("\n"), within_s=LONG_S)
    return int(path.read_text())


def is_placed(runtime: ProcessRuntime, handle: ProcessHandle) -> bool:
    """Its group exists and is proven: from now on it can be killed whole."""
    cgroups = runtime._cgroups
    assert cgroups is not None
    group = cgroups._group(handle.service, handle.token)
    return group.exists() and b"user.selfheal.proven" in [os.fsencode(name) for name in os.listxattr(group)]


def has_group(pid: int) -> bool:
    return "/selfheal-" in Path(f"/proc/{pid}/cgroup").read_text()


def needs_cgroups(folder: Path) -> None:
    cgroups = open_cgroups(folder)
    if cgroups is None:
        assert not list(_bases()), "a v2 hierarchy is mounted but was not used"
        pytest.skip("no cgroup v2 hierarchy is mounted")
    cgroups.close()


@pytest.fixture(params=["local", "kept"])
def swept_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ProcessPlace]:
    place = ProcessPlace(tmp_path) if request.param == "local" else KeptPlace(tmp_path)
    yield place
    place.close()


@pytest.fixture(params=["sweep", "cgroup"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeptPlace]:
    kept = KeptPlace(tmp_path)
    if request.param == "cgroup":
        needs_cgroups(tmp_path)
        kept.has_cgroups = True
    yield kept
    kept.close()


@pytest.fixture
def grouped(tmp_path: Path) -> Iterator[KeptPlace]:
    needs_cgroups(tmp_path)
    kept = KeptPlace(tmp_path)
    kept.has_cgroups = True
    yield kept
    kept.close()


# -- both ways --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ESCAPES)
def test_whoever_hides_is_gone_after_the_stop(place: KeptPlace, tmp_path: Path, how: str) -> None:
    runtime, pid_file = place.daemon(), tmp_path / "pid"
    handle = runtime.launch(place.spec("a", escape(how, pid_file)), 1, Exits())
    hidden = pid_in(pid_file)
    place.wait_ready(handle)
    runtime.stop(handle, LONG_S)
    assert not lives(handle.pid)
    assert not lives(hidden)


@pytest.mark.parametrize("how", ["setsid", "double-fork", "clean-environment"])
def test_whoever_hides_is_gone_before_the_run_after_a_crash(place: KeptPlace, tmp_path: Path, how: str) -> None:
    runtime, pid_file, on_exit = place.daemon(), tmp_path / "pid", Exits()
    handle = runtime.launch(place.spec("a", escape(how, pid_file)), 1, on_exit)
    hidden = pid_in(pid_file)
    place.wait_ready(handle)
    place.crash(handle)
    on_exit.one()
    assert lives(hidden), "a crash alone does not reach it"
    runtime.launch(place.spec("a", RUNS), 2, Exits())
    assert not lives(hidden)


def test_a_fork_storm_ends_within_a_second_of_the_grace(place: KeptPlace, tmp_path: Path) -> None:
    runtime, grace_s, lives_file = place.daemon(), 0.5, tmp_path / "lives"
    handle = runtime.launch(place.spec("a", (sys.executable, "-S", "-c", FORK_STORM, str(lives_file), "4")), 1, Exits())
    place.wait_ready(handle)
    if place.has_cgroups:
        eventually(lambda: is_placed(runtime, handle), within_s=LONG_S)
    eventually(lambda: min(memoryview(lives_file.read_bytes()).cast("Q")) > 20, within_s=LONG_S, what="the storm")
    begun_s = time.monotonic()
    runtime.stop(handle, grace_s)
    took_s = time.monotonic() - begun_s
    last = lives_file.read_bytes()
    holds_for(lambda: lives_file.read_bytes() == last, 0.5)
    assert TokenScan().members(handle.token)[0] == ()
    assert took_s < grace_s + 1.0
