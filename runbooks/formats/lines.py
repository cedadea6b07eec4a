"""INI files and systemd units, edited line by line: every line that is not changed stays as it is. Pure.

No library does this for units: a key may stand there several times, order counts, and a value goes on after a
backslash (systemd.syntax(7)). For INI files the rules are those of Python's configparser: ``=`` or ``:`` ends a key,
an indented line goes on with a value, comments are whole lines that begin with ``#`` or ``;``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from runbooks.formats.changes import BadChange, Changes, parts_of

Read = list[tuple[str, str, str | None]]
_SECTION: Final = re.compile(r"\[([^\]\n]+)\]\s*")
_COMMENT: Final = ("#", ";")
_LINE_ENDS: Final = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
Address = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One assignment, in lines ``begin`` to ``end`` (not included). ``head`` is the first line up to the value."""

    section: str
    key: str
    value: str | None
    begin: int
    end: int
    head: str


@dataclass(frozen=True, slots=True)
class _File:
    lines: list[str]
    entries: list[_Entry]
    ends: dict[str, int]
    """Section -> the line after its last that says something. The text before all sections is section ""."""


class Lines:
    def __init__(self, *, is_systemd: bool) -> None:
        self._is_systemd = is_systemd

    def read(self, text: str) -> Read:
        return [(one.section, self._known(one.key), one.value) for one in self._file(text).entries]

    def problems(self, read: Read, changes: Changes, *, quotes: bool = True) -> list[str]:
        found = []
        for key, value in changes.set.items():
            address, wanted = self._address(key), _texts(key, value)
            values = [one for section, name, one in read if (section, name) == address]
            if values != wanted:
                found.append(f"{key} is {_shown(values) if quotes or not values else 'another'}")
        return found + [f"{key} is set" for key in changes.remove if self._is_in(read, key)]

    def expected(self, before: Read, changes: Changes) -> dict[Address, list[str | None]]:
        """Compared with ``read`` through ``_ByKey``: the order of different keys says nothing."""
        values = _by_key(before)
        for key, value in changes.set.items():
            values[self._address(key)] = list(_texts(key, value))
        for key in changes.remove:
            values.pop(self._address(key), None)
        return _ByKey({address: texts for address, texts in values.items() if texts})

    def changed(self, text: str, changes: Changes) -> str:
        for key in changes.remove:
            text = self._with(text, key, [])
        for key, value in changes.set.items():
            text = self._with(text, key, _texts(key, value), is_list=isinstance(value, list))
        return text

    def _is_in(self, read: Read, key: str) -> bool:
        return any((section, name) == self._address(key) for section, name, _ in read)

    # -- one key ------------------------------------------------------------------------------------------------------

    def _with(self, text: str, key: str, values: list[str], *, is_list: bool = True) -> str:
        file, (section, name) = self._file(text), self._address(key)
        entries = [one for one in file.entries if (one.section, self._known(one.key)) == (section, name)]
        if [one.value for one in entries] == values:
            return text
        if len(entries) > 1 and not is_list:
            raise BadChange(f"{key} stands there {len(entries)} times: give the list of all its values")
        new: dict[int, list[str]] = {}  # first line -> the lines instead of the entry's
        for number, entry in enumerate(entries):
            new[entry.begin] = [f"{entry.head}{values[number]}\n"] if number < len(values) else []
        more = [self._fresh(key, file, section, value) for value in values[len(entries) :]]
        if entries and more:
            new[entries[-1].begin] += more
            more = []
        made: list[str] = []
        ends = {entry.begin: entry.end for entry in entries}
        line = 0
        while line < len(file.lines):
            if more and line == file.ends.get(section):
                made, more = [*_ended(made), *more], []
            if line in new:
                made += new[line]
                line = ends[line]
                continue
            made.append(file.lines[line])
            line += 1
        if more:
            made = _ended(made)
            if section not in file.ends:
                made += ["\n"] if made and made[-1].strip() else []
                made.append(f"[{section}]\n")
            made += more
        return "".join(made)

    def _fresh(self, key: str, file: _File, section: str, value: str) -> str:
        """A new line in the manner of the others."""
        name = parts_of(key)[-1] if key.startswith("/") else key.partition(".")[2] or key
        beside = [one for one in file.entries if one.section == section] or file.entries
        delimiter = "="
        if beside and (found := re.search(r"\s*[=:]\s*$", beside[-1].head)) and not self._is_systemd:
            delimiter = found[0]
        return f"{name}{delimiter}{value}\n"

    def _address(self, key: str) -> Address:
        """``Section.Key``, cut at the first dot; ``/Section/Key`` for names with dots; a lone key is before all
        sections.
        """
        parts = parts_of(key) if key.startswith("/") else tuple(key.split(".", 1))
        if len(parts) > 2 or not all(parts):
            raise BadChange(f"key {key!r}: write Section.Key, or /Section/Key where a name has dots")
        section, name = parts if len(parts) == 2 else ("", parts[0])
        bad = r"[=\s]" if self._is_systemd else r"[=:]|^\s|\s$"
        if name.startswith((*_COMMENT, "[")) or re.search(bad, name) or _LINE_ENDS.search(name):
            raise BadChange(f"key {key!r}: {name!r} cannot be a key in this format")
        if _LINE_ENDS.search(section) or "]" in section:
            raise BadChange(f"key {key!r}: {section!r} cannot be a section in this format")
        return section, self._known(name)

    def _known(self, name: str) -> str:
        """INI keys do not differ by case, unit keys do."""
        return name if self._is_systemd else name.casefold()

    # -- reading ------------------------------------------------------------------------------------------------------

    def _file(self, text: str) -> _File:
        lines = re.findall(r"[^\n]*\n|[^\n]+", text)
        file = _File(lines, [], {"": 0})
        section, number = "", 0
        while number < len(lines):
            line = lines[number].strip()
            begin, number = number, number + 1
            if not line or line.startswith(_COMMENT):
                continue
            if line.startswith("["):
                found = _SECTION.fullmatch(line)
                if found is None:
                    raise BadChange(f"line {begin + 1}: is no section")
                section = found[1]
            else:
                number = self._end(lines, begin)
                file.entries.append(self._entry(section, lines, begin, number))
            file.ends[section] = number
        return file

    def _entry(self, section: str, lines: list[str], begin: int, end: int) -> _Entry:
        first = lines[begin].rstrip("\r\n")
        found = re.match(r"\s*([^=]*?)\s*=\s*" if self._is_systemd else r"\s*([^=:]*?)\s*[=:][ \t]*", first)
        if found is None and (self._is_systemd or first[:1].isspace()):
            raise BadChange(f"line {begin + 1}: is no KEY=VALUE")
        if found is None:  # a switch, as my.cnf has them
            return _Entry(section, first.strip(), None, begin, end, f"{first.rstrip()} = ")
        if not found[1]:
            raise BadChange(f"line {begin + 1}: has no key")
        rest = "".join([first[found.end() :] + "\n", *lines[begin + 1 : end]])
        value = _joined(rest) if self._is_systemd else "\n".join(part.strip() for part in rest.splitlines()).strip()
        return _Entry(section, found[1], value, begin, end, found[0])

    def _end(self, lines: list[str], begin: int) -> int:
        """The line after the assignment that begins at ``begin``."""
        end = begin + 1
        if self._is_systemd:
            goes_on = _goes_on(lines[begin])
            while goes_on and end < len(lines):
                goes_on = lines[end].lstrip().startswith(_COMMENT) or _goes_on(lines[end])
                end += 1
            return end
        while end < len(lines) and lines[end][:1] in (" ", "\t") and lines[end].strip():
            end += 1
        return end


