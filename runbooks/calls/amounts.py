"""Amounts as runbooks say them: ``5GB``, ``10%`` of a whole, ``7d``. Pure."""

from __future__ import annotations

from typing import Any

from config.units import seconds, size_bytes
from runbooks.ports import PortError


def amount_bytes(given: Any, whole_bytes: int) -> int:
    """Raises PortError for what is no amount."""
    try:
        found = _amount_bytes(given, whole_bytes)
    except (ValueError, OverflowError) as error:
        raise PortError(f"{given!r} {error}") from error
    if found < 0:
        raise PortError(f"{given!r} is no amount: it is less than nothing")
    return found


def _amount_bytes(given: Any, whole_bytes: int) -> int:
    if isinstance(given, (int, float)) and not isinstance(given, bool):
        return round(given)
    text = str(given)
    if text.endswith("%"):
        return round(whole_bytes * float(text[:-1]) / 100)
    return size_bytes(text)


def duration_s(given: Any) -> float:
    """Raises PortError for what is no duration."""
    try:
        return seconds(str(given))
    except ValueError as error:
        raise PortError(f"{given!r} {error}") from error


def number(given: Any, what: str) -> float:
    """A number, or a text that is one (a placeholder's value). Raises PortError."""
    try:
        return float(given)
    except (TypeError, ValueError):
        raise PortError(f"{what} {given!r:.60} is no number") from None
