"""The schema editors use: it takes what the loader takes, and marks what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from runbooks import json_schema
from runbooks.parse import SHIPPED, read
from tests.runbooks.files import COMMAND, GOOD, changed, problems
from tests.runbooks.old_files import DATABASE

ROOT = Path(json_schema.__file__).parent.parent
SCHEMA = json.loads(json_schema.SHIPPED.read_text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
ACTION = "/actions/0"
FINAL = {
    **COMMAND,
    "effect": "irreversible",
    "irreversible_reason": "it cannot be taken back",
    "probe": {"call": {"type": "command_ok", "argv": ["true"]}},
    "verify": {"call": {"type": "command_ok", "argv": ["true"]}},
}


def test_it_is_draft_7_and_in_step() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert json_schema.SHIPPED.read_text() == json_schema.text()


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.json")), ids=lambda file: file.stem)
def test_every_shipped_file_is_valid(file: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(json.loads(file.read_text()))] == []


FAULTY: dict[str, dict[str, Any]] = {
    "mutating without rollback": changed(f"{ACTION}/rollback", ...),
    "mutating without probe": changed(f"{ACTION}/probe", ...),
    "rollback without verify": changed(f"{ACTION}/rollback/verify", ...),
    "a shell's string": changed("/actions", [{**COMMAND, "command": "systemctl restart x"}]),
    "a typo": changed(f"{ACTION}/timout", "5s"),
    "an unknown operator": changed("/match/op", "like"),
    "irreversible without confirmation": changed("/actions", [FINAL]),
    "criteria as strings": changed("/success_criteria", ["systemctl is-active x"]),
    "no criteria": changed("/success_criteria", ...),
    "approval without timeout": {**GOOD, "approval": {"quorum": 1}},
    "requires_approval without approval": {**GOOD, "requires_approval": True},
}


@pytest.mark.parametrize("name", FAULTY)
def test_the_faulty_ones_are_marked_and_refused(name: str) -> None:
    assert not VALIDATOR.is_valid(FAULTY[name])
    assert problems(FAULTY[name])


@pytest.mark.parametrize(
    "raw",
    [
        GOOD,
        changed("/actions", [COMMAND]),
        {**changed("/actions", [FINAL]), "approval": {"timeout": "5m"}},
        {**GOOD, "for": "10s", "mode": "observe", "labels": {"a": "b"}},
        changed("/match", {"any": [GOOD["match"], {"not": {"field": "/a", "op": "absent"}}]}),
        changed("/actions", [{"id": "w1", "name": "W", "action_type": "wait", "effect": "none",
                              "parameters": {"for": "5s"}}]),
    ],
)  # fmt: skip
def test_good_ones_are_not_marked(raw: dict[str, Any]) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(raw)] == []
    assert problems(raw) == {}


def test_a_file_of_the_earlier_version_is_not_marked_and_a_wrong_one_is() -> None:
    for old in (DATABASE, {**DATABASE, "schema_version": 1}):
        assert [error.message for error in VALIDATOR.iter_errors(old)] == []
        read(json.dumps(old).encode(), "old.json")
    for wrong in (
        {**DATABASE, "error_patterns": "refused"},
        {**DATABASE, "actions": []},
        {**DATABASE, "schema_version": 3},
        {"id": "x"},
    ):
        assert not VALIDATOR.is_valid(wrong)


def test_the_editor_is_told_which_files() -> None:
    settings = json.loads((ROOT / ".vscode" / "settings.json").read_text())
    (bound,) = settings["json.schemas"]
    assert (ROOT / bound["url"]).resolve() == json_schema.SHIPPED.resolve()
    assert {"/runbooks/library/*.json", "**/runbooks/*.json"} <= set(bound["fileMatch"])
