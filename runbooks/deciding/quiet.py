"""Alerts that are not answered although a runbook fits: silences of people, and inhibition by another run. Pure."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from runbooks.deciding.words import History, PastRun, Silence
from runbooks.model import AllOf, AnyOf, Facts, FieldTest, Not, Op, Predicate, Runbook, Status
from runbooks.patterns import BadPattern, check_pattern
from runbooks.predicates import MISSING, holds, pointed

_MATCHER: Final = re.compile(
    r"(?P<field>[A-Za-z_/][^=!<>~]*?)\s*(?P<op>=~|!~|!=|>=|<=|=|>|<)\s*(?P<value>.*)", re.DOTALL
)
_NUMERIC: Final = {">=": Op.GE, "<=": Op.LE, ">": Op.GT, "<": Op.LT}
MOST_CHARS: Final = 1000


class BadMatcher(ValueError):
    """A text that says nothing about an alert; it says what is wrong."""


def matcher(text: str) -> Predicate:
    """``service=risk-manager``, ``severity!=critical``, ``message=~disk.*full``, ``labels.cpu>=90``: a comparison with
    one field of the alert, by its name, by names with dots, or by a JSON Pointer. A pattern is for the whole text, in
    any case; its ``.`` stands for a line break too.

    Raises:
        BadMatcher: it is none.
    """
    found = _MATCHER.fullmatch(text.strip()) if len(text) <= MOST_CHARS else None
    if found is None:
        raise BadMatcher(f"{text!r:.100} is no matcher; write FIELD=VALUE, with =, !=, =~, !~, <, <=, > or >=")
    name, op, value = found["field"], found["op"], found["value"]
    pointer = _pointer(name)
    if op in _NUMERIC:
        return FieldTest(pointer, _NUMERIC[op], _number(text, value))
    if op in ("=~", "!~"):
        try:
            check_pattern(value)  # by itself: it must not reach beyond its brackets
            test: Predicate = FieldTest(pointer, Op.MATCHES, check_pattern(f"^(?s:{value})$"))
        except BadPattern as bad:
            raise BadMatcher(f"{text!r:.100}: {bad}") from bad
        return test if op == "=~" else _but_there(pointer, test)
    equal = _equals(pointer, value)
    return equal if op == "=" else _but_there(pointer, equal)


def _pointer(name: str) -> str:
    return name if name.startswith("/") else "/" + name.replace(".", "/")


def field_of(text: str) -> str:
    """The first part of the field that a good ``matcher`` compares: ``labels`` of ``labels.cpu>=90``."""
    found = _MATCHER.fullmatch(text.strip())
    return "" if found is None else _pointer(found["field"]).split("/")[1]


def matchers(texts: tuple[str, ...]) -> Predicate:
    """What fits all of them. Raises BadMatcher; a silence of everything has to be said (``type=~.*``)."""
    if not texts:
        raise BadMatcher("a silence needs at least one matcher, for example service=NAME")
    return AllOf(tuple(matcher(text) for text in texts))


def _equals(pointer: str, value: str) -> Predicate:
    """A text, or the number or truth value it may stand for."""
    tests: list[Predicate] = [FieldTest(pointer, Op.EQ, value)]
    try:
        read = json.loads(value)
    except ValueError:
        read = None
    if isinstance(read, (bool, int, float)):
        tests.append(FieldTest(pointer, Op.EQ, read))
    return AnyOf(tuple(tests)) if len(tests) > 1 else tests[0]


def _but_there(pointer: str, test: Predicate) -> Predicate:
    """As everywhere, an alert fits by nothing that it does not say."""
    return AllOf((FieldTest(pointer, Op.EXISTS, value=True), Not(test)))


def _number(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as bad:
        raise BadMatcher(f"{text!r:.100}: {value!r:.60} is no number") from bad


def silenced_by(alert: Facts, history: History, now: float) -> Silence | None:
    return next((one for one in history.silences if now < one.until and holds(one.matchers, alert)), None)


def said(silence: Silence, now: float) -> str:
    return f"silence {silence.id} by {silence.by} for another {silence.until - now:.0f} s"


def inhibitor(
    runbook: Runbook, alert: Facts, history: History, *, but: str = "", only_running: bool = False
) -> PastRun | None:
    """The open run that this runbook yields to. Fields that both alerts lack are equal, as for Alertmanager.

    Args:
        only_running: what is queued stops nobody: two runbooks that yield to each other must not wait for ever.
    """
    for rule in runbook.inhibited_by:
        for run in history.open_of(rule.runbook):
            may_stop = run.status is Status.RUNNING or not only_running
            if may_stop and run.execution_id != but and _are_equal(alert, run.facts or {}, rule.equal):
                return run
    return None


def _are_equal(one: Facts, other: Facts, pointers: tuple[str, ...]) -> bool:
    return all(_same(pointed(one, pointer), pointed(other, pointer)) for pointer in pointers)


def _same(one: Any, other: Any) -> bool:
    if one is MISSING or other is MISSING:
        return one is other
    return type(one) is type(other) and bool(one == other)
