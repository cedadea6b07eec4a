"""The real daemon begins no step within a second of the switch, whichever way it is switched, whatever is wrong."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from guardian_link import Alert, GuardianClient
from supervisors.tree_json import unix_seconds
from tests.support.eventually import eventually, holds_for
from tests.support.tables import TABLE
from tests.system.running import SLEEPER, Running, daemon, write_config

pytestmark = pytest.mark.timeout(240)
LIMIT_S = 1.0
STEPS = 4
EVERY_S = 0.3
WELL = {"call": {"type": "service_exists", "with": {"service": "a"}}}


def quick(marks: Path) -> dict[str, Any]:
    """Steps that each leave a file: the world says when the last one was done."""

    def step(number: int) -> dict[str, Any]:
        command = ["touch", f"{marks}/{{service}}.{number}"]
        return {
            "id": f"s{number}",
            "name": "Touch",
            "action_type": "command",
            "effect": "idempotent",
            "command": command,
        }

    return {
        "schema_version": 2,
        "id": "quick",
        "version": "1.0.0",
        "name": "Quick",
        "description": "For tests",
        "match": {"field": "/type", "op": "eq", "value": "quick"},
        "parameters": {"service": {"type": "service", "from": "/service", "required": True}},
        "target": "thing:{service}",
        "actions": [step(number) for number in range(STEPS)],
        "success_criteria": [WELL],
    }


def slow(marks: Path) -> dict[str, Any]:
    """Two steps that write marks, each undone by a mark of its own; the second takes until it is ended."""

    def step(name: str, code: str) -> dict[str, Any]:
        script = f"import pathlib, threading; pathlib.Path({str(marks)!r}, {name!r}).touch(); {code}"
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
            "verify": {"call": {"type": "command_ok", "with": {"argv": done}}},
            "rollback": {
                "call": {"type": "command", "with": {"argv": [sys.executable, "-c", undo]}},
                "verify": {
                    "call": {"type": "command_ok", "with": {"argv": ["test", "-e", str(marks / f"undone-{name}")]}}
                },
            },
        }

    waits = f"[threading.Event().wait(.05) for _ in iter(lambda: pathlib.Path({str(marks)!r}, 'go').exists(), True)]"
    actions = [step("one", "0"), step("two", waits), step("three", "0")]
    match = {"field": "/type", "op": "eq", "value": "slow"}
    return {**quick(marks), "id": "slow", "match": match, "actions": actions}


@contextmanager
def recovering(folder: Path) -> Iterator[Running]:
    library = folder / "runbooks"
    for path in (library, folder / "marks", folder / "slow"):
        path.mkdir()
    for one in (quick(folder / "marks"), slow(folder / "slow")):
        (library / f"{one['id']}.json").write_text(json.dumps(one))
    wanted = {"enabled": True, "max_concurrent": 20, "on_switch_off": "finish"}
    config = write_config(folder, {"a": SLEEPER}, recovery=wanted, runbooks={"directories": [str(library)]})
    with daemon(config, folder / "state") as running:
        yield running


def guardian_of(running: Running) -> GuardianClient:
    address = (running.state / "guardian.address").read_text().strip()
    return GuardianClient(address, key_file=running.state / "keys" / "local.key")


@contextmanager
def alerts_without_end(running: Running, first: str) -> Iterator[None]:
    """One every little while, each about something else."""
    ended = threading.Event()

    def send() -> None:
        with guardian_of(running) as guardian:
            number = 0
            while not ended.wait(EVERY_S):
                number += 1
                guardian.post(Alert(type="quick", service=f"{first}-{number}"))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)


def post(running: Running, enabled: bool) -> dict[str, Any]:
    transport = httpx.HTTPTransport(uds=str(running.state / "operator.sock"))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as client:
        answer = client.post("/v1/recovery", json={"enabled": enabled, "by": "test"})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body


def is_on(running: Running) -> bool:
    return bool(running.get("/v1/recovery")["enabled"])


def steps_begun(running: Running) -> list[float]:
    """When the steps of all runs began, by the daemon's records (Unix seconds)."""
    found = running.get("/v1/executions?limit=2000")["executions"]
    return [unix_seconds(step["started_at"]) for one in found for step in one["steps"] if step.get("started_at")]


def effects(marks: Path) -> list[float]:
    """When they were done, by the file system's clock."""
    return [one.stat().st_mtime for one in marks.iterdir()]


def measured(running: Running, marks: Path, way: str, off: Callable[[], Any]) -> str:
    """Switch off while runs begin and go on, and alerts keep coming. Returns a line of the table."""
    before = len(effects(marks))
    with alerts_without_end(running, f"thing{before}"):
        eventually(lambda: len(effects(marks)) > before + 2 * STEPS, within_s=60, what="steps are done")
        at = time.time()
        off()
        answered_s = time.time() - at
        eventually(lambda: not is_on(running), within_s=30)
        holds_for(lambda: True, max(0.0, at + answered_s + LIMIT_S - time.time()), every_s=0.1)
        done = len(effects(marks))
        holds_for(lambda: len(effects(marks)) == done, 1.0, every_s=0.1)
    begun_s, effect_s = max(steps_begun(running)) - at, max(effects(marks)) - at
    unfinished = sum(one["status"] == "cancelled" for one in running.get("/v1/executions?limit=2000")["executions"])
    assert begun_s < answered_s + LIMIT_S
    assert begun_s < LIMIT_S or way.startswith("selfheal"), "a program that has to be started first"
    assert effect_s - begun_s < LIMIT_S, "a touch takes no time"
    return f"{way:24}{answered_s * 1000:12.0f}{begun_s * 1000:+12.0f}{effect_s * 1000:+12.0f}{done:10}{unfinished:12}"


