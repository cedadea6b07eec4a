"""Takes out of texts what nobody may read: the values of parameters marked ``redact``, and whatever a hook knows; and
writes out what is no character (``plain_text``). Pure.

Records, events and ends pass through it before they are written; what a later step needs to do its work does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from runbooks.plain_text import storable

HIDDEN: Final = "[redacted]"


class Redactor:
    """``Redactor(hook, values)(text)``. ``values``: of any JSON type; None and empty ones hide nothing."""

    def __init__(self, hook: Callable[[str], str] = lambda text: text, values: Iterable[Any] = ()) -> None:
        self._hook = hook
        said = {"true" if one is True else "false" if one is False else str(one) for one in values if one is not None}
        self._hidden = sorted((one for one in said if one), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for value in self._hidden:
            text = text.replace(value, HIDDEN)
        return storable(self._hook(text))
