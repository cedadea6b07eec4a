"""A YAML file as plain data that still knows on which line each key stands. Pure: text in, data out.

Duplicate keys are refused (YAML would silently keep the last); ``${VAR}`` and ``${VAR:-default}`` are expanded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from config.errors import Problem

Path = tuple[str | int, ...]
MAX_DEPTH: Final = 16
MAX_NODES: Final = 100_000
_VARIABLE: Final = re.compile(r"\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(slots=True)
class Source:
    """``data`` is the file's content; ``lines`` the line (from 1) of each key or list item by its path."""

    file: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, path: Path) -> int:
        """The line of the key, or of the nearest key above it that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def problem(self, path: Path, message: str, *, value: str = "", suggestion: str = "", line: int = 0) -> None:
        key = dotted(path)
        self.problems.append(Problem(self.file, line or self.line_of(path), key, value, message, suggestion))


def dotted(path: Path) -> str:
    """``('services', 'a', 'command', 0)`` as ``services.a.command[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read_source(file: str, text: str, variables: Mapping[str, str]) -> Source:
    """Parse ``text``; what cannot be read is left out and named in ``problems``."""
    source = Source(file)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error)
        source.problem((), f"is no YAML: {what}", line=mark.line + 1 if mark is not None else 0)
        return source
    if node is None:
        source.problem((), "is empty", suggestion="a configuration begins with 'version: 1'")
    elif isinstance(node, yaml.MappingNode):
        source.data = _Reader(source, variables).read(node, ())
    else:
        source.problem((), "must be a mapping of keys (version, services, ...)", line=1)
    return source


class _Reader:
    """Turns YAML nodes into data, noting lines; anchors and merges are followed as in any YAML."""

    def __init__(self, source: Source, variables: Mapping[str, str]) -> None:
        self._source = source
        self._variables = variables
        self._yaml = yaml.SafeLoader("")
        self._nodes = 0
        self._is_refused = False

    def read(self, node: yaml.Node, path: Path) -> Any:
        self._source.lines.setdefault(path, node.start_mark.line + 1)
        self._nodes += 1
        if len(path) > MAX_DEPTH or self._nodes > MAX_NODES:  # an alias to what contains it, or a bomb of aliases
            if not self._is_refused:
                self._source.problem(path[:4], "goes too deep or repeats itself; write it out without aliases")
            self._is_refused = True
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*path, number)) for number, item in enumerate(node.value)]
        is_text = len(path) == 4 and path[2] == "environment" and node.tag != "tag:yaml.org,2002:null"
        value = str(node.value) if is_text else self._scalar(node, path)  # 007 and 1.10 stay what was written
        return self._expanded(value, path) if isinstance(value, str) else value

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        try:
            return self._yaml.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self._source.problem(path, f"cannot be read: {getattr(error, 'problem', None) or error}")
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value != "<<":
                line = key_node.start_mark.line + 1
                if key_node.value in seen:
                    where = (*path, key_node.value)
                    text = f"the key stands twice, first on line {seen[key_node.value]}"
                    self._source.problem(where, text, suggestion="keep one of them", line=line)
                seen.setdefault(key_node.value, line)
        try:
            self._yaml.flatten_mapping(node)
        except yaml.YAMLError as error:
            self._source.problem(path, f"cannot be merged: {getattr(error, 'problem', None) or error}")
            return {}
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._source.problem(path, "a key must be plain text", line=key_node.start_mark.line + 1)
                continue
            key = str(self._scalar(key_node, path))
            self._source.lines[(*path, key)] = key_node.start_mark.line + 1
            data[key] = self.read(value_node, (*path, key))
        return data

    def _expanded(self, text: str, path: Path) -> str:
        def value(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            found: str | None = self._variables.get(match[1], match[2])
            if found is None:
                hint = f"set it, or write ${{{match[1]}:-default}}"
                self._source.problem(path, f"the environment variable {match[1]} is not set", suggestion=hint)
                return ""
            return found

        return _VARIABLE.sub(value, text)
