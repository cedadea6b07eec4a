"""The platform's earlier runbook files (schema_version 1 or none): made into version 2 when read, never trusted. Pure.

Nothing they could do by accident is taken over: commands become argument lists before any value is put in, and a
runbook with a step whose effect nobody has declared only observes. Every change is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from runbooks.problems import BadRunbook, Level, Problem
from runbooks.shellwords import ShellSyntax, argv_of
from runbooks.templating import placeholders
from runbooks.version1_actions import Converted, converted

APPROVAL_TIMEOUT: Final = "15m"
_COOLDOWN: Final = "5m"
_RUNS_AN_HOUR: Final = 3
_POINTERS: Final = {
    "error_message": "/message",
    "message": "/message",
    "service_name": "/service",
    "service": "/service",
    "error_id": "/dedup_key",
    "dedup_key": "/dedup_key",
    "severity": "/severity",
    "type": "/type",
    "source": "/source",
}
"""Where the words of the platform's error data stand in an alert; every other is a label."""
_TYPES: Final = {"service": "service", "service_name": "service", "host": "host", "hostname": "host"}
_OLD: Final = frozenset({"error_patterns", "error_conditions", "requires_approval", "auto_execute"})
_SWITCHES: Final = ("requires_approval", "auto_execute")
_MORE_THAN_OBSERVE: Final = ("auto", "dry_run")
_ID: Final = re.compile(r"[a-z][a-z0-9_]{1,63}")


@dataclass
class _Report:
    """What is said about a file while it is converted."""

    file: str
    said: list[Problem] = field(default_factory=list)

    def note(self, pointer: str, text: str) -> None:
        self.said.append(Problem(self.file, pointer, text, Level.NOTE))

    def warn(self, pointer: str, text: str) -> None:
        self.said.append(Problem(self.file, pointer, text, Level.WARNING))

    def refuse(self, pointer: str, text: str) -> None:
        self.said.append(Problem(self.file, pointer, text))

    @property
    def refusals(self) -> tuple[Problem, ...]:
        return tuple(one for one in self.said if one.level is Level.ERROR)


@dataclass(frozen=True, slots=True)
class Upgraded:
    """``raw`` is for the border of version 2; ``is_observed``: its steps are known too little to be carried out."""

    raw: Any
    report: tuple[Problem, ...]
    is_observed: bool


def is_version1(raw: Any) -> bool:
    return (
        isinstance(raw, dict)
        and "actions" in raw
        and type(version := raw.get("schema_version", 1)) is int
        and (version == 1)
    )


def upgraded(raw: Mapping[str, Any], file: str) -> Upgraded:
    """The file as version 2.

    Raises:
        BadRunbook: with everything in it that cannot be made safe.
    """
    report = _Report(file)
    _check_switches(raw, report)
    made = {key: value for key, value in raw.items() if key not in _OLD}
    made["schema_version"] = 2
    made["id"] = _id(raw.get("id"), "/id", report)
    _default(made, "version", "1.0.0", report)
    actions = _actions(raw.get("actions"), report)
    made["actions"] = [one.raw for one in actions]
    found = _match(raw, report)
    if "match" not in raw:
        made["match"] = _one_of(found, report)
    elif found:
        report.note("/match", "is all that is compared: error_patterns and error_conditions are not used")
    made["success_criteria"] = _criteria(raw.get("success_criteria"), report)
    _add_parameters(made, report)
    _add_target(made, report)
    _add_limits(made, report)
    _add_approval(raw, made, report)
    unknown = [one for one in actions if not one.is_declared]
    if (unknown or raw.get("auto_execute") is False) and raw.get("mode", "auto") in _MORE_THAN_OBSERVE:
        made["mode"] = "observe"
    if raw.get("auto_execute") is False:
        report.note("/auto_execute", "false: it only says what it would do (mode observe)")
    for one in unknown:
        report.warn(
            one.pointer,
            "nobody has declared what this step does to the world: the runbook only observes. Add effect"
            f" (none, idempotent, mutating or irreversible){one.lacks}",
        )
    if report.refusals:
        raise BadRunbook(report.refusals)
    return Upgraded(made, tuple(report.said), bool(unknown))


