"""The real daemon and a socket bound as systemd binds it: readiness, state, watchdog, stop; what services see of it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.eventually import eventually, holds_for
from tests.support.systemd import LONG_S, Systemd
from tests.system.running import SLEEPER, daemon, of_state, write_config
from tests.system.test_frozen_root import HANGING, daemons_of

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    made = Systemd(f"{tmp_path}/notify")
    monkeypatch.setenv("NOTIFY_SOCKET", made.address)
    yield made
    made.socket.close()


def slow_to_stop(may_end: Path) -> dict[str, object]:
    waits = f"while [ ! -e {may_end} ]; do sleep 0.1; done"
    command = ["sh", "-c", f"trap '{waits}; exit 0' TERM; while :; do sleep 0.1; done"]
    return {"command": command, "graceful_shutdown_timeout": "60s"}


def test_systemd_hears_how_things_are(systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    may_end = tmp_path / "may-end"
    services = {"slow": slow_to_stop(may_end), "fragile": SLEEPER | {"max_restarts": 0}}
    with daemon(write_config(tmp_path, services), tmp_path / "state") as selfheal:
        systemd.until("READY=1")
        (ready,) = [message for message in systemd.heard if "READY=1" in message]
        assert f"MAINPID={selfheal.process.pid}" in ready
        systemd.until("STATUS=2 of 2 ready")
        beats = systemd.lines().count("WATCHDOG=1")
        eventually(lambda: systemd.lines().count("WATCHDOG=1") > beats + 2, within_s=LONG_S)
        for name in ("slow", "fragile"):
            theirs = psutil.Process(selfheal.pid(name)).environ()
            assert not [word for word in theirs if word.startswith(("NOTIFY_", "WATCHDOG_"))]
        os.kill(selfheal.pid("fragile"), signal.SIGKILL)
        systemd.until("STATUS=1 of 2 ready; crash_loop: fragile")
        selfheal.process.terminate()
        systemd.until("STOPPING=1")

        def extensions() -> list[str]:
            return [line for line in systemd.lines() if re.fullmatch(r"EXTEND_TIMEOUT_USEC=[1-9]\d+", line)]

        eventually(lambda: len(extensions()) >= 2, within_s=LONG_S, what="more time asked for, again")
        may_end.touch()
        assert selfheal.process.wait(LONG_S) == 0


def test_a_hung_root_stops_the_watchdog_and_the_keeper_leaves_the_new_start_to_systemd(
    systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    monkeypatch.setenv("SELFHEAL_TEST_HANG", "root")
    config, state = write_config(tmp_path, {"a": SLEEPER}, watchdog={"frozen_after": "4s"}), tmp_path / "state"
    with daemon(config, state, program=HANGING) as selfheal:
        systemd.until("WATCHDOG=1")
        (before,) = of_state(state)
        selfheal.process.send_signal(signal.SIGUSR2)

        def is_silent() -> bool:
            """A whole second of a living daemon, in which there would be five."""
            count = len(systemd.listen())
            holds_for(lambda: selfheal.process.poll() is None, 1.0)
            return len(systemd.listen()) == count

        eventually(is_silent, within_s=LONG_S)
        assert selfheal.process.wait(LONG_S) == -signal.SIGKILL
        holds_for(lambda: not daemons_of(state), 3.0, every_s=0.2)
        assert [one.pid for one in of_state(state)] == [before.pid]


def test_a_reload_is_told_from_its_begin_to_its_end(systemd: Systemd, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with daemon(write_config(tmp_path, {"a": SLEEPER}), state) as selfheal:
        systemd.until("READY=1")
        pid, before = selfheal.pid("a"), len(systemd.lines())
        write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER})
        selfheal.process.send_signal(signal.SIGHUP)
        eventually(lambda: "READY=1" in systemd.lines()[before:], within_s=LONG_S)
        words = [line for line in systemd.lines()[before:] if line in ("RELOADING=1", "READY=1")]
        assert words == ["RELOADING=1", "READY=1"]
        assert selfheal.until_ready()["a"]["pid"] == pid
        assert selfheal.services()["b"]["state"] == "ready"
