"""The tests that stand in runbook files: they pass for what the engine really does, and fail for all else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runbooks import engine
from runbooks.catalogue import EXAMPLES, RESULTS
from runbooks.commands import LocalCommands
from runbooks.model import Call, CallType, Runbook, RunbookTest
from runbooks.network import LocalHttp, LocalTcp
from runbooks.parse import SHIPPED, Library
from runbooks.ports import Ports
from runbooks.rehearsal import Rehearsed, rehearse
from runbooks.steps import make_call
from supervisors.cli.app import run
from tests.runbooks.files import COMMAND, GOOD, changed, runbook
from tests.runbooks.test_steps import Table

ALERT = {"type": "service_failure", "service": "a"}
RESTART = {"type": "service_restart", "with": {"service": "a"}}


def echo(word: str) -> dict[str, Any]:
    return {"type": "command", "with": {"argv": ["echo", word]}}


TWO = {
    **changed("/actions", [*GOOD["actions"], {**COMMAND, "command": ["echo", "{run}"]}]),
    "preconditions": [{"call": {"type": "service_exists", "with": {"service": "{service}"}}}],
}
TWO = changed("/actions/0/outputs", {"run": "/run"}, changed("/actions/0/retry", {"attempts": 2}, TWO))


def rehearsed(
    expect: dict[str, Any],
    fakes: dict[str, Any] | None = None,
    alert: dict[str, Any] | None = None,
    raw: dict[str, Any] = TWO,
    more: tuple[Runbook, ...] = (),
) -> Rehearsed:
    made = runbook(raw)
    return rehearse(made, RunbookTest("t", alert or ALERT, fakes or {}, expect), Library((made, *more)))


@pytest.mark.parametrize(
    ("fakes", "expect"),
    [
        ({}, {"status": "succeeded", "steps": ["restart", "run"], "target": "service:a"}),
        ({}, {"outcome": "run", "parameters": {"service": "a"}}),
        ({}, {"outcome": "run", "runbook": "restart_it"}),
        ({}, {"status": "succeeded", "calls": [
            RESTART, echo("2")]}),
        ({"restart": {"result": {"run": 7}}}, {"status": "succeeded", "calls": [
            RESTART, echo("7")]}),
        ({"restart": ["fail", "ok"]}, {"status": "succeeded", "steps": {"restart": "succeeded", "run": "succeeded"}}),
        ({"service_restart": "fail"}, {"status": "rolled_back", "steps": {"restart": "rolled_back"}, "calls": [
            RESTART, RESTART, {"type": "service_restore", "with": {"service": "a"}}]}),
        ({"restart": {"error": "no answer", "applied": True}},
         {"status": "rolled_back", "detail": "no value for {run}", "steps": ["restart"]}),
        ({"restart": {"error": "x", "trouble": "permanent"}}, {"status": "rolled_back", "detail": "x"}),
        ({"restart": {"error": "x", "untouched": True}}, {"status": "failed", "steps": {"restart": "failed"}}),
        ({"restart": "fail", "service_restored": "no"}, {"status": "rollback_failed"}),
        ({"restart": {"error": "x", "applied": True}, "restart.probe": "unknown"}, {"status": "unknown"}),
        ({"restart.verify": "no"}, {"status": "rolled_back", "steps": {"restart": "rolled_back"}}),
        ({"restart.verify": ["no", "no", "yes"]}, {"status": "succeeded"}),
        ({"run": "fail"}, {"status": "rolled_back", "steps": {"restart": "rolled_back", "run": "failed"}, "calls": [
            RESTART, echo("2"),
            {"type": "service_restore", "with": {"service": "a"}}]}),
        ({"success_criteria": "no"}, {"status": "rolled_back"}),
        ({"success_criteria.0": "no", "restart.rollback": "fail"}, {"status": "rollback_failed"}),
        ({"success_criteria.0": "no", "service_restored": "unknown"}, {"status": "rollback_failed"}),
        ({"preconditions.0": {"answer": "no", "detail": "none"}},
         {"status": "rejected", "detail": "none", "steps": []}),
        ({"restart.snapshot": "fail"}, {"status": "failed", "calls": []}),
    ],
)  # fmt: skip
def test_what_the_engine_does_is_what_a_test_sees(fakes: dict[str, Any], expect: dict[str, Any]) -> None:
    assert rehearsed(expect, fakes).problems == ()


@pytest.mark.parametrize(
    ("fakes", "expect", "text"),
    [
        ({}, {"status": "failed"}, "status is succeeded, expected failed"),
        ({"run": "fail"}, {"status": "succeeded"}, "status is rolled_back (step 'run': failed by the test"),
        ({}, {"outcome": "no_match"}, "outcome is run (matched), expected no_match"),
        ({}, {"outcome": "run", "runbook": "other"}, "answered by 'restart_it', expected 'other'"),
        ({}, {"status": "succeeded", "steps": ["run"]}, "steps begun are ['restart', 'run'], expected ['run']"),
        ({}, {"status": "succeeded", "steps": {"restart": "failed"}}, "expected {'restart': 'failed'}"),
        ({}, {"status": "succeeded", "steps": 2}, "steps is a list"),
        ({}, {"status": "succeeded", "calls": []}, "calls are [{"),
        ({}, {"status": "succeeded", "detail": "x"}, "detail is ''"),
        ({}, {"status": "succeeded", "target": "x"}, "target is 'service:a', expected 'x'"),
        ({}, {}, "needs outcome or status"),
        ({}, {"outcom": "run"}, "does not know outcom"),
        ({}, {"status": "running"}, "status is one of cancelled, expired"),
        ({}, {"outcome": ["run"]}, "outcome is one of"),
        ({}, {"outcome": "no_match", "status": "failed"}, "has no execution, and so no status"),
        ({}, {"outcome": "run", "steps": []}, "expect its status too"),
        ({"nobody": "ok"}, {"status": "succeeded"}, "there is no call 'nobody'; there are command, pre"),
        ({"restart": "yes"}, {"status": "succeeded"}, "fakes: restart: 'yes' is no answer; write ok, fail"),
        ({"restart": {"result": {"pid": 1}}}, {"status": "succeeded"}, "gives back an object with run"),
        ({"restart": {"result": 1}}, {"status": "succeeded"}, "gives back an object with run"),
        ({"restart": {"result": {"run": 1}, "applied": True}}, {"status": "succeeded"}, "does not know applied"),
        ({"restart": {"error": "x", "applied": 1}}, {"status": "failed"}, "applied is true or false"),
        ({"restart": {"error": "x", "untouched": 1}}, {"status": "failed"}, "untouched is true or false"),
        ({"restart": {"error": "x", "trouble": "bad"}}, {"status": "failed"}, "trouble is one of"),
        ({"restart": []}, {"status": "failed"}, "is an empty list"),
        ({"restart.verify": "ok"}, {"status": "succeeded"}, "write yes, no or unknown"),
        ({"service_ready": {"answer": "yes", "x": 1}}, {"status": "succeeded"}, "does not know x"),
        ({"restart.snapshot": "no"}, {"status": "succeeded"}, "is neither ok nor fail"),
    ],
)  # fmt: skip
def test_what_is_not_so_fails(fakes: dict[str, Any], expect: dict[str, Any], text: str) -> None:
    problems = rehearsed(expect, fakes).problems
    assert any(text in one for one in problems), problems


def test_an_alert_for_nobody_and_one_for_another_runbook() -> None:
    assert rehearsed({"outcome": "no_match"}, alert={"type": "other"}).passed
    assert rehearsed({"outcome": "rejected"}, alert={"type": "service_failure"}).passed
    first = replace(runbook(TWO), id="first", priority=90)
    assert not rehearsed({"outcome": "run"}, more=(first,)).passed
    assert rehearsed({"outcome": "run", "runbook": "first"}, more=(first,)).passed


def test_no_match_is_about_the_files_own_runbook() -> None:
    raw = {**changed("/id", "other", GOOD), "match": {"field": "/type", "op": "eq", "value": "other"}}
    theirs = {"type": "other", "service": "a"}
    assert rehearsed({"outcome": "no_match"}, alert=theirs, more=(runbook(raw),)).passed
    assert not rehearsed({"outcome": "no_match", "runbook": "restart_it"}, alert=theirs, more=(runbook(raw),)).passed
    assert not rehearsed({"outcome": "no_match"}).passed


def test_a_tests_alert_is_taken_as_it_would_come_in() -> None:
    """In any of the platform's shapes, and with the severity one has that says none."""
    raw = changed("/match", {"all": [TWO["match"], {"field": "/severity", "op": "eq", "value": "high"}]}, TWO)
    theirs = {"error_id": "x", "system": "service", "service_name": "a", "error_message": "silent"}
    assert rehearsed({"status": "succeeded", "target": "service:a"}, alert=theirs, raw=raw).passed
    assert "alert: severity" in rehearsed({"outcome": "run"}, alert={**ALERT, "severity": "bad"}).problems[0]


