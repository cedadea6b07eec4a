"""Changes of configuration files, format by format: text in, text out. Pure.

What comes out differs from what came in by the change and nothing else: it is read again and compared before anybody
may write it. What cannot be read is never changed.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Final, Protocol

from runbooks.formats import lines, trees
from runbooks.formats.changes import MORE, BadChange, Changes, as_json
from runbooks.formats.text import Encoded, decoded

__all__ = ["FORMATS", "BadChange", "Changes", "as_json", "changed", "format_of", "holds"]


class Format(Protocol):
    """``read`` gives what the text says, comparable with ``==``; both raise BadChange for what cannot be read."""

    def read(self, text: str) -> Any: ...

    def changed(self, text: str, changes: Changes) -> str: ...

    def expected(self, before: Any, changes: Changes) -> Any:
        """What ``read`` must say after the change."""

    def problems(self, read: Any, changes: Changes, *, quotes: bool = True) -> list[str]:
        """What of ``changes`` is not so; ``quotes``: with the value that is there."""


FORMATS: Final[dict[str, Format]] = {
    "json": trees.Json(),
    "yaml": trees.Yaml(),
    "toml": trees.Toml(),
    "ini": lines.Lines(is_systemd=False),
    "systemd": lines.Lines(is_systemd=True),
}
_UNITS: Final = ("service", "socket", "timer", "mount", "target", "path", "slice", "automount", "swap", "scope")
_SUFFIXES: Final = {
    "json": "json",
    "yaml": "yaml",
    "yml": "yaml",
    "toml": "toml",
    "ini": "ini",
    "cfg": "ini",
    **dict.fromkeys(_UNITS, "systemd"),
}


def format_of(file: str, said: str | None) -> str:
    """The format ``said``, else the one the name shows.

    Raises:
        BadChange: neither tells.
    """
    if said is not None:
        return said
    path = PurePath(file)
    if path.suffix == ".conf" and path.parent.name.endswith(tuple(f".{unit}.d" for unit in _UNITS)):
        return "systemd"  # a drop-in
    found = _SUFFIXES.get(path.suffix.removeprefix(".").lower())
    if found is None:
        raise BadChange(f"{file}: its name does not show its format: say `format` ({', '.join(FORMATS)})")
    return found


def changed(raw: bytes | None, form: str, changes: Changes) -> bytes:
    """The file's bytes with the changes made; None stands for a file that is not there yet.

    Raises:
        BadChange: it cannot be read, a change does not fit, or more than the change would change.
    """
    try:
        return _changed(raw, form, changes)
    except RecursionError as error:
        raise BadChange("is nested too deeply") from error


def _changed(raw: bytes | None, form: str, changes: Changes) -> bytes:
    file, format_ = _decoded(raw), FORMATS[form]
    before = format_.read(file.text)
    if not format_.problems(before, changes):
        return raw if raw is not None else b""  # the very bytes: nothing is to be done
    made = format_.changed(file.text, changes)
    after = format_.read(made)
    if after != format_.expected(before, changes) or format_.problems(after, changes):
        raise BadChange(MORE)
    return file.encoded(made)


def holds(raw: bytes | None, form: str, changes: Changes, *, quotes: bool = True) -> list[str]:
    """What of ``changes`` is not so in the file; [] when all is. ``quotes``: with the value that is there.

    Raises:
        BadChange: it cannot be read.
    """
    format_ = FORMATS[form]
    try:
        return format_.problems(format_.read(_decoded(raw).text), changes, quotes=quotes)
    except RecursionError as error:
        raise BadChange("is nested too deeply") from error


def _decoded(raw: bytes | None) -> Encoded:
    return decoded(raw or b"")
