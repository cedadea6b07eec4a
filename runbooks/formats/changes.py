"""What is to be set and removed, and how a key is addressed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MORE: Final = "the change would change more than it says; nothing was written: edit this file by hand"


class BadChange(ValueError):
    """A file that cannot be read, or a change that does not fit it. The text says what and where."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Keys are dotted (``database.pool.size``) or, with a leading slash, JSON Pointers (RFC 6901)."""

    set: Mapping[str, Any] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


def parts_of(key: str) -> tuple[str, ...]:
    """A key's way down.

    Raises:
        BadChange: a part of it is empty.
    """
    if key.startswith("/"):
        parts = tuple(part.replace("~1", "/").replace("~0", "~") for part in key[1:].split("/"))
    else:
        parts = tuple(key.split("."))
    if not all(parts):
        raise BadChange(f"key {key!r}: a part of it is empty")
    return parts


def as_json(value: Any) -> Any:
    """With lists for tuples, which is what placeholders leave."""
    match value:
        case Mapping():
            return {str(key): as_json(one) for key, one in value.items()}
        case list() | tuple():
            return [as_json(one) for one in value]
        case _:
            return value


def is_same(one: Any, other: Any) -> bool:
    """Equal, and a truth value is no number."""
    if isinstance(one, bool) or isinstance(other, bool):
        return isinstance(one, bool) and isinstance(other, bool) and one == other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(is_same(*both) for both in zip(one, other, strict=True))
    return bool(one == other)