class _ByKey(dict[Address, "list[str | None]"]):
    """Equal to what ``read`` gives when every key has the same values in the same order."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return dict(self) == (_by_key(other) if isinstance(other, list) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other


def _by_key(read: Read) -> dict[Address, list[str | None]]:
    values: dict[Address, list[str | None]] = {}
    for section, key, value in read:
        values.setdefault((section, key), []).append(value)
    return values


def _goes_on(line: str) -> bool:
    return line.rstrip("\r\n").endswith("\\")


def _without_comments(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.lstrip().startswith(_COMMENT)]


def _joined(rest: str) -> str:
    """A unit's value: a backslash at the end of a line stands for a space, comments in between count for nothing."""
    first, *others = rest.splitlines()
    parts = [first, *_without_comments(others)]
    return " ".join(part.removesuffix("\\").strip() for part in parts).strip()


def _ended(lines: list[str]) -> list[str]:
    """With an end to the last line."""
    return [*lines[:-1], lines[-1].rstrip("\n") + "\n"] if lines else lines


def _texts(key: str, value: Any) -> list[str]:
    return [_text(key, one) for one in (value if isinstance(value, list) else [value])]


def _text(key: str, value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            return _checked(key, value)
        case _:
            raise BadChange(f"{key}: this format has texts and numbers only")


def _checked(key: str, value: str) -> str:
    """One line, which is read back as it was written."""
    if _LINE_ENDS.search(value) or "\0" in value:
        raise BadChange(f"{key}: a value in this format is one line")
    if value != value.strip() or value.endswith("\\"):
        raise BadChange(f"{key}: a value in this format cannot begin or end with a space or end with a backslash")
    return value


def _shown(values: list[str | None]) -> str:
    return " and ".join(repr(one) for one in values) if values else "not set"
