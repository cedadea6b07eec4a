"""Runbook files are edited under the real daemon: what is whole and good counts, and a run keeps what it began with."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from guardian_link import Alert, GuardianClient
from runbooks.parse import Library, load_library
from supervisors.runbook_files import RunbookFiles, unlike
from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, Running, daemon, write_config

pytestmark = pytest.mark.timeout(180)
WELL = {"call": {"type": "command_ok", "with": {"argv": ["true"]}}}
LONG_S = 30.0


def touching(name: str, file: Path) -> dict[str, Any]:
    command = ["touch", str(file)]
    return {"id": name, "name": name, "action_type": "command", "effect": "idempotent", "command": command}


def waiting(file: Path) -> dict[str, Any]:
    """It may be begun again after the daemon's death, and then waits again."""
    code = "import pathlib, sys, threading\nwhile not pathlib.Path(sys.argv[1]).exists(): threading.Event().wait(0.05)"
    command = [sys.executable, "-c", code, str(file)]
    step = {"id": "wait_for_it", "name": "Wait", "action_type": "command", "effect": "idempotent", "timeout": "60s"}
    return {**step, "command": command}


def runbook(name: str, version: str, *actions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "schema_version": 2,
        "id": name,
        "version": version,
        "name": name,
        "description": "For tests",
        "match": {"field": "/type", "op": "eq", "value": name},
        "parameters": {"service": {"type": "service", "from": "/service", "required": True}},
        "target": f"{name}:{{service}}",
        "actions": list(actions),
        "success_criteria": [WELL],
    } | more


