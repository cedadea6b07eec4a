"""Bridges and the real daemon: errors through its deaths, endpoints that outlive it, commands that take effect once."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from bridge_link import BridgeClient
from guardian_link import Alert, GuardianClient
from tests.bridge.desk import endpoint, once_done
from tests.bridge.test_runbook_commands import RUNBOOK
from tests.support.eventually import eventually, holds_for
from tests.system.running import Running, daemon, free_port, write_config

ROOT = Path(__file__).resolve().parents[2]
SIMULATOR = (sys.executable, str(ROOT / "examples" / "bridge_simulator.py"))
SILENCE = {"silence": "4s"}


@contextmanager
def simulator(place: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*SIMULATOR, *words, "--state", str(place / "state")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def kill(one: Running) -> None:
    one.process.kill()
    one.process.wait()


def alerts_on_disk(place: Path) -> int:
    database = sqlite3.connect(f"file:{place / 'state' / 'journal.db'}?mode=ro", uri=True, timeout=10)
    try:
        (count,) = database.execute("SELECT count(*) FROM alerts").fetchone()
    finally:
        database.close()
    return int(count)


def test_every_error_is_accepted_on_disk_and_decided_though_the_daemon_is_killed(tmp_path: Path) -> None:
    """The plan's third test."""
    config = write_config(tmp_path, {})
    words = (
        "--simulate-errors",
        "--accept-only",
        "--count",
        "1500",
        "--threads",
        "8",
        "--folder",
        str(tmp_path / "box"),
    )
    with ExitStack() as stack:
        goals = (60, 300)
        handing: subprocess.Popen[str] | None = None
        for goal in goals:
            with daemon(config, tmp_path / "state") as dying:
                handing = handing or stack.enter_context(simulator(tmp_path, *words))
                eventually(lambda goal=goal: alerts_on_disk(tmp_path) >= goal, within_s=40)  # type: ignore[misc]
                kill(dying)
        assert handing is not None
        assert handing.poll() is None, "it was killed too late to mean anything"
        with daemon(config, tmp_path / "state"):
            out, err = handing.communicate(timeout=50)
    assert handing.returncode == 0, (out, err)
    assert "1500 accepted, 0 lost" in out
    assert alerts_on_disk(tmp_path) == 1500, "nothing was stored twice"


def bridges(place: Path, port: int) -> dict[str, Any]:
    return {
        "worker": {"kind": "zeromq"} | SILENCE,
        "powershell": {"kind": "powershell"} | SILENCE,
        "mql4": {"kind": "tcp", "address": f"127.0.0.1:{port}"} | SILENCE,
        "pipe": {"kind": "fifo", "directory": str(place / "pipes")} | SILENCE,
        "config_sync": {"kind": "spool", "directory": str(place / "spool")} | SILENCE,
        "executor": {"kind": "powershell", "executor": [sys.executable, "-c", "pass"], "silence": "9s"},
    }


def nodes(one: Running) -> dict[str, Any]:
    tree = one.get("/v1/tree")["root"]
    (upper,) = [child for child in tree["children"] if child["name"] == "bridges"]
    return {child["name"]: child for child in upper["children"]}


def all_ready(one: Running) -> dict[str, Any]:
    found = nodes(one)
    states = {name: node["state"] for name, node in found.items()}
    assert set(states.values()) == {"ready"}, states
    return found


