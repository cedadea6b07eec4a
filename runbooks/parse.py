"""From the bytes of a runbook file to a ``Runbook``, or to every problem of the file at once.

Reads files only in ``load_library``; everything else is pure. One bad file disables only itself.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from runbooks.border import (
    ActionModel,
    Border,
    CallModel,
    CheckModel,
    PredicateModel,
    RunbookModel,
    seconds,
)
from runbooks.model import (
    DEFAULT_FINGERPRINT,
    READING,
    Action,
    AllOf,
    AnyOf,
    Call,
    CallType,
    Check,
    Dedup,
    Effect,
    FieldTest,
    Limits,
    Not,
    Op,
    Parameter,
    ParameterType,
    Predicate,
    Retry,
    Rollback,
    Runbook,
)
from runbooks.parameters import BadParameter, checked
from runbooks.templating import has_stray_brace, placeholders

SHIPPED: Final = Path(__file__).parent / "library"
MAX_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in which file; ``pointer`` is a JSON Pointer into it ("" for the whole)."""

    file: str
    pointer: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}: {self.pointer or '/'}: {self.text}"


class BadRunbook(ValueError):
    """A file that is no usable runbook. ``problems`` holds all of them."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Library:
    """All usable runbooks, by id, and what was wrong with the others."""

    runbooks: tuple[Runbook, ...] = ()
    problems: tuple[Problem, ...] = ()

    def get(self, runbook_id: str) -> Runbook | None:
        return next((runbook for runbook in self.runbooks if runbook.id == runbook_id), None)


def load_library(directories: Iterable[Path] = (SHIPPED,)) -> Library:
    """Every ``*.json`` of the directories, in order. A runbook of a later directory replaces an earlier one's."""
    runbooks: dict[str, Runbook] = {}
    problems: list[Problem] = []
    for directory in directories:
        try:
            files = sorted(path for path in directory.iterdir() if path.suffix == ".json")
        except OSError as error:
            problems.append(Problem(str(directory), "", f"cannot read the runbook directory: {error.strerror}"))
            continue
        found = _load_files(files, problems)
        runbooks.update(found)
    return Library(tuple(runbooks[key] for key in sorted(runbooks)), tuple(problems))


def _load_files(files: Iterable[Path], problems: list[Problem]) -> dict[str, Runbook]:
    found: dict[str, Runbook] = {}
    for path in files:
        try:
            runbook = parse(path.read_bytes(), str(path))
        except BadRunbook as bad:
            problems.extend(bad.problems)
            continue
        except OSError as error:
            problems.append(Problem(str(path), "", f"cannot be read: {error.strerror}"))
            continue
        if runbook.id in found:
            problems.append(Problem(str(path), "/id", f"{runbook.id!r} is taken by another file of this directory"))
            continue
        found[runbook.id] = runbook
    return found


def parse(source: bytes, file: str = "<runbook>") -> Runbook:
    """The runbook in ``source`` (UTF-8 JSON).

    Raises:
        BadRunbook: with every problem.
    """
    try:
        model = RunbookModel.model_validate(_read_json(source, file))
    except ValidationError as invalid:
        raise BadRunbook(tuple(_problem(file, error) for error in invalid.errors())) from invalid
    problems = tuple(Problem(file, pointer, text) for pointer, text in _cross_checks(model))
    if problems:
        raise BadRunbook(problems)
    return _built(model, source)


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
        return json.loads(source.decode("utf-8-sig"), object_pairs_hook=refuse, parse_constant=no_constant)
    except RecursionError as error:
        raise BadRunbook((Problem(file, "", "is nested too deeply"),)) from error
    except ValueError as error:
        raise BadRunbook((Problem(file, "", f"is no JSON: {error}"),)) from error


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
    near = difflib.get_close_matches(key, sorted(_known_keys()), n=1)
    return "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")


def _known_keys() -> set[str]:
    return {field.alias or name for model in Border.__subclasses__() for name, field in model.model_fields.items()}


# -- checks across the file -------------------------------------------------------------------------------------------


def _cross_checks(model: RunbookModel) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for number, action in enumerate(model.actions):
        if action.id in seen:
            yield f"/actions/{number}/id", f"{action.id!r} stands there twice"
        seen.add(action.id)
        if action.timeout > model.max_execution_time:
            yield f"/actions/{number}/timeout", "is longer than max_execution_time"
        if action.rollback is not None and CallType(action.rollback.call.type) in READING:
            yield f"/actions/{number}/rollback/call", f"{action.rollback.call.type} only looks; it undoes nothing"
    if has_stray_brace(model.target):
        yield "/target", f"a lone brace in {model.target!r}"
    yield from _check_readings(model)
    yield from _check_defaults(model)
    yield from _check_placeholders(model)


def _check_readings(model: RunbookModel) -> Iterator[tuple[str, str]]:
    for pointer, check in _checks(model):
        if CallType(check.call.type) not in READING:
            yield pointer, f"{check.call.type} acts; a check only looks"
        if pointer.startswith(("/preconditions", "/success_criteria")) and check.call.type in _OF_AN_ACTION:
            yield pointer, f"{check.call.type} is about an action; there is none here"


