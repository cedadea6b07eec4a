"""The real daemon begins no run within a second of the switch, whichever way it is switched, whatever is wrong."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from guardian_link import Alert, GuardianClient
from supervisors.tree_json import unix_seconds
from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, Running, daemon, write_config

pytestmark = pytest.mark.timeout(180)
LIMIT_S = 1.0
WELL = {"call": {"type": "command_ok", "with": {"argv": ["true"]}}}
QUICK: dict[str, Any] = {
    "schema_version": 2,
    "id": "quick",
    "version": "1.0.0",
    "name": "Quick",
    "description": "For tests",
    "match": {"field": "/type", "op": "eq", "value": "quick"},
    "parameters": {"service": {"type": "service", "from": "/service", "required": True}},
    "target": "thing:{service}",
    "actions": [
        {"id": "say", "name": "Say", "action_type": "command", "effect": "idempotent", "command": ["true"]},
    ],
    "success_criteria": [WELL],
}


def slow(marks: Path) -> dict[str, Any]:
    """Two steps that write marks, each undone by a mark of its own; the second takes until it is ended."""

    def step(name: str, code: str) -> dict[str, Any]:
        script = f"import pathlib, time; pathlib.Path({str(marks)!r}, {name!r}).touch(); {code}"
        undo = f"import pathlib; pathlib.Path({str(marks)!r}, 'undone-{name}').touch()"
        done = ["test", "-e", str(marks / name)]
        return {
            "id": name,
            "name": name,
            "action_type": "command",
            "effect": "mutating",
            "timeout": "60s",
            "command": [sys.executable, "-c", script],
            "probe": {"call": {"type": "command_ok", "with": {"argv": done}}},
            "rollback": {
                "call": {"type": "command", "with": {"argv": [sys.executable, "-c", undo]}},
                "verify": {
                    "call": {"type": "command_ok", "with": {"argv": ["test", "-e", str(marks / f"undone-{name}")]}}
                },
            },
        }

    waits = f"[time.sleep(.05) for _ in iter(lambda: pathlib.Path({str(marks)!r}, 'go').exists(), True)]"
    actions = [step("one", "0"), step("two", waits), step("three", "0")]
    return {**QUICK, "id": "slow", "match": {"field": "/type", "op": "eq", "value": "slow"}, "actions": actions}


@contextmanager
def recovering(folder: Path, **recovery: Any) -> Iterator[Running]:
    library, marks = folder / "runbooks", folder / "marks"
    library.mkdir()
    marks.mkdir()
    for one in (QUICK, slow(marks)):
        (library / f"{one['id']}.json").write_text(json.dumps(one))
    wanted = {"enabled": True, "max_concurrent": 20, **recovery}
    config = write_config(folder, {"a": SLEEPER}, recovery=wanted, runbooks={"directories": [str(library)]})
    with daemon(config, folder / "state") as running:
        yield running


@contextmanager
def alerts_without_end(running: Running) -> Iterator[None]:
    """One every 20 ms, each about something else."""
    ended = threading.Event()
    address = (running.state / "guardian.address").read_text().strip()

    def send() -> None:
        with GuardianClient(address) as guardian:
            number = 0
            while not ended.wait(0.02):
                number += 1
                guardian.post(Alert(type="quick", service=f"thing-{number}"))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)


def begun(running: Running) -> list[float]:
    found = running.get("/v1/executions?limit=2000")["executions"]
    return [unix_seconds(one["started_at"]) for one in found if one.get("started_at")]


def post(running: Running, enabled: bool) -> dict[str, Any]:
    transport = httpx.HTTPTransport(uds=str(running.state / "operator.sock"))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as client:
        answer = client.post("/v1/recovery", json={"enabled": enabled, "by": "test"})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body


def check(running: Running, off: Callable[[], Any], what: str) -> None:
    with alerts_without_end(running):
        eventually(lambda: len(begun(running)) > 10, within_s=60, what="runs begin")
        at = time.time()
        off()
        eventually(lambda: not running.get("/v1/recovery")["enabled"], within_s=30)
        holds_for(lambda: True, 2.0, every_s=0.1)
    late = max(begun(running)) - at
    count = len(begun(running))
    holds_for(lambda: len(begun(running)) == count, 1.0, every_s=0.2)
    print(f"{what}: the last of {count} runs began {late * 1000:+.0f} ms from the switch, then none")
    assert late < LIMIT_S


def test_switched_off_by_a_person(tmp_path: Path) -> None:
    with recovering(tmp_path) as running:
        check(running, lambda: post(running, False), "HTTP")
        assert running.call("recovery", "status").stdout.startswith("recovery off")
        post(running, True)
        assert running.call("recovery", "status").stdout.startswith("recovery on")


@pytest.mark.parametrize("way", ["SIGHUP", "apply"])
def test_switched_off_by_the_file(tmp_path: Path, way: str) -> None:
    with recovering(tmp_path) as running:
        file = tmp_path / "selfheal.yaml"

        def off() -> None:
            file.write_text(file.read_text().replace("enabled: true", "enabled: false"))
            if way == "SIGHUP":
                running.process.send_signal(signal.SIGHUP)
            else:
                done = running.call("apply")
                assert "recovery.enabled: True -> False, at once" in done.stdout, done
                assert "restart of the daemon" not in done.stdout

        check(running, off, way)


def test_switched_off_with_the_journal_garbage_it_counts_and_says_so(tmp_path: Path) -> None:
    """Nothing can be asked about runs then: nothing may begin, and people are told what is not remembered."""
    with recovering(tmp_path) as running:
        began_s = time.monotonic()
        for file in (tmp_path / "state").glob("journal.db*"):
            with file.open("r+b") as raw:
                raw.write(os.urandom(file.stat().st_size))
        body = post(running, False)
        assert body["enabled"] is False
        remembered = json.loads((tmp_path / "state" / "recovery.switch").read_text())
        assert remembered["enabled"] is False
        print(f"journal garbage: off, and on the disk, {(time.monotonic() - began_s) * 1000:.0f} ms after")
        running.process.kill()
        running.process.wait()
        with daemon(tmp_path / "selfheal.yaml", tmp_path / "state") as again:
            assert again.get("/v1/recovery")["enabled"] is False


@pytest.mark.parametrize(("policy", "status"), [("finish", "cancelled"), ("rollback", "rolled_back")])
def test_steps_in_flight_finish_or_roll_back_as_configured(tmp_path: Path, policy: str, status: str) -> None:
    marks = tmp_path / "marks"
    with recovering(tmp_path, on_switch_off=policy) as running:
        address = (running.state / "guardian.address").read_text().strip()
        with GuardianClient(address) as guardian:
            ack = guardian.send(Alert(type="slow", service="thing"), timeout_s=30)
            assert ack.decision is not None
            execution_id = str(ack.decision.execution_id)
        eventually((marks / "two").exists, within_s=60)
        post(running, False)
        if policy == "finish":
            (marks / "go").touch()

        def ended() -> str | None:
            (one,) = running.get(f"/v1/executions/{execution_id}")["executions"]
            return str(one["status"]) if one.get("ended_at") else None

        assert eventually(ended, within_s=60) == status
        assert not (marks / "three").exists()
        undone = sorted(one.name for one in marks.glob("undone-*"))
        assert undone == ([] if policy == "finish" else ["undone-one", "undone-two"])
