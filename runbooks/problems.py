"""What is wrong with a runbook file, or worth knowing about it: where it stands, and how bad it is. Pure words."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.Enum):
    """ERROR: the file is not used. WARNING: it is, and does less or other than its author may think. NOTE: what was
    made of an old file.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in which file; ``pointer`` is a JSON Pointer into it ("" for the whole)."""

    file: str
    pointer: str
    text: str
    level: Level = Level.ERROR

    def __str__(self) -> str:
        word = "" if self.level is Level.ERROR else f"{self.level.value}: "
        return f"{self.file}: {self.pointer or '/'}: {word}{self.text}"


class BadRunbook(ValueError):
    """A file that is no usable runbook. ``problems`` holds all of them."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems
