"""What the daemon and its keeper say to each other: JSON objects in length-prefixed frames over a unix socket. Pure.

Requests of the daemon carry an ``id`` and are answered by a frame with the same ``id``; ``exited`` comes unasked.
Environments may hold bytes that are no UTF-8: they travel as Python's surrogate escapes, which JSON keeps.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

VERSION: Final = 1
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
PEER_CREDENTIALS: Final = struct.Struct("3i")
"""What SO_PEERCRED gives: pid, uid, gid of the other side (man 7 unix)."""
_LENGTH: Final = struct.Struct(">I")

Frame = dict[str, Any]


def address_of(state_dir: Path) -> str:
    """The keeper's socket address: an abstract one (Linux), so it needs no room on a disk, leaves no stale file, and
    can be bound only once. It follows the directory, however its path is written.

    Raises:
        OSError: there is no such directory.
    """
    place = state_dir.stat()
    return f"\0selfheal-keeper/{os.getuid()}/{place.st_dev:x}.{place.st_ino:x}"


class BrokenFrame(Exception):
    """What came is no frame: the other side is not one of us."""


def encode(frame: Mapping[str, Any]) -> bytes:
    body = json.dumps(frame, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise BrokenFrame(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now.

        Raises:
            BrokenFrame: a frame is too long or no JSON object.
        """
        self._rest += data
        while len(self._rest) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._rest)
            if length > MAX_FRAME_BYTES:
                raise BrokenFrame(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
            end = _LENGTH.size + length
            if len(self._rest) < end:
                return
            body, self._rest = self._rest[_LENGTH.size : end], self._rest[end:]
            yield _parse(body)


def _parse(body: bytes) -> Frame:
    try:
        frame = json.loads(body)
    except ValueError as error:
        raise BrokenFrame(f"no JSON: {error}") from error
    if not isinstance(frame, dict):
        raise BrokenFrame("no JSON object")
    return frame


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Where a run writes, at how many bytes that file is rotated, and how many older ones are kept."""

    path: str
    max_bytes: int
    backups: int


@dataclass(frozen=True, slots=True)
class FileStamp:
    """A file whose content is in a run's environment, as it was when it was read; all zero when there was none."""

    path: str
    mtime_ns: int
    size: int
    inode: int

    def still_fits(self) -> bool:
        """Whether the file was not changed since (one system call)."""
        return stamp_of(self.path) == self


def stamp_of(path: str) -> FileStamp:
    try:
        status = os.stat(path)  # noqa: PTH116  on the way to a restart
    except (OSError, ValueError):  # ValueError: no name of a file
        return FileStamp(path, 0, 0, 0)
    return FileStamp(path, status.st_mtime_ns, status.st_size, status.st_ino)


@dataclass(frozen=True, slots=True)
class End:
    """How a main process ended: an exit code or a signal; ``at`` is wall time. ``asked``: we had signalled it."""

    code: int | None
    signal: int | None
    at: float
    asked: bool = False

    @property
    def is_clean(self) -> bool:
        return self.code == 0


@dataclass(frozen=True, slots=True)
class KeptRun:
    """One run as the keeper knows it. ``successor`` is the run the keeper started by itself when this one ended."""

    service: str
    run: int
    token: str
    pid: int
    start_ticks: int
    started_at: float
    end: End | None = None
    successor: int | None = None
    by_keeper: bool = False

    def to_plain(self) -> Frame:
        return asdict(self)

    @classmethod
    def from_plain(cls, raw: Mapping[str, Any]) -> KeptRun:
        end = raw["end"]
        return cls(**{**raw, "end": None if end is None else End(**end)})
