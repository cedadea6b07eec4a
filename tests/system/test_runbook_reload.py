"""Runbook files are edited under the real daemon: what is whole and good counts, and a run keeps what it began with."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
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
STRICT = {"every": "200ms", "for": "0s", "daemon": {"memory_mb": 1}}
"""A watch that says of every daemon that it takes too much memory."""


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
        self.folder.mkdir(parents=True)
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


def alerts(running: Running) -> list[str]:
    return [one["type"] for one in running.get("/v1/alerts")["alerts"]]


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


def test_other_directories_count_from_their_apply_on(tmp_path: Path) -> None:
    """One daemon: a run under way, an approval, a watched edit, a bad file, a bad directory, SIGHUP, a new daemon."""
    one, two = Books(tmp_path / "one"), Books(tmp_path / "two")
    one.quick("1.0.0")
    one.slow("1.0.0")
    held = runbook("held", "1.0.0", touching("do", one.marks / "held"), approval={"timeout": "15m"})
    one.write({**held, "requires_approval": True})
    two.quick("2.0.0")
    two.write(runbook("added", "1.0.0", touching("do", two.marks / "added")))
    (two.folder / "bad.json").write_text("{")

    def config(*books: Path, **more: Any) -> Path:
        return write_config(tmp_path, {"a": SLEEPER}, runbooks={"directories": list(map(str, books))}, **more)

    with daemon(
        config(one.folder, recovery={"max_concurrent": 1}, watch={"every": "1h"}), tmp_path / "state"
    ) as running:
        kept = running.until_ready()["a"]
        assert {"held", "quick", "slow"} <= used(running).keys()
        execution_id, asked = send(running, "slow", "a"), send(running, "held", "a")
        eventually(lambda: "plan" in running.get("/v1/approvals")["approvals"][0], within_s=LONG_S)
        eventually(lambda: one.has("before-1.0.0"), within_s=LONG_S)
        _a_directory_that_is_not_there_changes_nothing(running, config(one.folder, tmp_path / "none"))
        assert used(running)["quick"] == "1.0.0"
        path = config(two.folder)
        shown = running.call("plan")
        assert "~ root/links/runbook-files " in shown.stdout, shown
        assert 'update in place (link)\n    runbooks.directories: ["' in shown.stdout, shown
        assert "needs a restart" not in shown.stdout
        done = running.call("apply", "--by", "ann")
        assert (done.returncode, done.stderr) == (0, "")
        assert "runbook slow is gone, at once" in done.stdout
        assert f"not used: {two.folder / 'bad.json'}: /: is no JSON" in done.stdout
        assert (used(running)["quick"], used(running)["added"]) == ("2.0.0", "1.0.0")
        assert not {"held", "slow"} & used(running).keys()
        assert running.json("plan")["empty"]
        _what_counts_is_the_new_directory(running, one, two)
        listed = running.call("runbook", "list", "--config", str(path))
        assert ("added" in listed.stdout, "slow" in listed.stdout) == (True, False)
        assert "the daemon" not in listed.stderr, "it uses what is here"
        voted = running.call("approve", str(asked))
        assert voted.returncode == 1, voted
        assert status(running, str(asked)) == "rejected"
        (one.marks / "go").touch()
        eventually(lambda: status(running, str(execution_id)) == "succeeded", within_s=LONG_S)
        assert one.has("after-1.0.0"), "it kept what it began with"
        _it_is_on_record(running, one, two)
        config(two.folder, one.folder, watch=STRICT)
        running.process.send_signal(signal.SIGHUP)
        eventually(lambda: used(running)["quick"] == "1.0.0", within_s=LONG_S)
        assert {"added", "slow"} <= used(running).keys(), "the later one's quick, and what each has alone"
        eventually(lambda: "memory_exhaustion" in alerts(running), within_s=LONG_S)
        now = running.until_ready()["a"]
        assert (now["pid"], now["incarnation"]) == (kept["pid"], kept["incarnation"])
        in_use = running.get("/v1/runbooks")["runbooks"]
        running.process.kill()
        running.process.wait()
    with daemon(path, tmp_path / "state") as running:
        assert running.get("/v1/runbooks")["runbooks"] == in_use, "as a start with the same file"


def _a_directory_that_is_not_there_changes_nothing(running: Running, config: Path) -> None:
    for command in ("plan", "apply"):
        refused = running.call(command)
        assert refused.returncode == 2, refused
        assert f"{config}:" in refused.stderr
        assert "runbooks.directories[1]: " in refused.stderr
        assert f"{config.parent / 'none'} is no folder" in refused.stderr


def _what_counts_is_the_new_directory(running: Running, one: Books, two: Books) -> None:
    """For alerts, and for the watch of the files. And the run under way is no longer all that may be at work."""
    assert send(running, "slow", "b") is None
    send(running, "added", "a")
    eventually(lambda: two.has("added"), within_s=LONG_S)
    one.write(runbook("stray", "1.0.0", touching("do", one.marks / "stray")))
    two.quick("2.1.0")
    eventually(lambda: used(running)["quick"] == "2.1.0", within_s=LONG_S)
    assert "stray" not in used(running)
    eventually(lambda: node(running)["state"] == "degraded", within_s=LONG_S)
    assert str(two.folder / "bad.json") in node(running)["detail"]


def _it_is_on_record(running: Running, one: Books, two: Books) -> None:
    text = f'apply by ann: runbooks.directories: ["{one.folder}"] -> ["{two.folder}"]'
    told = running.get("/v1/why/runbook-files")["transitions"]
    (moved,) = [told for told in told if told["text"] == text]
    db = sqlite3.connect(running.state / "journal.db")
    with closing(db):
        bodies = [json.loads(body) for (body,) in db.execute("SELECT body FROM audit WHERE kind='command'")]
    (said,) = [body for body in bodies if body["text"] == text]
    assert (said["event"], said["by"], said["proven"]) == ("apply", "ann", moved["evidence"]["proven"])


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
    assert alerts(running).count("runbook_refused") == 1
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


def test_who_decides_meanwhile_has_the_runbooks_of_the_old_directories_or_of_the_new_ones(tmp_path: Path) -> None:
    one, two, stop = Books(tmp_path / "one"), Books(tmp_path / "two"), threading.Event()
    one.quick("1.0.0")
    one.slow("1.0.0")
    two.quick("2.0.0")
    files = shelved(one.folder, [])
    seen: set[tuple[tuple[str, str], ...]] = set()

    def look() -> None:
        while not stop.is_set():
            seen.add(tuple((one.id, one.version) for one in files.library.runbooks))

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(30):
        files.reread("a", (two.folder,))
        files.reread("a", (one.folder,))
        files.reread("a", (one.folder, two.folder))
    stop.set()
    reader.join()
    assert [one.version for one in files.library.runbooks] == ["2.0.0", "1.0.0"]
    assert seen <= {
        (("quick", "1.0.0"), ("slow", "1.0.0")),
        (("quick", "2.0.0"),),
        (("quick", "2.0.0"), ("slow", "1.0.0")),
    }


def test_other_directories_are_read_as_at_a_start_and_told_once(tmp_path: Path) -> None:
    one, two, told = Books(tmp_path / "one"), Books(tmp_path / "two"), list[tuple[list[str], str]]()
    one.quick("1.0.0")
    two.slow("1.0.0")
    (two.folder / "twin.json").write_bytes((two.folder / "slow.json").read_bytes())
    files = shelved(one.folder, told)
    said = files.reread("ann", (one.folder, two.folder))
    assert files.library == load_library((one.folder, two.folder))
    assert [text.partition(" (")[0] for text in said] == [
        "runbook slow 1.0.0",
        f"not used: {two.folder / 'twin.json'}: /id: 'slow' is taken by another file of this directory",
    ]
    assert files.reread("ann") == said[1:], "they stay those"
    assert len(told) == 1
    assert files.reread("ann", (one.folder,)) == ["runbook slow is gone, at once"]
    assert files.trouble() is None, "what is wrong elsewhere is nobody's business any more"
    (two.folder / "slow.json").write_text("{")
    (two.folder / "twin.json").unlink()
    files.reread("ann", (one.folder, two.folder))
    assert [one.id for one in files.library.runbooks] == ["quick"], (
        "what was good there once is no version to go on with"
    )
