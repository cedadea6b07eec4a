"""The real daemon dies, freezes, or loses its keeper: services live on, none twice, none forgotten."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, Running, free_port, of_state, web_service, write_config
from tests.system.running import daemon as any_daemon

daemon = functools.partial(any_daemon, in_order=False)
LONG_S = 30.0
pytestmark = pytest.mark.timeout(180)
STUBBORN = {"command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], "graceful_shutdown_timeout": "1s"}


def killed(running: Running) -> None:
    running.process.kill()
    running.process.wait()


def keeper_of(pid: int) -> psutil.Process:
    parent = psutil.Process(pid).parent()
    assert parent is not None
    assert parent.name() == "selfheal-keeper"
    return parent


def test_services_outlive_a_killed_daemon_and_the_next_one_takes_them_on(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as first:
        before = first.until_ready()
        killed(first)
        with daemon(config, state) as second:
            after = second.until_ready()
            assert {name: one["pid"] for name, one in after.items()} == {
                name: one["pid"] for name, one in before.items()
            }
            assert [one["restarts"] for one in after.values()] == [0, 0]
            assert len(of_state(state)) == 2


def test_a_crash_while_no_daemon_lives_is_answered_at_once_and_counted(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as first:
        pid = first.until_ready()["a"]["pid"]
        killed(first)
        os.kill(pid, signal.SIGKILL)
        (successor,) = eventually(lambda: [one.pid for one in of_state(state) if one.pid != pid], within_s=LONG_S)
        with daemon(config, state) as second:
            after = second.until_ready()["a"]
            assert (after["pid"], after["restarts"], after["incarnation"]) == (successor, 1, 2)
            assert after["last_exit"]["cause"] == "signal SIGKILL"


def test_readiness_does_not_drop_and_probes_do_not_start_over(tmp_path: Path) -> None:
    """The check needs 40 passes in a row, 2 s in all, before it says ready: an adopted run is ready at once."""
    port = free_port()
    web = web_service(port)
    web["health_check"] |= {"successes": 40, "start_period": "60s", "interval": "1h"}
    config, state = write_config(tmp_path, {"web": web}), tmp_path / "state"
    with daemon(config, state) as first:
        before = first.until_ready()["web"]
        killed(first)
        with daemon(config, state) as second:
            after = second.until_ready()["web"]
            assert (after["pid"], after["ready_since"]) == (before["pid"], before["ready_since"])
            assert after["incarnation"] == before["incarnation"]


def test_no_answer_of_the_next_daemon_shows_a_healthy_service_as_starting(tmp_path: Path) -> None:
    """Asked over and over from before it listens: the first answer is the one that counts."""
    names = [f"s{number}" for number in range(8)]
    config, state = write_config(tmp_path, dict.fromkeys(names, SLEEPER)), tmp_path / "state"
    with daemon(config, state) as first:
        first.until_ready()
        killed(first)
        (state / "operator.address").unlink()
        with daemon(config, state, wait=False):
            address = eventually(lambda: _read(state / "operator.address"), within_s=LONG_S)
            answer = eventually(lambda: _services_at(address), within_s=LONG_S)
            assert {one["name"]: one["state"] for one in answer} == dict.fromkeys(names, "ready")


def _read(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None


def _services_at(address: str) -> list[dict[str, str]] | None:
    try:
        services: list[dict[str, str]] = httpx.get(f"{address}/v1/services", timeout=LONG_S).json()["services"]
    except httpx.ConnectError:
        return None
    return services


def test_a_crash_loop_goes_on_where_it_was(tmp_path: Path) -> None:
    looping = {
        "command": [sys.executable, "-c", "raise SystemExit(3)"],
        "max_restarts": 2,
        "within": "10m",
        "backoff": {"initial": "50ms", "max": "1h", "jitter": False},
    }
    config, state = write_config(tmp_path, {"bad": looping, "good": SLEEPER}), tmp_path / "state"

    def is_parked(running: Running) -> dict[str, object] | None:
        bad = running.services()["bad"]
        return bad if bad["state"] == "crash_loop" else None

    with daemon(config, state) as first:
        before = eventually(lambda: is_parked(first), within_s=LONG_S)
        killed(first)
        with daemon(config, state) as second:
            second.until_ready("good")
            after = second.services()["bad"]
            assert after["state"] == "crash_loop"
            assert (after["restarts"], after["restarts_in_window"]) == (
                before["restarts"],
                before["restarts_in_window"],
            )
            moved = datetime.fromisoformat(after["next_try_at"]) - datetime.fromisoformat(str(before["next_try_at"]))
            assert abs(moved.total_seconds()) < 1.0
            assert after["last_exit"]["code"] == 3


def test_how_a_service_ended_while_no_daemon_lived_is_known(tmp_path: Path) -> None:
    ends = {"command": ["sh", "-c", f"while [ ! -e {tmp_path}/end ]; do sleep 0.1; done; exit 7"]}
    config, state = write_config(tmp_path, {"a": ends | {"restart_policy": "never"}}), tmp_path / "state"
    with daemon(config, state) as first:
        first.until_ready()
        killed(first)
        (tmp_path / "end").touch()
        eventually(lambda: not of_state(state), within_s=LONG_S)
        with daemon(config, state) as second:
            seen = eventually(lambda: second.services()["a"].get("last_exit"), within_s=LONG_S)
            assert (seen["cause"], seen["code"]) == ("exit 7", 7)
            holds_for(lambda: not of_state(state), 0.5)


def test_a_killed_keeper_costs_no_service(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as selfheal:
        before = selfheal.until_ready()
        old = keeper_of(before["a"]["pid"])
        old.kill()

        def is_back() -> bool:
            (runtimes,) = [one for one in selfheal.get("/v1/tree")["root"]["children"] if one["name"] == "runtimes"]
            (keeper,) = [one for one in runtimes["children"] if one["name"] == "keeper"]
            return bool(keeper["state"] == "ready" and keeper.get("endpoint") not in (None, f"pid {old.pid}"))

        eventually(is_back, within_s=LONG_S)
        assert selfheal.pids() == {name: one["pid"] for name, one in before.items()}
        os.kill(before["a"]["pid"], signal.SIGKILL)
        eventually(lambda: selfheal.services()["a"]["incarnation"] == 2, within_s=LONG_S)
        after = selfheal.until_ready()
        assert after["a"]["last_exit"]["cause"] == "signal SIGKILL", "its new parent knows"
        assert after["b"]["pid"] == before["b"]["pid"]
        assert keeper_of(after["a"]["pid"]).pid != old.pid
        assert len(of_state(state)) == 2


def test_after_both_were_killed_there_is_one_of_each(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as first:
        before = first.until_ready()
        keeper = keeper_of(before["a"]["pid"])
        killed(first)
        keeper.kill()
        with daemon(config, state) as second:
            after = second.until_ready()
            assert {one["pid"] for one in after.values()} == {one["pid"] for one in before.values()}
            os.kill(before["a"]["pid"], signal.SIGKILL)
            eventually(lambda: second.services()["a"]["incarnation"] == 2, within_s=LONG_S)
            assert second.until_ready()["a"]["last_exit"]["cause"] == "unknown"
            assert len(of_state(state)) == 2


@contextmanager
def replaced(running: Running) -> Iterator[None]:
    """A daemon that the keeper started ends with the block."""
    try:
        yield
    finally:
        assert running.call("stop").returncode == 0


def test_a_frozen_daemon_is_replaced_and_the_services_live(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER}, watchdog={"frozen_after": "2s"})
    state = tmp_path / "state"
    with daemon(config, state) as selfheal:
        before = selfheal.until_ready()
        selfheal.process.send_signal(signal.SIGSTOP)
        assert selfheal.process.wait(LONG_S) == -signal.SIGKILL
        selfheal.until_well()
        with replaced(selfheal):
            after = selfheal.until_ready()
            assert after["a"]["pid"] == before["a"]["pid"]
            assert (state / "daemon.log").exists()


def test_a_frozen_daemon_keeps_no_service_from_being_restarted(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as selfheal:
        pid = selfheal.until_ready()["a"]["pid"]
        selfheal.process.send_signal(signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        (successor,) = eventually(lambda: [one.pid for one in of_state(state) if one.pid != pid], within_s=LONG_S)
        holds_for(lambda: psutil.pid_exists(successor), 6.0)
        selfheal.process.send_signal(signal.SIGCONT)
        after = eventually(lambda: selfheal.services()["a"] if selfheal.pid("a") == successor else None)
        assert (after["restarts"], after["incarnation"]) == (1, 2)


def test_what_a_person_stopped_is_stopped_by_the_next_daemon(tmp_path: Path) -> None:
    services = {"a": STUBBORN | {"graceful_shutdown_timeout": "20s"}, "b": SLEEPER}
    state = tmp_path / "state"
    with daemon(write_config(tmp_path, services), state) as first:
        before = first.until_ready()
        assert first.call("services", "stop", "a", "--no-wait").returncode == 0
        killed(first)
        assert psutil.pid_exists(before["a"]["pid"])
        services["a"] = STUBBORN
        with daemon(write_config(tmp_path, services), state) as second:
            eventually(lambda: not psutil.pid_exists(before["a"]["pid"]), within_s=LONG_S)
            assert second.services()["a"]["state"] == "stopped"
            assert second.services()["b"]["pid"] == before["b"]["pid"]


@pytest.mark.parametrize("how", ["killed", "kept"])
def test_what_is_no_longer_configured_is_stopped_by_the_next_daemon(tmp_path: Path, how: str) -> None:
    state = tmp_path / "state"
    with daemon(write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER}), state) as first:
        before = first.until_ready()
        if how == "killed":
            killed(first)
        else:
            assert first.call("stop", "--keep-services").returncode == 0
            first.process.wait(LONG_S)
        assert psutil.pid_exists(before["a"]["pid"])
        with daemon(write_config(tmp_path, {"b": SLEEPER}), state) as second:
            eventually(lambda: not psutil.pid_exists(before["a"]["pid"]), within_s=LONG_S)
            assert second.until_ready()["b"]["pid"] == before["b"]["pid"]
            eventually(lambda: '"a"' not in _last_words(state), within_s=LONG_S, what="the ledger to forget it")


def _last_words(state: Path) -> str:
    """The ledger's last line about ``a``: an empty record once it is forgotten."""
    lines = [line for line in (state / "ledger.jsonl").read_text().splitlines() if '"service":"a"' in line]
    return "" if '"phase":"never"' in lines[-1] else lines[-1]


