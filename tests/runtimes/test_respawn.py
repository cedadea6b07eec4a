"""The keeper's way of starting a daemon anew, with real processes that stand for daemons."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from actors.keeper.patience import QUICK_S
from actors.keeper.respawn import MOST_IN_VAIN, Respawner
from tests.support.eventually import eventually, holds_for

LONG_S = 30.0


@pytest.fixture
def told() -> list[int]:
    """The pids of the daemons that were started, as they were told."""
    return []


@pytest.fixture
def respawner(tmp_path: Path, told: list[int]) -> Iterator[Respawner]:
    made = Respawner(tmp_path, told.append)
    yield made
    made.give_up()


def daemon(tmp_path: Path, then: str) -> dict[str, object]:
    """Notes when it was born, and its pid."""
    note = (
        f"import os, time; open({str(tmp_path / 'births')!r}, 'a').write(f'{{time.monotonic()}} {{os.getpid()}}\\n'); "
    )
    return {"argv": [sys.executable, "-I", "-S", "-c", note + then], "cwd": str(tmp_path), "env": dict(os.environ)}


def births(tmp_path: Path) -> list[tuple[float, int]]:
    file = tmp_path / "births"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(float(at), int(pid)) for at, pid in map(str.split, lines)]


def seen(respawner: Respawner, tmp_path: Path) -> list[tuple[float, int]]:
    """The births after one more look."""
    respawner.look()
    return births(tmp_path)


def gone() -> int:
    """A descriptor of a process that is dead."""
    process = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(process.pid)
    process.wait()
    return pidfd


def test_none_is_started_while_the_old_one_lives(respawner: Respawner, tmp_path: Path, told: list[int]) -> None:
    with subprocess.Popen(["sleep", "1000"]) as old:
        pidfd = os.pidfd_open(old.pid)
        respawner.daemon_gone(daemon(tmp_path, "import signal; signal.pause()"), pidfd, QUICK_S + 1)
        holds_for(lambda: not seen(respawner, tmp_path), 0.3)
        old.kill()
        old.wait()
        ((_, pid),) = eventually(lambda: seen(respawner, tmp_path), within_s=LONG_S)
    os.close(pidfd)
    assert told == [pid]
    holds_for(lambda: len(seen(respawner, tmp_path)) == 1, 0.3)
    psutil.Process(pid).kill()


def test_starts_in_vain_come_slower_and_slower(respawner: Respawner, tmp_path: Path) -> None:
    pidfd = gone()
    respawner.daemon_gone(daemon(tmp_path, "raise SystemExit(2)"), pidfd, QUICK_S + 1)
    os.close(pidfd)

    def look() -> bool:
        respawner.look()
        _reap()
        return len(births(tmp_path)) >= 4

    eventually(look, within_s=LONG_S)
    times = [at for at, _ in births(tmp_path)]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert [gap >= least for gap, least in zip(gaps, (0.5, 1.0, 2.0), strict=True)] == [True] * 3, gaps


def test_a_daemon_that_is_there_ends_it(respawner: Respawner, tmp_path: Path) -> None:
    pidfd = gone()
    respawner.daemon_gone(daemon(tmp_path, "raise SystemExit(2)"), pidfd, QUICK_S - 1)
    os.close(pidfd)
    assert respawner.is_busy(has_services=False)
    respawner.has_daemon()
    assert not respawner.is_busy(has_services=True)
    holds_for(lambda: not seen(respawner, tmp_path), 1.0)


def test_what_cannot_be_started_at_all_is_tried_again(respawner: Respawner, tmp_path: Path) -> None:
    how = {"argv": [str(tmp_path / "daemon")], "cwd": str(tmp_path), "env": dict(os.environ)}
    pidfd = gone()
    respawner.daemon_gone(how, pidfd, QUICK_S + 1)
    os.close(pidfd)
    respawner.look()
    program = tmp_path / "daemon"
    program.write_text(f"#!/bin/sh\necho 0 $$ >> {tmp_path}/births\n")
    program.chmod(0o755)
    eventually(lambda: seen(respawner, tmp_path), within_s=LONG_S)
    _reap()


@pytest.mark.parametrize("is_state_gone", [False, True])
def test_a_directory_that_is_gone_prevents_no_start(
    respawner: Respawner, tmp_path: Path, *, is_state_gone: bool
) -> None:
    note = f"import os; open({str(tmp_path / 'births')!r}, 'a').write(f'0 {{os.getpid()}}\\n'); "
    where = f"open({str(tmp_path / 'where')!r}, 'w').write(os.getcwd())"
    how = daemon(tmp_path, "pass") | {
        "argv": [sys.executable, "-I", "-S", "-c", where.join(("import os; ", "; " + note))]
    }
    how["cwd"] = str(tmp_path / "gone")
    if is_state_gone:
        respawner._state_dir = tmp_path / "gone too"
    pidfd = gone()
    respawner.daemon_gone(how, pidfd, QUICK_S + 1)
    os.close(pidfd)
    eventually(lambda: seen(respawner, tmp_path), within_s=LONG_S)
    assert (tmp_path / "where").read_text() == ("/" if is_state_gone else str(tmp_path))
    _reap()


def test_one_that_hangs_before_its_hello_is_killed_and_replaced(
    respawner: Respawner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pidfd = gone()
    respawner.daemon_gone(daemon(tmp_path, "time.sleep(1000)"), pidfd, QUICK_S + 1)
    os.close(pidfd)
    ((_, first),) = eventually(lambda: seen(respawner, tmp_path), within_s=LONG_S)
    holds_for(lambda: len(seen(respawner, tmp_path)) == 1, 0.3)  # it has its time
    assert psutil.pid_exists(first)
    monkeypatch.setattr("actors.keeper.respawn.YOUNG_S", 0.0)
    respawner.look()
    monkeypatch.undo()
    eventually(lambda: len(seen(respawner, tmp_path)) == 2, within_s=LONG_S)
    (_, (_, second)) = births(tmp_path)
    assert not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE
    psutil.Process(second).kill()
    _reap()


def test_without_services_it_is_given_up_in_the_end(respawner: Respawner, tmp_path: Path) -> None:
    for _ in range(MOST_IN_VAIN):
        assert respawner.is_busy(has_services=False) or not births(tmp_path)
        pidfd = gone()
        respawner.daemon_gone(daemon(tmp_path, "pass"), pidfd, 0.0)
        os.close(pidfd)
    assert not respawner.is_busy(has_services=False)
    assert respawner.is_busy(has_services=True)


def test_the_pause_of_the_loop_follows(respawner: Respawner, tmp_path: Path) -> None:
    assert respawner.pause_s(1.0) == 1.0
    pidfd = gone()
    respawner.daemon_gone(daemon(tmp_path, "pass"), pidfd, QUICK_S + 1)
    os.close(pidfd)
    assert respawner.pause_s(1.0) < 0.2


def _reap() -> None:
    for pid in [pid for _, pid in _pids()]:
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            continue


def _pids() -> list[tuple[float, int]]:
    return [(time.monotonic(), one.pid) for one in psutil.Process().children() if one.status() == psutil.STATUS_ZOMBIE]
