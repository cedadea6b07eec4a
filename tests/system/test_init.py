"""The real daemon behind PID 1 of a process namespace: reaped, signalled, started again, and ended with a code."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.eventually import eventually, holds_for
from tests.system.running import SELFHEAL, SLEEPER, Running, of_state, write_config

LONG_S = 30.0
ROOT = Path(__file__).resolve().parents[2]
UNSHARE = shutil.which("unshare")
pytestmark = [
    pytest.mark.skipif(UNSHARE is None or os.geteuid() != 0, reason="needs unshare and root"),
    pytest.mark.timeout(180),
]


@contextmanager
def contained(config: Path, state: Path, *words: str) -> Iterator[Running]:
    """The daemon behind PID 1 of a new process namespace. ``process`` ends with the exit code of that PID 1."""
    log = state.parent / "daemon.err"
    environ = {**os.environ, "SELFHEAL_STATE": str(state), "PYTHONPATH": str(ROOT)}
    assert UNSHARE is not None
    with log.open("a") as errors:
        process = subprocess.Popen(
            [*(UNSHARE, "--pid", "--fork", "--mount-proc"), *SELFHEAL, *("run", "--config", str(config)), *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environ,
        )
    assert process.stdout is not None
    try:
        yield Running(state, process, log, environ=environ)
    finally:
        for pid1 in psutil.Process(process.pid).children() if process.poll() is None else ():
            pid1.kill()  # the kernel takes the whole namespace with it
        process.wait(LONG_S)
        process.stdout.close()


def until_ready(running: Running) -> None:
    assert running.process.stdout is not None
    line = running.process.stdout.readline()
    assert line.startswith("ready"), (line, running.log.read_text()[-3000:])


def init_of(running: Running) -> psutil.Process:
    def look() -> psutil.Process | None:
        children = psutil.Process(running.process.pid).children()
        return children[0] if children and children[0].name() == "selfheal-init" else None

    return eventually(look, within_s=LONG_S)


def daemon_of(running: Running) -> psutil.Process:
    def look() -> psutil.Process | None:
        found = [one for one in init_of(running).children() if "supervisors.cli" in command_of(one)]
        return found[0] if found else None

    return eventually(look, within_s=LONG_S)


def service_pids(state: Path) -> set[int]:
    """As the machine counts them, not the namespace."""
    return {one.pid for one in of_state(state)}


def zombies_under(process: psutil.Process) -> list[psutil.Process]:
    return [one for one in process.children(recursive=True) if is_zombie(one)]


def is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def command_of(process: psutil.Process) -> list[str]:
    """Empty for one that is gone, or dead and not reaped."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def test_a_container_stop_ends_everything_in_order_newest_first(tmp_path: Path) -> None:
    order = tmp_path / "order"
    services = {
        name: {"command": ["sh", "-c", f"trap 'echo {name} >> {order}; exit 0' TERM; while :; do sleep 0.1; done"]}
        for name in ("a", "b", "c")
    }
    with contained(write_config(tmp_path, services), tmp_path / "state") as running:
        until_ready(running)
        init_of(running).send_signal(signal.SIGTERM)
        assert running.process.wait(LONG_S) == 0
    assert order.read_text().split() == ["c", "b", "a"]
    assert not of_state(tmp_path / "state")


def test_a_stop_while_the_daemon_still_starts_is_orderly_too(tmp_path: Path) -> None:
    with contained(write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state") as running:
        init = init_of(running)
        eventually(init.children, within_s=LONG_S)
        init.send_signal(signal.SIGTERM)
        assert running.process.wait(LONG_S) == 0
    assert not of_state(tmp_path / "state")


def test_a_killed_daemon_is_back_and_adopts_and_nothing_dead_is_left(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with contained(write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER}), state) as running:
        until_ready(running)
        before, init, daemon = service_pids(state), init_of(running), daemon_of(running)
        assert len(before) == 2
        daemon.kill()
        until_ready(running)
        assert daemon_of(running).pid != daemon.pid
        assert init_of(running).pid == init.pid
        assert service_pids(state) == before
        assert [one["restarts"] for one in running.until_ready().values()] == [0, 0]
        eventually(lambda: not zombies_under(init), within_s=LONG_S)
        init.send_signal(signal.SIGTERM)
        assert running.process.wait(LONG_S) == 0


def test_after_daemon_and_keeper_were_killed_their_services_fall_to_the_init_and_are_reaped(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with contained(write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER}), state) as running:
        until_ready(running)
        before, init, daemon = service_pids(state), init_of(running), daemon_of(running)
        keeper = psutil.Process(min(before)).parent()
        assert keeper is not None
        daemon.suspend()  # it shall not see what happens to its keeper
        keeper.kill()
        daemon.kill()
        until_ready(running)
        assert service_pids(state) == before
        assert {one.ppid() for one in of_state(state)} == {init.pid}
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: not psutil.pid_exists(victim), within_s=LONG_S, what="the init to reap it")
        eventually(lambda: len(service_pids(state)) == 2, within_s=LONG_S)
        eventually(lambda: not zombies_under(init), within_s=LONG_S)
        init.send_signal(signal.SIGINT)
        assert running.process.wait(LONG_S) == 0


def test_a_bad_configuration_is_said_and_not_tried_again(tmp_path: Path) -> None:
    config = tmp_path / "selfheal.yaml"
    config.write_text("version: 1\nservices: {a: {comand: [x]}}\n")
    with contained(config, tmp_path / "state") as running:
        assert running.process.wait(LONG_S) == 2
        assert running.log.read_text().count("comand") == 1


def test_a_frozen_daemon_is_killed_by_its_keeper_and_started_by_the_init(tmp_path: Path) -> None:
    state = tmp_path / "state"
    config = write_config(tmp_path, {"a": SLEEPER}, watchdog={"frozen_after": "2s"})
    with contained(config, state) as running:
        until_ready(running)
        before, daemon = service_pids(state), daemon_of(running)
        daemon.suspend()
        until_ready(running)
        assert daemon_of(running).pid != daemon.pid
        assert service_pids(state) == before
        holds_for(
            lambda: len([one for one in init_of(running).children() if "supervisors.cli" in command_of(one)]) == 1, 1.0
        )


def test_the_exit_code_of_the_chosen_service_is_that_of_the_container(tmp_path: Path) -> None:
    job = {
        "command": ["sh", "-c", "exit 70"],
        "restart_policy": "never",
    }  # 70 is also the code of a daemon that gave up
    config = write_config(tmp_path, {"a": SLEEPER, "job": job})
    with contained(config, tmp_path / "state", "--exit-with", "job") as running:
        assert running.process.wait(LONG_S) == 70
    assert not of_state(tmp_path / "state")


TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


def test_ctrl_c_on_a_terminal_reaches_the_daemon_once(tmp_path: Path) -> None:
    """Twice would mean: no grace for anybody."""
    state, saved = tmp_path / "state", tmp_path / "saved"
    slow = ["sh", "-c", f"trap 'sleep 1; touch {saved}; exit 0' TERM; while :; do sleep 0.1; done"]
    config = write_config(tmp_path, {"a": {"command": slow}})
    command = [*SELFHEAL, "run", "--init", "--logs", "--config", str(config), "--state", str(state)]
    with subprocess.Popen(
        [sys.executable, "-c", TERMINAL, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while not process.stdout.readline().startswith(b"ready"):
            assert process.poll() is None
        process.stdin.write(b"\x03")
        process.stdin.flush()
        said, _ = process.communicate(timeout=LONG_S)
    assert process.returncode == 0
    assert saved.exists()
    assert said.count(b"time_asked") == 1
