"""The columns of the drawn tree: which fit, how wide they are, and a row's line in them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rich.cells import cell_len

_TONES: Final = {"●": "32", "◐": "33", "○": "2", "✖": "1;31", "?": "35"}
_DIM: Final = "2"
_STATUS_COLUMN_MAX: Final = 30
_GAP: Final = "  "
_NOTE: Final = re.compile(r", | (?=\()")
"""What stands between a state and a remark on it."""

Segment = tuple[str, str]
"""A piece of a line and its SGR code ("" is plain)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One node, in words. ``branch`` is the drawing left of the glyph, ``under`` that of its reasons' lines, ``plan``
    what a node that does not run yet has to say.
    """

    branch: str
    under: str
    glyph: str
    name: str
    runtime: str
    identity: str
    strategy: str
    status: str
    cpu: str
    memory: str
    restarts: str
    is_bad: bool
    reasons: Sequence[str] = ()
    plan: str = ""

    @property
    def head(self) -> str:
        return f"{self.branch}{self.glyph} {self.name}"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns fit and how wide they are, in cells."""

    head: int
    runtime: int
    identity: int
    middle: int
    status: int
    cpu: int
    memory: int


_LAYOUTS: Final = (
    frozenset({"runtime", "identity", "usage"}),
    frozenset({"runtime", "identity"}),
    frozenset({"identity"}),
    frozenset[str](),
)
"""From wide to narrow terminals."""


def fit(rows: Sequence[Row], width: int | None) -> Columns:
    """The first layout in which all healthy lines fit. An unhealthy one says much, and so does the story of a restart
    at the end of a line: these may be shortened.
    """
    healthy = [row for row in rows if not row.is_bad]
    for layout in _LAYOUTS:
        columns = _measure(rows, layout)
        if width is None or all(_cells(_line(replace(row, restarts=""), columns)) <= width for row in healthy):
            return columns
    return _measure(rows, _LAYOUTS[-1])


def _measure(rows: Sequence[Row], shown: frozenset[str]) -> Columns:
    runtime = max((cell_len(row.runtime) for row in rows), default=0) if "runtime" in shown else 0
    ident = max((cell_len(row.identity) for row in rows), default=0) if "identity" in shown else 0
    gap = len(_GAP) if runtime and ident else 0
    strategies = max((cell_len(row.strategy) for row in rows), default=0) if "identity" in shown else 0
    statuses = [cell_len(row.status) for row in rows if not row.is_bad]
    return Columns(
        head=max(cell_len(row.head) for row in rows),
        runtime=runtime,
        identity=ident,
        middle=max(runtime + gap + ident, strategies),
        status=min(max(statuses, default=0), _STATUS_COLUMN_MAX),
        cpu=max((len(row.cpu) for row in rows), default=0) if "usage" in shown else 0,
        memory=max((len(row.memory) for row in rows), default=0) if "usage" in shown else 0,
    )


def lines(rows: Iterable[Row], columns: Columns) -> Iterable[list[Segment]]:
    for row in rows:
        yield _line(row, columns)
        for number, reason in enumerate(row.reasons, 1):
            yield [(f"{row.under}  {'└' if number == len(row.reasons) else '├'} ", _DIM), (reason, "")]


def _line(row: Row, columns: Columns) -> list[Segment]:
    tone = _TONES.get(row.glyph, "")
    pad = " " * (columns.head - cell_len(row.head))
    line = [(row.branch, _DIM), (row.glyph, tone), (f" {row.name}{pad}", "")]
    if columns.middle:
        middle = row.strategy or _middle(row, columns)
        line.append((_GAP + _padded(middle, columns.middle), _DIM))
    status, note = _split(row, columns)
    line.append((_GAP + _padded(status, columns.status), tone if row.is_bad else ""))
    for text, wide in ((row.cpu, columns.cpu), (row.memory, columns.memory)):
        if wide:
            line.append((_GAP + text.rjust(wide), ""))
    if row.restarts:
        line.append((_GAP + row.restarts, "33"))
    if note:
        line.append((_GAP + note, ""))
    return _without_trailing_blanks(line)


def _split(row: Row, columns: Columns) -> tuple[str, str]:
    """The status and, where it would push the columns behind it, its note apart: that goes to the line's end. An
    unhealthy one says first what is wrong.
    """
    has_use = (row.cpu and columns.cpu) or (row.memory and columns.memory)
    if row.is_bad or not has_use or cell_len(row.status) <= columns.status:
        return row.status, ""
    found = _NOTE.search(row.status)
    if found is None:
        return row.status, ""
    return row.status[: found.start()], row.status[found.end() :]


def _middle(row: Row, columns: Columns) -> str:
    parts = [
        _padded(text, wide) for text, wide in ((row.runtime, columns.runtime), (row.identity, columns.identity)) if wide
    ]
    return _GAP.join(parts)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _without_trailing_blanks(line: list[Segment]) -> list[Segment]:
    while line and not line[-1][0].strip():
        line = line[:-1]
    text, tone = line[-1]
    return [*line[:-1], (text.rstrip(), tone)]


def _cells(line: Iterable[Segment]) -> int:
    return sum(cell_len(text) for text, _ in line)


# -- drawing ----------------------------------------------------------------------------------------------------------


def draw(line: Iterable[Segment], width: int | None, colour: bool) -> str:
    pieces = line if width is None else _shortened(list(line), width)
    return "".join(f"\x1b[{tone}m{text}\x1b[0m" if colour and tone and text else text for text, tone in pieces)


def _shortened(line: list[Segment], width: int) -> list[Segment]:
    if _cells(line) <= width:
        return line
    kept: list[Segment] = []
    room = max(1, width) - 1
    for text, tone in line:
        piece = _head_of(text, room)
        kept.append((piece, tone))
        room -= cell_len(piece)
        if piece != text:
            break
    return [*kept, ("…", "")]


def _head_of(text: str, room: int) -> str:
    while cell_len(text) > room:
        text = text[:-1]
    return text
