"""What is wrong with a configuration file: every problem at once, each with its place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. ``key`` is dotted (`services.engine.restart_policy`); ``line`` counts from 1, 0 is unknown.

    ``message`` already names the value; ``value`` is kept apart for programs. Values under `environment` are never
    shown: they may be secrets.
    """

    file: str
    line: int
    key: str
    value: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        key = f"{self.key}: " if self.key else ""
        hint = f"; {self.suggestion}" if self.suggestion else ""
        return f"{place}: {key}{self.message}{hint}"


class ConfigError(Exception):
    """A file that cannot be used, with all its problems in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems, key=lambda one: (one.file, one.line, one.key)))
        super().__init__("\n".join(str(problem) for problem in self.problems))
