from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks import json_schema
from runbooks.border import seconds
from runbooks.model import CallType, Effect, FieldTest, Op
from runbooks.parse import BadRunbook, load_library, parse
from tests.runbooks.files import COMMAND, GOOD, changed, problems, runbook

ACTION = "/actions/0"


def test_the_good_one_is_good_and_pinned_to_its_bytes() -> None:
    source = json.dumps(GOOD).encode()
    made = parse(source)
    assert problems(source) == {}
    assert made.sha256 == hashlib.sha256(source).hexdigest()
    assert made.source == source
    assert made.match == FieldTest("/type", Op.EQ, "service_failure")
    assert made.actions[0].effect is Effect.MUTATING


@pytest.mark.parametrize(
    ("raw", "pointer", "text"),
    [
        (changed("/id", ...), "/id", "is missing"),
        (changed(f"{ACTION}/timout", "5s"), f"{ACTION}/timout", "did you mean 'timeout'"),
        (changed(f"{ACTION}/within", "5s"), f"{ACTION}/within", "is no key of this place"),
        (changed(f"{ACTION}/probe", ...), ACTION, "needs probe"),
        (changed(f"{ACTION}/verify", ...), ACTION, "needs verify"),
        (changed(f"{ACTION}/rollback", ...), ACTION, "needs a rollback, or an irreversible_reason"),
        (changed(f"{ACTION}/rollback/verify", ...), f"{ACTION}/rollback/verify", "is missing"),
        (changed(f"{ACTION}/effect", "none"), ACTION, "has the effect mutating"),
        (changed(f"{ACTION}/effect", "irreversible"), ACTION, "irreversible_reason and has no rollback"),
        (changed(f"{ACTION}/parameters", {}), ACTION, "needs service"),
        (changed(f"{ACTION}/timeout", "soon"), f"{ACTION}/timeout", "is no duration"),
        (changed(f"{ACTION}/timeout", "2h"), f"{ACTION}/timeout", "longer than max_execution_time"),
        (changed(f"{ACTION}/probe/call/type", "service_stop"), f"{ACTION}/probe/call", "a check only looks"),
        (changed(f"{ACTION}/rollback/call/type", "service_ready"), f"{ACTION}/rollback/call", "it undoes nothing"),
        (changed("/match/op", "like"), "/match/op", "input should be"),
        (changed("/match", {"field": "type", "op": "eq"}), "/match/field", "write /type"),
        (changed("/match", {"field": "/m", "op": "matches", "value": "("}), "/match", "no regular expression"),
        (changed("/match", {"field": "/m", "op": "ge", "value": "9"}), "/match", "needs a number"),
        (changed("/match", {"all": [], "any": []}), "/match/all", "at least 1"),
        (changed("/match", {"field": "/a", "op": "eq", "not": GOOD["match"]}), "/match", "exactly one of"),
        (changed("/target", "service:{servce}"), "/target", "is no parameter"),
        (changed("/target", "service:{Service}"), "/target", "a lone brace"),
        (changed("/parameters/service/required", False), "/target", "may be absent"),
        (changed("/success_criteria", []), "/success_criteria", "is empty"),
        (changed("/actions", [COMMAND, COMMAND]), "/actions/1/id", "stands there twice"),
        (changed("/actions", [{**COMMAND, "command": "rm -rf /"}]), "/actions/0/command", "valid list"),
        (changed("/schema_version", 3), "/schema_version", "should be 2"),
        (changed("/success_criteria/0/call/type", "service_generation"), "/success_criteria/0/call", "none here"),
    ],
)
def test_what_is_wrong_is_said_where_it_is(raw: dict[str, Any], pointer: str, text: str) -> None:
    found = problems(raw)
    assert pointer in found, found
    assert text in found[pointer]


def test_all_problems_at_once() -> None:
    raw = changed("/version", "one", changed("/match/op", "like", changed(f"{ACTION}/timout", 1)))
    assert {"/version", "/match/op", f"{ACTION}/timout"} <= set(problems(raw))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (b"{", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b'{"id": 1, "id": 2}', "stands there twice"),
        (b'{"id": NaN}', "no JSON number"),
        (b"[" * 100_000, "nested too deeply"),
        (b" " * 300_000, "larger than"),
    ],
)
def test_what_is_no_json_is_refused(source: bytes, text: str) -> None:
    assert text in problems(source)[""]


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_garbage_raises_nothing_but_bad_runbook(source: bytes) -> None:
    with pytest.raises(BadRunbook):
        parse(source)


def test_durations() -> None:
    assert [seconds(text) for text in ("200ms", "1.5s", "2m", "1h", "1d", 3)] == [0.2, 1.5, 120, 3600, 86400, 3]
    for bad in ("", "5", "-1s", "31d", True, None, float("inf")):
        with pytest.raises(ValueError, match="duration"):
            seconds(bad)


def test_api_call_and_wait_until_are_understood() -> None:
    call = {**COMMAND, "action_type": "api_call", "parameters": {"url": "http://127.0.0.1:1/x"}}
    del call["command"]
    wait = {
        "id": "wait",
        "name": "Wait",
        "action_type": "wait_until",
        "effect": "none",
        "timeout": "20s",
        "parameters": {"criterion": "tcp_connect", "port": 5432, "hold_for": "2s"},
    }
    first, second = runbook(GOOD, actions=[call, wait]).actions
    assert first.call is not None
    assert first.call.type.value == "http_request"
    assert second.call is None
    assert second.verify is not None
    assert (second.verify.within_s, second.verify.hold_for_s) == (20, 2)
    assert "retry" in problems(changed("/actions", [{**wait, "retry": {"attempts": 3}}]))["/actions/0"]


# -- the library ------------------------------------------------------------------------------------------------------


def test_a_bad_file_disables_only_itself(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    (tmp_path / "twin.json").write_text(json.dumps(GOOD))
    library = load_library([tmp_path, tmp_path / "nowhere"])
    assert [one.id for one in library.runbooks] == ["restart_it"]
    said = " ".join(map(str, library.problems))
    assert "bad.json" in said
    assert "twin.json: /id: 'restart_it' is taken" in said
    assert "nowhere" in said


def test_a_later_directory_replaces(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(changed("/id", "service_failure")))
    shipped = load_library().get("service_failure")
    assert shipped is not None
    library = load_library([Path(json_schema.__file__).parent / "library", tmp_path])
    mine = library.get("service_failure")
    assert mine is not None
    assert mine.sha256 != shipped.sha256


def test_what_is_shipped_is_usable() -> None:
    library = load_library()
    assert library.problems == ()
    made = library.get("service_failure")
    assert made is not None
    assert made.dedup.window_s + made.limits.cooldown_s < 60  # a person who tries again a minute later gets a run
    assert made.actions[0].probe is not None
    assert made.success_criteria[0].call.type is CallType.SERVICE_READY


def test_the_shipped_schema_is_in_step() -> None:
    assert json_schema.SHIPPED.read_text() == json_schema.text()