def test_whichever_way_it_is_switched(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """From the command's beginning. After it alerts keep coming, and no more steps are done for a second and longer."""
    file, marks = tmp_path / "selfheal.yaml", tmp_path / "marks"

    def says(word: str) -> None:
        file.write_text(
            file.read_text().replace(f"enabled: {'false' if word == 'true' else 'true'}", f"enabled: {word}")
        )

    def by_signal() -> None:
        says("false")
        running.process.send_signal(signal.SIGHUP)

    def by_apply() -> None:
        says("false")
        done = running.call("apply")
        assert "recovery.enabled: True -> False, at once" in done.stdout, done
        assert "restart of the daemon" not in done.stdout

    def by_file_again() -> None:
        says("true")
        running.process.send_signal(signal.SIGHUP)

    def by_command() -> None:
        assert running.call("recovery", "off").returncode == 0

    lines = [
        f"{'':24}{'answered':>12}{'last begun':>12}{'last effect':>12}{'effects':>10}{'runs ended':>12} (times in ms)"
    ]
    with recovering(tmp_path) as running:
        ways: Sequence[tuple[str, Callable[[], Any], Callable[[], Any]]] = (
            ("POST /v1/recovery", lambda: post(running, False), lambda: post(running, True)),
            ("selfheal recovery off", by_command, lambda: running.call("recovery", "on")),
            ("the file and SIGHUP", by_signal, by_file_again),
            ("selfheal apply", by_apply, by_file_again),
        )
        for way, off, on in ways:
            lines.append(measured(running, marks, way, off))
            assert running.call("recovery", "status").stdout.startswith("recovery off") or way != ways[0][0]
            on()
            eventually(lambda: is_on(running), within_s=30)
        for policy, words in (("finish", "stays applied: one, two"), ("rollback", "rolled back: two, one")):
            _in_flight(running, tmp_path / "slow", file, policy, words)
    table = "\n".join(lines)
    print(table)
    record_property(TABLE, table)


def _in_flight(running: Running, marks: Path, file: Path, policy: str, words: str) -> None:
    """What becomes of a run in the middle of its second step is configured, and read again at once."""
    for one in marks.iterdir():
        one.unlink()
    text = file.read_text()
    file.write_text(text.replace("on_switch_off: finish", f"on_switch_off: {policy}"))
    assert running.call("apply").returncode == 0
    with guardian_of(running) as guardian:
        decision = guardian.send(Alert(type="slow", service=policy), timeout_s=30).decision
        assert decision is not None
        execution_id = str(decision.execution_id)
    eventually((marks / "two").exists, within_s=60)
    post(running, False)
    if policy == "finish":
        (marks / "go").touch()

    def ended() -> dict[str, Any] | None:
        (one,) = running.get(f"/v1/executions/{execution_id}")["executions"]
        return dict(one) if one.get("ended_at") else None

    end = eventually(ended, within_s=60)
    assert end["status"] == "cancelled", end
    assert words in str(end), end
    assert not (marks / "three").exists()
    undone = sorted(one.name for one in marks.glob("undone-*"))
    assert undone == ([] if policy == "finish" else ["undone-one", "undone-two"])
    post(running, True)


def test_with_the_journal_garbage_it_counts_and_says_so(tmp_path: Path) -> None:
    """Nothing can be asked about runs then: nothing may begin, and people are told what is not remembered."""
    with recovering(tmp_path) as running:
        with guardian_of(running) as guardian:
            guardian.send(Alert(type="quick", service="first"), timeout_s=30)
        eventually(lambda: len(effects(tmp_path / "marks")) == STEPS, within_s=60)
        began_s = time.monotonic()
        for file in (tmp_path / "state").glob("journal.db*"):
            with file.open("r+b") as raw:
                raw.write(os.urandom(file.stat().st_size))
        body = post(running, False)
        assert body["enabled"] is False
        remembered = json.loads((tmp_path / "state" / "recovery.switch").read_text())
        assert remembered["enabled"] is False
        print(f"journal garbage: off, and on the disk, {(time.monotonic() - began_s) * 1000:.0f} ms after")
        with guardian_of(running) as guardian:
            guardian.post(Alert(type="quick", service="second"))
            holds_for(lambda: len(effects(tmp_path / "marks")) == STEPS, LIMIT_S, every_s=0.1)
        running.process.kill()
        running.process.wait()
        with daemon(tmp_path / "selfheal.yaml", tmp_path / "state") as again:
            assert not is_on(again)
