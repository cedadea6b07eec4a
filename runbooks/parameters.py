"""The values of a runbook's parameters, taken from an alert and checked. Pure."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from runbooks import patterns
from runbooks.model import Facts, Parameter, ParameterType
from runbooks.predicates import MATCHED_CHARS, MISSING, pointed

_NAMES: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_HOSTS: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})|\[[0-9a-fA-F:.]{2,45}\]")
_DURATIONS: Final = re.compile(r"\d{1,9}(\.\d{1,6})?(ms|s|m|h|d)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters, and halves of a character, which no program and no server can be given."""


class BadParameter(ValueError):
    """A value the alert lacks, or one that must not be used. The text names the parameter and says why."""


def resolve(parameters: tuple[Parameter, ...], facts: Facts) -> dict[str, Any]:
    """The value of each parameter; one that is optional, absent and without a default is left out.

    Raises:
        BadParameter: a required value is missing, or a value has the wrong type or is not allowed.
    """
    values: dict[str, Any] = {}
    for parameter in parameters:
        value = pointed(facts, parameter.pointer) if parameter.pointer is not None else MISSING
        if value is MISSING or value is None or value == "":
            value = parameter.default
        if value is None:
            if parameter.required:
                raise BadParameter(f"parameter {parameter.name!r}: the alert has nothing at {parameter.pointer}")
            continue
        values[parameter.name] = checked(parameter, value)
    return values


def checked(parameter: Parameter, value: Any) -> Any:
    """The value itself when it may be used.

    Raises:
        BadParameter: otherwise.
    """
    problem = _type_problem(parameter.type, value) or _range_problem(parameter, value)
    if problem:
        raise BadParameter(f"parameter {parameter.name!r}: {value!r:.100} {problem}")
    return value


def _type_problem(wanted: ParameterType, value: Any) -> str:
    is_number = type(value) is int or (isinstance(value, float) and math.isfinite(value))
    match wanted:
        case ParameterType.INTEGER:
            fits = is_number and isinstance(value, int)
        case ParameterType.NUMBER:
            fits = is_number
        case ParameterType.BOOLEAN:
            fits = isinstance(value, bool)
        case ParameterType.SERVICE:
            fits = isinstance(value, str) and _NAMES.fullmatch(value) is not None
        case ParameterType.HOST:
            fits = isinstance(value, str) and _HOSTS.fullmatch(value) is not None
        case ParameterType.PATH:
            fits = isinstance(value, str) and _is_plain_path(value)
        case ParameterType.DURATION:
            fits = (is_number and value >= 0) or (isinstance(value, str) and _DURATIONS.fullmatch(value) is not None)
        case ParameterType.STRING:
            fits = isinstance(value, str) and len(value) <= MATCHED_CHARS and not _CONTROL.search(value)
    return "" if fits else f"is no {wanted.value}"


def _is_plain_path(value: str) -> bool:
    """Absolute, without a step upwards."""
    is_shaped = value.startswith("/") and len(value) <= MATCHED_CHARS and not _CONTROL.search(value)
    return is_shaped and ".." not in value.split("/")


def _range_problem(parameter: Parameter, value: Any) -> str:
    if parameter.choices and value not in parameter.choices:
        return f"is none of {', '.join(map(repr, parameter.choices))}"
    if parameter.pattern is not None and not patterns.fits(parameter.pattern, str(value)):
        return f"does not match {parameter.pattern!r}"
    if parameter.minimum is not None and value < parameter.minimum:
        return f"is less than {parameter.minimum:g}"
    if parameter.maximum is not None and value > parameter.maximum:
        return f"is more than {parameter.maximum:g}"
    return ""
