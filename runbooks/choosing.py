"""Which runbook answers an alert, with which values: by the files and the alert alone, whatever was before. Pure.

Alerts are much alike. What was chosen is remembered by the fields that were looked at; ``chosen_plainly`` remembers
nothing and says the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from runbooks.model import AllOf, AnyOf, Facts, FieldTest, Mode, Not, Predicate, Runbook
from runbooks.parameters import BadParameter, resolve
from runbooks.plan import bind
from runbooks.predicates import MISSING, holds, pointed, specificity, types_asked
from runbooks.templating import BadTemplate

MOST_INDEXES: Final = 8
MOST_REMEMBERED: Final = 4096
MOST_CHARS: Final = 256
"""Longer texts are hardly told twice."""
_FREE_TEXT: Final = "/message"


class Chosen(NamedTuple):
    """``runbook`` None: some fit, and the alert lacks what each of them needs (``refusals``)."""

    runbook: Runbook | None
    target: str = ""
    values: Mapping[str, Any] = {}
    fingerprint: str = ""
    refusals: str = ""


def chosen(alert: Facts, runbooks: Sequence[Runbook]) -> Chosen | None:
    """The best that fits and has all it needs; None: no runbook fits.

    Order: priority, then how much the rule asks for, then id. Raises what a rule raises that is broken.
    """
    kind = alert.get("type")
    if type(kind) is not str or type(runbooks) is not tuple:
        return chosen_plainly(alert, runbooks)
    return _index(runbooks).about(kind).chosen(alert)


def may_fit(kind: str, runbooks: tuple[Runbook, ...]) -> bool:
    """Whether ``chosen`` can be anything but None for an alert of this type. From any thread."""
    return not _index(runbooks).about(kind).is_empty


def chosen_plainly(alert: Facts, runbooks: Sequence[Runbook]) -> Chosen | None:
    """As ``chosen``, by a look at all of them."""
    fitting = [one for one in runbooks if is_in_use(one) and holds(one.match, alert)]
    return first_of(sorted(fitting, key=rank), alert) if fitting else None


def first_of(candidates: Sequence[Runbook], alert: Facts) -> Chosen:
    """The first of these that has all it needs."""
    refusals: list[str] = []
    for runbook in candidates:
        try:
            values = resolve(runbook.parameters, alert)
            target = bind(runbook, values).target
        except (BadParameter, BadTemplate) as bad:
            refusals.append(f"{runbook.id}: {bad}")
            continue
        return Chosen(runbook, target, values, fingerprint(runbook, alert))
    return Chosen(None, refusals="; ".join(refusals))


def is_in_use(runbook: Runbook) -> bool:
    return runbook.enabled and runbook.mode is not Mode.OFF


def rank(runbook: Runbook) -> tuple[int, int, str]:
    """The order in which runbooks that fit are asked: priority, then how much the rule asks for, then the id."""
    return (-runbook.priority, -specificity(runbook.match), runbook.id)


def fingerprint(runbook: Runbook, alert: Facts) -> str:
    """Equal for alerts that this runbook takes as one."""
    values = [pointed(alert, pointer) for pointer in runbook.dedup.fingerprint]
    said = [runbook.id, [None if value is MISSING else value for value in values]]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()[:32]


# -- remembering ------------------------------------------------------------------------------------------------------


class _About:
    """The runbooks that can fit alerts of one type, and what was chosen of them."""

    def __init__(self, runbooks: Sequence[Runbook]) -> None:
        self._runbooks = tuple(runbooks)
        looked_at = dict.fromkeys(pointer for one in self._runbooks for pointer in _looked_at(one))
        self._pointers = tuple(looked_at)
        self._known: dict[tuple[object, ...], tuple[Chosen | None]] = {}

    @property
    def is_empty(self) -> bool:
        return not self._runbooks

    def chosen(self, alert: Facts) -> Chosen | None:
        if not self._runbooks:  # as nearly always
            return None
        key = None if _FREE_TEXT in self._pointers else _key(alert, self._pointers)
        if key is None:
            return chosen_plainly(alert, self._runbooks)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            known = self._known[key] = (chosen_plainly(alert, self._runbooks),)
        return known[0]


class _Index:
    """Runbooks by the alert types they ask for: most alerts are about none of them. It holds what it is about."""

    def __init__(self, runbooks: Sequence[Runbook]) -> None:
        self._runbooks = runbooks
        asked = [types_asked(one.match) for one in runbooks]
        pairs = list(zip(runbooks, asked, strict=True))
        self._others = _About([one for one, kinds in pairs if not kinds])
        self._by_type = {
            kind: _About([one for one, kinds in pairs if not kinds or kind in kinds])
            for kind in frozenset[str]().union(*asked)
        }

    def about(self, kind: str) -> _About:
        return self._by_type.get(kind, self._others)


_indexes: dict[int, _Index] = {}
"""By the identity of what they are about, which they hold: a library is loaded once."""


def _index(runbooks: Sequence[Runbook]) -> _Index:
    index = _indexes.get(id(runbooks))
    if index is None:
        if len(_indexes) >= MOST_INDEXES:
            _indexes.clear()
        index = _indexes[id(runbooks)] = _Index(runbooks)
    return index


def _looked_at(runbook: Runbook) -> Iterator[str]:
    """The JSON Pointers of all that ``chosen_plainly`` reads for this runbook."""
    yield from _tested(runbook.match)
    yield from (one.pointer for one in runbook.parameters if one.pointer is not None)
    yield from runbook.dedup.fingerprint


def _tested(predicate: Predicate) -> Iterator[str]:
    match predicate:
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from _tested(part)
        case Not(part):
            yield from _tested(part)
        case FieldTest(pointer):
            yield pointer


def _key(alert: Facts, pointers: tuple[str, ...]) -> tuple[object, ...] | None:
    """Equal for alerts that say the very same at these places (1 is not 1.0, nor true); None: not to be remembered."""
    key: list[object] = []
    for pointer in pointers:
        value = pointed(alert, pointer)
        kind = type(value)
        if kind is str:
            if len(value) > MOST_CHARS:
                return None
            key.append(value)
        elif value is MISSING:
            key.append(MISSING)
        elif value is None or kind is bool or kind is int or kind is float:
            key.append((kind, repr(value)))
        else:
            return None
    return tuple(key)
