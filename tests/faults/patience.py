"""Shipped runbooks with less patience, for cases that must fail: what never comes is not waited for so long.

A copy differs from the shipped file in its durations only, and answers only what has its word (``hasty``, ``late``) in
the name of the service, the endpoint or the path. Cases that are to succeed meet the shipped file itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from config.units import seconds
from runbooks.parse import SHIPPED

HASTY: Final = "hasty"
LATE: Final = "late"
SHORT_S: Final = 3.0
SPEEDY_S: Final = 0.5
ANSWERED_S: Final = 2.0
_NAMED: Final = ("/service", "/labels/endpoint", "/labels/path")


def copies(folder: Path) -> Path:
    """A directory with both copies of every shipped runbook that acts."""
    folder.mkdir()
    for file in sorted(SHIPPED.glob("*.json")):
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw.get("mode") != "observe":
            for word, change in _CHANGES.items():
                made = folder / f"{raw['id']}_{word}.json"
                made.write_text(json.dumps(_copy(raw, word, change)), encoding="utf-8")
    return folder


def names(runbook: str) -> tuple[str, ...]:
    """The shipped one and its copies."""
    return (runbook, *(f"{runbook}_{word}" for word in _CHANGES))


def _copy(raw: dict[str, Any], word: str, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(raw))
    change(made)
    its_own = {"any": [{"field": field, "op": "matches", "value": word} for field in _NAMED]}
    more = {"id": f"{raw['id']}_{word}", "match": {"all": [raw["match"], its_own]}}
    return made | more | {"priority": raw.get("priority", 50) + 5, "tests": []}


def _hasten(made: dict[str, Any]) -> None:
    """Nothing is waited for longer than ``SHORT_S``, and nothing has to hold longer than ``SPEEDY_S``."""
    for part in ("preconditions", "actions", "success_criteria"):
        _shorten(made.get(part, []))


def _shorten(part: Any) -> None:
    match part:
        case dict():
            for key, value in part.items():
                most_s = _MOST_S.get(key)
                if most_s is not None and not isinstance(value, (dict, list)) and seconds(str(value)) > most_s:
                    part[key] = most_s
                _shorten(value)
        case list():
            for one in part:
                _shorten(one)


_MOST_S: Final = {
    "timeout": SHORT_S,
    "within": SHORT_S,
    "hold_for": SPEEDY_S,
    "quiet_for": SPEEDY_S,
    "delay": SPEEDY_S,
}


def _ask_briefly(made: dict[str, Any]) -> None:
    """Nobody answers in time."""
    if "approval" in made:
        made["approval"]["timeout"] = ANSWERED_S


_CHANGES: Final[dict[str, Callable[[dict[str, Any]], None]]] = {HASTY: _hasten, LATE: _ask_briefly}
