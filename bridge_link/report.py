"""A bridge's error as the body of an alert: whatever it is made of, it can be sent, and the daemon can read it. Pure.

An error's alert type is ``bridge_SYSTEM_failure`` unless it names one itself. ``plain`` and ``severity_of`` do for any
Python values what is done for an error's.
"""

from __future__ import annotations

import enum
import json
import math
import re
import reprlib
import traceback
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time
from itertools import islice
from typing import Any, Final

from bridge_link.bodies import LEAST_INT, MOST_INT

MAX_TEXT_CHARS: Final = 2000
MAX_TRACEBACK_CHARS: Final = 8000
MAX_TEXT_BYTES: Final = 16_000
MAX_DEPTH: Final = 8
MAX_ITEMS: Final = 100
MAX_VALUES: Final = 2000
MAX_REPORT_BYTES: Final = 48 * 1024
CUT: Final = "..."
"""What a text ends in that was too long."""
WAS_CUT: Final = {"was_cut": "it was larger than a message may be"}
_CORE_CHARS: Final = (500, 200)
"""To how much the texts that people need most are cut when even these are too much."""
_OURS: Final = ("type", "service", "message", "source", "dedup_key", "error_message", "service_name", "error_id")
_CORE: Final = ("system", "error_type", "error_code", "exit_code", "severity", "component", "id", *_OURS)
_RENAMED: Final = {"id": "given_id", "labels": "given_labels"}
_SEVERITIES: Final = ("low", "medium", "high", "critical")
_SEVERITY: Final = {
    **{one: one for one in _SEVERITIES},
    "debug": "low",
    "trace": "low",
    "info": "low",
    "information": "low",
    "notice": "low",
    "minor": "low",
    "warning": "medium",
    "warn": "medium",
    "error": "high",
    "err": "high",
    "major": "high",
    "fatal": "critical",
    "emergency": "critical",
}
_CONTAINERS: Final = (Mapping, list, tuple, set, frozenset)
_REPR: Final = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 200, 200
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_SYSTEM_WORDS: Final = {"mql": "mql4", "powershell": "powershell", "sync": "config_sync", "spool": "config_sync"}


def as_report(error: Mapping[str, Any] | BaseException) -> dict[str, Any]:
    """The body of the alert. What cannot be sent becomes text; what is too long is cut, and ends in ``...``."""
    given = of_exception(error) if isinstance(error, BaseException) else error
    body = {_RENAMED.get(name, name): value for name, value in _named(given) if value is not None}
    if isinstance(given.get("labels"), Mapping):
        body["labels"] = body.pop("given_labels")
    cleaner = _Cleaner()
    plain = cleaner.mapping(body, 1)
    for name in _OURS:
        if name in plain:
            plain[name] = _text(plain[name])
    for name in ("type", "service", "service_name"):
        if name in plain and not _NAME.fullmatch(plain[name]):
            plain[f"given_{name}"] = plain.pop(name)
    _name_severity(plain, body.get("severity"))
    plain.setdefault("system", _system_of(str(plain.get("error_type", ""))))
    plain.setdefault("type", f"bridge_{_slug(str(plain['system']))}_failure")
    return _small(plain, has_cut=cleaner.has_cut)


def of_exception(error: BaseException) -> dict[str, Any]:
    """A Python exception as a bridge error."""
    made: dict[str, Any] = {
        "system": "python",
        "error_type": type(error).__name__,
        "error_message": str(error) or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARS:],
    }
    frames = traceback.extract_tb(error.__traceback__)
    return made | ({"location": f"{frames[-1].filename}:{frames[-1].lineno}"} if frames else {})


def plain(body: Mapping[str, Any], *, message_chars: int = MAX_TEXT_CHARS) -> dict[str, Any]:
    """Any mapping as one that can be sent. What has no place in a message becomes text; what is too long is cut.

    Args:
        message_chars: how long its ``message`` (``error_message``) may be.
    """
    named, cleaner = dict(_named(body)), _Cleaner()
    made = cleaner.mapping(named, 1)
    for key in ("message", "error_message"):
        if named.get(key) is not None:
            made[key] = _text(named[key], message_chars)
    return _small(made, has_cut=cleaner.has_cut)


def severity_of(given: object) -> str | None:
    """One of low, medium, high, critical for the word a program uses; None for a word nobody knows."""
    words = (given.value, given.name) if isinstance(given, enum.Enum) else (given,)
    found = (_SEVERITY.get(word.strip().lower()) for word in words if isinstance(word, str))
    return next((one for one in found if one is not None), None)


