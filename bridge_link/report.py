"""A bridge's error as the body of an alert: whatever it is made of, it can be sent, and the daemon can read it. Pure.

An error's alert type is ``bridge_SYSTEM_failure`` unless it names one itself.
"""

from __future__ import annotations

import json
import math
import re
import traceback
from collections.abc import Mapping
from typing import Any, Final

MAX_TEXT_CHARS: Final = 2000
MAX_TRACEBACK_CHARS: Final = 8000
MAX_DEPTH: Final = 8
MAX_ITEMS: Final = 100
MAX_REPORT_BYTES: Final = 48 * 1024
_INT64: Final = range(-(2**63), 2**63)
_OURS: Final = ("type", "service", "message", "source", "dedup_key", "error_message", "service_name", "error_id")
_CORE: Final = ("system", "error_type", "error_code", "exit_code", "severity", *_OURS)
_RENAMED: Final = {"id": "given_id", "labels": "given_labels"}
_SEVERITY: Final = {
    "info": "low",
    "information": "low",
    "debug": "low",
    "warning": "medium",
    "warn": "medium",
    "error": "high",
    "fatal": "critical",
}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_SEVERITIES: Final = ("low", "medium", "high", "critical")
_SYSTEM_WORDS: Final = {"mql": "mql4", "powershell": "powershell", "sync": "config_sync", "spool": "config_sync"}


def as_report(error: Mapping[str, Any] | BaseException) -> dict[str, Any]:
    """The body of the alert. What cannot be sent becomes text; what is too long is cut, and ends in ``...``."""
    given = of_exception(error) if isinstance(error, BaseException) else error
    body = {_RENAMED.get(str(key), str(key)): value for key, value in given.items() if value is not None}
    if isinstance(given.get("labels"), Mapping):
        body["labels"] = body.pop("given_labels")
    plain: dict[str, Any] = _plain(body, 1)
    for name in _OURS:
        if name in plain:
            plain[name] = _text(plain[name])
    for name in ("type", "service", "service_name"):
        if name in plain and not _NAME.fullmatch(plain[name]):
            plain[f"given_{name}"] = plain.pop(name)
    _name_severity(plain)
    plain.setdefault("system", _system_of(str(plain.get("error_type", ""))))
    plain.setdefault("type", f"bridge_{_slug(str(plain['system']))}_failure")
    return _small(plain)


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


def plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """Any mapping as one that can be sent."""
    return _small(_plain(body, 1))


def _system_of(error_type: str) -> str:
    """The system an error's name speaks of; our own side when it speaks of none."""
    return next((system for word, system in _SYSTEM_WORDS.items() if word in error_type.lower()), "python")


def _slug(system: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", system.lower()).strip("_")[:40] or "unknown"


def _name_severity(body: dict[str, Any]) -> None:
    given = body.get("severity")
    if given is None:
        return
    word = str(given).strip().lower()
    word = _SEVERITY.get(word, word)
    if word not in _SEVERITIES:
        body["given_severity"] = body.pop("severity")
    else:
        body["severity"] = word


def _small(body: dict[str, Any]) -> dict[str, Any]:
    """What people need most, when all of it is too much."""
    if len(json.dumps(body)) <= MAX_REPORT_BYTES and _count(body) < 2000:
        return body
    core = {key: value for key, value in body.items() if key in _CORE and not isinstance(value, (dict, list))}
    return core | {"was_cut": "this error was larger than a message may be"}


def _count(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, inner))


def _plain(value: Any, depth: int) -> Any:
    match value:
        case Mapping() if depth < MAX_DEPTH:
            items = list(value.items())[:MAX_ITEMS]
            return {_text(key)[:200]: _plain(inner, depth + 1) for key, inner in items}
        case list() | tuple() | set() | frozenset() if depth < MAX_DEPTH:
            return [_plain(inner, depth + 1) for inner in list(value)[:MAX_ITEMS]]
        case None | bool():
            return value
        case int() if value in _INT64:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case _:
            return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        text = bytes(value).decode("utf-8", "replace")
    else:
        try:
            text = str(value)
        except Exception as error:  # an object of the user's that cannot even be shown
            text = f"<{type(value).__name__}: {type(error).__name__}>"
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    most = MAX_TRACEBACK_CHARS if "\n" in text else MAX_TEXT_CHARS
    return text if len(text) <= most else text[: most - 3] + "..."
