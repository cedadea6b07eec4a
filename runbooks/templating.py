"""``{name}`` placeholders: a value fills one whole item, is never looked at again, and never meets a shell. Pure.

``{{`` and ``}}`` stand for the braces themselves. An item that is one placeholder and nothing else takes the value with
its type; inside a longer text it becomes text, and in a ``url`` it is percent-encoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([a-z][a-z0-9_]*)\}")
_STRAY: Final = re.compile(r"[{}]")


class BadTemplate(ValueError):
    """A template that cannot be filled, or a value that must not be put there."""


def placeholders(template: Any) -> Iterator[str]:
    """The names used anywhere in a JSON value."""
    match template:
        case str():
            yield from (name for name in _TOKEN.findall(template) if name)
        case Mapping():
            for value in template.values():
                yield from placeholders(value)
        case list() | tuple():
            for value in template:
                yield from placeholders(value)


def has_stray_brace(template: str) -> bool:
    """Whether a single brace is left over that is no placeholder (a typo such as ``{Service}``)."""
    return _STRAY.search(_TOKEN.sub("", template)) is not None


def fill(template: Any, values: Mapping[str, Any], *, url: bool = False) -> Any:
    """The template with its placeholders replaced, once.

    Raises:
        BadTemplate: a name has no value.
    """
    match template:
        case str():
            return _fill_text(template, values, url=url)
        case Mapping():
            return {key: fill(value, values, url=key == "url") for key, value in template.items()}
        case list() | tuple():
            return tuple(fill(value, values) for value in template)
        case _:
            return template


def fill_argv(argv: tuple[str, ...], values: Mapping[str, Any]) -> tuple[str, ...]:
    """The argument list: as many items as before, each filled.

    Raises:
        BadTemplate: a name has no value, or the item would be read as an option by the program although the runbook
            writes none there. A number may be negative.
    """
    filled = []
    for item in argv:
        value = _fill_text(item, values)
        if isinstance(value, str) and value.startswith("-") and not item.startswith("-"):
            name = next(placeholders(item))
            raise BadTemplate(f"parameter {name!r} starts with '-' and would be read as an option: {value[:80]!r}")
        filled.append(_text(value))
    return tuple(filled)


def _fill_text(template: str, values: Mapping[str, Any], *, url: bool = False) -> Any:
    whole = _TOKEN.fullmatch(template)
    if whole and whole[1]:
        return _value(whole[1], values)

    def replaced(token: re.Match[str]) -> str:
        if token[1] is None:
            return token[0][0]
        text = _text(_value(token[1], values))
        return _quoted(text) if url else text

    filled = _TOKEN.sub(replaced, template)
    if url and (steps := _steps(filled)) and steps != _steps(template):
        raise BadTemplate(f"would lead to another place of the server: {filled[:200]!r}")
    return filled


def _quoted(text: str) -> str:
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise BadTemplate(f"half a character cannot stand in an address: {text[:80]!r}") from None


def _steps(url: str) -> list[int]:
    """Which parts of an address's path lead to itself or upwards: clients and servers follow those."""
    parts = re.split(r"[?#]", url, maxsplit=1)[0].split("/")
    return [number for number, part in enumerate(parts) if part.lower().replace("%2e", ".") in (".", "..")]


def _value(name: str, values: Mapping[str, Any]) -> Any:
    if name not in values:
        raise BadTemplate(f"no value for {{{name}}}")
    return values[name]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