class Books:
    """A folder of runbooks, the marks their steps leave, and the daemon that uses them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "books"
        self.marks = folder / "marks"
        self.folder.mkdir()
        self.marks.mkdir()

    def quick(self, version: str) -> None:
        self.write(runbook("quick", version, touching("say", self.marks / f"quick-{version}")))

    def slow(self, version: str) -> None:
        marks = [touching(when, self.marks / f"{when}-{version}") for when in ("before", "after")]
        self.write(runbook("slow", version, marks[0], waiting(self.marks / "go"), marks[1]))

    def write(self, raw: dict[str, Any]) -> None:
        (self.folder / f"{raw['id']}.json").write_text(json.dumps(raw, indent=1))

    def has(self, mark: str) -> bool:
        return (self.marks / mark).exists()


def used(running: Running) -> dict[str, str]:
    return {one["id"]: one["version"] for one in running.get("/v1/runbooks")["runbooks"]}


def send(running: Running, kind: str, service: str) -> str | None:
    address, key = (running.state / "guardian.address").read_text().strip(), running.state / "keys" / "local.key"
    with GuardianClient(address, key_file=key) as guardian:
        decision = guardian.send(Alert(type=kind, service=service), timeout_s=LONG_S).decision
    assert decision is not None
    return decision.execution_id


def status(running: Running, execution_id: str) -> str:
    (one,) = running.get(f"/v1/executions/{execution_id}")["executions"]
    return str(one["status"])


def node(running: Running) -> dict[str, Any]:
    found: list[dict[str, Any]] = [running.get("/v1/tree")["root"]]
    while found:
        one = found.pop()
        if one["name"] == "runbook-files":
            return one
        found += one.get("children", [])
    raise AssertionError("there is no such node")


def test_edited_files_count_and_a_run_keeps_its_own(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.quick("1.0.0")
    books.slow("1.0.0")
    held = runbook("held", "1.0.0", touching("do", books.marks / "held"), approval={"timeout": "15m"})
    books.write({**held, "requires_approval": True})
    config = write_config(tmp_path, {"a": SLEEPER}, runbooks={"directories": [str(books.folder)]})
    with daemon(config, tmp_path / "state") as running:
        _edits_are_taken_up(running, books)
        _a_bad_file_changes_nothing_and_is_told(running, books)
        _an_approval_is_void_after_an_edit(running, books, held)
        execution_id = send(running, "slow", "a")
        assert execution_id is not None
        eventually(lambda: books.has("before-1.0.0"), within_s=LONG_S)
        books.slow("2.0.0")
        eventually(lambda: used(running)["slow"] == "2.0.0", within_s=LONG_S)
        running.process.kill()
        running.process.wait()
    with daemon(config, tmp_path / "state") as running:
        assert used(running)["slow"] == "2.0.0"
        (books.marks / "go").touch()
        eventually(lambda: status(running, execution_id) == "succeeded", within_s=LONG_S)
        assert (books.has("after-1.0.0"), books.has("after-2.0.0")) == (True, False)
        send(running, "slow", "b")
        eventually(lambda: books.has("after-2.0.0"), within_s=LONG_S)
        running.process.send_signal(signal.SIGHUP)  # an apply of the same file: nothing happens to what runs
        holds_for(lambda: used(running)["slow"] == "2.0.0", 0.5)


def _edits_are_taken_up(running: Running, books: Books) -> None:
    books.quick("2.0.0")
    books.write(runbook("added", "1.0.0", touching("do", books.marks / "added")))
    eventually(lambda: (used(running)["quick"], used(running).get("added")) == ("2.0.0", "1.0.0"), within_s=LONG_S)
    send(running, "quick", "one")
    send(running, "added", "one")
    eventually(lambda: books.has("quick-2.0.0") and books.has("added"), within_s=LONG_S)
    assert not books.has("quick-1.0.0")
    (books.folder / "added.json").unlink()
    eventually(lambda: "added" not in used(running), within_s=LONG_S)
    assert send(running, "added", "two") is None
    told = [one["text"] for one in running.get("/v1/why/runbook-files")["transitions"]]
    assert any("runbook added" in one and "is gone" in one for one in told), told


def _a_bad_file_changes_nothing_and_is_told(running: Running, books: Books) -> None:
    """By name and line: at the apply at once, by the watch when the file has been left alone for a moment."""
    file = books.folder / "quick.json"
    file.write_text(file.read_text().replace('"version": "2.0.0"', '"version": 2.0.0'))
    line = next(number for number, text in enumerate(file.read_text().splitlines(), 1) if '"version"' in text)
    applied = running.call("apply")
    assert f"{file}: /: is no JSON" in applied.stdout, applied
    eventually(lambda: node(running)["state"] == "degraded", within_s=LONG_S)
    listed = running.call("runbook", "list", "--config", str(running.state.parent / "selfheal.yaml"))
    for said in (applied.stdout, node(running)["detail"], running.log.read_text(), listed.stderr):
        assert str(file) in said, said
        assert f"line {line} " in said, said
    assert "quick: the daemon uses 2.0.0 (" in listed.stderr
    assert "stays in use" in node(running)["detail"]
    (books.marks / "quick-2.0.0").unlink()
    send(running, "quick", "three")
    eventually(lambda: books.has("quick-2.0.0"), within_s=LONG_S)
    alerts = [one["type"] for one in running.get("/v1/alerts")["alerts"]]
    assert alerts.count("runbook_refused") == 1
    books.quick("3.0.0")
    eventually(lambda: node(running)["state"] == "ready" and used(running)["quick"] == "3.0.0", within_s=LONG_S)


def _an_approval_is_void_after_an_edit(running: Running, books: Books, held: dict[str, Any]) -> None:
    execution_id = send(running, "held", "a")
    eventually(lambda: "plan" in running.get("/v1/approvals")["approvals"][0], within_s=LONG_S)
    books.write({**held, "requires_approval": True, "version": "1.0.1"})
    said = running.call("approve", str(execution_id))
    assert said.returncode == 1, said
    assert "runbook held was edited" in said.stdout + said.stderr, said
    assert status(running, str(execution_id)) == "rejected"
    assert not books.has("held")


# -- the files by themselves ------------------------------------------------------------------------------------------


def shelved(folder: Path, changed: list[tuple[list[str], str]]) -> RunbookFiles:
    def note(found: Sequence[object], by: str) -> None:
        changed.append((list(map(str, found)), by))

    return RunbookFiles((folder,), lambda: 2e9, lambda _job: None, note)


def test_who_applies_reads_at_once_and_is_told(tmp_path: Path) -> None:
    books, told = Books(tmp_path), list[tuple[list[str], str]]()
    books.quick("1.0.0")
    files = shelved(books.folder, told)
    before = files.library
    books.quick("2.0.0")
    assert files.trouble() is None
    assert files.library is before, "its look is never run here"
    (said,) = files.reread("ann")
    assert said.startswith("runbook quick 1.0.0 (")
    assert said.endswith("), at once")
    assert [by for _, by in told] == ["ann"]
    assert files.reread("ann") == []
    assert len(told) == 1
    books.write({"id": "bad"})
    (problem, *_) = files.reread("ann")
    assert problem.startswith(f"not used: {books.folder / 'bad.json'}: ")
    assert str(files.trouble()).endswith("more)")


def test_where_the_daemon_uses_others(tmp_path: Path) -> None:
    books = Books(tmp_path)
    books.quick("1.0.0")
    books.slow("1.0.0")
    shown = shelved(books.folder, []).shown()
    assert unlike(load_library([books.folder]), shown) == []
    books.quick("2.0.0")
    (books.folder / "slow.json").unlink()
    books.write(runbook("added", "1.0.0", touching("do", books.marks / "x")))
    said = unlike(load_library([books.folder]), shown)
    assert [one.partition(" (")[0] for one in said] == [
        "added 1.0.0",
        "quick: the daemon uses 1.0.0",
        "slow: the daemon uses 1.0.0",
    ]
    assert len(unlike(Library(), shown)) == 2


def test_who_decides_meanwhile_has_one_state_of_all_files(tmp_path: Path) -> None:
    """While files change under it no reader ever sees a runbook missing or a mixture."""
    books, stop = Books(tmp_path), threading.Event()
    books.quick("0.0.0")
    books.slow("0.0.0")
    files = shelved(books.folder, [])
    seen: set[tuple[str, ...]] = set()

    def look() -> None:
        while not stop.is_set():
            seen.add(tuple(one.id for one in files.library.runbooks))

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(30):
        (books.folder / "quick.json").write_text("{")
        files.reread("a")
        books.quick(f"{number}.0.0")
        files.reread("b")
    stop.set()
    reader.join()
    assert seen == {("quick", "slow")}
