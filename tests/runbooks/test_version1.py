"""Old runbook files are read, made safe, and their report says what was made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbooks.matching import History, Outcome, decide
from runbooks.model import AllOf, AnyOf, CallType, Effect, FieldTest, Mode, Op
from runbooks.parse import BadRunbook, Library, load_library, read
from runbooks.problems import Level
from runbooks.shellwords import ShellSyntax, argv_of
from tests.runbooks.files import GOOD, changed
from tests.runbooks.old_files import DATABASE, POSITION_LIMIT

ALERT = {
    "type": "database_connection_failure",
    "service": "postgresql",
    "severity": "high",
    "message": "Database connection failed",
    "labels": {"system": "database"},
}
QUIET = {
    "id": "check",
    "name": "Check",
    "action_type": "command",
    "command": "pg_isready -h localhost",
    "effect": "none",
}


def loaded(raw: dict[str, Any]) -> Any:
    return read(json.dumps(raw).encode(), "old.json")


def said(raw: dict[str, Any]) -> dict[str, str]:
    return {one.pointer: f"{one.level.value}: {one.text}" for one in loaded(raw).report}


def refused(raw: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(BadRunbook) as bad:
        loaded(raw)
    return {one.pointer: one.text for one in bad.value.problems}


def quiet(**more: Any) -> dict[str, Any]:
    """An old file whose only step is declared to do nothing, with changes to that step."""
    return changed("/actions", [{**QUIET, **more}], DATABASE)


def test_a_complete_old_file_is_read_and_observes() -> None:
    made = loaded(DATABASE).runbook
    assert made.mode is Mode.OBSERVE
    assert made.version == "1.0.0"
    assert made.target == "service:{service_name}"
    assert made.max_execution_s == 300
    assert [(one.id, one.effect) for one in made.actions] == [
        ("check_database_service", Effect.MUTATING),
        ("restart_database_service", Effect.MUTATING),
        ("test_connection", Effect.NONE),
    ]
    check, restart, test = made.actions
    assert check.call is not None
    assert check.call.arguments == {"argv": ["systemctl", "status", "{service_name}"]}
    assert check.retry.attempts == 1
    assert restart.call is not None
    assert (restart.call.type, restart.call.arguments) == (
        CallType.SERVICE_RESTART,
        {"service": "{service_name}"},
    )
    assert (restart.retry.attempts, restart.retry.delay_s, restart.retry.factor) == (2, 10, 1)
    assert restart.verify is not None
    assert restart.verify.call.arguments == {"argv": ["systemctl", "is-active", "{service_name}"]}
    assert restart.rollback is not None
    assert restart.rollback.call.type is CallType.SERVICE_RESTORE, "never: systemctl stop"
    assert test.verify is not None
    assert test.verify.call.type is CallType.TCP_CONNECT
    report = said(DATABASE)
    assert "the runbook only observes" in report["/actions/0"]
    assert "not used: nothing says whether the undoing holds" in report["/actions/1/rollback_command"]
    assert "must all hold" in report["/success_criteria"]
    assert "at /service" in report["/parameters/service_name"]


def test_its_patterns_and_conditions_are_taken_as_they_are() -> None:
    assert loaded(DATABASE).runbook.match == AllOf(
        (
            AnyOf(tuple(FieldTest("/message", Op.MATCHES, one) for one in DATABASE["error_patterns"])),
            FieldTest("/labels/system", Op.EQ, "database"),
        )
    )


def test_nothing_undeclared_is_ever_carried_out() -> None:
    for raw in (DATABASE, {**DATABASE, "mode": "auto"}, {**DATABASE, "mode": "dry_run"}):
        assert loaded(raw).runbook.mode is Mode.OBSERVE


def test_a_declared_old_file_is_carried_out() -> None:
    raw = changed("/actions/0/effect", "none", changed("/actions/1/effect", "mutating", DATABASE))
    made = loaded(raw).runbook
    assert made.mode is Mode.AUTO
    assert decide(ALERT, Library((made,)), History(), 0.0).outcome is Outcome.RUN


def test_what_a_declared_step_lacks_is_still_asked_for() -> None:
    raw = changed("/actions", [{**QUIET, "effect": "mutating"}], DATABASE)
    assert "needs probe and verify" in refused(raw)["/actions/0"]


def test_outputs_and_bodies_of_the_position_limit_file() -> None:
    made = loaded(POSITION_LIMIT).runbook
    calculate, reduce = made.actions
    assert calculate.call is not None
    assert calculate.call.arguments == {"name": "calculate_position_reduction", "parameters": {"symbol": "{symbol}"}}
    assert reduce.call is not None
    assert reduce.call.arguments["body"] == {"symbol": "{symbol}", "amount": "{calculated_reduction}"}
    assert [one.name for one in made.parameters] == ["symbol"], "an output is no parameter"
    assert made.approval is not None
    assert made.approval.timeout_s == 900
    assert made.mode is Mode.OBSERVE
    report = said(POSITION_LIMIT)
    assert "did you mean ge?" in report["/error_conditions/position_usage"]
    assert "15m" in report["/approval"]
    assert "observe" in report["/auto_execute"]


@pytest.mark.parametrize(
    ("line", "word", "instead"),
    [
        ("ps aux | grep postgres", "|", "service_ready"),
        ("curl -s http://x/health && echo ok", "&", "http_ok"),
        ("nc -z localhost 5432; true", ";", "tcp_connect"),
        ("df -h > /tmp/x", ">", "disk_free"),
        ("test `whoami` = root", "`", "command_ok"),
        ("pg_isready -h $HOST", "$", "database_ok"),
        ('redis-cli ping "$X"', "$", "database_ok"),
        ("ls /tmp/*.log", "*", "command_ok"),
        ("wget -q < /dev/null", "<", "http_ok"),
        ("A=1 env", "A=1", "environment"),
        ("bash -c 'systemctl is-active x'", "bash", "service_ready"),
        ("echo 'open", "echo", "no closing quotation"),
        ("", "empty", "empty"),
        ("a\nb", "\\n", "needs a shell"),
    ],
)
def test_what_needs_a_shell_is_refused_and_the_check_named(line: str, word: str, instead: str) -> None:
    with pytest.raises(ShellSyntax) as bad:
        argv_of(line, is_check=True)
    assert word in str(bad.value)
    assert instead in str(bad.value)
    assert "/success_criteria/0" in refused(changed("/success_criteria", [line], DATABASE))
    assert "/actions/0/verification_command" in refused(quiet(verification_command=line))
    if line:
        assert "/actions/0/rollback_command" in refused(quiet(rollback_command=line))
        assert "/actions/0/command" in refused(quiet(command=line))


def test_quotes_are_taken_off_once() -> None:
    assert argv_of("grep -E 'a|b;$c' \"two words\" x\\ y", is_check=True) == [
        "grep", "-E", "a|b;$c", "two words", "x y",
    ]  # fmt: skip


def test_a_value_stays_one_word_whatever_it_is() -> None:
    raw = quiet(command="echo {a} {b}-{service_name}", parameters={"a": "x; touch PWNED", "b": "{service_name}"})
    call = loaded(raw).runbook.actions[0].call
    assert call.arguments == {"argv": ["echo", "x; touch PWNED", "{service_name}-{service_name}"]}


@pytest.mark.parametrize("count", [0, 1, 5])
def test_retries_are_attempts(count: int) -> None:
    raw = changed("/actions/1/retry_count", count, DATABASE)
    assert loaded(raw).runbook.actions[1].retry.attempts == max(1, count)


def test_steps_are_put_in_the_order_of_their_dependencies() -> None:
    first, second, third = DATABASE["actions"]
    raw = changed("/actions", [third, second, first], DATABASE)
    assert [one.id for one in loaded(raw).runbook.actions] == [one["id"] for one in DATABASE["actions"]]
    assert "in this order: check_database_service" in said(raw)["/actions"]
    ring = changed("/actions/0/dependencies", ["test_connection"], DATABASE)
    assert "depends on itself" in " ".join(refused(ring).values())
    nobody = changed("/actions/0/dependencies", ["nobody"], DATABASE)
    assert refused(nobody) == {"/actions/0/dependencies/0": "there is no step 'nobody'"}


def test_without_criteria_success_is_that_the_alert_is_over() -> None:
    made = loaded(changed("/success_criteria", ..., DATABASE)).runbook
    assert [one.call.type for one in made.success_criteria] == [CallType.ALERT_CLEARED]


def test_a_file_that_would_answer_every_alert_is_refused() -> None:
    raw = changed("/error_conditions", {}, changed("/error_patterns", [], DATABASE))
    assert "neither" in refused(raw)[""]


@pytest.mark.parametrize(
    ("raw", "pointer", "text"),
    [
        (changed("/error_patterns", "text", DATABASE), "/error_patterns", "no list"),
        (changed("/error_patterns", ["("], DATABASE), "/match/all/0", "no regular expression"),
        (changed("/error_conditions", {"a": {"b": 1}}, DATABASE), "/error_conditions/a", "write match"),
        (changed("/actions", {}, DATABASE), "/actions", "no list"),
        (changed("/actions/1/retry_count", -1, DATABASE), "/actions/1/retry_count", "no number of tries"),
        (changed("/actions/2/parameters", {"operation": "teleport"}, DATABASE), "/actions/2/parameters/operation",
         "none of"),
        (changed("/actions/1/parameters", {}, changed("/actions/1/command", ..., DATABASE)), "/actions/1/parameters",
         "needs service_name"),
        (changed("/sucess_criteria", [], DATABASE), "/sucess_criteria", "did you mean 'success_criteria'"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_safe_is_refused_where_it_is(raw: dict[str, Any], pointer: str, text: str) -> None:
    assert text in refused(raw)[pointer]


@pytest.mark.parametrize("value", ["true", "false", "no", "", 0, 1, 1.0, None, [], {}])
@pytest.mark.parametrize("name", ["requires_approval", "auto_execute"])
def test_a_switch_that_is_neither_true_nor_false_is_refused(name: str, value: Any) -> None:
    assert refused({**DATABASE, name: value}) == {f"/{name}": f"{value!r} is neither true nor false"}


@pytest.mark.parametrize("name", ["requires_approval", "auto_execute"])
def test_a_switch_may_be_left_out(name: str) -> None:
    assert loaded(changed(f"/{name}", ..., DATABASE)).runbook.approval is None


def test_an_approval_that_is_null_is_none_given() -> None:
    made = loaded({**DATABASE, "requires_approval": True, "approval": None}).runbook
    assert made.approval is not None


def test_an_unknown_mode_is_refused_though_the_runbook_only_observes() -> None:
    assert "observe" in refused({**DATABASE, "mode": "of"})["/mode"]
    assert loaded({**DATABASE, "mode": "off", "auto_execute": False}).runbook.mode is Mode.OFF


RESTART = "/actions/1"
CHECKED = {
    **QUIET, "verify": {"call": {"type": "tcp_connect", "with": {"host": "localhost", "port": 5432}}},
    "rollback": {"call": {"type": "command", "with": {"argv": ["true"]}},
                 "verify": {"call": {"type": "command_ok", "with": {"argv": ["true"]}}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "pointer", "text"),
    [
        # null is no false, no low, no nothing
        (changed(f"{RESTART}/requires_confirmation", None, DATABASE), f"{RESTART}/requires_confirmation", "None"),
        (changed(f"{RESTART}/requires_confirmation", "true", DATABASE), f"{RESTART}/requires_confirmation", "'true'"),
        (changed(f"{RESTART}/risk_level", None, DATABASE), f"{RESTART}/risk_level", "None"),
        (changed(f"{RESTART}/timeout", None, DATABASE), f"{RESTART}/timeout", "no duration"),
        (changed(f"{RESTART}/dependencies", None, DATABASE), f"{RESTART}/dependencies", "list"),
        (changed(f"{RESTART}/dependencies", "check_database_service", DATABASE), f"{RESTART}/dependencies", "list"),
        (changed(f"{RESTART}/effect", None, DATABASE), f"{RESTART}/effect", "None is none of"),
        (changed(f"{RESTART}/retry_count", None, DATABASE), f"{RESTART}/retry_count", "None is no number of tries"),
        (changed(f"{RESTART}/retry_count", "2", DATABASE), f"{RESTART}/retry_count", "'2' is no number of tries"),
        (changed(f"{RESTART}/retry_delay", None, DATABASE), f"{RESTART}/retry_delay", "None is no duration"),
        # what another field makes needless is looked at all the same
        (quiet(retry_count="2"), "/actions/0/retry_count", "'2'"),
        (quiet(retry_delay="soon"), "/actions/0/retry_delay", "'soon'"),
        (quiet(retry={"attempts": 2}, retry_count=[2]), "/actions/0/retry_count", "[2]"),
        (quiet(retry_delay=True), "/actions/0/retry_delay", "True"),
        (changed("/actions/2/retry", 5, DATABASE), "/actions/2/retry", "5"),
        (changed("/actions/2/effect", 5, DATABASE), "/actions/2/effect", "5 is none of"),
        (changed("/actions/2/verification_command", 5, DATABASE), "/actions/2/verification_command", "5"),
        (changed("/actions", [{**CHECKED, "verification_command": 5}], DATABASE),
         "/actions/0/verification_command", "5"),
        (changed("/actions", [{**CHECKED, "rollback_command": False}], DATABASE), "/actions/0/rollback_command",
         "False"),
        (quiet(rollback_command=[1, 2]), "/actions/0/rollback_command", "[1, 2]"),
        (quiet(rollback_command=[]), "/actions/0/rollback_command", "[]"),
        ({**DATABASE, "match": {"field": "/type", "op": "exists"}, "error_patterns": 5}, "/error_patterns", "no list"),
        ({**DATABASE, "match": {"field": "/type", "op": "exists"}, "error_conditions": []}, "/error_conditions",
         "no object"),
        # what the file says itself is no alert's to choose, whatever it is
        (quiet(command="echo {a}", parameters={"a": ["x"]}), "/actions/0/parameters/a", "['x'] is no text"),
        (quiet(command="echo {a}", parameters={"a": None}), "/actions/0/parameters/a", "None is no text"),
        (changed("/actions", [{"id": "fix", "name": "f", "action_type": "custom_function", "effect": "none",
          "parameters": {"function_name": "fix", "parameters": ["x"]}}], DATABASE),
         "/actions/0/parameters/parameters", "['x'] is no object"),
        (changed("/actions", [{"id": "ask", "name": "a", "action_type": "api_call",
          "parameters": {"url": "http://127.0.0.1/", "expected_status": None}}], DATABASE), "/actions/0", "expect"),
    ],
)  # fmt: skip
def test_nothing_of_the_wrong_kind_is_dropped(raw: dict[str, Any], pointer: str, text: str) -> None:
    assert text in refused(raw)[pointer]


def test_who_a_command_runs_as_and_with_what_is_kept() -> None:
    given = {"run_as": "nobody", "working_dir": "/srv", "environment": {"A": "1"}}
    call = loaded(quiet(command="ls", parameters={**given, "other": 1})).runbook.actions[0].call
    assert call.arguments == {"argv": ["ls"], **given}
    assert "not used" in said(quiet(command="ls", parameters={"other": 1}))["/actions/0/parameters/other"]


def test_what_another_field_says_already_is_reported() -> None:
    matched = {**DATABASE, "match": {"field": "/type", "op": "exists"}}
    assert "error_patterns and error_conditions are not used" in said(matched)["/match"]
    graceful = changed(f"{RESTART}/parameters/graceful", True, DATABASE)
    assert "not used" in said(graceful)[f"{RESTART}/parameters/graceful"]
    looked = changed("/actions/2/verification_command", "true", DATABASE)
    assert "not used" in said(looked)["/actions/2/verification_command"]


def test_a_new_file_is_not_an_old_one() -> None:
    assert loaded(GOOD).report == ()


def test_the_library_takes_old_files_and_keeps_their_reports(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps(DATABASE))
    library = load_library([tmp_path])
    assert library.problems == ()
    assert [one.id for one in library.runbooks] == ["database_connection_failure"]
    levels = {one.level for one in library.reports["database_connection_failure"]}
    assert levels == {Level.NOTE, Level.WARNING}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PLACES = [
    "/id", "/error_patterns", "/error_conditions", "/actions", "/actions/0", "/actions/0/id", "/actions/1/parameters",
    "/actions/1/dependencies", "/actions/1/command", "/actions/1/action_type", "/actions/1/retry_delay",
    "/actions/0/verification_command", "/actions/1/rollback_command", "/actions/1/retry_count", "/actions/1/outputs",
    "/actions/2/parameters", "/success_criteria", "/max_execution_time", "/parameters", "/target", "/outputs",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@example(DATABASE, [("/actions/1/action_type", None)])  # which once was a KeyError
@example(DATABASE, [("/actions/1/rollback_command", {"a": 1})])
@example(DATABASE, [("/actions/0/verification_command", 1.5)])
@given(st.sampled_from([DATABASE, POSITION_LIMIT]), st.lists(st.tuples(st.sampled_from(PLACES), JSON), max_size=3))
def test_no_old_file_traps(base: dict[str, Any], changes: list[tuple[str, Any]]) -> None:
    """It is read and does nothing undeclared, or refused with the place."""
    raw = base
    for place, value in changes:
        try:
            raw = changed(place, value, raw)
        except (LookupError, TypeError, ValueError):
            continue
    try:
        made = loaded(raw).runbook
    except BadRunbook:
        return
    assert made.mode is not Mode.AUTO or not any(one.mutates and one.probe is None for one in made.actions)
