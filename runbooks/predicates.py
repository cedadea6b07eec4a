"""Whether an alert fits a predicate, and why not. Pure; never raises on any alert.

A missing field fails every comparison, also ``ne``: a rule never matches by what an alert does not say. Only
``exists`` with false asks for absence.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

from runbooks import patterns
from runbooks.model import AllOf, AnyOf, Facts, FieldTest, Not, Op, Predicate

MISSING: Final = object()
MATCHED_CHARS: Final = 4096
"""Only so much of a text is given to a pattern: alerts come from outside."""


def pointed(facts: Any, pointer: str) -> Any:
    """The value at a JSON Pointer (RFC 6901), or ``MISSING``."""
    found = facts
    for key in _keys_of(pointer):
        if isinstance(found, dict) or hasattr(found, "keys"):
            if key not in found:
                return MISSING
            found = found[key]
        elif isinstance(found, (list, tuple)) and re.fullmatch(r"0|[1-9]\d{0,5}", key) and int(key) < len(found):
            found = found[int(key)]
        else:
            return MISSING
    return found


@functools.lru_cache(maxsize=2048)
def _keys_of(pointer: str) -> tuple[str, ...]:
    """Pointers stand in files and silences, not in alerts: they are few."""
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def holds(predicate: Predicate, facts: Facts) -> bool:
    match predicate:
        case AllOf(parts):
            return all(holds(part, facts) for part in parts)
        case AnyOf(parts):
            return any(holds(part, facts) for part in parts)
        case Not(part):
            return not holds(part, facts)
        case FieldTest(pointer, op, wanted):
            return _passes(pointed(facts, pointer), op, wanted)


def types_asked(predicate: Predicate) -> frozenset[str]:
    """Alerts of other types cannot fit; empty: nothing can be said."""
    match predicate:
        case AllOf(parts):
            return next((asked for part in parts if (asked := types_asked(part))), frozenset())
        case AnyOf(parts):
            each = [types_asked(part) for part in parts]
            return frozenset().union(*each) if all(each) else frozenset()
        case FieldTest("/type", Op.EQ, str(wanted)):
            return frozenset({wanted})
        case FieldTest("/type", Op.IN, wanted) if all(isinstance(one, str) for one in wanted):
            return frozenset(wanted)
        case _:
            return frozenset()


def specificity(predicate: Predicate) -> int:
    """How much a rule asks for: its number of comparisons; of alternatives the least demanding counts."""
    match predicate:
        case AllOf(parts):
            return sum(specificity(part) for part in parts)
        case AnyOf(parts):
            return min(specificity(part) for part in parts)
        case Not(part):
            return specificity(part)
        case FieldTest():
            return 1


def why_not(predicate: Predicate, facts: Facts) -> str:
    """The first comparison that failed, with the alert's actual value; "" when it holds."""
    if holds(predicate, facts):
        return ""
    match predicate:
        case AllOf(parts):
            return next(reason for part in parts if (reason := why_not(part, facts)))
        case AnyOf(parts):
            return "none of: " + "; ".join(why_not(part, facts) for part in parts)
        case Not(part):
            return f"excluded: {_shown(part)}"
        case FieldTest(pointer, op, wanted):
            value = pointed(facts, pointer)
            actual = "is missing" if value is MISSING else f"is {_short(value)}"
            return f"{pointer} {actual}, wanted {op.value} {_short(wanted)}"


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted in value
    return isinstance(value, (list, tuple)) and any(_equal(one, wanted) for one in value)


def _passes(value: Any, op: Op, wanted: Any) -> bool:
    if op is Op.EXISTS:
        return (value is not MISSING and value is not None) is wanted
    if value is MISSING:
        return False
    match op:
        case Op.EQ:
            return _equal(value, wanted)
        case Op.NE:
            return not _equal(value, wanted)
        case Op.IN:
            return any(_equal(value, one) for one in wanted)
        case Op.CONTAINS:
            return _contains(value, wanted)
        case Op.MATCHES:
            return isinstance(value, str) and patterns.finds(wanted, value[:MATCHED_CHARS])
        case _:
            return _is_number(value) and _compared(value, op, wanted)


def _equal(value: Any, wanted: Any) -> bool:
    """JSON's equality: true is not 1 (Python says it is)."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return bool(value == wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _compared(value: float, op: Op, wanted: float) -> bool:
    match op:
        case Op.GE:
            return value >= wanted
        case Op.GT:
            return value > wanted
        case Op.LE:
            return value <= wanted
        case _:
            return value < wanted


def _shown(predicate: Predicate) -> str:
    match predicate:
        case FieldTest(pointer, op, wanted):
            return f"{pointer} {op.value} {_short(wanted)}"
        case AllOf(parts):
            return " and ".join(_shown(part) for part in parts)
        case AnyOf(parts):
            return " or ".join(_shown(part) for part in parts)
        case Not(part):
            return f"not ({_shown(part)})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
