"""A pause by hand: frozen whole, left alone, remembered, and shown with who, when and why."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.runtimes.recognising import environ_of
from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, Running, daemon, free_port, of_state, web_service, write_config

pytestmark = pytest.mark.timeout(240)
LONG_S = 30.0
FAMILY = {
    "command": [
        sys.executable,
        "-c",
        "import subprocess; p = subprocess.Popen(['sleep', '1000'], start_new_session=True); p.wait()",
    ]
}


def states(state: Path, name: str = "a") -> dict[int, str]:
    found: dict[int, str] = {}
    for one in of_state(state):
        if environ_of(one.pid).get("SELFHEAL_SERVICE") == name:
            found[one.pid] = one.status()
    return found


def is_frozen(state: Path, how_many: int = 1) -> bool:
    seen = states(state)
    assert len(seen) == how_many, seen
    assert set(seen.values()) == {psutil.STATUS_STOPPED}, seen
    return True


def in_state(running: Running, wanted: str, name: str = "a") -> dict[str, Any]:
    def look() -> dict[str, Any]:
        node = running.services()[name]
        assert node["state"] == wanted, node
        return node

    return eventually(look, within_s=LONG_S)


def killed(running: Running) -> None:
    running.process.kill()
    running.process.wait()


def test_a_paused_service_is_frozen_whole_and_no_probe_counts(tmp_path: Path) -> None:
    port = free_port()
    config = write_config(tmp_path, {"a": web_service(port), "b": FAMILY})
    state = tmp_path / "state"
    with daemon(config, state) as selfheal:
        before = selfheal.until_ready()
        eventually(lambda: len(states(state, "b")) == 2, within_s=LONG_S)
        said = selfheal.call("services", "pause", "a", "b", "--why", "the exchange is closed", "--by", "alice")
        assert said.returncode == 0, said.stderr
        assert "paused by alice" in said.stdout
        assert set(states(state, "b").values()) == {psutil.STATUS_STOPPED}, "its descendants too"
        holds_for(lambda: is_frozen(state), 3.0)  # longer than the retries of its health check take
        after = selfheal.services()
        assert (after["a"]["pid"], after["a"]["restarts"]) == (before["a"]["pid"], 0)
        assert {**after["a"]["desired"], "at": ""} == {
            "state": "paused",
            "by": "alice",
            "at": "",
            "why": "the exchange is closed",
        }
        tree = selfheal.call("tree")
        assert tree.returncode == 0, "paused by hand is not bad"
        assert "ago: the exchange is closed" in tree.stdout
        assert selfheal.call("services", "resume", "a", "b").returncode == 0
        ready = selfheal.until_ready()
        assert {name: one["pid"] for name, one in ready.items()} == {name: one["pid"] for name, one in before.items()}
        assert "desired" not in ready["a"]


def test_who_asked_first_stays_unless_the_next_says_why(tmp_path: Path) -> None:
    """A second stop, pause or scale changes nothing: neither does it make the first one's reason forgotten."""
    sleeper = {"command": ["sleep", "1000"]}
    config = write_config(tmp_path, {"web": sleeper, "a": sleeper, "b": sleeper, "w": sleeper})
    with daemon(config, tmp_path / "state") as selfheal:
        selfheal.until_ready()
        for name, verb, state in (("web", "stop", "stopped"), ("b", "pause", "paused")):
            first = selfheal.call("services", verb, name, "--why", "holiday", "--by", "alice")
            assert "already" not in first.stdout
            told = selfheal.services()[name]["desired"]
            again = selfheal.call("services", verb, name, "--by", "carol")
            assert again.returncode == 0, again.stderr
            assert f"note: {name}: already {state} by alice (holiday)\n" in again.stdout
            assert selfheal.services()[name]["desired"] == told
            newer = selfheal.call("services", verb, name, "--why", "works", "--by", "bob")
            assert f"already {state} by alice (holiday)" in newer.stdout
            now = selfheal.services()[name]["desired"]
            assert (now["by"], now["why"], now["at"] > told["at"]) == ("bob", "works", True)
            assert "works" in selfheal.call("why", name).stdout
        selfheal.call("services", "stop", "a", "--by", "runbook")
        assert selfheal.call("services", "stop", "a", "--by", "carol").returncode == 0
        assert selfheal.services()["a"]["desired"]["by"] == "carol", "a person's word is more than a runbook's"
        assert selfheal.call("services", "scale", "w", "2", "--why", "holiday").returncode == 0
        told = selfheal.services()["w"]["scaled"]
        again = selfheal.call("services", "scale", "w", "2")
        assert f"note: w: already scaled to 2 by {told['by']} (holiday)\n" in again.stdout
        assert selfheal.services()["w"]["scaled"] == told
        selfheal.call("services", "scale", "w", "2", "--why", "works")
        assert selfheal.services()["w"]["scaled"]["why"] == "works"


