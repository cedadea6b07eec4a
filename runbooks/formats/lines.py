"""INI files and systemd units, edited line by line: every line that is not changed stays as it is. Pure.

No library does this for units: a key may stand there several times, order counts, and a value goes on after a
backslash (systemd.syntax(7), and ``config_parse`` of its sources where that is silent). For INI files the rules are
those of Python's configparser: ``=`` or ``:`` ends a key, a line that is indented deeper than its key goes on with the
value, empty lines and comments between do not end it, comments are whole lines that begin with ``#`` or ``;``.

Other readers of INI files (Samba's) know no such lines: to them a deeper line ``KEY = VALUE`` is a setting of its own.
So an edit that would take one away is refused.
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
_LONE_RETURN: Final = re.compile(r"\r(?!\n)")
_UNIT_SPACE: Final = " \t\r\n"
_UNIT_HEAD: Final = re.compile(r"[ \t\r]*([^=]*?)[ \t\r]*=[ \t\r]*")
_INI_HEAD: Final = re.compile(r"\s*([^=:]*?)\s*[=:][ \t]*")
Address = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One assignment, in lines ``begin`` to ``end`` (not included). ``head`` is the first line up to the value;
    ``doubtful`` the number of a line that other readers take for a setting of its own.
    """

    section: str
    key: str
    value: str | None
    begin: int
    end: int
    head: str
    doubtful: int | None = None

    @property
    def indent(self) -> str:
        return _indent(self.head)


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
            if number < len(values) and entry.value == values[number]:
                continue
            if entry.doubtful is not None:
                raise BadChange(
                    f"{key}: line {entry.doubtful + 1} goes on with its value, or is a setting of its own: readers "
                    "differ; edit this file by hand"
                )
            new[entry.begin] = [f"{entry.head}{values[number]}\n"] if number < len(values) else []
        more = self._fresh(key, file, section, values[len(entries) :], entries)
        if entries and more:
            last = entries[-1]
            new.setdefault(last.begin, _ended(file.lines[last.begin : last.end]))
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

    def _fresh(self, key: str, file: _File, section: str, values: list[str], after: list[_Entry]) -> list[str]:
        """New lines in the manner of the others, ``after`` the last of those or at the end of the section."""
        name = parts_of(key)[-1] if key.startswith("/") else key.partition(".")[2] or key
        here = after or [one for one in file.entries if one.section == section]
        beside = here or file.entries
        delimiter = "="
        if beside and (found := re.search(r"\s*[=:]\s*$", beside[-1].head)) and not self._is_systemd:
            delimiter = found[0]
        indent = here[-1].indent if here else self._indent_after(file, section)
        return [f"{indent}{name}{delimiter}{value}\n" for value in values]

    def _indent_after(self, file: _File, section: str) -> str:
        """Of the first key of a section: as deep as what follows, which would go on with it otherwise."""
        for line in file.lines[file.ends.get(section, len(file.lines)) :]:
            if line.strip() and not line.lstrip().startswith(_COMMENT):
                return "" if self._is_systemd else _indent(line)
        return ""

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
        return name if self._is_systemd else name.lower()

    # -- reading ------------------------------------------------------------------------------------------------------

    def _file(self, text: str) -> _File:
        if _LONE_RETURN.search(text):
            raise BadChange("has a carriage return that ends no line, which some readers take for the end of one")
        lines = re.findall(r"[^\n]*\n|[^\n]+", text)
        file = _File(lines, [], {"": 0})
        section, number = "", 0
        while number < len(lines):
            line = self._stripped(lines[number])
            begin, number = number, number + 1
            if not line or line.startswith(_COMMENT):
                continue
            if line.startswith("["):
                found = _SECTION.fullmatch(line)
                if found is None:
                    raise BadChange(f"line {begin + 1}: is no section")
                section = found[1]
            else:
                entry = self._unit_entry(section, lines, begin) if self._is_systemd else _entry(section, lines, begin)
                number = entry.end
                file.entries.append(entry)
            file.ends[section] = number
        return file

    def _stripped(self, line: str) -> str:
        return line.strip(_UNIT_SPACE) if self._is_systemd else line.strip()

    def _unit_entry(self, section: str, lines: list[str], begin: int) -> _Entry:
        """A backslash at the end of a line stands for a space, and the next line that is no comment goes on."""
        end, value = begin + 1, lines[begin].strip("\r\n")
        goes_on = _goes_on(value)
        while goes_on and end < len(lines):
            line = lines[end].strip("\r\n").lstrip(_UNIT_SPACE)
            end += 1
            if not line.startswith(_COMMENT):
                value, goes_on = f"{value[:-1]} {line}", _goes_on(line)
        if goes_on:
            value = f"{value[:-1]} "
        found = _UNIT_HEAD.match(lines[begin].rstrip("\r\n"))
        if found is None:
            raise BadChange(f"line {begin + 1}: is no KEY=VALUE")
        if not found[1]:
            raise BadChange(f"line {begin + 1}: has no key")
        return _Entry(section, found[1], value[found.end() :].strip(_UNIT_SPACE), begin, end, found[0])


def _entry(section: str, lines: list[str], begin: int) -> _Entry:
    """Of an INI file; what is deeper than the key belongs to its value, whatever is empty or a comment in between."""
    first, depth = lines[begin].rstrip("\r\n"), len(_indent(lines[begin]))
    found = _INI_HEAD.match(first)
    if found is not None and not found[1]:
        raise BadChange(f"line {begin + 1}: has no key")
    end, parts, between, doubtful = begin + 1, [first[found.end() :].strip() if found else ""], list[str](), None
    for number in range(begin + 1, len(lines)):
        line = lines[number].strip()
        if not line or line.startswith(_COMMENT):
            between += [] if line else [""]  # only a line after it makes it a part of the value
            continue
        if len(_indent(lines[number])) <= depth:
            break
        if found is None:
            raise BadChange(f"line {number + 1}: goes on with a value, but there is none")
        if doubtful is None and (line.startswith("[") or "=" in line or ":" in line):
            doubtful = number
        end, parts, between = number + 1, [*parts, *between, line], []
    if found is None:  # a switch, as my.cnf has them
        return _Entry(section, first.strip(), None, begin, end, f"{first.rstrip()} = ")
    return _Entry(section, found[1], "\n".join(parts).rstrip(), begin, end, found[0], doubtful)


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


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
    """Ends with a backslash that no other one before it makes an ordinary letter."""
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


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