def test_waiting_costs_no_time() -> None:
    wait = {"id": "w1", "name": "W", "action_type": "wait", "effect": "none", "parameters": {"for": "9m"}}
    done = rehearsed({"status": "succeeded"}, raw=changed("/actions", [wait]))
    assert done.passed
    assert done.run is not None
    assert done.run.lasted_s == 540


def test_a_test_fails_when_the_engine_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rehearsal is of the real engine."""
    real = engine.start
    monkeypatch.setattr(engine, "start", lambda plan, now: real(replace(plan, actions=()), now))
    assert not rehearsed({"status": "succeeded", "steps": ["restart", "run"]}).passed


@pytest.mark.parametrize(
    ("kind", "snapshot"),
    [
        (CallType.SERVICE_RESTART, None),
        (CallType.SERVICE_START, None),
        (CallType.SERVICE_STOP, None),
    ],
)
def test_results_of_fakes_are_those_of_real_calls(kind: CallType, snapshot: Any) -> None:
    """The contract: what a fake gives back has the fields that the real family's call gives back."""
    ports = Ports(Table(), LocalCommands(), LocalHttp(), LocalTcp())
    done = make_call(Call(kind, {"service": "a"}), snapshot, ports, "x-test")
    assert done.ok
    assert set(done.result or {}) == RESULTS[kind]
    assert set(EXAMPLES.get(kind) or {}) == RESULTS[kind]


