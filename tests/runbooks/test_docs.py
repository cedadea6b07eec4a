"""docs/runbooks.md says what is so: its example runs, its tables name every field, every call, every command."""

from __future__ import annotations

import json
import re
from pathlib import Path

from runbooks.border import ActionModel, ParameterModel, RunbookModel
from runbooks.catalogue import ARGUMENTS
from runbooks.lint import Linted, lint
from runbooks.model import CallType, Mode
from runbooks.parse import SHIPPED, Library, load_library, parse
from runbooks.rehearsal import rehearse
from supervisors.cli.commands.runbook import COMMANDS

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "runbooks.md").read_text(encoding="utf-8")


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


# -- docs/library.md --------------------------------------------------------------------------------------------------


def library_sections() -> dict[str, str]:
    """By title."""
    parts = re.split(r"^## ", (DOCS / "library.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return dict(part.split("\n", 1) for part in parts)


def test_every_shipped_runbook_has_its_section() -> None:
    sections = library_sections()
    shipped = load_library([SHIPPED]).runbooks
    assert {one.id for one in shipped} <= sections.keys()
    for one in shipped:
        for word in ("Cause", "Does", "Success", "Undone", "A person"):
            assert f"**{word}**" in sections[one.id], f"{one.id}: {word}"


def test_why_nothing_is_done_by_itself_stands_there() -> None:
    sections = library_sections()
    for one in load_library([SHIPPED]).runbooks:
        if one.mode is Mode.OBSERVE:
            assert "only observes" in sections[one.id], one.id
        if one.approval is not None:
            assert "agreed" in sections[one.id] or "asks" in sections[one.id], one.id


def test_what_the_trading_side_must_offer_stands_there_with_its_parameters() -> None:
    table = library_sections()["Market values"]
    told = {
        name: set(re.findall(r"`([a-z_]+)`", given))
        for names_, given in re.findall(r"^\| (`[^|]+) \| ([^|]*) \|", table, re.MULTILINE)
        for name in re.findall(r"`([a-z_]+)`", names_)
    }
    asked: dict[str, set[str]] = {}
    for one in load_library([SHIPPED]).runbooks:
        if one.target.startswith("trading:"):
            calls = [act.call for act in one.actions] + [act.rollback.call for act in one.actions if act.rollback]
            for call in calls:
                if call is not None and call.type is CallType.BRIDGE_COMMAND:
                    asked[call.arguments["command"]] = set(call.arguments["parameters"])
    assert told == asked
