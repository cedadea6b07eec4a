"""One runbook bound to the values of one alert: what the engine carries out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from runbooks.model import Action, Call, CallType, Check, Rollback, Runbook
from runbooks.templating import fill, fill_argv


@dataclass(frozen=True, slots=True)
class Plan:
    """A runbook without placeholders. ``deadline`` of the whole run is ``max_execution_s`` after its start."""

    runbook_id: str
    target: str
    actions: tuple[Action, ...]
    success_criteria: tuple[Check, ...] = ()
    preconditions: tuple[Check, ...] = ()
    max_execution_s: float = 600.0
    rollback_on_failure: bool = True


def bind(runbook: Runbook, values: Mapping[str, Any]) -> Plan:
    """The runbook with every placeholder filled, once.

    Raises:
        BadTemplate: a value is missing or must not be put where the runbook puts it.
    """
    return Plan(
        runbook_id=runbook.id,
        target=bound_target(runbook, values),
        actions=tuple(_action(action, values) for action in runbook.actions),
        success_criteria=tuple(_check(check, values) for check in runbook.success_criteria),
        preconditions=tuple(_check(check, values) for check in runbook.preconditions),
        max_execution_s=runbook.max_execution_s,
        rollback_on_failure=runbook.rollback_on_failure,
    )


def bound_target(runbook: Runbook, values: Mapping[str, Any]) -> str:
    """The name of what the run locks, for example ``service:risk-manager``."""
    return str(fill(runbook.target, values))


def _action(action: Action, values: Mapping[str, Any]) -> Action:
    rollback = action.rollback
    return replace(
        action,
        call=_call(action.call, values) if action.call else None,
        probe=_check(action.probe, values) if action.probe else None,
        verify=_check(action.verify, values) if action.verify else None,
        rollback=Rollback(_call(rollback.call, values), _check(rollback.verify, values), rollback.attempts)
        if rollback
        else None,
    )


def _check(check: Check, values: Mapping[str, Any]) -> Check:
    return replace(check, call=_call(check.call, values))


def _call(call: Call, values: Mapping[str, Any]) -> Call:
    arguments = {name: value for name, value in call.arguments.items() if name != "argv"}
    filled = dict(fill(arguments, values))
    if call.type in (CallType.COMMAND, CallType.COMMAND_OK):
        filled["argv"] = fill_argv(tuple(call.arguments["argv"]), values)
    return replace(call, arguments=filled)
