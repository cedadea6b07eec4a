"""The command line: against a served fake in this process, and as a real command for what only a process shows."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.board import LastExit, NodeState
from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message
from supervisors.api.server import ApiServer
from supervisors.cli import main
from supervisors.cli.terminal import terminal_of
from supervisors.phrases import local_time
from supervisors.tree_json import rfc3339
from tests.links.scripted_daemon import Script, daemon, obliging
from tests.outside.fake_manager import NOW, FakeManager
from tests.support.eventually import eventually
from tests.support.plain_links import key_file

ROOT = Path(__file__).parents[2]
Ran = tuple[int, str, str]
Cli = Callable[..., Ran]
WEB = "root/services/web"
__all__ = ["key_file"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine's own reaches a test."""
    for name in ("CONFIG", "STATE", "ADDRESS", "TOKEN", "GUARDIAN"):
        monkeypatch.delenv(f"SELFHEAL_{name}", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*words: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main(words)
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def here(cli: Cli, server: ApiServer, tmp_path: Path) -> Cli:
    """The command line with ``--state`` of the served fake."""
    assert server.is_alive

    def run(*words: str) -> Ran:
        return cli(*words, "--state", str(tmp_path))

    return run


def one_line(text: str) -> bool:
    return text.startswith("selfheal: ") and text.count("\n") == 1


# -- tree -------------------------------------------------------------------------------------------------------------


def test_tree_well_and_not(here: Cli, fake: FakeManager) -> None:
    code, out, err = here("tree")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 9
    assert "\x1b" not in out
    fake.put(WEB, state=NodeState.CRASH_LOOP, last_exit=LastExit("exit 3", 0.0, code=3))
    code, out, err = here("tree")
    assert (code, err) == (3, "")
    assert "CRASH_LOOP exit 3" in out
    assert here("tree", "--only-bad")[0] == 3
    assert here("tree", "links")[0] == 0, "what is bad elsewhere does not count"
    fake.put(WEB, wanted=False)
    assert here("tree")[0] == 0


def test_tree_json(here: Cli, fake: FakeManager) -> None:
    code, out, _ = here("tree", "--json")
    assert (code, json.loads(out)) == (0, fake.tree())
    fake.put(WEB, state=NodeState.FAILED)
    code, out, _ = here("tree", "--json", "--only-bad")
    assert code == 3
    assert [one["name"] for one in json.loads(out)["root"]["children"]] == ["services"]
    code, out, _ = here("tree", "--json", "pipeline", "--depth", "0")
    assert json.loads(out)["root"]["name"] == "pipeline"
    assert json.loads(out)["root"]["children"] == []


def test_an_unknown_node(here: Cli) -> None:
    code, out, err = here("tree", "pipelin")
    assert (code, out) == (1, "")
    assert one_line(err)
    assert "did you mean 'pipeline'" in err


def test_the_planned_tree_needs_no_daemon(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("version: 1\nservices: {alpha: {command: [sleep, '9']}}\n")
    code, out, err = cli("tree", "--config", str(file))
    assert (code, err) == (0, "")
    assert "○ alpha" in out
    code, out, _ = cli("tree", "--config", str(file), "--json", "alpha")
    assert json.loads(out)["root"]["state"] == "stopped"
    file.write_text("version: 1\nservices: {alpha: {comand: [sleep, '9'], restart_policy: alwyas}}\n")
    code, out, err = cli("tree", "--config", str(file))
    assert (code, out) == (2, "")
    assert "my.yaml:2" in err
    assert "alwyas" in err
    assert "comand" in err
    assert cli("tree", "--config", str(tmp_path / "none.yaml"))[0] == 2
    assert cli("tree", "--config", str(file), "--watch")[0] == 2


# -- where the daemon is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [("--json", "services", "status"), ("services", "--json", "status"), ("services", "status", "--json")]
)
def test_options_stand_anywhere(cli: Cli, server: ApiServer, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert server.is_alive
    at = words.index("--json")
    with_state = [*words[:at], "--state", str(tmp_path), *words[at:]]
    code, out, err = cli(*with_state)
    assert (code, err) == (0, "")
    assert [one["name"] for one in json.loads(out)["services"]] == ["ingest", "engine", "web"]


def test_the_last_state_said_counts(cli: Cli, server: ApiServer, tmp_path: Path) -> None:
    assert server.is_alive
    assert cli("--state", "/nowhere", "tree", "--state", str(tmp_path))[0] == 0
    assert cli("--state", str(tmp_path), "tree", "--state", "/nowhere")[0] == 4


def test_the_daemon_is_found_by_address_and_environment(
    cli: Cli, server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.address is not None
    assert cli("tree")[0] == 4
    assert cli("tree", "--address", server.address)[0] == 0
    assert cli("tree", "--address", server.address.removeprefix("http://"))[0] == 0
    monkeypatch.setenv("SELFHEAL_ADDRESS", server.address)
    assert cli("tree")[0] == 0
    assert cli("tree", "--state", "/nowhere")[0] == 4, "what is said counts more than the environment"
    monkeypatch.delenv("SELFHEAL_ADDRESS")
    monkeypatch.setenv("SELFHEAL_STATE", str(tmp_path))
    assert cli("tree")[0] == 0


def test_the_daemon_is_found_by_the_config_here(cli: Cli, server: ApiServer, tmp_path: Path) -> None:
    assert server.is_alive
    (tmp_path / "selfheal.yaml").write_text("version: 1\nstate_dir: .\nservices: {a: {command: [sleep, '9']}}\n")
    assert cli("tree")[0] == 0


def test_no_daemon(cli: Cli, tmp_path: Path) -> None:
    for words in (("tree",), ("services", "stop", "web"), ("stop",), ("logs", "web"), ("alert", "send", "--type", "x")):
        code, out, err = cli(*words, "--state", str(tmp_path / "none"))
        assert (code, out) == (4, ""), words
        assert one_line(err)
        assert str(tmp_path / "none") in err


@pytest.mark.parametrize(
    "words",
    [
        ("tre",),
        ("tree", "--dept", "3"),
        ("tree", "--depth", "x"),
        ("services", "start"),
        ("services", "start", "web", "--all"),
        ("services", "restart", "web", "--timeout", "soon"),
        ("services", "restart", "web", "--timeout", "0"),
        ("wait", "web", "--for", "happiness"),
        ("alert", "send"),
        ("alert", "send", "--type", "x", "--severity", "dire"),
        ("alert", "send", "--type", "x", "--field", "novalue"),
        ("alert", "send", "--file", "/no/such/file"),
        ("logs",),
        ("approve", "x-1", "--plan", "abc"),
        ("reject", "x-1", "--plan", "XYZ4567890123"),
    ],
)
def test_wrong_usage(here: Cli, words: tuple[str, ...]) -> None:
    code, out, err = here(*words)
    assert (code, out) == (2, "")
    assert one_line(err), err


def test_the_address_of_a_daemon_is_not_where_another_listens(here: Cli) -> None:
    code, _, err = here("run", "--address", "http://127.0.0.1:1", "--config", "/no/such.yaml")
    note, problem = err.splitlines()
    assert (code, "links.operator.address of its file" in note, "/no/such.yaml" in problem) == (2, True, True), err


def test_a_wrong_state_directory_is_named(cli: Cli, tmp_path: Path) -> None:
    state = tmp_path / "new"
    for words in (
        ("audit", "verify"),
        ("keys", "list"),
        ("keys", "revoke", "ann"),
        ("keys", "new", "ann", "--role", "viewer"),
        ("tree",),
    ):
        code, _, err = cli(*words, "--state", str(state))
        assert (code, f"there is no state directory {state}" in err) == (4 if words == ("tree",) else 2, True), words
    assert not state.exists()
    assert cli("keys", "new", "ann", "--role", "viewer", "--create", "--state", str(state))[0] == 0
    assert "ann" in cli("keys", "list", "--state", str(state))[1]
    file = tmp_path / "file"
    file.touch()
    assert cli("audit", "verify", "--state", str(file))[0] == 2
    code, _, err = cli("tree", "--state", str(file))
    assert (code, one_line(err), f"{file} is no state directory" in err) == (4, True, True)


# -- services ---------------------------------------------------------------------------------------------------------


def test_services_status(here: Cli) -> None:
    code, out, _ = here("services", "status")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()] == ["ingest", "engine", "web"]
    code, out, _ = here("services", "status", "web", "--json")
    assert json.loads(out)["services"][0]["pid"] == 103
    assert here("services", "status", "wob")[0] == 1


def test_a_name_stands_for_all_replicas_and_a_number_for_one(here: Cli, fake: FakeManager) -> None:
    web = fake.nodes["root/services/web"]
    for number in (2, 3):
        fake.nodes[f"root/services/web.{number}"] = replace(web, path=f"root/services/web.{number}")

    def named(*words: str) -> list[str]:
        return [one["name"] for one in json.loads(here("services", *words, "--json")[1])["services"]]

    assert named("status", "web") == ["web", "web.2", "web.3"]
    assert named("status", "web.1") == ["web"]
    assert named("status", "web.3", "web") == ["web.3", "web", "web.2"]
    assert named("stop", "web") == ["web", "web.2", "web.3"]


def test_services_are_steered(here: Cli, fake: FakeManager) -> None:
    code, out, err = here("services", "stop", "web", "--why", "too loud", "--timeout", "7s")
    assert (code, err) == (0, "")
    assert "stopped by hand" in out
    assert here("services", "start", "web", "--no-wait")[0] == 0
    code, out, _ = here("services", "restart", "web", "engine", "--json")
    assert [one["name"] for one in json.loads(out)["services"]] == ["web", "engine"]
    by = fake.calls[0][2]
    assert by.startswith("cli:")
    assert fake.calls[:3] == [
        ("stop", "web", by, "too loud", True, 7.0),
        ("start", "web", by, False, 60.0),
        ("restart", "web", by, True, 60.0),
    ]


def test_all_services(here: Cli, fake: FakeManager) -> None:
    assert here("services", "stop", "--all")[0] == 0
    assert {one["state"] for one in fake.services()} == {"stopped"}
    fake.broken.add("engine")
    code, out, err = here("services", "start", "--all", "--json")
    assert code == 1
    assert [one["name"] for one in json.loads(out)["services"]] == ["ingest", "web"]
    assert json.loads(out)["errors"] == [{"name": "engine", "error": "engine: crash_loop: exit 3"}]
    assert err == "selfheal: engine: crash_loop: exit 3\n"


def test_commands_that_do_not_work(here: Cli, fake: FakeManager) -> None:
    fake.broken.add("web")
    for words, expected, text in (
        (("start", "web"), 1, "exit 3"),
        (("restart", "web", "--timeout", "2s"), 5, "within 2 s"),
        (("stop", "wen"), 1, "did you mean 'web'"),
        (("restart", "engine", "web"), 5, "within 60 s"),
    ):
        code, _, err = here("services", *words)
        assert code == expected
        assert one_line(err)
        assert text in err


# -- looking ----------------------------------------------------------------------------------------------------------


def test_plan_apply_and_scale_say_what_they_do(here: Cli, fake: FakeManager) -> None:
    code, out, err = here("plan")
    assert (code, err) == (0, "")
    assert out.startswith("~ web  update in place\n    max_restarts: 5 -> 9\n")
    assert "note: a note" in out
    assert "plan p1: 1 update in place" in out
    assert json.loads(here("plan", "--json")[1]) == fake.plan()
    assert here("apply", "--plan", "p1", "--by", "ann", "--timeout", "9s")[0] == 0
    assert here("services", "scale", "web", "3", "--why", "load")[0] == 0
    assert here("services", "scale", "web", "--reset")[0] == 0
    assert fake.calls[0] == ("apply", None, "ann", "p1", 9.0)
    assert [call[:3] for call in fake.calls[1:]] == [("scale", "web", 3), ("scale", "web", None)]


def test_edits_that_do_not_work(here: Cli, fake: FakeManager, tmp_path: Path) -> None:
    for words in (("plan",), ("apply",)):
        code, out, err = here(*words, "--config", "bad.yaml")
        assert (code, out) == (2, "")
        assert err == "selfheal: k1: m\nk2: m\n"
    assert here("apply", "--plan", "p9")[0] == 1
    assert here("services", "scale", "web")[0] == 2
    assert here("services", "scale", "web", "3", "--reset")[0] == 2
    fake.broken.add("web")
    code, out, err = here("apply")
    assert (code, err) == (1, "selfheal: web: boom\n")
    assert "~ web  update in place  failed" in out
    assert here("plan", "--config", "x.yaml")[0] == 0
    assert json.loads(here("plan", "--config", "x.yaml", "--json")[1])["file"] == str(tmp_path / "x.yaml")


def test_logs_why_and_wait(here: Cli, fake: FakeManager) -> None:
    assert here("logs", "web", "-n", "2")[:2] == (0, "two\nthree ü\n")
    assert json.loads(here("logs", "web", "--json")[1])["lines"] == fake.lines
    fake.lines.clear()
    assert here("logs", "web")[:2] == (0, "")
    code, out, _ = here("why", "engine")
    assert code == 0
    assert [line.split()[-1] for line in out.splitlines()] == ["WHAT", "SIGKILL", "ready"]
    assert json.loads(here("why", "engine", "--json", "-n", "1")[1])["transitions"] == fake.why("engine", 1)
    assert here("wait", "web")[0] == 0
    code, out, err = here("wait", "web", "--for", "failed", "--timeout", "500ms")
    assert (code, out) == (5, "")
    assert "within 0.5 s" in err


def test_following_a_log_ends_with_the_daemon(here: Cli, fake: FakeManager, server: ApiServer) -> None:
    def end() -> None:
        eventually(lambda: fake.followers == 1)
        fake.log("last words")
        server.close(20)

    ending = threading.Thread(target=end)
    ending.start()
    code, out, _ = here("logs", "web", "-f", "-n", "1")
    ending.join()
    assert code == 0
    assert out.splitlines()[0] == "three ü"


# -- recovery ---------------------------------------------------------------------------------------------------------


def test_alerts_and_executions(here: Cli, fake: FakeManager) -> None:
    assert json.loads(here("alerts", "--json")[1]) == {"schema": 1, "alerts": fake.alerts()}
    assert "recovery_off" in here("alerts")[1]
    assert json.loads(here("executions", "--json")[1]) == {"schema": 1, "executions": fake.executions()}
    code, out, _ = here("executions", "e-1")
    assert code == 0
    assert "succeeded" in out
    assert "1.5s" in out
    assert "\nready for 5 s\n" in out, "what came of it"
    assert here("executions", "e-9")[0] == 1


def test_the_recovery_switch(here: Cli, fake: FakeManager) -> None:
    assert here("recovery", "status")[1].startswith("recovery on, 1 running")
    assert here("recovery", "off")[1].startswith("recovery off")
    assert fake.enabled is False
    assert json.loads(here("recovery", "on", "--json")[1])["enabled"] is True


def test_the_runbooks_of_a_running_daemon_are_listed(here: Cli, fake: FakeManager) -> None:
    code, out, err = here("runbook", "list")
    assert (code, err) == (3, "refused: p\n")
    assert [line.split() for line in out.splitlines()] == [
        ["ID", "VERSION", "ENABLED", "MODE", "NAME"],
        ["r", "1.0.0", "yes", "observe", "R"],
        ["s", "1.0.0", "no", "off", "R"],
    ]
    fake.refused = []
    code, out, err = here("runbook", "list", "--json")
    told = json.loads(out)
    assert (code, err, told["from"], told["problems"], told["daemon"]) == (0, "", "daemon", [], [])
    assert [(one["id"], one["mode"], one["file"]) for one in told["runbooks"]] == [
        ("r", "observe", "r.json"),
        ("s", "off", "r.json"),
    ]


def test_refused_files_are_listed_without_a_daemon_too(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "bad.json").write_text('{"id": 1}')
    (tmp_path / "selfheal.yaml").write_text("version: 1\nservices: {}\nrunbooks: {directories: [books]}\n")
    code, out, err = cli("runbook", "list", "--config", "selfheal.yaml")
    assert (code, "service_failure" in out) == (3, True)
    assert f"refused: {tmp_path}/books/bad.json: /" in err
    told = json.loads(cli("runbook", "list", "--json", "--config", "selfheal.yaml")[1])
    assert (told["from"], "bad.json" in told["problems"][0]) == ("files", True)


def test_runbooks_without_a_daemon(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("runbook", "list")
    assert (code, one_line(err), "these are the files" in err) == (0, True, True)
    assert "service_failure" in out
    modes = {line.split()[3] for line in out.splitlines()[1:]}
    assert modes <= {"auto", "observe", "dry_run", "off"}
    assert cli("runbook", "show", "service_failure")[0] == 0
    assert json.loads(cli("runbook", "show", "service_failure", "--json")[1])["id"] == "service_failure"
    assert cli("runbook", "show", "none")[0] == 1
    bad = tmp_path / "bad.json"
    bad.write_text('{"id": 1}')
    code, out, err = cli("runbook", "lint", str(bad))
    assert (code, out) == (1, "")
    assert "bad.json" in err
    assert cli("runbook", "lint")[0] == 0
    for word in ("lint", "test", "graph"):
        code, out, err = cli("runbook", word, str(tmp_path / "none.json"))
        assert (code, out, one_line(err)) == (2, "", True)


# -- alerts -----------------------------------------------------------------------------------------------------------


def decide(outcome: str, execution_id: str | None = None, end: str = "succeeded") -> Script:
    def script(incoming: Incoming, _times: int) -> list[Message]:
        message = incoming.message
        if message.kind is Kind.ALERT:
            decided = {"outcome": outcome, "execution_id": execution_id, "runbook": None, "reason": "because"}
            return [Message(Kind.STORED, message.id, {"status": "stored"}), Message(Kind.DECIDED, message.id, decided)]
        result = {"id": execution_id, "status": end, "detail": "it was tried"}
        return [Message(Kind.ANSWER, message.id, {"ok": True, "result": result})]

    return script


def test_an_alert_is_sent_with_everything_said(cli: Cli) -> None:
    with daemon(obliging) as (seen, address):
        code, out, err = cli(
            "alert", "send", "--type", "service_failure", "--service", "web", "--severity", "critical",
            "--message", "no heartbeat", "--field", "zone=a=b", "--address", address,
        )  # fmt: skip
    assert (code, err) == (0, "")
    message = seen.seen[0]
    assert out == f"accepted {message.id} execution x-1\n"
    assert message.body == {
        "type": "service_failure", "service": "web", "severity": "critical", "message": "no heartbeat",
        "source": "cli", "labels": {"zone": "a=b"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "execution_id", "end", "code", "words"),
    [
        ("run", "x-1", "succeeded", 0, ["accepted", "recovered"]),
        ("duplicate", "x-1", "succeeded", 0, ["duplicate", "recovered"]),
        ("run", "x-1", "failed", 1, ["accepted", "failed"]),
        ("run", "x-1", "rolled_back", 1, ["accepted", "rolled_back"]),
        ("run", "x-1", "running", 5, ["accepted"]),
        ("no_match", None, "", 3, ["no_match"]),
        ("recovery_off", None, "", 3, ["recovery_off"]),
        ("cooling", None, "", 3, ["cooling"]),
    ],
)
def test_waiting_for_the_outcome(
    cli: Cli, outcome: str, execution_id: str | None, end: str, code: int, words: list[str]
) -> None:
    with daemon(decide(outcome, execution_id, end)) as (_, address):
        sent = ("alert", "send", "--type", "service_failure", "--address", address)
        got, out, err = cli(*sent, "--wait", "--timeout", "2s")
        assert (got, [line.split()[0] for line in out.splitlines()]) == (code, words)
        assert one_line(err) if code else not err
        assert cli(*sent)[0] == 0, "without --wait only the acknowledgement counts"
        told = json.loads(cli(*sent, "--json")[1])
    assert (told["outcome"], told["execution_id"]) == (outcome, execution_id)


def test_what_was_not_accepted_has_its_reason(cli: Cli) -> None:
    for outcome in ("no_match", "rejected"):
        with daemon(decide(outcome)) as (seen, address):
            code, out, _ = cli("alert", "send", "--type", "x", "--address", address)
        assert (code, out) == (0, f"{outcome} {seen.seen[0].id} (because)\n")


def test_a_misspelt_field_is_told(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "alert.json"
    file.write_text('{"type": "x", "servcie": "web", "zone": "a", "labels": {"sourc": "as it is meant"}}')
    with daemon(obliging) as (seen, address):
        code, _, err = cli("alert", "send", "--file", str(file), "--address", address)
        assert (code, one_line(err)) == (0, True)
        assert (
            "'servcie' is no field of an alert, it became the label servcie; did you mean service (--service)?" in err
        )
        code, _, err = cli("alert", "send", "--type", "x", "--field", "servce=web", "--address", address)
        assert (code, one_line(err), "did you mean service" in err) == (0, True, True)
        assert cli("alert", "send", "--type", "x", "--field", "zone=a", "--address", address)[2] == ""
        assert cli("alert", "send", "--type", "x", "--field", "dedup_key=k", "--address", address)[::2] == (0, "")
    assert seen.seen[1].body["labels"] == {"servce": "web"}
    assert (seen.seen[3].body["dedup_key"], "labels" in seen.seen[3].body) == ("k", False)


@pytest.mark.parametrize("field", ["severity", "type", "service", "message"])
def test_a_field_with_an_option_is_no_label(cli: Cli, field: str) -> None:
    code, out, err = cli("alert", "send", "--type", "x", "--field", f"{field}=low", "--address", "tcp://127.0.0.1:1")
    assert (code, out, one_line(err)) == (2, "", True)
    assert f"say --{field} low" in err


def test_a_run_that_did_not_end_well_says_why(here: Cli, fake: FakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = {**fake.executions()[0], "id": "x-1", "status": "rejected", "detail": "by user:ann: not now"}
    monkeypatch.setattr(fake, "executions", lambda limit=50: [ended][:limit])
    code, out, _ = here("runbook", "run", "r", "--wait")
    assert (code, out.splitlines()[1]) == (1, "rejected x-1: by user:ann: not now")
    told = json.loads(here("runbook", "run", "r", "--wait", "--json")[1])
    assert (told["status"], told["detail"]) == ("rejected", "by user:ann: not now")


def test_an_alert_from_a_file(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guardian = {"type": "COMPONENT_FAILURE", "component": "database", "message": "gone", "severity": "HIGH"}
    file = tmp_path / "alert.json"
    file.write_text(json.dumps(guardian))
    with daemon(obliging) as (seen, address):
        assert cli("alert", "send", "--file", str(file), "--message", "said", "--address", address)[0] == 0
        monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(guardian)))
        assert cli("alert", "send", "--file", "-", "--address", address)[0] == 0
    assert [one.body["message"] for one in seen.seen] == ["said", "gone"]
    assert seen.seen[0].body["severity"] == "high"
    file.write_text("[1]")
    code, _, err = cli("alert", "send", "--file", str(file))
    assert code == 2
    assert "JSON object" in err


def test_where_alerts_go(
    cli: Cli, server: ApiServer, fake: FakeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.address is not None
    with daemon(obliging) as (seen, address):
        fake.put("root/links/guardian", endpoint=address)
        sent = ("alert", "send", "--type", "x")
        assert cli(*sent, "--address", server.address)[0] == 0, "the daemon's tree knows its link"
        (tmp_path / "guardian.address").write_text(address)
        assert cli(*sent, "--state", str(tmp_path))[0] == 0
        monkeypatch.setenv("SELFHEAL_GUARDIAN", address)
        assert cli(*sent)[0] == 0
        assert len(seen.seen) == 3
        assert cli(*sent, "--state", "/nowhere")[0] == 4
        assert len(seen.seen) == 3


def test_a_refused_alert(cli: Cli) -> None:
    def refuse(incoming: Incoming, _times: int) -> list[Message]:
        body = {"code": "too_large", "text": "no room", "permanent": True}
        return [Message(Kind.NACK, incoming.message.id, body)]

    with daemon(refuse) as (_, address):
        code, out, err = cli("alert", "send", "--type", "x", "--address", address)
    assert (code, out) == (1, "")
    assert one_line(err)
    assert "no room" in err


# -- stop -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_stop_waits_for_the_process_to_end(here: Cli, fake: FakeManager, sleeper: subprocess.Popen[bytes]) -> None:
    fake.pid = sleeper.pid
    code, out, err = here("stop", "--timeout", "500ms")
    assert (code, out) == (5, "")
    assert str(sleeper.pid) in err
    fake.on_shutdown = lambda: threading.Timer(0.3, sleeper.kill).start()
    assert here("stop", "--keep-services")[:2] == (0, "stopped\n")
    assert psutil.Process(sleeper.pid).status() == psutil.STATUS_ZOMBIE
    assert [call[1] for call in fake.calls] == [False, True]


def test_stop_without_waiting(here: Cli, fake: FakeManager) -> None:
    assert here("stop", "--no-wait")[:2] == (0, "stopping\n")
    assert fake.calls[0][0] == "shutdown"


# -- the real command -------------------------------------------------------------------------------------------------


def run_real(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **more.pop("environ", {})}
    command = [sys.executable, "-m", "supervisors.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environ, **more)


def test_exit_codes_of_the_real_command(server: ApiServer, fake: FakeManager, tmp_path: Path) -> None:
    assert server.is_alive
    state = ("--state", str(tmp_path))
    assert run_real("tree", *state).returncode == 0
    fake.put(WEB, state=NodeState.FAILED)
    assert run_real("tree", *state).returncode == 3
    assert run_real("services", "stop", "nobody", *state).returncode == 1
    assert run_real("wait", "web", "--timeout", "300ms", *state).returncode == 5
    wrong = run_real("tree", "--wrong", *state)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    gone = run_real("tree", "--state", "/nowhere")
    assert (gone.returncode, gone.stdout) == (4, "")
    assert "Traceback" not in wrong.stderr + gone.stderr


def test_a_terminal_that_cannot_draw_gets_ascii(server: ApiServer, tmp_path: Path) -> None:
    assert server.is_alive
    drawn = run_real("tree", "--state", str(tmp_path), environ={"PYTHONIOENCODING": "ascii"})
    assert drawn.returncode == 0
    assert drawn.stdout.isascii()
    assert "`-* links" in drawn.stdout


def test_a_reader_that_leaves_early_is_no_error(server: ApiServer, fake: FakeManager, tmp_path: Path) -> None:
    assert server.is_alive
    fake.lines[:] = ["x" * 100] * 5000
    shell = shutil.which("sh")
    assert shell is not None
    line = f"{sys.executable} -m supervisors.cli logs web -n 5000 --state {tmp_path} | head -n 1"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([shell, "-c", line], capture_output=True, text=True, check=False, timeout=60, env=environ)
    assert (ran.stdout, ran.stderr) == ("x" * 100 + "\n", "")


def test_the_light_installation_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    ran = run_real("tree", environ={"PYTHONPATH": path})
    assert ran.returncode == 1
    assert ran.stderr == "selfheal needs the daemon extra: pip install 'PATH_TO_CHECKOUT[daemon]'\n"


def test_a_fault_of_ours_is_not_mistaken_for_a_missing_package(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import no_such_module_of_ours\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    ran = run_real("tree", environ={"PYTHONPATH": path})
    assert "no_such_module_of_ours" in ran.stderr


def test_following_ends_with_ctrl_c(server: ApiServer, fake: FakeManager, tmp_path: Path) -> None:
    assert server.is_alive
    command = [sys.executable, "-m", "supervisors.cli", "logs", "web", "-f", "--state", str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"one\n"
        eventually(lambda: fake.followers == 1, within_s=30)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


def test_colour_is_for_terminals_and_can_be_refused() -> None:
    class Tty(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    assert terminal_of(Tty(), {}).colour
    assert not terminal_of(Tty(), {"NO_COLOR": "1"}).colour
    assert terminal_of(Tty(), {"NO_COLOR": ""}).colour
    assert not terminal_of(Tty(), {"TERM": "dumb"}).colour
    assert terminal_of(io.StringIO(), {}).width is None
    assert not terminal_of(io.StringIO(), {}).colour


# -- silences and latches ---------------------------------------------------------------------------------------------


def test_silences_are_added_listed_and_ended(here: Cli, fake: FakeManager) -> None:
    code, out, _ = here("silence", "add", "service=web", "severity=high", "--for", "2h", "--why", "works")
    assert (code, "service=web severity=high" in out, "works" in out) == (0, True, True)
    assert fake.silenced[0]["for_s"] == 7200.0
    assert fake.silenced[0]["by"].startswith("cli:")
    assert json.loads(here("silence", "list", "--json")[1])["silences"] == fake.silenced
    assert here("silence", "expire", "s-0")[0] == 0
    assert "s-0" not in here("silence", "list")[1]
    assert "ended" in here("silence", "list", "--all")[1]
    assert here("silence", "add", "service=~[", "--for", "2h")[0] == 2
    code, _, err = here("silence", "add", "nonsense", "--for", "2h")
    assert (code, one_line(err), "no matcher" in err) == (2, True, True)
    assert here("silence", "add", "service=web")[0] == 2  # how long has to be said


@pytest.mark.parametrize(
    ("matcher", "text"),
    [
        ("servce=x", "did you mean service?"),
        ("zone=~x.*", "did you mean labels.zone?"),
        ("/tpye>1", "did you mean type?"),
        ("labels.zone!=x", ""),
        ("service=x", ""),
    ],
)
def test_a_silence_that_fits_no_alert_is_told(here: Cli, fake: FakeManager, matcher: str, text: str) -> None:
    code, _, err = here("silence", "add", matcher, "--for", "2h")
    assert (code, len(fake.silenced)) == (0, 1)
    assert text in err
    assert bool(text) == one_line(err)


def test_latches_are_shown_and_released_with_a_reason(here: Cli, fake: FakeManager) -> None:
    assert "service:web" in here("recovery", "latches")[1]
    assert here("recovery", "release", "service:web")[0] == 2
    assert "cli:" in here("recovery", "release", "service:web", "--why", "looked at it")[1]
    assert fake.latched == []
    code, _, err = here("recovery", "release", "service:web", "--why", "again")
    assert (code, one_line(err)) == (1, True)


def test_the_queue_and_the_reason_are_shown(here: Cli, fake: FakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    queued = {**fake.executions()[0], "status": "queued", "queue": {"position": 3, "why": "x-1 is at work on t"}}
    monkeypatch.setattr(fake, "executions", lambda limit=50: [queued][:limit])
    assert "3. x-1 is at work on t" in here("executions")[1]
    alert = {**fake.alerts()[0], "reason": "silence s-1 by ann"}
    monkeypatch.setattr(fake, "alerts", lambda limit=50: [alert][:limit])
    assert "silence s-1 by ann" in here("alerts")[1]


# -- little things ----------------------------------------------------------------------------------------------------


def test_the_version(cli: Cli) -> None:
    code, out, err = cli("--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"selfheal \d+\.\d+\S*\n", out), out
    said = {"schema": 1, "version": out.split()[1]}
    assert [json.loads(cli(*words)[1]) for words in (("--version", "--json"), ("--json", "--version"))] == [said, said]
    code, out, err = cli("--json")
    assert (code, out, one_line(err)) == (2, "", True)


def test_help_names_what_there_is(cli: Cli) -> None:
    out = cli("--help")[1]
    assert re.sub(r"\s+", " ", out).rstrip().endswith("4 no daemon answers, 5 timed out.")
    assert "selfheal executions [OPTIONS] [cancel] [ID]\n" in cli("executions", "--help")[1]
    told = {words[0]: words for line in out.splitlines() if (words := line.split())}
    assert {"scale", "scale,"} & set(told["services"])
    assert "latched" in told["recovery"]
    for command in ("tree", "plan", "apply", "run", "runbook list", "runbook run"):
        assert "--config FILE" in cli(*command.split(), "--help")[1], command


def test_who_asks_can_be_said_everywhere(here: Cli, fake: FakeManager) -> None:
    for words in (
        ("services", "start", "web"),
        ("services", "restart", "web"),
        ("services", "scale", "web", "2"),
        ("recovery", "off"),
        ("recovery", "on"),
    ):
        assert here(*words, "--by", "ann")[0] == 0
        assert "ann" in fake.calls[-1], words


def test_moments_are_told(here: Cli, fake: FakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = local_time(rfc3339(NOW))
    assert moment.startswith("2023-11-1")
    for words in (("alerts",), ("executions",), ("why", "engine")):
        assert moment not in here(*words)[1]
        assert moment in here(*words, "--absolute")[1]
    lines = [line.split() for line in here("executions", "e-1")[1].splitlines()]
    assert ["alert", "alert-2"] in lines
    assert ["began", moment] in lines
    never = {**fake.executions()[0], "started_at": None, "decided_at": rfc3339(NOW)}
    monkeypatch.setattr(fake, "executions", lambda limit=50: [never][:limit])
    assert moment in here("executions", "--absolute")[1]
    assert " ago" in here("executions")[1]


def test_nothing_is_down_and_nothing_would_be_mended(here: Cli, fake: FakeManager) -> None:
    assert here("tree", "--only-bad")[1] == "nothing is down: every wanted node is ready\n"
    fake.enabled = False
    out = here("tree", "--only-bad")[1].splitlines()
    assert out[1] == "recovery off, 1 running, 0 queued: alerts start nothing"
    assert json.loads(here("tree", "--only-bad", "--json")[1])["root"]["children"] == []


def test_what_was_applied_is_told(here: Cli, fake: FakeManager) -> None:
    assert here("apply")[1].splitlines()[-1] == "done: 1 update in place"
    fake.broken.add("web")
    assert "done" not in here("apply")[1]