def _system_of(error_type: str) -> str:
    """The system an error's name speaks of; our own side when it speaks of none."""
    return next((system for word, system in _SYSTEM_WORDS.items() if word in error_type.lower()), "python")


def _slug(system: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", system.lower()).strip("_")[:40] or "unknown"


def _named(given: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """What people need most first: what comes after too many others is dropped."""
    named = [(_text(key), value) for key, value in given.items()]
    return iter(sorted(named, key=lambda one: one[0] not in _CORE))


def _name_severity(body: dict[str, Any], given: object) -> None:
    if given is None:
        return
    word = severity_of(given) or severity_of(body.get("severity"))
    if word is None:
        body["given_severity"] = body.pop("severity")
    else:
        body["severity"] = word


def _small(body: dict[str, Any], *, has_cut: bool) -> dict[str, Any]:
    """What people need most, then the short values, when all of it is too much. ``has_cut``: values were dropped."""
    if has_cut:
        body = body | WAS_CUT
    if _fits(body):
        return body
    most = {key: value for key, value in body.items() if key in _CORE and not isinstance(value, (dict, list))}
    for chars in _CORE_CHARS:
        if _fits(most | WAS_CUT):
            break
        most = {key: _text(value, chars) if isinstance(value, str) else value for key, value in most.items()}
    labels = body.get("labels")
    named = labels if isinstance(labels, dict) else {}
    rest: list[tuple[str | None, str, Any]] = [("labels", key, value) for key, value in named.items()]
    rest += [(None, key, value) for key, value in body.items() if key not in most and value is not labels]
    kept = most | WAS_CUT
    left_bytes, left_values = MAX_REPORT_BYTES - _size(kept) - 100, MAX_VALUES - _count(kept)
    for inside, key, value in sorted(rest, key=lambda one: _size(one[1:])):
        left_bytes, left_values = left_bytes - _size((key, value)), left_values - _count(value)
        if left_bytes < 0 or left_values < 0:
            break
        (kept if inside is None else kept.setdefault(inside, {}))[key] = value
    return kept


def _fits(body: dict[str, Any]) -> bool:
    return _size(body) <= MAX_REPORT_BYTES and _count(body) < MAX_VALUES


def _size(value: Any) -> int:
    return len(json.dumps(value))


def _count(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, inner))


@dataclass(slots=True)
class _Cleaner:
    """Makes values plain, at most so many: what is inside itself, or shared a thousand times, ends too."""

    left: int = MAX_VALUES
    has_cut: bool = False

    def mapping(self, given: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        return {_text(key)[:200]: self.value(inner, depth + 1) for key, inner in self._some(given.items())}

    def value(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if self.left < 0 and isinstance(value, _CONTAINERS):
            self.has_cut = True
            return CUT
        match value:
            case Mapping() if depth < MAX_DEPTH:
                return self.mapping(value, depth)
            case list() | tuple() if depth < MAX_DEPTH:
                return [self.value(inner, depth + 1) for inner in self._some(value)]
            case set() | frozenset() if depth < MAX_DEPTH:
                return [self.value(inner, depth + 1) for inner in self._some(sorted(value, key=_text))]
            case None | bool():
                return value
            case int() if LEAST_INT <= value <= MOST_INT:
                return int(value)
            case float() if math.isfinite(value):
                return float(value)
            case _:
                return _text(value)

    def _some(self, many: Collection[Any]) -> list[Any]:
        self.has_cut = self.has_cut or len(many) > MAX_ITEMS
        return list(islice(many, MAX_ITEMS))


def _text(value: Any, most: int | None = None) -> str:
    """At most ``most`` characters; by default more of a text with several lines."""
    try:
        text = _shown(value)
    except Exception as error:  # an object of the user's that cannot even be shown
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    if most is None:
        most = MAX_TRACEBACK_CHARS if "\n" in text else MAX_TEXT_CHARS
    if len(text) > most:
        text = text[: most - len(CUT)] + CUT
    raw = text.encode()
    if len(raw) > MAX_TEXT_BYTES:
        text = raw[: MAX_TEXT_BYTES - len(CUT)].decode("utf-8", "ignore") + CUT
    return text


def _shown(value: Any) -> str:
    match value:
        case bytes() | bytearray():
            return bytes(value).decode("utf-8", "replace")
        case enum.Enum():
            return value.value if isinstance(value.value, str) else value.name
        case date() | time():
            return value.isoformat()
        case BaseException():
            return f"{type(value).__name__}: {value}" if str(value) else type(value).__name__
        case Mapping() | list() | tuple() | set() | frozenset():  # too deep: of these only a little is shown
            return _REPR.repr(value)
        case _:
            return str(value)
