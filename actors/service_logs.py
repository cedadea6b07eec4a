"""Each service's own log file: where it is, keeping it small, its last lines, following it.

Services hold the file open themselves (``O_APPEND``), so it is rotated by copying its bytes away and truncating it in
place: no pipe, nobody to wait for, and it works for processes of an earlier daemon too. What a service writes in the
moment between the last copy and the truncation is lost; copying goes on until the file stands still to keep that short.
Called from one maintenance thread (rotation) and from reader threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

_BLOCK: Final = 64 * 1024
_POLL_S: Final = 0.2
_CATCH_UPS: Final = 20


def log_path(state_dir: Path, service: str) -> Path:
    """``<state>/logs/<service>.log``"""
    return state_dir / "logs" / f"{service}.log"


def backup_path(path: Path, number: int) -> Path:
    """The ``number``-th older file; 1 is the newest."""
    return path.with_name(f"{path.name}.{number}")


def rotate_if_needed(path: Path, max_bytes: int, backups: int) -> bool:
    """Move the content aside when it is longer than ``max_bytes``; returns whether it was.

    The newest bytes are kept in ``backups`` older files; of a log that ran away (twice ``max_bytes`` and more) only the
    last ``max_bytes``.

    Raises:
        OSError: the files cannot be written. The log itself is then left as it is.
    """
    try:
        with path.open("rb+") as log:
            if os.fstat(log.fileno()).st_size <= max_bytes:
                return False
            _copy_and_truncate(log, path, max_bytes, backups)
    except FileNotFoundError:
        return False
    return True


def _copy_and_truncate(log: IO[bytes], path: Path, max_bytes: int, backups: int) -> None:
    if backups < 1:
        log.truncate(0)
        return
    aside = path.with_name(path.name + ".rotating")
    size = os.fstat(log.fileno()).st_size
    log.seek(size - max_bytes if size > 2 * max_bytes else 0)
    with aside.open("wb") as copy:
        for _ in range(_CATCH_UPS):
            if not _copy_block_by_block(log, copy):
                break
    for number in range(backups - 1, 0, -1):
        if backup_path(path, number).exists():
            backup_path(path, number).replace(backup_path(path, number + 1))
    aside.replace(backup_path(path, 1))
    _append_rest(log, backup_path(path, 1))
    os.ftruncate(log.fileno(), 0)


def _copy_block_by_block(log: IO[bytes], copy: IO[bytes]) -> int:
    copied = 0
    while block := log.read(_BLOCK):
        copied += copy.write(block)
    copy.flush()
    return copied


def _append_rest(log: IO[bytes], path: Path) -> None:
    rest = log.read()
    if rest:
        with path.open("ab") as copy:
            copy.write(rest)


def tail(path: Path, lines: int) -> list[str]:
    """The last ``lines`` lines, going on into the older file when the log was just rotated. A missing log is empty."""
    found = _last_lines(path, lines)
    if len(found) < lines:
        found = [*_last_lines(backup_path(path, 1), lines - len(found)), *found]
    return found


def _last_lines(path: Path, lines: int, end: int | None = None) -> list[str]:
    """The last lines before position ``end`` (None: all there is, with a last line that has no line end yet)."""
    if lines <= 0:
        return []
    try:
        with path.open("rb") as log:
            at = log.seek(0, os.SEEK_END) if end is None else end
            read = b""
            while at > 0 and read.count(b"\n") <= lines:
                start = max(0, at - _BLOCK)
                log.seek(start)
                read = log.read(at - start) + read
                at = start
    except FileNotFoundError:
        return []
    return [line.decode("utf-8", "replace") for line in read.splitlines()][-lines:]


def follow(path: Path, closed: threading.Event, *, lines: int = 10) -> Iterator[str]:
    """The last ``lines`` lines, then each new one, until ``closed`` is set. Survives rotation and a missing file."""
    reader = _Follower(path)
    yield from _last_lines(path, lines, reader.position)
    while not closed.is_set():
        new = reader.new_lines()
        yield from new
        if not new:
            closed.wait(_POLL_S)


class _Follower:
    """The place up to which a log was read. A new first backup means that it was rotated since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._backup = _inode(backup_path(path, 1))
        self._torn = b""
        self.position = _end_of_last_line(path)

    def new_lines(self) -> list[str]:
        """Whole lines written since the last look, those moved to the backup meanwhile first."""
        whole: list[bytes] = []
        backup = _inode(backup_path(self._path, 1))
        if backup != self._backup:
            self._backup = backup
            whole = self._take(_read_from(backup_path(self._path, 1), self.position))
            self.position = 0
        if _size(self._path) < self.position:  # truncated by somebody else: a torn line stays torn
            whole, self._torn = ([self._torn] if self._torn else []), b""
            self.position = 0
        new = _read_from(self._path, self.position)
        self.position += len(new)
        return [line.decode("utf-8", "replace") for line in (*whole, *self._take(new))]

    def _take(self, new: bytes) -> list[bytes]:
        *whole, self._torn = (self._torn + new).split(b"\n")
        return whole


def _end_of_last_line(path: Path) -> int:
    """Where following begins: a line still being written is shown when it is whole."""
    size = _size(path)
    start = max(0, size - _BLOCK)
    block = _read_from(path, start)[: size - start]
    return start + block.rfind(b"\n") + 1 if b"\n" in block else start


def _read_from(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as log:
            log.seek(position)
            return log.read()
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
