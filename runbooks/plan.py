"""One runbook with the values of one alert: what the engine carries out. Pure.

Its actions keep their placeholders: each is bound once, when its turn has come, with the parameters and with what the
steps before it gave back. A value that was put in is never looked at again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from runbooks.model import Action, Call, CallType, Check, Facts, Rollback, Runbook
from runbooks.predicates import holds, why_not
from runbooks.templating import fill, fill_argv

_ANY: Final = "x"
"""Stands for an output that is not known yet, where only its place is tried."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A runbook and its ``values``. The run's deadline is ``max_execution_s`` after its start. ``facts``: the alert,
    for ``when``. ``seed`` makes the pauses between attempts differ from run to run and the same in every resumed one.
    """

    runbook_id: str
    target: str
    actions: tuple[Action, ...]
    success_criteria: tuple[Check, ...] = ()
    preconditions: tuple[Check, ...] = ()
    max_execution_s: float = 600.0
    rollback_on_failure: bool = True
    values: Mapping[str, Any] = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)
    seed: str = ""


def bind(runbook: Runbook, values: Mapping[str, Any], facts: Facts | None = None, seed: str = "") -> Plan:
    """The runbook with its target and preconditions filled; that everything else can be filled is made sure of.

    Raises:
        BadTemplate: a value is missing or must not be put where the runbook puts it.
    """
    plan = Plan(
        runbook_id=runbook.id,
        target=bound_target(runbook, values),
        actions=runbook.actions,
        success_criteria=runbook.success_criteria,
        preconditions=tuple(bound_check(check, values) for check in runbook.preconditions),
        max_execution_s=runbook.max_execution_s,
        rollback_on_failure=runbook.rollback_on_failure,
        values=values,
        facts=facts or {},
        seed=seed,
    )
    resolved(plan, _ANY)
    return plan


def resolved(plan: Plan, output: str | None = None) -> Plan:
    """The plan as far as it is known before it runs: its actions and criteria filled, outputs still as placeholders (or
    as ``output``). For people, and for what is agreed to; it is never carried out.

    Raises:
        BadTemplate: as ``bind``.
    """
    names = [name for action in plan.actions for name in action.outputs]
    values = {name: f"{{{name}}}" if output is None else output for name in names} | dict(plan.values)
    return replace(
        plan,
        actions=tuple(_action(action, values) for action in plan.actions),
        success_criteria=tuple(bound_check(check, values) for check in plan.success_criteria),
    )


def bound_target(runbook: Runbook, values: Mapping[str, Any]) -> str:
    """The name of what the run locks, for example ``service:risk-manager``."""
    return str(fill(runbook.target, values))


def bound_action(plan: Plan, index: int, outputs: Mapping[str, Any]) -> Action:
    """The action with every placeholder filled, its rollback too. Parameters win over outputs of the same name.

    Raises:
        BadTemplate: an output it needs is not there, or must not be put where the runbook puts it.
    """
    return _action(plan.actions[index], {**outputs, **plan.values})


def bound_criterion(plan: Plan, number: int, outputs: Mapping[str, Any]) -> Check:
    """Raises BadTemplate."""
    return bound_check(plan.success_criteria[number], {**outputs, **plan.values})


def digest(action: Action) -> str:
    """Equal for bound actions that would do and look at the very same."""
    checks = [action.probe, action.verify, action.rollback.verify if action.rollback else None]
    calls = [action.call, action.rollback.call if action.rollback else None]
    calls += [check.call if check else None for check in checks]
    said = [[call.type.value, call.arguments] if call else None for call in calls]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()


def skipped_because(plan: Plan, action: Action, outputs: Mapping[str, Any]) -> str:
    """Why its ``when`` does not hold; "" for a step that is to be made."""
    if action.when is None:
        return ""
    facts = {"alert": plan.facts, "parameters": plan.values, "outputs": outputs}
    return "" if holds(action.when, facts) else why_not(action.when, facts)


def jitter_share(plan: Plan, action: Action, attempt: int) -> float:
    """From 0 to 1: the same for every run of this seed, step and attempt."""
    number = hashlib.sha256(f"{plan.seed}/{action.id}/{attempt}".encode()).digest()[:8]
    return int.from_bytes(number) / 2**64


def _action(action: Action, values: Mapping[str, Any]) -> Action:
    rollback = action.rollback
    return replace(
        action,
        call=_call(action.call, values) if action.call else None,
        probe=bound_check(action.probe, values) if action.probe else None,
        verify=bound_check(action.verify, values) if action.verify else None,
        rollback=Rollback(_call(rollback.call, values), bound_check(rollback.verify, values), rollback.attempts)
        if rollback
        else None,
    )


def bound_check(check: Check, values: Mapping[str, Any]) -> Check:
    """Raises BadTemplate."""
    return replace(check, call=_call(check.call, values))


def _call(call: Call, values: Mapping[str, Any]) -> Call:
    arguments = {name: value for name, value in call.arguments.items() if name != "argv"}
    filled = dict(fill(arguments, values))
    if call.type in (CallType.COMMAND, CallType.COMMAND_OK):
        filled["argv"] = fill_argv(tuple(call.arguments["argv"]), values)
    return replace(call, arguments=filled)
