"""docs/runbooks.md says what is so: its example runs, its tables name every field, every call, every command."""

from __future__ import annotations

import json
import re
from pathlib import Path

from runbooks.border import ActionModel, ParameterModel, RunbookModel
from runbooks.catalogue import ARGUMENTS
from runbooks.lint import Linted, lint
from runbooks.model import CallType
from runbooks.parse import Library, parse
from runbooks.rehearsal import rehearse
from supervisors.cli.commands.runbook import COMMANDS

TEXT = (Path(__file__).parents[2] / "docs" / "runbooks.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return re.split(r"\n##+ ", TEXT.split(f"# {title}\n", 1)[1])[0]


def first_cells(title: str) -> set[str]:
    rows = re.findall(r"^\| (.+?) \|", section(title), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def names(model: type[RunbookModel | ActionModel | ParameterModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_the_example_is_without_doubt_and_its_tests_pass() -> None:
    (source,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    made = parse(source.encode())
    assert lint([Linted("docs", made)]) == ()
    assert len(made.tests) == 3
    for test in made.tests:
        assert rehearse(made, test, Library((made,))).problems == ()


def test_every_field_stands_there_with_its_default() -> None:
    assert first_cells("The file") == names(RunbookModel)
    assert first_cells("Actions") >= names(ActionModel)
    for name in names(ParameterModel) - {"type"}:
        assert f"`{name}`" in section("Parameters")
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| `([^`]+)` \|", TEXT, re.MULTILINE))
    said = {**RunbookModel.model_fields, **ActionModel.model_fields}
    for name, default in rows.items():
        if name in said and name not in ("dedup", "group"):
            assert said[name].get_default(call_default_factory=True) == json.loads(default), name


def test_every_call_stands_there_with_its_arguments() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \|([^|]*)\|([^|]*)\|", section("Calls"), re.MULTILINE)
    told = {kind: (needs.split(), may.split()) for kind, needs, may in rows}
    for kind, takes in ARGUMENTS.items():
        if kind is CallType.TIME_PASSED:
            continue  # `wait`'s own
        needs, may = told.pop(kind.value)
        assert {one.strip(",") for one in needs} == takes.required, kind
        assert {one.strip(",") for one in may} == takes.optional, kind
    assert told == {}


def test_every_command_stands_there() -> None:
    for name in COMMANDS:
        assert re.search(rf"runbook {name}\b|`{name} ID`", section("Commands")), name
