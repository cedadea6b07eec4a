"""A run a person asks for: the alert that gives a runbook its values, and the plan that would be carried out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runbooks.model import Action, Facts, Parameter, ParameterType, Runbook
from runbooks.parameters import BadParameter, resolve
from runbooks.plan import Plan, bind, digest, resolved

ASKED_TYPE: Final = "runbook_run"
RUNBOOK_LABEL: Final = "runbook"
REQUESTED_BY: Final = "requested_by"
WHY_LABEL: Final = "why"
_FIELDS: Final = frozenset({"type", "service", "severity", "message", "source", "dedup_key"})
HIDDEN: Final = "(not shown)"


def asked_facts(runbook: Runbook, given: Mapping[str, str], *, by: str = "", why: str = "") -> dict[str, Any]:
    """The alert from which the runbook's parameters take these values.

    Args:
        given: by parameter; text, read by the parameter's type.
        by: who asks.

    Raises:
        BadParameter: a value has no place, or is not one.
    """
    facts: dict[str, Any] = {"type": ASKED_TYPE, "severity": "high", "source": "operator", "labels": {}}
    facts["message"] = why or f"runbook {runbook.id} was asked for"
    known = {one.name: one for one in runbook.parameters}
    for name, text in given.items():
        if name not in known:
            raise BadParameter(f"{runbook.id} has no parameter {name!r}; it has {', '.join(sorted(known)) or 'none'}")
        _put(facts, known[name], _read(known[name], text))
    resolve(runbook.parameters, facts)
    facts["labels"] |= {RUNBOOK_LABEL: runbook.id, REQUESTED_BY: by, WHY_LABEL: why}
    return facts


def _read(parameter: Parameter, text: str) -> Any:
    try:
        match parameter.type:
            case ParameterType.INTEGER:
                return int(text)
            case ParameterType.NUMBER:
                return float(text)
            case ParameterType.BOOLEAN:
                return {"true": True, "false": False}[text.lower()]
            case _:
                return text
    except (ValueError, KeyError) as error:
        raise BadParameter(f"parameter {parameter.name!r}: {text!r:.100} is no {parameter.type.value}") from error


def _put(facts: dict[str, Any], parameter: Parameter, value: Any) -> None:
    way = [part.replace("~1", "/").replace("~0", "~") for part in (parameter.pointer or "").split("/")[1:]]
    if len(way) == 1 and way[0] in _FIELDS:
        facts[way[0]] = value
    elif len(way) == 2 and way[0] == "labels" and way[1] not in (RUNBOOK_LABEL, REQUESTED_BY, WHY_LABEL):
        facts["labels"][way[1]] = value
    else:
        raise BadParameter(
            f"parameter {parameter.name!r} is taken from {parameter.pointer or 'nowhere'}: cannot be set"
        )


@dataclass(frozen=True, slots=True)
class Planned:
    """A runbook with its values, as it would be carried out."""

    runbook: Runbook
    plan: Plan
    values: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Values that are not to be shown are not; ``digest`` is of what really would be done, values and all."""
        hidden = {one.name: HIDDEN for one in self.runbook.parameters if one.redact and one.name in self.values}
        shown = resolved(bind(self.runbook, {**self.values, **hidden}, self.plan.facts))
        real = resolved(self.plan)
        steps = zip(shown.actions, real.actions, strict=True)
        return {
            "runbook": self.runbook.id,
            "version": self.runbook.version,
            "sha256": self.runbook.sha256,
            "target": shown.target,
            "parameters": {**self.values, **hidden},
            "actions": [_action(one, digest(bound)) for one, bound in steps],
        }


def planned(runbook: Runbook, facts: Facts) -> Planned:
    """Raises BadParameter, BadTemplate."""
    values = resolve(runbook.parameters, facts)
    return Planned(runbook, bind(runbook, values, facts), values)


def _action(action: Action, digest_: str) -> dict[str, Any]:
    look = action.verify
    call = action.call if action.call is not None else look.call if look is not None else None
    return {
        "id": action.id,
        "name": action.name,
        "type": call.type.value if call is not None else "",
        "effect": action.effect.value,
        "risk": action.risk.value,
        "with": _plain(call.arguments) if call is not None else {},
        "undone_by": action.rollback.call.type.value if action.rollback is not None else None,
        "digest": digest_,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value
