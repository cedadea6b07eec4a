"""Each service's own log file: where it is, its last lines, following it. Rotation is in ``log_rotation``.

Called from reader threads. A service may write lines of any length and at any speed: a line is shown up to
``LINE_BYTES`` and a mark, and no call holds more of a file in memory than a few blocks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from actors.log_rotation import backup_path

LINE_BYTES: Final = 8192
"""How much of one line is shown."""
SCAN_BYTES: Final = 64 * 1024 * 1024
"""How far back the last lines are looked for in one file."""
READ_BYTES: Final = 1024 * 1024
"""How much a follower reads at once."""
GAP: Final = "[selfheal: lines are missing here: the log was rotated faster than it was read]"
_BLOCK: Final = 64 * 1024
_POLL_S: Final = 0.2
_ANCHOR_BYTES: Final = 256


def log_path(state_dir: Path, service: str) -> Path:
    """``<state>/logs/<service>.log``"""
    return state_dir / "logs" / f"{service}.log"


class LineCutter:
    """Makes lines of a byte stream. Of a long one it keeps the beginning, counts the rest and says so."""

    def __init__(self) -> None:
        self._begun = b""
        self._cut = 0

    @property
    def has_begun(self) -> bool:
        return bool(self._begun)

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are whole now."""
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._add(piece)
            yield self.end()
        self._add(rest)

    def end(self) -> str:
        """What was begun, as a line."""
        line = shown(self._begun, len(self._begun) + self._cut)
        self._begun, self._cut = b"", 0
        return line

    def _add(self, piece: bytes) -> None:
        room = LINE_BYTES - len(self._begun)
        self._begun += piece[:room]
        self._cut += max(0, len(piece) - room)


def shown(beginning: bytes, length: int) -> str:
    """A line of ``length`` bytes, of which only the beginning may be known."""
    text = beginning[:LINE_BYTES].decode("utf-8", "replace").removesuffix("\r")
    return text if length <= LINE_BYTES else f"{text} [... cut: a line of {length} bytes]"


# -- the last lines ---------------------------------------------------------------------------------------------------


def tail(path: Path, lines: int) -> list[str]:
    """The last ``lines`` lines, going on into the older file when the log was just rotated. A missing log is empty."""
    found = _last_lines(path, lines)
    if len(found) >= lines:
        return found
    older = backup_path(path, 1)
    if found and _is_torn(older):  # a line that begins there and ends here
        begun = _last_lines(older, lines - len(found) + 1)
        return [*begun[:-1], begun[-1] + found[0], *found[1:]]
    return [*_last_lines(older, lines - len(found)), *found]


def _is_torn(path: Path) -> bool:
    try:
        with path.open("rb") as log:
            return bool(log.seek(0, os.SEEK_END)) and os.pread(log.fileno(), 1, log.tell() - 1) != b"\n"
    except FileNotFoundError:
        return False


def _last_lines(path: Path, lines: int, end: int | None = None) -> list[str]:
    """The last lines before position ``end`` (None: all there is, with a last line that has no line end yet)."""
    if lines <= 0:
        return []
    try:
        with path.open("rb", buffering=0) as log:
            size = log.seek(0, os.SEEK_END) if end is None else end
            starts = _starts_of_lines(log, size, lines)
            ends = [*starts[1:], size] if starts else []  # an empty log has no line
            return [_line_at(log, start, end) for start, end in zip(starts, ends, strict=True)]
    except FileNotFoundError:
        return []


def _starts_of_lines(log: IO[bytes], size: int, lines: int) -> list[int]:
    """Where the last lines begin, oldest first. What lies further back than ``SCAN_BYTES`` is not looked at."""
    starts: list[int] = []
    at, lowest = size, max(0, size - SCAN_BYTES)
    while at > lowest and len(starts) < lines:
        begin = max(lowest, at - _BLOCK)
        block = os.pread(log.fileno(), at - begin, begin)
        found = len(block)
        while len(starts) < lines and (found := block.rfind(b"\n", 0, found)) >= 0:
            if begin + found + 1 < size:  # the last line's own end begins no line
                starts.append(begin + found + 1)
        at = begin
    if len(starts) < lines and size > lowest:
        starts.append(lowest)
    return starts[::-1]


