"""From the bytes of a runbook file to a ``Runbook``, or to every problem of the file at once.

Reads files only in ``load_library``; everything else is pure. One bad file disables only itself.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from runbooks.border import OBSERVED, Border, RunbookModel
from runbooks.building import built
from runbooks.crosschecks import cross_checks
from runbooks.model import Runbook
from runbooks.problems import BadRunbook, Problem
from runbooks.version1 import Upgraded, is_version1, upgraded

__all__ = [
    "SHIPPED",
    "BadRunbook",
    "Library",
    "Problem",
    "Read",
    "by_id",
    "load_files",
    "load_library",
    "parse",
    "read",
]

SHIPPED: Final = Path(__file__).parent / "library"
MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 64


@dataclass(frozen=True, slots=True)
class Library:
    """All usable runbooks, by id, and what was wrong with the others. By id of runbook: ``reports``, how old files were
    read; ``files``, where it stands.
    """

    runbooks: tuple[Runbook, ...] = ()
    problems: tuple[Problem, ...] = ()
    reports: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Mapping[str, Read], problems: Iterable[Problem]) -> Library:
        """What was read, by id."""
        ordered = sorted(found.items())
        return cls(
            tuple(one.runbook for _, one in ordered),
            tuple(problems),
            {key: one.report for key, one in ordered if one.report},
            {key: one.file for key, one in ordered},
        )

    def get(self, runbook_id: str) -> Runbook | None:
        return next((runbook for runbook in self.runbooks if runbook.id == runbook_id), None)


def load_library(directories: Iterable[Path] = (SHIPPED,)) -> Library:
    """Every ``*.json`` of the directories, in order. A runbook of a later directory replaces an earlier one's."""
    found: dict[str, Read] = {}
    problems: list[Problem] = []
    for directory in directories:
        try:
            files = sorted(path for path in directory.iterdir() if path.suffix == ".json")
        except OSError as error:
            problems.append(Problem(str(directory), "", f"cannot read the runbook directory: {error.strerror}"))
            continue
        found.update(load_files(files, problems))
    return Library.of(found, problems)


def load_files(files: Iterable[Path], problems: list[Problem]) -> dict[str, Read]:
    """The usable ones by id; what is wrong with the others is added to ``problems``."""
    reads: list[Read] = []
    for path in files:
        try:
            reads.append(read(path.read_bytes(), str(path)))
        except BadRunbook as bad:
            problems.extend(bad.problems)
        except OSError as error:
            problems.append(Problem(str(path), "", f"cannot be read: {error.strerror}"))
    return by_id(reads, problems)


def by_id(reads: Iterable[Read], problems: list[Problem]) -> dict[str, Read]:
    """The files of one place by id of runbook: the first one counts, others of its id are problems."""
    found: dict[str, Read] = {}
    for one in reads:
        if one.runbook.id in found:
            problems.append(Problem(one.file, "/id", f"{one.runbook.id!r} is taken by another file of this directory"))
        else:
            found[one.runbook.id] = one
    return found


def parse(source: bytes, file: str = "<runbook>") -> Runbook:
    """The runbook in ``source`` (UTF-8 JSON, version 2 or 1).

    Raises:
        BadRunbook: with every problem.
    """
    return read(source, file).runbook


@dataclass(frozen=True, slots=True)
class Read:
    """A usable runbook, and what was made of its file where that is an old one."""

    runbook: Runbook
    report: tuple[Problem, ...] = ()
    file: str = ""


def read(source: bytes, file: str = "<runbook>") -> Read:
    """The runbook in ``source``, with the report on its conversion.

    Raises:
        BadRunbook: with every problem.
    """
    raw = _read_json(source, file)
    new = upgraded(raw, file) if is_version1(raw) else Upgraded(raw, (), is_observed=False)
    try:
        model = RunbookModel.model_validate(new.raw, context=OBSERVED if new.is_observed else None)
    except ValidationError as invalid:
        raise BadRunbook(tuple(_problem(file, error) for error in invalid.errors())) from invalid
    problems = tuple(Problem(file, pointer, text) for pointer, text in cross_checks(model))
    if problems:
        raise BadRunbook(problems)
    return Read(built(model, source), new.report, file)


def _read_json(source: bytes, file: str) -> Any:
    def refuse(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        known: dict[str, Any] = {}
        for key, value in pairs:
            if key in known:
                raise ValueError(f"the key {key!r} stands there twice")
            known[key] = value
        return known

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON number")

    if len(source) > MAX_BYTES:
        raise BadRunbook((Problem(file, "", f"is larger than {MAX_BYTES // 1024} KiB"),))
    try:
        raw = json.loads(source.decode("utf-8-sig"), object_pairs_hook=refuse, parse_constant=no_constant)
    except RecursionError as error:
        raise BadRunbook((Problem(file, "", "is nested too deeply"),)) from error
    except ValueError as error:
        raise BadRunbook((Problem(file, "", f"is no JSON: {error}"),)) from error
    if _is_deep(raw):
        raise BadRunbook((Problem(file, "", f"is nested more than {MAX_DEPTH} deep"),))
    return raw


def _is_deep(raw: Any) -> bool:
    """Everything behind this may go down a value by recursion."""
    level = [raw]
    for _ in range(MAX_DEPTH):
        level = [
            part
            for whole in level
            if isinstance(whole, (dict, list))
            for part in (whole.values() if isinstance(whole, dict) else whole)
        ]
    return bool(level)


# -- texts of problems ------------------------------------------------------------------------------------------------


def _problem(file: str, error: ErrorDetails) -> Problem:
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error["loc"])
    match error["type"]:
        case "extra_forbidden":
            text = _unknown_key(str(error["loc"][-1]))
        case "missing":
            text = "is missing"
        case "value_error":
            text = str(error["ctx"]["error"])
        case _:
            given = f" (found {error['input']!r:.60})" if not isinstance(error["input"], (dict, list)) else ""
            text = error["msg"][:1].lower() + error["msg"][1:] + given
    return Problem(file, pointer, text)


def _unknown_key(key: str) -> str:
    if key in _known_keys():
        return "is no key of this place"
    near = difflib.get_close_matches(key, sorted(_known_keys()), n=1)
    return "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")


def _known_keys() -> set[str]:
    return {field.alias or name for model in Border.__subclasses__() for name, field in model.model_fields.items()}