def _check_switches(raw: Mapping[str, Any], report: _Report) -> None:
    """They decide whether anything is done: what is neither true nor false is never taken for one of them."""
    for name in _SWITCHES:
        if name in raw and not isinstance(raw[name], bool):
            report.refuse(f"/{name}", f"{raw[name]!r:.40} is neither true nor false")


def _id(given: Any, pointer: str, report: _Report) -> Any:
    if not isinstance(given, str) or _ID.fullmatch(given):
        return given
    made = re.sub(r"[^a-z0-9]+", "_", given.lower()).strip("_")[:64]
    if not _ID.fullmatch(made):
        return given
    report.note(pointer, f"{given!r:.80} is read as {made!r}")
    return made


def _default(made: dict[str, Any], key: str, value: Any, report: _Report) -> None:
    if key not in made:
        made[key] = value
        report.note(f"/{key}", f"is not said: {value!r} is taken")


# -- when -------------------------------------------------------------------------------------------------------------


def _match(raw: Mapping[str, Any], report: _Report) -> list[dict[str, Any]]:
    return [*_patterns(raw.get("error_patterns"), report), *_conditions(raw.get("error_conditions"), report)]


def _one_of(parts: list[dict[str, Any]], report: _Report) -> dict[str, Any]:
    if not parts:
        report.refuse("", "has neither error_patterns nor error_conditions: it would answer no alert, or every one")
        return {}
    if len(parts) > 1:
        report.note("/error_conditions", "a pattern and all conditions must hold; nothing is scored")
    return parts[0] if len(parts) == 1 else {"all": parts}


def _patterns(given: Any, report: _Report) -> Iterator[dict[str, Any]]:
    if given in (None, []):
        return
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        report.refuse("/error_patterns", "is no list of regular expressions")
        return
    tests = [{"field": "/message", "op": "matches", "value": one} for one in given]
    report.note("/error_patterns", "are looked for in the alert's message, in any case")
    yield tests[0] if len(tests) == 1 else {"any": tests}


def _conditions(given: Any, report: _Report) -> Iterator[dict[str, Any]]:
    if given is None:
        return
    if not isinstance(given, dict):
        report.refuse("/error_conditions", "is no object")
        return
    for name, value in given.items():
        here = "/error_conditions/" + name.replace("~", "~0").replace("/", "~1")
        if isinstance(value, dict):
            report.refuse(here, "compares with an object; write match with field, op and value")
        elif isinstance(value, list):
            yield {"field": pointer_of(name), "op": "in", "value": value}
        else:
            yield {"field": pointer_of(name), "op": "eq", "value": value}
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                report.warn(here, f"holds for exactly {value} only; did you mean ge? Then write match with op ge")


def pointer_of(name: str) -> str:
    """Where a word of the platform's error data stands in an alert."""
    return _POINTERS.get(name, "/labels/" + name.replace("~", "~0").replace("/", "~1"))


# -- what -------------------------------------------------------------------------------------------------------------


def _actions(given: Any, report: _Report) -> list[Converted]:
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        report.refuse("/actions", "is no list of objects")
        return []
    made = []
    for number, raw in enumerate(given):
        pointer = f"/actions/{number}"
        named = {**raw, "id": _id(raw.get("id"), f"{pointer}/id", report)}
        wants = named.get("dependencies")
        if isinstance(wants, list):
            named["dependencies"] = [_id(one, f"{pointer}/dependencies", report) for one in wants]
        one = converted(named, pointer)
        report.said += [Problem(report.file, at, text, level) for at, text, level in one.said]
        made.append(one)
    return _in_order(made, report)


