"""A daemon that lives and does nothing: a hung supervisor is noticed as a frozen process is; the daemon is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.eventually import eventually, holds_for
from tests.system.running import SELFHEAL, SLEEPER, daemon, of_state, write_config
from tests.system.test_daemon_death import replaced

LONG_S = 30.0
pytestmark = pytest.mark.timeout(180)
HANGING = (sys.executable, str(Path(__file__).parent / "hanging.py"))


def daemons_of(state: Path) -> list[psutil.Process]:
    found = []
    for one in psutil.process_iter():
        try:
            line = one.cmdline()
        except psutil.Error:
            continue
        if str(state) in line and "run" in line and one.status() != psutil.STATUS_ZOMBIE:
            found.append(one)
    return found


@pytest.mark.parametrize("who", ["root", "root/runtimes"])
def test_a_daemon_with_a_hung_supervisor_is_replaced_and_the_services_live(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFHEAL_TEST_HANG", who)
    config, state = write_config(tmp_path, {"a": SLEEPER}, watchdog={"frozen_after": "5s"}), tmp_path / "state"
    with daemon(config, state, program=HANGING) as selfheal:
        before = selfheal.until_ready()
        if who == "root":
            holds_for(lambda: selfheal.process.poll() is None, 6.0, every_s=0.2)  # a well one is left alone
        selfheal.process.send_signal(signal.SIGUSR2)
        assert selfheal.process.wait(LONG_S) == -signal.SIGKILL
        selfheal.until_well()
        with replaced(selfheal):
            after = selfheal.until_ready()
            assert (after["a"]["pid"], after["a"]["restarts"]) == (before["a"]["pid"], 0)
            assert len(daemons_of(state)) == 1


def test_a_hung_supervisor_is_named_in_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFHEAL_TEST_HANG", "root/bridges")
    config, state = write_config(tmp_path, {"a": SLEEPER}, watchdog={"frozen_after": "0s"}), tmp_path / "state"
    with daemon(config, state, program=HANGING) as selfheal:
        selfheal.until_ready()
        selfheal.process.send_signal(signal.SIGUSR2)
        eventually(lambda: "root/bridges has not answered for" in selfheal.call("tree").stdout, within_s=LONG_S)
        holds_for(lambda: selfheal.process.poll() is None, 1.0)
        selfheal.process.kill()  # it could not stop in order
        selfheal.process.wait()


TERMINAL = "import pty, sys; pty.spawn(sys.argv[1:])"


def test_a_daemon_that_freezes_under_the_live_tree_is_replaced_without_one(tmp_path: Path) -> None:
    """Whoever replaces it has no terminal: the new one writes to daemon.log, and the old terminal is left alone."""
    state = tmp_path / "state"
    config = write_config(tmp_path, {"a": SLEEPER}, watchdog={"frozen_after": "3s"})
    command = [*SELFHEAL, "run", "--config", str(config), "--state", str(state)]
    environ = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", TERMINAL, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
    ) as terminal:
        assert terminal.stdin is not None
        assert terminal.stdout is not None
        drawn = b""
        while b"Ctrl-C stops everything" not in drawn:
            block = os.read(terminal.stdout.fileno(), 65536)
            assert block, drawn
            drawn += block
        (before,) = eventually(lambda: of_state(state), within_s=LONG_S)
        (old,) = [one for one in daemons_of(state) if one.pid != terminal.pid]
        old.suspend()
        rest, _ = terminal.communicate(timeout=LONG_S)  # the terminal is free again
    log = state / "daemon.log"
    eventually(lambda: "\nready " in log.read_text(), within_s=LONG_S)
    try:
        assert [one.pid for one in of_state(state)] == [before.pid]
        assert b"ready http" not in rest
    finally:
        done = subprocess.run([*SELFHEAL, "stop", "--state", str(state)], check=False, timeout=LONG_S)
    assert done.returncode == 0
    assert not of_state(state)
