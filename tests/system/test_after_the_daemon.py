"""What happened while no daemon lived means what it would have meant under one: for groups, for work that is done."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, daemon, of_state, write_config
from tests.system.test_daemon_death import keeper_of, killed

LONG_S = 30.0
pytestmark = pytest.mark.timeout(180)


def grouped(folder: Path, strategy: str) -> Path:
    services = dict.fromkeys(("a", "b", "c", "apart"), SLEEPER)
    return write_config(folder, services, groups={"g": {"strategy": strategy, "services": ["a", "b", "c"]}})


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [("one_for_one", {"b"}), ("rest_for_one", {"b", "c"}), ("one_for_all", {"a", "b", "c"})],
)
@pytest.mark.parametrize("with_keeper", [False, True], ids=["daemon", "daemon and keeper"])
def test_a_death_that_no_daemon_saw_takes_along_who_restarts_with_it(
    tmp_path: Path, strategy: str, restarted: set[str], *, with_keeper: bool
) -> None:
    config, state = grouped(tmp_path, strategy), tmp_path / "state"
    with daemon(config, state) as first:
        before = first.until_ready()
        killed(first)
        if with_keeper:
            keeper_of(before["a"]["pid"]).kill()
        os.kill(before["b"]["pid"], signal.SIGKILL)
        eventually(lambda: before["b"]["pid"] not in [one.pid for one in of_state(state)], within_s=LONG_S)
        with daemon(config, state) as second:
            after = second.until_ready(within_s=LONG_S)
            assert {name for name in after if after[name]["pid"] != before[name]["pid"]} == restarted
            assert {name: one["restarts"] for name, one in after.items()} == {
                name: int(name in restarted) for name in after
            }
            assert after["b"]["last_exit"]["cause"] == ("unknown" if with_keeper else "signal SIGKILL")
            assert len(of_state(state)) == 4


def lines_in(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("policy", ["never", "on_failure"])
def test_work_that_was_done_is_done_again_only_after_an_orderly_end(tmp_path: Path, policy: str) -> None:
    seen, state = tmp_path / "seen", tmp_path / "state"
    job = {"command": ["sh", "-c", f"echo run >> {seen}"], "restart_policy": policy}
    config = write_config(tmp_path, {"job": job, "a": SLEEPER})

    def is_done(service: dict[str, Any]) -> bool:
        return (service["state"], service["incarnation"], service["restarts"]) == ("stopped", lines_in(seen), 0)

    with daemon(config, state) as first:
        first.until_ready("a")
        eventually(lambda: lines_in(seen) == 1 and is_done(first.services()["job"]), within_s=LONG_S)
        killed(first)
        with daemon(config, state) as second:
            second.until_ready("a")
            eventually(lambda: is_done(second.services()["job"]), within_s=LONG_S)
            holds_for(lambda: lines_in(seen) == 1, 0.5)
            assert second.services()["job"]["last_exit"]["cause"] == "exit 0"
            assert second.call("services", "restart", "job").returncode == 0, "a person may"
            eventually(lambda: lines_in(seen) == 2, within_s=LONG_S)
            assert second.stop() == 0
        with daemon(config, state) as third:
            third.until_ready("a")
            eventually(lambda: lines_in(seen) == 3, within_s=LONG_S)


def test_work_that_was_done_is_not_done_again_when_the_services_are_kept_for_the_next_daemon(tmp_path: Path) -> None:
    seen, state = tmp_path / "seen", tmp_path / "state"
    job = {"command": ["sh", "-c", f"echo run >> {seen}"], "restart_policy": "never"}
    config = write_config(tmp_path, {"job": job, "a": SLEEPER})
    with daemon(config, state) as first:
        first.until_ready("a")
        eventually(lambda: lines_in(seen) == 1, within_s=LONG_S)
        assert first.call("stop", "--keep-services").returncode == 0
        first.process.wait(LONG_S)
        with daemon(config, state) as second:
            second.until_ready("a")
            holds_for(lambda: lines_in(seen) == 1, 0.5)


def test_an_escalated_end_is_not_told_again_to_the_next_supervisor(tmp_path: Path) -> None:
    """Each new supervisor begins a run; told the old end instead, it would give up at once, and the root with it."""
    seen = tmp_path / "seen"
    bad = {
        "command": ["sh", "-c", f"echo run >> {seen}; exit 3"],
        "max_restarts": 1,
        "within": "10m",
        "on_exhausted": "escalate",
        "backoff": {"initial": "20ms"},
    }
    config, state = write_config(tmp_path, {"bad": bad, "a": SLEEPER}), tmp_path / "state"
    with daemon(config, state, wait=False) as selfheal:
        eventually(lambda: lines_in(seen) >= 4, within_s=LONG_S, what="runs under more than one supervisor")
        selfheal.process.wait(LONG_S)
    assert lines_in(seen) >= 4


@pytest.mark.parametrize("words", [(), ("--no-wait",)], ids=["waiting", "not waiting"])
def test_a_stop_reaches_what_lives_and_waits_to_be_taken_on(tmp_path: Path, words: tuple[str, ...]) -> None:
    """``b`` runs since the last daemon, and waits behind ``a``, which cannot be started any more."""
    program = tmp_path / "a.sh"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    services = {
        "a": {"command": [str(program)], "max_restarts": 1, "backoff": {"initial": "1h", "max": "1h"}},
        "b": SLEEPER,
    }
    groups = {"g": {"strategy": "rest_for_one", "services": ["a", "b"]}}
    config, state = write_config(tmp_path, services, groups=groups), tmp_path / "state"
    with daemon(config, state) as first:
        before = first.until_ready()
        killed(first)
        program.unlink()
        os.kill(before["a"]["pid"], signal.SIGKILL)
        with daemon(config, state, wait=False) as second:
            eventually(lambda: second.services()["a"]["state"] not in ("ready", "starting"), within_s=LONG_S)
            assert [one.pid for one in of_state(state)] == [before["b"]["pid"]]
            assert second.call("services", "stop", "b", *words).returncode == 0
            if words:
                eventually(lambda: not of_state(state), within_s=LONG_S)
            assert not of_state(state)
            assert second.services()["b"]["state"] == "stopped"
