"""Names that are one slip of the keyboard apart. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that ``word`` may have been meant for; None also when it is one itself."""
    names = tuple(known)
    if word in names:
        return None
    return next((name for name in names if _is_one_slip(word.lower(), name)), None)


def _is_one_slip(one: str, other: str) -> bool:
    """One letter too many, missing or other, or two neighbours swapped."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    one, other = one[start:], other[start:]
    while one and other and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    if len(one) == len(other) == 2:
        return one == other[::-1]
    return len(one) <= 1 and len(other) <= 1
