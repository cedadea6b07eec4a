"""What is doubtful about usable runbooks is said, each doubt once, at its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks.connections import Link, Why, connections, raised_by, rings
from runbooks.lint import Linted, lint
from runbooks.model import Runbook
from runbooks.parse import SHIPPED, BadRunbook, load_library, parse
from runbooks.problems import Level
from supervisors.cli.app import run
from tests.runbooks.files import COMMAND, GOOD, changed, problems, runbook
from tests.runbooks.old_files import DATABASE

TESTS = [
    {"name": "well", "alert": {"type": "service_failure", "service": "a"}, "expect": {"status": "succeeded"}},
    {"name": "ill", "alert": {"type": "service_failure", "service": "a"}, "expect": {"status": "rolled_back"}},
    {"name": "other", "alert": {"type": "other"}, "expect": {"outcome": "no_match"}},
]
CLEAN = {**GOOD, "limits": {"cooldown": "1m"}, "tests": TESTS}


def doubts(raw: dict[str, Any], *around: Runbook, alerts: tuple[dict[str, Any], ...] = ()) -> dict[str, str]:
    found = lint([Linted("test.json", runbook(raw))], around, alerts)
    return {one.pointer: f"{one.level.value}: {one.text}" for one in found}


def other(name: str, **more: Any) -> Runbook:
    return runbook({**changed("/id", name, CLEAN), "tests": [], **more})


def test_a_complete_file_has_no_doubts() -> None:
    assert doubts(CLEAN) == {}


@pytest.mark.parametrize(
    ("more", "pointer", "text"),
    [
        ({"max_execution_time": "31s"}, "/max_execution_time", "may take 40 s"),
        ({"limits": {}}, "/limits", "nothing limits how often it runs"),
        (
            {"limits": {"cooldown": "5s"}, "success_criteria": [{**GOOD["success_criteria"][0], "hold_for": "10s"}]},
            "/limits/cooldown",
            "shorter than what must hold for 10 s",
        ),
        ({"match": {"field": "/message", "op": "exists"}}, "/match", "asks for no type"),
        ({"escalate": [{"runbook": "nobody"}]}, "/escalate/0/runbook", "there is no runbook 'nobody'"),
        ({"inhibited_by": [{"runbook": "nobody"}]}, "/inhibited_by/0/runbook", "there is no runbook"),
        (
            {"approval": {"timeout": "5m", "on_timeout": "safe_action", "safe_action": "nobody"}},
            "/approval/safe_action",
            "there is no runbook",
        ),
        (
            {"actions": [{**GOOD["actions"][0], "on_failure": "escalate"}]},
            "/actions/0/on_failure",
            "nobody stands under /escalate",
        ),
        ({"actions": [{**COMMAND, "command": ["bash", "-c", "true"]}]}, "/actions/0", "starts a shell"),
        (
            {
                "actions": [COMMAND],
                "parameters": {"service": {**GOOD["parameters"]["service"], "redact": True}},
            },
            "/actions/0",
            "can read a program's arguments",
        ),
        (
            {"parameters": {**GOOD["parameters"], "more": {"type": "string", "default": "x"}}},
            "/parameters/more",
            "is never used",
        ),
        ({"tests": []}, "/tests", "has no tests"),
        ({"tests": TESTS[1:]}, "/tests", "none expects status succeeded"),
        ({"tests": [TESTS[0], TESTS[2]]}, "/tests", "rolled_back"),
        ({"tests": TESTS[:2]}, "/tests", "no_match"),
        ({"tests": [TESTS[0], TESTS[2]], "actions": [COMMAND]}, "/tests", "an end without success"),
        ({"escalate": [{"runbook": "restart_it"}]}, "", "leads back to itself: restart_it -> restart_it"),
        (
            {
                "labels": {"raises": "service_failure"},
            },
            "",
            "raises service_failure, answered by restart_it",
        ),
    ],
)
def test_each_doubt_is_said_where_it_belongs(more: dict[str, Any], pointer: str, text: str) -> None:
    raw = {**CLEAN, **more}
    found = doubts(raw)
    assert pointer in found, found
    assert text in found[pointer]


@pytest.mark.parametrize(
    ("where", "value", "why"),
    [
        ("/name", "Another", ""),
        ("/enabled", False, "is disabled"),
        ("/mode", "observe", "is in mode observe"),
        ("/actions/0/risk_level", "medium", "is no runbook of low risk"),
        ("/approval", {"timeout": "5m"}, "is no runbook of low risk"),
    ],
)
def test_a_safe_action_that_would_not_be_begun_is_told(where: str, value: Any, why: str) -> None:
    asked = {**CLEAN, "approval": {"timeout": "5m", "on_timeout": "safe_action", "safe_action": "block"}}
    safe = runbook(
        changed(where, value, changed("/id", "block")), tests=[], match={"field": "/type", "op": "eq", "value": "never"}
    )
    told = doubts(asked, safe).get("/approval/safe_action", "")
    assert (why in told, bool(told)) == (True, bool(why))


def test_what_is_used_in_a_condition_is_used() -> None:
    raw = {
        **changed("/actions/0/when", {"field": "/parameters/more", "op": "eq", "value": "x"}, CLEAN),
        "parameters": {**GOOD["parameters"], "more": {"type": "string", "default": "x"}},
    }
    assert doubts(raw) == {}


def test_runbooks_that_escalate_to_each_other_are_an_error_and_by_alerts_a_warning() -> None:
    raw = {**CLEAN, "escalate": [{"runbook": "second"}]}
    assert doubts(raw, other("second", priority=1)) == {}
    text = doubts(raw, other("second", escalate=[{"runbook": "restart_it"}]))[""]
    assert text.startswith("error: leads back to itself: restart_it -> second -> restart_it")
    text = doubts(raw, other("second", labels={"raises": "service_failure"}, priority=1))[""]
    assert text.startswith("warning: leads back to itself: restart_it -> second -> restart_it")


def test_what_answers_a_failed_recovery_can_fail_itself() -> None:
    last = runbook({**CLEAN, "match": {"field": "/type", "op": "eq", "value": "recovery_failed"}})
    assert raised_by(last) == ("recovery_failed",)
    assert connections([last]) == (Link("restart_it", "restart_it", Why.RAISES, "recovery_failed"),)
    harmless = runbook({**CLEAN, "actions": [COMMAND]})
    assert raised_by(harmless) == ()


def test_each_ring_is_found_once() -> None:
    def link(start: str, end: str) -> Link:
        return Link(start, end, Why.ESCALATES)

    assert rings([link("a", "b"), link("b", "c")]) == ()
    assert [len(ring) for ring in rings([link("a", "b"), link("b", "a"), link("b", "c"), link("c", "b")])] == [2, 2]
    long = [link(f"n{number}", f"n{(number + 1) % 500}") for number in range(500)]
    assert [len(ring) for ring in rings(long)] == [500]


def test_two_of_equal_rank_for_one_alert_are_told() -> None:
    assert "same rank as 'second' for a test's alert" in doubts(CLEAN, other("second"))["/priority"]
    assert doubts(CLEAN, other("second", priority=49)) == {}
    assert doubts(CLEAN, other("second", mode="off")) == {}
    raw = {**CLEAN, "tests": TESTS[2:]}
    alert = {"type": "service_failure", "service": "b"}
    assert "/priority" not in doubts(raw, other("second"))
    assert "for a recorded alert (type 'service_failure', service 'b')" in doubts(
        raw, other("second"), alerts=(alert,)
    )["/priority"]  # fmt: skip


def test_text_run_as_a_program_takes_no_values() -> None:
    for argv in (
        ["sh", "-c", "echo {service}"],
        ["python3.11", "-c", "print('{service}')"],
        ["psql", "-c", "{service}"],
    ):
        assert "as a program" in problems(changed("/actions", [{**COMMAND, "command": argv}]))["/actions/0"]
    for argv in (["ping", "-c", "{service}"], ["python3", "-c", "import sys", "{service}"]):
        assert problems(changed("/actions", [{**COMMAND, "command": argv}])) == {}


def test_what_is_shipped_has_no_errors() -> None:
    library = load_library((SHIPPED,))
    found = lint([Linted(library.files[one.id], one) for one in library.runbooks])
    assert [str(one) for one in found if one.level is Level.ERROR] == []


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_tells_all_and_its_exit_code_says_whether_it_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, doubtful, bad, old = (tmp_path / f"{name}.json" for name in ("good", "doubtful", "bad", "old"))
    good.write_text(json.dumps({**CLEAN, "id": "clean", "priority": 90}))
    assert run(["runbook", "lint", "--strict", str(good)]) == 0
    assert capsys.readouterr().out == "no problems\n"
    doubtful.write_text(json.dumps({**CLEAN, "id": "doubtful", "priority": 91, "limits": {}}))
    assert run(["runbook", "lint", str(doubtful)]) == 0
    assert "doubtful.json: /limits: warning: nothing limits" in capsys.readouterr().err
    assert run(["runbook", "lint", "--strict", str(doubtful)]) == 1
    bad.write_text(json.dumps(changed("/actions/0/timout", 1, CLEAN)))
    capsys.readouterr()
    assert run(["runbook", "lint", "--json", str(tmp_path)]) == 1
    found = json.loads(capsys.readouterr().out)["found"]
    assert {"file": str(bad), "pointer": "/actions/0/timout", "text": "unknown key; did you mean 'timeout'?",
            "level": "error"} in found  # fmt: skip
    old.write_text(json.dumps({**DATABASE, "id": "old_one"}))
    assert run(["runbook", "lint", str(old)]) == 0
    said = capsys.readouterr()
    assert "old.json: /success_criteria: note: must all hold" in said.out
    assert "the runbook only observes" in said.err
    assert run(["runbook", "lint", str(tmp_path / "nowhere.json")]) == 2


def test_show_says_how_an_old_file_was_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "old.json").write_text(json.dumps({**DATABASE, "id": "old_one"}))
    (tmp_path / "selfheal.yaml").write_text("version: 1\nservices: {}\nrunbooks: {directories: [mine]}\n")
    assert run(["runbook", "show", "old_one", "--config", str(tmp_path / "selfheal.yaml")]) == 0
    said = capsys.readouterr().out
    assert "read from version 1:" in said
    assert "service_restart  mutating" in said
    assert run(["runbook", "show", "engine_asks", "--config", str(tmp_path / "selfheal.yaml")]) == 1
    assert "no runbook is called 'engine_asks'; see 'selfheal runbook list'" in capsys.readouterr().err


def test_show_says_what_limits_it_and_what_undoes_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runbook", "show", "disk_space_low"]) == 0
    lines = {line.split()[0]: line.split(maxsplit=1)[-1] for line in capsys.readouterr().out.splitlines() if line}
    assert lines["mode"] == "auto"
    assert json.loads(lines["limits"])["cooldown"] == "10m"
    assert lines["put_aside"].split() == ["resource_cleanup", "mutating", "cleanup_restore"]
    assert lines["file"].endswith("disk_space_low.json")


POINTERS = [
    "/match", "/actions", "/actions/0/verify", "/actions/0/retry", "/actions/0/when", "/limits", "/approval",
    "/escalate", "/inhibited_by", "/tests", "/labels", "/parameters/service", "/success_criteria", "/priority",
]  # fmt: skip
VALUES = st.sampled_from(
    [
        {}, [], None, 0, "5s", {"field": "/type", "op": "exists"}, [{"runbook": "restart_it"}], [{"notify": "x"}],
        [{"name": "t", "alert": {"type": []}, "expect": {"status": {}, "outcome": []}}],
        [{"name": "t", "alert": {}, "expect": {"outcome": "no_match"}}],
        {"raises": ",,recovery_failed, service_failure"}, {"timeout": 5}, [COMMAND], {"cooldown": "1ms"},
        {"attempts": 100, "delay": "30d", "factor": 100, "max_delay": "30d"}, [{"runbook": "a_b", "equal": ["/x"]}],
    ]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(POINTERS), VALUES), max_size=4), st.dictionaries(st.text(), st.text()))
def test_lint_raises_on_no_runbook(changes: list[tuple[str, Any]], alert: dict[str, Any]) -> None:
    raw = CLEAN
    for pointer, value in changes:
        try:
            raw = changed(pointer, value, raw)
        except (LookupError, TypeError):
            continue
    try:
        made = parse(json.dumps(raw).encode())
    except BadRunbook:
        return
    for one in lint([Linted("a.json", made)], [made, other("second")], [alert, {"type": 1}, {}]):
        assert one.text
        assert one.pointer == "" or one.pointer.startswith("/")