def _in_order(actions: list[Converted], report: _Report) -> list[Converted]:
    """Each after those it depends on; one of a circle stays where it is, for the border to say so."""
    known = {_name(one) for one in actions}
    left, done, placed = list(actions), set[str](), list[Converted]()
    while left:
        ready = next((one for one in left if {*_wants(one)} & known <= done), left[0])
        left.remove(ready)
        placed.append(ready)
        done.add(_name(ready))
    if placed != actions:
        report.note("/actions", f"run in this order: {', '.join(map(_name, placed))}")
    return placed


def _name(action: Converted) -> str:
    return str(action.raw.get("id"))


def _wants(action: Converted) -> list[str]:
    wants = action.raw.get("dependencies", [])
    return [one for one in wants if isinstance(one, str)] if isinstance(wants, list) else []


def _criteria(given: Any, report: _Report) -> list[Any]:
    if given in (None, []):
        report.note("/success_criteria", "there are none: success is that the alert is cleared within 60 s")
        return [{"call": {"type": "alert_cleared"}, "within": "60s"}]
    if not isinstance(given, list):
        report.refuse("/success_criteria", "is no list")
        return []
    made = []
    for number, one in enumerate(given):
        if isinstance(one, str):
            try:
                argv = argv_of(one, is_check=True)
            except ShellSyntax as bad:
                report.refuse(f"/success_criteria/{number}", str(bad))
                continue
            made.append({"call": {"type": "command_ok", "argv": argv}, "within": "30s"})
        else:
            made.append(one)
    report.note("/success_criteria", "must all hold")
    return made


# -- what version 1 did not have --------------------------------------------------------------------------------------


def _add_parameters(made: dict[str, Any], report: _Report) -> None:
    """Every placeholder becomes a typed, required parameter taken from the alert."""
    known = made.get("parameters", {})
    if not isinstance(known, dict):
        return  # the border says so
    outputs = [one.get("outputs") for one in made["actions"]]
    given = {name for one in outputs if isinstance(one, dict) for name in one}
    used = placeholders([made.get("target"), made.get("preconditions"), made["actions"], made["success_criteria"]])
    added = {}
    for name in dict.fromkeys(used):
        if name in known or name in given:
            continue
        kind, pointer = _TYPES.get(name, "string"), pointer_of(name)
        added[name] = {"type": kind, "from": pointer, "required": True}
        report.note(f"/parameters/{name}", f"{{{name}}} is a {kind} the alert must have at {pointer}")
    if added:
        made["parameters"] = {**known, **added}


def _add_target(made: dict[str, Any], report: _Report) -> None:
    if "target" in made:
        return
    parameters = made.get("parameters")
    names = parameters if isinstance(parameters, dict) else {}
    service = next((name for name in ("service_name", "service") if name in names), None)
    made["target"] = f"service:{{{service}}}" if service else f"runbook:{made['id']}"
    report.note("/target", f"{made['target']} is locked while it runs")


def _add_limits(made: dict[str, Any], report: _Report) -> None:
    if "limits" not in made:
        made["limits"] = {
            "cooldown": _COOLDOWN,
            "max_runs": [{"count": _RUNS_AN_HOUR, "per": "1h", "scope": "target"}],
        }
        report.note("/limits", f"{_COOLDOWN} between runs, at most {_RUNS_AN_HOUR} an hour, for each target")


def _add_approval(raw: Mapping[str, Any], made: dict[str, Any], report: _Report) -> None:
    asked = [one.get("id") for one in made["actions"] if one.get("requires_confirmation") is True]
    if raw.get("approval") is not None or not (asked or raw.get("requires_approval") is True):
        return
    why = "requires_approval" if raw.get("requires_approval") is True else f"step {asked[0]!r} requires confirmation"
    made["approval"] = {"timeout": APPROVAL_TIMEOUT}
    report.note("/approval", f"{why}: a person has {APPROVAL_TIMEOUT} to approve; then it is rejected, with an alert")
