"""What the terminal can show, and simple printing for it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.cells import cell_len

from supervisors.phrases import clean
from supervisors.render import DRAWN


@dataclass(frozen=True, slots=True)
class Terminal:
    """``width`` is None where lines may have any length (a pipe, a file)."""

    width: int | None
    colour: bool
    ascii_only: bool

    @property
    def is_tty(self) -> bool:
        return self.width is not None


def terminal_of(stream: TextIO, environ: Mapping[str, str] = os.environ) -> Terminal:
    """The facts of a stream. NO_COLOR (not empty) and TERM=dumb switch colour off; a pipe has none."""
    is_tty = stream.isatty()
    colour = is_tty and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    width = shutil.get_terminal_size((80, 24)).columns if is_tty else None
    return Terminal(width, colour, not _can_draw(getattr(stream, "encoding", None)))


def _can_draw(encoding: str | None) -> bool:
    try:
        DRAWN.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def say(*lines: str) -> None:
    """The answer of a command, for standard output."""
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def complain(text: object) -> None:
    """What is wrong, for standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def print_json(value: Any) -> None:
    say(json.dumps(value, ensure_ascii=not _can_draw(sys.stdout.encoding), default=str))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns two blanks apart; the last one is as long as it is."""
    cleaned = [list(headings), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(cell_len(row[column]) for row in cleaned) for column in range(len(headings))]
    return "\n".join(_line(row, widths) for row in cleaned)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
    return "  ".join(padded).rstrip()
