"""What is doubtful about runbooks that can be used: times that cannot be kept, references to nothing, runbooks that
start each other, alerts two of them would answer, tests that are missing. Pure, and never raises on any runbook.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runbooks.approval import why_no_safe_action
from runbooks.connections import Why, connections, rings
from runbooks.matching import is_in_use, rank
from runbooks.model import Action, Call, CallType, Check, Facts, Mode, OnFailure, Runbook, Status
from runbooks.predicates import holds, types_asked
from runbooks.problems import Level, Problem
from runbooks.program_texts import starts_shell
from runbooks.templating import placeholders

_ARGV: Final = frozenset({CallType.COMMAND, CallType.COMMAND_OK})
_WITHOUT_SUCCESS: Final = frozenset(status.value for status in Status if status.is_terminal) - {"succeeded"}


@dataclass(frozen=True, slots=True)
class Linted:
    """A runbook and the file it stands in."""

    file: str
    runbook: Runbook


def lint(asked: Sequence[Linted], around: Iterable[Runbook] = (), alerts: Iterable[Facts] = ()) -> tuple[Problem, ...]:
    """Everything doubtful about the runbooks ``asked`` for.

    Args:
        around: the others they are used with.
        alerts: recorded ones; one of equal rank for two runbooks is told.
    """
    own = {one.runbook.id for one in asked}
    all_of_them = (*(one.runbook for one in asked), *(one for one in around if one.id not in own))
    found = [problem for one in asked for problem in _alone(one)]
    found += [problem for one in asked for problem in _references(one, {each.id: each for each in all_of_them})]
    found += _rings(asked, all_of_them)
    found += _ties(asked, all_of_them, alerts)
    return tuple(found)


def _alone(one: Linted) -> Iterator[Problem]:
    for pointer, text, level in (
        *_times(one.runbook),
        *_limits(one.runbook),
        *_match(one.runbook),
        *_argvs(one.runbook),
        *_parameters(one.runbook),
        *_ladder(one.runbook),
        *_tests(one.runbook),
    ):
        yield Problem(one.file, pointer, text, level)


Found = Iterator[tuple[str, str, Level]]


# -- times ------------------------------------------------------------------------------------------------------------


def _times(runbook: Runbook) -> Found:
    longest_s = longest(runbook)
    if longest_s > runbook.max_execution_s:
        text = f"is {runbook.max_execution_s:g} s; all steps, attempts and checks may take {longest_s:g} s"
        yield "/max_execution_time", text, Level.WARNING


def longest(runbook: Runbook) -> float:
    """Seconds a run takes when everything takes all its time and goes well at last."""
    checks = (*runbook.preconditions, *runbook.success_criteria)
    return sum(map(_check_s, checks)) + sum(map(_action_s, runbook.actions))


def _check_s(check: Check) -> float:
    return check.within_s + check.hold_for_s


def _action_s(action: Action) -> float:
    call_s = action.call.timeout_s if action.call is not None else 0.0
    attempts = action.retry.attempts
    pauses_s = sum(action.retry.pause_s(attempt) for attempt in range(1, min(attempts, 100)))
    return attempts * call_s + pauses_s + (_check_s(action.verify) if action.verify is not None else 0.0)


def _limits(runbook: Runbook) -> Found:
    limits = runbook.limits
    verifying = [one.verify for one in runbook.actions if one.verify is not None and one.call is not None]
    held_s = max((check.hold_for_s for check in (*runbook.success_criteria, *verifying)), default=0.0)
    if limits.cooldown_s == 0 and not limits.max_runs and limits.breaker is None:
        yield "/limits", "nothing limits how often it runs: give it a cooldown, max_runs or a breaker", Level.WARNING
    elif 0 < limits.cooldown_s < held_s:
        text = f"is {limits.cooldown_s:g} s, shorter than what must hold for {held_s:g} s to call a run a success"
        yield "/limits/cooldown", text, Level.WARNING


# -- what it answers, and with what -----------------------------------------------------------------------------------


def _match(runbook: Runbook) -> Found:
    if not types_asked(runbook.match):
        yield "/match", "asks for no type of alert (/type eq or in): every alert is held against it", Level.WARNING


def calls(runbook: Runbook) -> Iterator[tuple[str, Call]]:
    """Every call of it, acting or looking, with its pointer."""
    for where, checks in (("preconditions", runbook.preconditions), ("success_criteria", runbook.success_criteria)):
        for number, check in enumerate(checks):
            yield f"/{where}/{number}/call", check.call
    for number, action in enumerate(runbook.actions):
        here = f"/actions/{number}"
        if action.call is not None:
            yield here, action.call
        for name, found in (("probe", action.probe), ("verify", action.verify)):
            if found is not None:
                yield f"{here}/{name}/call", found.call
        if action.rollback is not None:
            yield f"{here}/rollback/call", action.rollback.call
            yield f"{here}/rollback/verify/call", action.rollback.verify.call


def _argvs(runbook: Runbook) -> Found:
    redacted = {one.name for one in runbook.parameters if one.redact}
    for pointer, call in calls(runbook):
        if call.type not in _ARGV:
            continue
        argv = [str(word) for word in call.arguments.get("argv", ())]
        if argv and (shell := starts_shell(argv)) is not None:
            yield pointer, f"{shell} starts a shell; name the program itself", Level.WARNING
        for name in sorted(redacted & set(placeholders(argv))):
            text = f"{{{name}}} is not to be shown, and all users of the machine can read a program's arguments"
            yield pointer, text, Level.WARNING


def _parameters(runbook: Runbook) -> Found:
    used = set(placeholders([runbook.target, [call.arguments for _, call in calls(runbook)]]))
    asked = json.dumps([_fields(one.when) for one in runbook.actions if one.when is not None])
    for one in runbook.parameters:
        if one.name not in used and f'"/parameters/{one.name}' not in asked and not one.required:
            yield f"/parameters/{one.name}", "is never used", Level.WARNING


def _fields(predicate: Any) -> list[str]:
    parts = getattr(predicate, "parts", None) or ([part] if (part := getattr(predicate, "part", None)) else [])
    own = [predicate.field] if hasattr(predicate, "field") else []
    return own + [field for part in parts for field in _fields(part)]


def _ladder(runbook: Runbook) -> Found:
    for number, action in enumerate(runbook.actions):
        if action.on_failure is OnFailure.ESCALATE and not runbook.escalate:
            text = "asks for who comes next, and nobody stands under /escalate"
            yield f"/actions/{number}/on_failure", text, Level.WARNING


# -- tests ------------------------------------------------------------------------------------------------------------


def _tests(runbook: Runbook) -> Found:
    if runbook.mode is Mode.OFF or not runbook.enabled:
        return
    if not runbook.tests:
        yield "/tests", "has no tests: selfheal runbook test shows nothing of it", Level.WARNING
        return
    expected = [test.expect for test in runbook.tests]
    ends = {str(one.get("status")) for one in expected}
    can_undo = any(one.rollback is not None for one in runbook.actions)
    if not any(str(one.get("outcome")) == "no_match" for one in expected):
        yield "/tests", "none expects outcome no_match: an alert it must leave alone", Level.WARNING
    if runbook.mode in (Mode.OBSERVE, Mode.DRY_RUN):
        return
    if "succeeded" not in ends:
        yield "/tests", "none expects status succeeded", Level.WARNING
    if can_undo and "rolled_back" not in ends:
        yield "/tests", "none expects status rolled_back: a failure whose steps are undone", Level.WARNING
    elif not can_undo and not ends & _WITHOUT_SUCCESS:
        yield "/tests", "none expects an end without success", Level.WARNING


# -- with others ------------------------------------------------------------------------------------------------------


def _references(one: Linted, known: Mapping[str, Runbook]) -> Iterator[Problem]:
    runbook = one.runbook
    named = [(f"/escalate/{number}/runbook", each.runbook) for number, each in enumerate(runbook.escalate)]
    named += [(f"/inhibited_by/{number}/runbook", each.runbook) for number, each in enumerate(runbook.inhibited_by)]
    named += [("/approval/safe_action", runbook.approval.safe_action)] if runbook.approval else []
    for pointer, wanted in named:
        if wanted is not None and wanted not in known:
            yield Problem(one.file, pointer, f"there is no runbook {wanted!r}")
    safe = known.get(str(runbook.approval.safe_action)) if runbook.approval else None
    if safe is not None and (why_not := why_no_safe_action(safe)) is not None:
        text = f"{safe.id!r} {why_not}: nothing would be begun instead"
        yield Problem(one.file, "/approval/safe_action", text, Level.WARNING)


def _rings(asked: Sequence[Linted], all_of_them: Sequence[Runbook]) -> Iterator[Problem]:
    """Runbooks that lead to each other. A ring of escalations alone is sure to turn; by alerts it only can."""
    for ring in rings(connections(all_of_them)):
        names = [link.start for link in ring]
        is_sure = all(link.why is Why.ESCALATES for link in ring)
        way = " -> ".join([*names, names[0]])
        told = ", ".join(f"{link.start} {link.said} {link.end}" for link in ring)
        for one in asked:
            if one.runbook.id in names:
                level = Level.ERROR if is_sure else Level.WARNING
                yield Problem(one.file, "", f"leads back to itself: {way} ({told})", level)


def _ties(asked: Sequence[Linted], all_of_them: Sequence[Runbook], alerts: Iterable[Facts]) -> Iterator[Problem]:
    """Alerts whose answer only the alphabet decides."""
    by_id = {one.runbook.id: one for one in asked}
    told: set[tuple[str, str]] = set()
    own = [test.alert for runbook in all_of_them for test in runbook.tests]
    for number, alert in enumerate((*own, *alerts)):
        first, *others = _fitting(alert, all_of_them) or (None,)
        if first is None or not others or rank(first)[:2] != rank(others[0])[:2]:
            continue
        pair = (first.id, others[0].id)
        for mine, other in (pair, pair[::-1]):
            if mine in by_id and pair not in told:
                which = "a test's alert" if number < len(own) else "a recorded alert"
                text = f"has the same rank as {other!r} for {which} ({_named(alert)}): give one a priority"
                yield Problem(by_id[mine].file, "/priority", text, Level.WARNING)
        told.add(pair)


def _fitting(alert: Facts, runbooks: Iterable[Runbook]) -> list[Runbook]:
    return sorted((one for one in runbooks if is_in_use(one) and holds(one.match, alert)), key=rank)[:2]


def _named(alert: Mapping[str, Any]) -> str:
    said = [f"{key} {alert[key]!r:.60}" for key in ("type", "service") if key in alert]
    return ", ".join(said) or "without a type"
