"""Regular expressions of runbook files, searched in texts from outside: in time linear in the text, whatever the
pattern. Pure.

RE2 has no backtracking, so no pattern can stall a decision; a limit of time would make decisions depend on the load of
the machine, and a replay could not be the same twice. What needs backtracking (back references, look-around) is refused
when the file is read. Matching ignores case; ``.`` does not match a line break.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import re2

MAX_CHARS: Final = 1000
_MAX_MEMORY_BYTES: Final = 256 * 1024
"""Bounds the compiled pattern, and with it the time for a text of the length ``predicates`` gives to it."""
_CACHED: Final = 2048


class BadPattern(ValueError):
    """A pattern that cannot be used; the text says why."""


def check_pattern(pattern: str) -> str:
    """The pattern itself.

    Raises:
        BadPattern: it is no regular expression that RE2 knows, too long or too large.
    """
    if len(pattern) > MAX_CHARS:
        raise BadPattern(f"is a regular expression of more than {MAX_CHARS} characters")
    if _bytes(pattern).decode() != pattern:
        raise BadPattern("is no regular expression: it holds half a character (a lone surrogate)")
    try:
        _compiled(pattern, False)
    except re2.error as bad:
        said = bad.args[0] if bad.args else ""
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise BadPattern(
            f"is no regular expression: {text:.120} (RE2's syntax: no back references, no look-around)"
        ) from bad
    return pattern


def finds(pattern: str, text: str) -> bool:
    """Whether the pattern is found anywhere in the text, in any case."""
    return _compiled(pattern, False).search(_bytes(text)) is not None


def fits(pattern: str, text: str) -> bool:
    """Whether the whole text is as the pattern says, case and all."""
    return _compiled(pattern, True).fullmatch(_bytes(text)) is not None


@functools.lru_cache(maxsize=_CACHED)
def _compiled(pattern: str, is_case_sensitive: bool) -> Any:
    options = re2.Options()
    options.case_sensitive = is_case_sensitive
    options.max_mem = _MAX_MEMORY_BYTES
    options.log_errors = False
    return re2.compile(_bytes(pattern), options)


def _bytes(text: str) -> bytes:
    """A lone surrogate, which JSON can hold and UTF-8 cannot, becomes a question mark."""
    return text.encode("utf-8", "replace")