# -- the command ------------------------------------------------------------------------------------------------------


def written(directory: Path, *tests: dict[str, Any], **more: Any) -> Path:
    file = directory / "mine.json"
    file.write_text(json.dumps({**changed("/id", "mine", TWO), "priority": 90, "tests": list(tests), **more}))
    return file


WELL = {"name": "well", "alert": ALERT, "expect": {"status": "succeeded"}}
ILL = {"name": "ill", "alert": ALERT, "fakes": {"restart.verify": "no"}, "expect": {"status": "succeeded"}}


def test_the_command_tells_each_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runbook", "test", str(written(tmp_path, WELL))]) == 0
    assert "passed  mine: well (succeeded, 0.0 s)\n1 passed, 0 failed" in capsys.readouterr().out
    assert run(["runbook", "test", str(written(tmp_path, WELL, ILL))]) == 1
    said = capsys.readouterr().out
    assert "FAILED  mine: ill (rolled_back, 5.0 s)" in said
    assert "expected succeeded" in said
    assert "1 passed, 1 failed" in said
    assert run(["runbook", "test", "--json", str(tmp_path)]) == 1
    first, second = json.loads(capsys.readouterr().out)["tests"]
    assert (first["passed"], second["passed"], second["status"]) == (True, False, "rolled_back")
    assert second["calls"][0] == RESTART


def test_the_command_of_the_readme_passes_over_the_whole_shipped_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = Path(__file__).resolve().parents[2] / "README.md"
    assert "`selfheal runbook test`" in readme.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # where no configuration names other runbooks
    monkeypatch.delenv("SELFHEAL_CONFIG", raising=False)
    code = run(["runbook", "test"])
    said = capsys.readouterr().out
    assert code == 0, [line for line in said.splitlines() if not line.startswith("passed")]
    tested = {line.split()[1].removesuffix(":") for line in said.splitlines() if line.startswith("passed  ")}
    assert tested == {file.stem for file in SHIPPED.glob("*.json")}


def test_the_command_by_id_and_on_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runbook", "test", "service_failure"]) == 0
    assert run(["runbook", "test", "nobody"]) == 1
    assert "nobody" in capsys.readouterr().err
    (tmp_path / "bad.json").write_text("{")
    assert run(["runbook", "test", str(tmp_path / "bad.json")]) == 1
    assert "is no JSON" in capsys.readouterr().err