def test_a_pause_outlives_the_daemon_and_a_death_while_paused_is_left_alone(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as first:
        pid = first.until_ready()["a"]["pid"]
        assert first.call("services", "pause", "a").returncode == 0
        killed(first)
        assert is_frozen(state)
        with daemon(config, state) as second:
            assert in_state(second, "paused")["pid"] == pid
            assert is_frozen(state)
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: not states(state), within_s=LONG_S)
            dead = eventually(lambda: _without_pid(second), within_s=LONG_S)
            assert (dead["state"], dead["last_exit"]["cause"]) == ("paused", "signal SIGKILL")
            holds_for(lambda: not states(state), 2.0)
            killed(second)
            with daemon(config, state) as third:
                assert in_state(third, "paused").get("pid") is None
                holds_for(lambda: not states(state), 1.0)
                assert third.call("services", "resume", "a").returncode == 0
                assert third.until_ready()["a"]["pid"] in states(state)


def _without_pid(running: Running) -> dict[str, Any] | None:
    node = running.services()["a"]
    return node if "pid" not in node else None


def test_after_a_reboot_what_was_stopped_or_paused_is_not_started(tmp_path: Path) -> None:
    """A ledger whose identities are of another boot: the pids in it are strangers'."""
    config, state = write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER, "c": SLEEPER}), tmp_path / "state"
    state.mkdir()
    for name in "abc":
        record = {
            "service": name,
            "run": 3,
            "phase": "launched",
            "runtime": "process",
            "token": name * 32,
            "identity": {"pid": os.getpid(), "start_ticks": 1, "boot_id": "of-the-boot-before"},
            "started_at": 1.0,
        }
        entry = {"is": "record", "service": name, "record": record, "format": 1}
        with (state / "ledger.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
            wish = {"by": "alice", "at": 1_700_000_000.0, "why": "holiday"}
            wishes: dict[str, dict[str, Any]] = {
                "a": {"stopped": wish},
                "b": {"stopped": None, "paused": wish},
                "c": {"stopped": None},
            }
            file.write(json.dumps({"is": "desired", "service": name, **wishes[name]}) + "\n")
    with daemon(config, state) as selfheal:
        assert selfheal.until_ready("c")["c"]["incarnation"] == 4
        for name, word in (("a", "stopped"), ("b", "paused")):
            assert in_state(selfheal, word, name)["desired"]["why"] == "holiday"
        holds_for(lambda: not states(state, "a") and not states(state, "b"), 1.0)
        shown = selfheal.call("tree").stdout
        assert "stopped by alice" in shown
        assert "paused by alice" in shown
        assert selfheal.call("services", "resume", "a").returncode == 1, "it is stopped, not paused"
        assert selfheal.call("services", "resume", "b").returncode == 0
        assert selfheal.until_ready("b")["b"]["incarnation"] == 4


def test_stop_start_and_restart_of_a_paused_service(tmp_path: Path) -> None:
    ends = {
        "command": ["sh", "-c", f"trap 'touch {tmp_path}/ended; exit 0' TERM; while :; do sleep 0.1; done"],
        "graceful_shutdown_timeout": "20s",
    }
    config, state = write_config(tmp_path, {"a": ends}), tmp_path / "state"
    with daemon(config, state) as selfheal:
        pid = selfheal.until_ready()["a"]["pid"]
        assert selfheal.call("services", "pause", "a").returncode == 0
        assert selfheal.call("services", "start", "a").returncode == 0, "a start lets it go on"
        assert selfheal.until_ready()["a"]["pid"] == pid
        assert selfheal.call("services", "pause", "a").returncode == 0
        assert selfheal.call("services", "restart", "a").returncode == 0
        after = selfheal.until_ready()["a"]
        assert after["pid"] != pid
        (tmp_path / "ended").unlink()
        assert selfheal.call("services", "pause", "a").returncode == 0
        assert selfheal.call("services", "stop", "a").returncode == 0
        assert (tmp_path / "ended").exists(), "it could end in order"
        assert in_state(selfheal, "stopped")["desired"]["state"] == "stopped"
        assert selfheal.call("services", "pause", "a").returncode == 1, "there is nothing to pause"
