"""JSON, YAML and TOML files. Comments and order are kept where the format has them (ruamel.yaml, tomlkit). Pure."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence
from decimal import Decimal
from itertools import islice
from typing import Any, Final

import tomlkit
import yaml as yaml_1_1
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, SingleQuotedScalarString
from ruamel.yaml.util import load_yaml_guess_indent
from tomlkit.exceptions import TOMLKitError

from runbooks.formats.changes import MORE, BadChange, Changes, as_json, is_same, parts_of

Make = Callable[[Any, Any], Any]
"""(new value, old value or None) -> the value as the format's library holds it."""
_MISSING: Final = object()


class _Anything:
    """Equal to whatever stands in its place."""

    def __eq__(self, _other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


_ANYTHING: Final = _Anything()


class _Tree:
    """What the three have in common: a tree of tables, lists and values."""

    def read(self, text: str) -> Any:
        raise NotImplementedError

    def expected(self, before: Any, changes: Changes) -> Any:
        return _changed(copy.deepcopy(before), changes, lambda new, _: as_json(new), dict)

    def problems(self, read: Any, changes: Changes, *, quotes: bool = True) -> list[str]:
        found = []
        for key, value in changes.set.items():
            present = _at(read, parts_of(key))
            if not is_same(present, _comparable(as_json(value))):
                said = repr(present)[:200] if quotes else "another"
                found.append(f"{key} is {'not set' if present is _MISSING else said}")
        return found + [f"{key} is set" for key in changes.remove if _at(read, parts_of(key)) is not _MISSING]


class Json(_Tree):
    """Floats are compared digit by digit: a number that Python would write in another way stops the change."""

    def read(self, text: str) -> Any:
        if not text.strip():
            return {}
        try:
            return json.loads(text, object_pairs_hook=_once, parse_float=Decimal, parse_constant=_no_constant)
        except ValueError as error:
            raise BadChange(f"is no JSON: {error}") from error

    def expected(self, before: Any, changes: Changes) -> Any:
        return _changed(copy.deepcopy(before), changes, lambda new, _: _comparable(as_json(new)), dict)

    def changed(self, text: str, changes: Changes) -> str:
        tree = json.loads(text) if text.strip() else {}
        made = _changed(tree, changes, lambda new, _: as_json(new), dict)
        indent = re.search(r"^[\[{]\n([ \t]+)", text.lstrip())
        is_flat = bool(text.strip()) and "\n" not in text.strip()
        separators = (",", ":") if is_flat and not re.search(r'": ', text) else None
        shape = None if is_flat else indent[1] if indent else 2
        end = "\n" if text.endswith("\n") or not text else ""
        return json.dumps(made, indent=shape, separators=separators, ensure_ascii=text.isascii()) + end


class Yaml(_Tree):
    """YAML 1.2 as ruamel.yaml reads it; a text that YAML 1.1 would read as something else is quoted."""

    def read(self, text: str) -> Any:
        return _plain(self._load(text))

    def changed(self, text: str, changes: Changes) -> str:
        tree = self._load(text)
        made = _changed(tree, changes, _for_yaml, CommentedMap)
        writer = self._yaml()
        _, indent, offset = load_yaml_guess_indent(text) if text.strip() else (None, None, None)
        if indent is not None:
            writer.indent(mapping=_mapping_indent(text), sequence=indent, offset=offset or 0)
        writer.explicit_start = text.lstrip().startswith("---")
        out = io.StringIO()
        writer.dump(made, out)
        if not _is_kept(text, out.getvalue(), changes):
            raise BadChange(MORE)
        return out.getvalue()

    def _load(self, text: str) -> Any:
        try:
            tree = self._yaml().load(text)
        except (YAMLError, ValueError, IndexError) as error:  # IndexError: a plain ``-_``, which it takes for a number
            raise BadChange(f"is no YAML, or more than one document: {_yaml_trouble(error)}") from error
        return CommentedMap() if tree is None else tree

    def _yaml(self) -> YAML:
        made = YAML(typ="rt")
        made.preserve_quotes = True
        made.width = 1_000_000
        return made


class Toml(_Tree):
    def read(self, text: str) -> Any:
        return self._parse(text).unwrap()

    def changed(self, text: str, changes: Changes) -> str:
        try:
            made = _changed(self._parse(text), changes, lambda new, _: as_json(new), tomlkit.table)
            return tomlkit.dumps(made)
        except (TOMLKitError, ValueError, TypeError) as error:
            raise BadChange(f"cannot be said in TOML: {error}") from error

    def _parse(self, text: str) -> tomlkit.TOMLDocument:
        try:
            return tomlkit.parse(text)
        except (TOMLKitError, ValueError) as error:
            raise BadChange(f"is no TOML: {_unquoted(str(error))}") from error


# -- the walk ---------------------------------------------------------------------------------------------------------


def _changed(tree: Any, changes: Changes, make: Make, table: Callable[[], Any]) -> Any:
    if not isinstance(tree, MutableMapping):
        raise BadChange("is no table of keys at the top")
    for key in changes.remove:
        _remove(tree, key)
    for key, value in changes.set.items():
        _set(tree, key, value, make, table)
    return tree


def _set(tree: Any, key: str, value: Any, make: Make, table: Callable[[], Any]) -> None:
    *way, last = parts_of(key)
    at = tree
    for number, part in enumerate(way):
        under = _at(at, (part,))
        if under is _MISSING:
            if not isinstance(at, MutableMapping):
                raise BadChange(f"{key}: there is no item {part!r} in the list")
            under = table()
            at[part] = under
            under = at[part]
        if not isinstance(under, (MutableMapping, MutableSequence)):
            raise BadChange(f"{key}: {'.'.join(way[: number + 1])} is a value, no table")
        at = under
    old = _at(at, (last,))
    is_group = isinstance(old, (MutableMapping, MutableSequence))
    if is_group and not isinstance(value, (Mapping, list, tuple)):
        raise BadChange(f"{key}: is a table or list; name the keys in it, or give all of it")
    if isinstance(at, MutableSequence):
        if old is _MISSING:
            raise BadChange(f"{key}: there is no item {last!r} in the list")
        at[int(last)] = make(value, old)
    else:
        at[_own_key(at, last)] = make(value, None if old is _MISSING else old)


def _remove(tree: Any, key: str) -> None:
    *way, last = parts_of(key)
    at = _at(tree, tuple(way))
    if at is _MISSING or _at(at, (last,)) is _MISSING:
        return
    del at[int(last) if isinstance(at, MutableSequence) else _own_key(at, last)]


def _at(tree: Any, way: tuple[str, ...]) -> Any:
    for part in way:
        if isinstance(tree, Mapping):
            key = _own_key(tree, part)
            if key not in tree:
                return _MISSING
            tree = tree[key]
        elif isinstance(tree, (list, MutableSequence)) and part.isdecimal() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return _MISSING
    return tree


def _own_key(table: Mapping[Any, Any], part: str) -> Any:
    """YAML has keys that are no text."""
    if part in table:
        return part
    return next((key for key in table if not isinstance(key, str) and str(key) == part), part)


# -- values -----------------------------------------------------------------------------------------------------------


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _comparable(value: Any) -> Any:
    """Floats as JSON writes them, digit by digit."""
    match value:
        case float():
            return Decimal(json.dumps(value))
        case dict():
            return {key: _comparable(one) for key, one in value.items()}
        case list():
            return [_comparable(one) for one in value]
        case _:
            return value


def _for_yaml(new: Any, old: Any) -> Any:
    match new:
        case str():
            return _quoted(new, old)
        case Mapping():
            return CommentedMap({key: _for_yaml(one, None) for key, one in new.items()})
        case list() | tuple():
            return CommentedSeq([_for_yaml(one, None) for one in new])
        case _:
            return new


def _quoted(new: str, old: Any) -> str:
    try:
        new.encode()
    except UnicodeEncodeError:  # it would be written as an escape that other readers refuse
        raise BadChange("cannot be said in YAML: half a character") from None
    if isinstance(old, (SingleQuotedScalarString, DoubleQuotedScalarString)):
        quoted: str = type(old)(new)
        return quoted
    return new if _is_plain(new) else DoubleQuotedScalarString(new)


def _is_kept(before: str, after: str, changes: Changes) -> bool:
    """Whether all else stands there as it did, by each scalar's own text: ``09_`` is the number 9 to our reader, which
    writes it back as ``09``.
    """
    try:
        was, is_now = (yaml_1_1.load(text, Loader=yaml_1_1.BaseLoader) or {} for text in (before, after))  # noqa: S506  it makes texts only
    except (yaml_1_1.YAMLError, ValueError):
        return True  # it reads YAML 1.1 only, and knows no keys that are tables
    return bool(is_now == _changed(was, changes, lambda _new, _old: _ANYTHING, dict))


def _is_plain(text: str) -> bool:
    """Whether YAML 1.1 reads the bare text as itself. What begins as a list or table is not read to its end."""
    try:
        tokens = yaml_1_1.scan(text)
        first = next(islice(tokens, 1, None), None)  # behind the start of the stream
        return isinstance(first, yaml_1_1.ScalarToken) and bool(yaml_1_1.safe_load(text) == text)
    except (yaml_1_1.YAMLError, ValueError):
        return False


def _plain(value: Any) -> Any:
    match value:
        case TaggedScalar():
            return ("tagged", str(value.tag), str(value.value))
        case Mapping():
            return {key: _plain(one) for key, one in value.items()}
        case list():
            return [_plain(one) for one in value]
        case ScalarBoolean():
            return bool(value)
        case str():
            return str(value)
        case bool():
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case _:
            return value


def _mapping_indent(text: str) -> int:
    found = re.search(r"^[^\s#-][^\n]*:[ \t]*(?:#[^\n]*)?\n( +)[^\s#-]", text, re.MULTILINE)
    return len(found[1]) if found else 2


def _yaml_trouble(error: Exception) -> str:
    """What is wrong and in which line; the parser's own text quotes lines, which may hold a password."""
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f" in line {mark.line + 1}"
    return _unquoted(str(getattr(error, "problem", None) or type(error).__name__)) + where


def _unquoted(text: str) -> str:
    """On one line, without what it quotes from the file."""
    return re.sub(r"\"[^\"]*\"|'[^']*'", "...", " ".join(text.split()))[:200]