def test_endpoints_outlive_the_daemon_unharmed_and_a_command_under_way_takes_effect_once(tmp_path: Path) -> None:
    """A daemon's successor waits for its endpoints; before, the slow ones were restarted for nothing."""
    (tmp_path / "runbooks").mkdir()
    ready = {"call": {"type": "bridge_ready", "with": {"endpoint": "worker"}}, "within": "20s", "every": "200ms"}
    runbook = json.loads(json.dumps(RUNBOOK).replace("mql4", "worker")) | {"success_criteria": [ready]}
    (tmp_path / "runbooks" / "worker.json").write_text(json.dumps(runbook))
    port = free_port()
    config = write_config(
        tmp_path, {}, bridges=bridges(tmp_path, port), runbooks={"directories": [str(tmp_path / "runbooks")]}
    )
    peers = (
        ("--endpoint", "powershell", "--kind", "powershell", "--folder", str(tmp_path / "box"), "--simulate-errors"),
        ("--endpoint", "mql4", "--kind", "tcp", "--at", f"127.0.0.1:{port}", "--simulate-errors"),
        ("--endpoint", "pipe", "--kind", "fifo", "--at", str(tmp_path / "pipes")),
        ("--endpoint", "config_sync", "--kind", "spool", "--at", str(tmp_path / "spool")),
    )
    with ExitStack() as stack:
        for words in peers:
            stack.enter_context(simulator(tmp_path, *words))
        with daemon(config, tmp_path / "state") as first:
            worker = stack.enter_context(endpoint(str(tmp_path / "state"), tmp_path / "worker", name="worker"))
            found = eventually(lambda: all_ready(first), within_s=30)
            assert found["worker"]["facts"]["pid"] == worker.process.pid
            eventually(
                lambda: (
                    {one["type"] for one in first.get("/v1/alerts")["alerts"]}
                    >= {"bridge_mql4_failure", "bridge_powershell_failure"}
                )
            )
            with BridgeClient(state_dir=tmp_path / "state", name="mql4") as usurper:
                eventually(lambda: "a TCP peer speaks for it" in str(usurper.trouble))
            with GuardianClient(state_dir=tmp_path / "state") as guardian:
                sent = guardian.send(Alert(type="bridge_worker_failure", labels={"takes_s": 1000, "n": 7}))
            once_done(worker, "7")
            kill(first)
        with daemon(config, tmp_path / "state") as second:
            eventually(lambda: all_ready(second), within_s=30)
            holds_for(lambda: all_ready(second), 4.5, every_s=0.2)
            assert {name: node["restarts"] for name, node in nodes(second).items()} == dict.fromkeys(
                bridges(tmp_path, port), 0
            )
            worker.let_go()

            def ended() -> dict[str, Any] | None:
                (one,) = [one for one in second.get("/v1/executions")["executions"] if one["runbook"] == "worker_work"]
                return one if one["status"] not in ("running", "queued") else None

            execution = eventually(ended, within_s=40)
            assert (execution["id"], execution["status"]) == (sent.execution_id, "succeeded"), execution
            assert worker.done() == ["7"]


def simulated(place: Path) -> subprocess.CompletedProcess[str]:
    with simulator(place, "--simulate-errors", "--recovery-s", "60") as process:
        out, err = process.communicate(timeout=90)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_every_error_of_the_simulator_is_recovered(tmp_path: Path) -> None:
    """The plan's own command, with the endpoints of its file; and it says so when nothing is recovered."""
    shipped = yaml.safe_load((ROOT / "examples" / "bridge.yaml").read_text(encoding="utf-8"))["bridges"]
    shipped["mql4"]["address"] = f"127.0.0.1:{free_port()}"
    with daemon(write_config(tmp_path, {}, bridges=shipped), tmp_path / "state") as selfheal:
        assert selfheal.call("recovery", "off").returncode == 0
        left = simulated(tmp_path)
        assert (left.returncode, "0 recovered, 6 not recovered" in left.stdout) == (1, True), left
        assert left.stdout.count("recovery_off") >= 6
        assert selfheal.call("recovery", "on").returncode == 0
        done = simulated(tmp_path)
        assert (done.returncode, "6 recovered, 0 not recovered" in done.stdout) == (0, True), done
        rows = [words for line in done.stdout.splitlines() if len(words := line.split()) == 6 and words[2] == "yes"]
        assert {words[0] for words in rows} == {"mql4", "powershell", "python", "config_sync"}
        assert [(words[4], words[5]) for words in rows] == [
            (f"bridge_{words[0]}_failure", "succeeded") for words in rows
        ]
        told = selfheal.get("/v1/executions")["executions"]
        done_steps = {
            (one["runbook"], step["id"]) for one in told for step in one["steps"] if step["status"] == "succeeded"
        }
        cures = {("mql4", "reset"), ("mql4", "reconnect"), ("powershell", "reset"), ("python", "reload")}
        for system, step in cures | {("python", "reset"), ("config_sync", "resync")}:
            assert (f"bridge_{system}_failure", step) in done_steps