def _line_at(log: IO[bytes], start: int, following: int) -> str:
    read = os.pread(log.fileno(), min(following - start, LINE_BYTES + 1), start)
    if read.endswith(b"\n") and len(read) == following - start:
        return shown(read[:-1], len(read) - 1)
    is_ended = following - start > len(read) and os.pread(log.fileno(), 1, following - 1) == b"\n"
    return shown(read, following - start - is_ended)


# -- following --------------------------------------------------------------------------------------------------------


def follow(path: Path, closed: threading.Event, *, lines: int = 10) -> Iterator[str]:
    """The last ``lines`` lines, then each new one, until ``closed`` is set. Survives rotation and a missing file.

    Of a log that is rotated faster than it is read lines are left out, and ``GAP`` says so.
    """
    reader = _Follower(path)
    yield from _last_lines(path, lines, reader.position)
    while not closed.is_set():
        new = reader.new_lines()
        yield from new
        if not new and reader.is_level:
            closed.wait(_POLL_S)


class _Follower:
    """The place up to which a log was read. A new first backup means that it was rotated since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._older = backup_path(path, 1)
        self._backup = _inode(self._older)
        self._cutter = LineCutter()
        self._patience = 1
        self.position = _end_of_last_line(path)
        self._anchor = _read_from(path, max(0, self.position - _ANCHOR_BYTES))[: min(self.position, _ANCHOR_BYTES)]
        self.is_level = False
        """Whether all there was has been read."""

    def new_lines(self) -> list[str]:
        """Whole lines written since the last look, those moved to the backup meanwhile first."""
        if _inode(self._older) not in (None, self._backup):
            return self._after_rotation()
        torn: list[str] = []
        if _size(self._path) < self.position:  # truncated by somebody else: a torn line stays torn
            torn = [self._cutter.end()] if self._cutter.has_begun else []
            self._begin_anew()
        return [*torn, *self._read(self._path)]

    def _after_rotation(self) -> list[str]:
        """The rest of what is in the backup now, if that is the file we were reading."""
        if self._patience and _size(self._path) >= _size(self._older) > 0:
            self._patience -= 1  # it may not be truncated yet
            self.is_level = True
            return []
        self._patience = 1
        moved_bytes = _size(self._older)
        if not self._is_our_place(moved_bytes):
            self._backup = _inode(self._older)
            self._cutter = LineCutter()
            self._begin_anew()
            return [GAP]
        if self.position < moved_bytes:
            lines = self._read(self._older)
            if not self.is_level:
                return lines
        else:
            lines = []
        self._backup = _inode(self._older)
        self.position -= moved_bytes
        self.is_level = False
        return lines

    def _is_our_place(self, moved_bytes: int) -> bool:
        """Whether what was read last stands where it should, in the backup with the log behind it."""
        begin = self.position - len(self._anchor)
        there = _read_from(self._older, begin) if begin < moved_bytes else b""
        there += _read_from(self._path, max(0, begin - moved_bytes))
        return there[: len(self._anchor)] == self._anchor

    def _begin_anew(self) -> None:
        self.position, self._anchor = 0, b""

    def _read(self, path: Path) -> list[str]:
        new = _read_from(path, self.position)
        self.position += len(new)
        self._anchor = (self._anchor + new[-_ANCHOR_BYTES:])[-_ANCHOR_BYTES:]
        self.is_level = len(new) < READ_BYTES
        return list(self._cutter.feed(new))


def _end_of_last_line(path: Path) -> int:
    """Where following begins: a line still being written is shown when it is whole."""
    size = _size(path)
    start = max(0, size - _BLOCK)
    block = _read_from(path, start)[: size - start]
    return start + block.rfind(b"\n") + 1 if b"\n" in block else start


def _read_from(path: Path, position: int) -> bytes:
    """At most ``READ_BYTES``."""
    try:
        with path.open("rb", buffering=0) as log:
            return os.pread(log.fileno(), READ_BYTES, position)
    except FileNotFoundError:
        return b""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