_OF_AN_ACTION: Final = (
    CallType.SERVICE_GENERATION.value,
    CallType.SERVICE_RESTORED.value,
    CallType.BRIDGE_DONE.value,
)


def _checks(model: RunbookModel) -> Iterator[tuple[str, CheckModel]]:
    for number, check in enumerate(model.preconditions):
        yield f"/preconditions/{number}/call", check
    for number, check in enumerate(model.success_criteria):
        yield f"/success_criteria/{number}/call", check
    for number, action in enumerate(model.actions):
        for name, found in (("probe", action.probe), ("verify", action.verify)):
            if found is not None:
                yield f"/actions/{number}/{name}/call", found
        if action.rollback is not None:
            yield f"/actions/{number}/rollback/verify/call", action.rollback.verify


def _check_defaults(model: RunbookModel) -> Iterator[tuple[str, str]]:
    for parameter in _parameters(model):
        if parameter.default is not None:
            try:
                checked(parameter, parameter.default)
            except BadParameter as bad:
                yield f"/parameters/{parameter.name}/default", str(bad)


def _check_placeholders(model: RunbookModel) -> Iterator[tuple[str, str]]:
    always = {p.name for p in _parameters(model) if p.required or p.default is not None}
    for pointer, template in _templates(model):
        for name in placeholders(template):
            if name not in model.parameters:
                yield pointer, f"{{{name}}} is no parameter of this runbook"
            elif name not in always:
                yield pointer, f"{{{name}}} may be absent: make the parameter required or give it a default"


def _templates(model: RunbookModel) -> Iterator[tuple[str, Any]]:
    yield "/target", model.target
    for pointer, check in _checks(model):
        yield pointer, check.call.arguments
    for number, action in enumerate(model.actions):
        yield f"/actions/{number}", action.arguments
        if action.rollback is not None:
            yield f"/actions/{number}/rollback/call", action.rollback.call.arguments


# -- building ---------------------------------------------------------------------------------------------------------


def _built(model: RunbookModel, source: bytes) -> Runbook:
    fingerprint = model.dedup.fingerprint
    return Runbook(
        id=model.id,
        version=model.version,
        name=model.name,
        description=model.description,
        match=_predicate(model.match),
        target=model.target,
        actions=tuple(map(_action, model.actions)),
        success_criteria=tuple(map(_check, model.success_criteria)),
        parameters=tuple(_parameters(model)),
        preconditions=tuple(map(_check, model.preconditions)),
        dedup=Dedup(tuple(fingerprint) if fingerprint else DEFAULT_FINGERPRINT, model.dedup.window),
        limits=Limits(model.limits.cooldown),
        priority=model.priority,
        enabled=model.enabled,
        max_execution_s=model.max_execution_time,
        rollback_on_failure=model.rollback_on_failure,
        sha256=hashlib.sha256(source).hexdigest(),
        source=source,
    )


def _predicate(model: PredicateModel) -> Predicate:
    if model.all is not None:
        return AllOf(tuple(map(_predicate, model.all)))
    if model.any is not None:
        return AnyOf(tuple(map(_predicate, model.any)))
    if model.not_ is not None:
        return Not(_predicate(model.not_))
    return FieldTest(model.field or "", Op(model.op), model.value)


def _parameters(model: RunbookModel) -> Iterator[Parameter]:
    for name, given in model.parameters.items():
        yield Parameter(
            name=name,
            type=ParameterType(given.type),
            pointer=given.from_,
            required=given.required,
            default=given.default,
            choices=tuple(given.enum or ()),
            pattern=given.pattern,
            minimum=given.minimum,
            maximum=given.maximum,
        )


def _call(model: CallModel) -> Call:
    return Call(CallType(model.type), model.arguments, model.timeout if model.timeout is not None else 30.0)


def _check(model: CheckModel) -> Check:
    return Check(_looking(model.call), model.within, model.every, model.hold_for)


def _looking(model: CallModel) -> Call:
    """A look that takes long tells nothing: 5 s unless the file says otherwise."""
    return Call(CallType(model.type), model.arguments, model.timeout if model.timeout is not None else 5.0)


def _action(model: ActionModel) -> Action:
    if model.action_type == "wait_until":
        return Action(model.id, model.name, Effect.NONE, verify=_waited(model))
    rollback = model.rollback
    return Action(
        id=model.id,
        name=model.name,
        effect=Effect(model.effect),
        call=Call(model.call_type, model.arguments, model.timeout),
        probe=_check(model.probe) if model.probe else None,
        verify=_check(model.verify) if model.verify else None,
        rollback=Rollback(_call(rollback.call), _check(rollback.verify), rollback.attempts) if rollback else None,
        retry=_retry(model),
        irreversible_reason=model.irreversible_reason,
    )


def _waited(model: ActionModel) -> Check:
    call = Call(CallType(model.parameters["criterion"]), model.arguments, 5.0)
    every_s = seconds(model.parameters.get("every", 0.5)) or 0.5
    return Check(call, model.timeout, every_s, seconds(model.parameters.get("hold_for", 0)))


def _retry(model: ActionModel) -> Retry:
    given = model.retry
    return Retry(given.attempts, given.delay, given.factor, given.max_delay)