def restarting(folder: Path, services: dict[str, object]) -> Path:
    return write_config(folder, services, watchdog={"restart_when_dead": True})


def test_a_killed_daemon_is_back_when_that_is_wished_and_not_after_an_orderly_stop(tmp_path: Path) -> None:
    config, state = restarting(tmp_path, {"a": SLEEPER, "b": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as selfheal:
        before = selfheal.until_ready()
        keeper = keeper_of(before["a"]["pid"])
        killed(selfheal)
        selfheal.until_well()
        after = selfheal.until_ready()
        assert {name: one["pid"] for name, one in after.items()} == {name: one["pid"] for name, one in before.items()}
        assert [one["restarts"] for one in after.values()] == [0, 0]
        assert len(of_state(state)) == 2
        assert selfheal.call("stop").returncode == 0
        eventually(lambda: not keeper.is_running(), within_s=LONG_S, what="the keeper to end, too")
        assert selfheal.call("tree").returncode == 4
        assert not of_state(state)


def test_without_that_wish_a_killed_daemon_stays_away(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as selfheal:
        selfheal.until_ready()
        killed(selfheal)
        holds_for(lambda: not (state / "daemon.log").exists(), 2.5)
        assert len(of_state(state)) == 1


def test_a_daemon_that_cannot_start_again_is_tried_until_its_file_is_mended(tmp_path: Path) -> None:
    config, state = restarting(tmp_path, {"a": SLEEPER}), tmp_path / "state"
    good = config.read_text()
    with daemon(config, state) as selfheal:
        before = selfheal.until_ready()
        config.write_text(good.replace("command", "comand"))
        killed(selfheal)
        log = state / "daemon.log"
        eventually(lambda: log.exists() and log.read_text().count("comand") >= 2, within_s=LONG_S, every_s=0.1)
        assert len(of_state(state)) == 1
        config.write_text(good)
        selfheal.until_well()
        with replaced(selfheal):
            assert selfheal.until_ready()["a"]["pid"] == before["a"]["pid"]
