"""Durations (`5s`, `200ms`, `1m30s`) and sizes (`256MiB`) as people write them. Pure."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "k": 2**10, "m": 2**20, "g": 2**30,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:us|ms|s|m|h|d))+")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)


def seconds(text: str) -> float:
    """Raises ValueError for what is no duration."""
    squeezed = text.strip().replace(" ", "").lower()
    if _DURATION.fullmatch(squeezed):
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(squeezed))
    try:
        number = float(squeezed)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise ValueError("is no duration; write it as 5s, 200ms or 1m30s")
    return number


def size_bytes(text: str) -> int:
    """Raises ValueError for what is no size."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].lower() not in _BYTES:
        raise ValueError("is no size; write it as 256MiB, 10MB or a number of bytes")
    return round(float(match[1]) * _BYTES[match[2].lower()])


def _as_seconds(value: Any) -> Any:
    return seconds(value) if isinstance(value, str) else _no_bool(value)


def _as_bytes(value: Any) -> Any:
    return size_bytes(value) if isinstance(value, str) else _no_bool(value)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("is no number")  # noqa: TRY004  pydantic takes a ValueError
    return value


_DURATION_JSON: Final = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^[0-9]"}]}

Seconds = Annotated[
    float, BeforeValidator(_as_seconds), Field(ge=0, allow_inf_nan=False, json_schema_extra=_DURATION_JSON)
]
"""A duration in seconds, at least 0."""
PositiveSeconds = Annotated[
    float, BeforeValidator(_as_seconds), Field(gt=0, allow_inf_nan=False, json_schema_extra=_DURATION_JSON)
]
"""A duration in seconds, more than 0."""
Bytes = Annotated[int, BeforeValidator(_as_bytes), Field(ge=0, json_schema_extra=_DURATION_JSON)]
"""A size in bytes."""
