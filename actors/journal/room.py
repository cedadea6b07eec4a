"""Whether there is room for more: free space on the journal's disk is watched before it ends, and some is kept back.

The ballast is a file of real blocks beside the journal. When the disk fills it is given up, so that decisions, steps
and events can still be written; it is taken back as soon as it fits again. New alerts are refused from a floor on, well
before that. Owned by the journal's writer thread; ``is_short`` and ``trouble`` may be read from any.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024
SMALL_DISK: Final = 16
"""On a small disk ballast and floor are at most this part of it each."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes: free for us, and in all."""

    free: int
    total: int


def disk_of(directory: Path) -> Disk:
    """Raises OSError."""
    found = os.statvfs(directory)
    return Disk(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """``ballast_bytes`` are kept back (0: none); with less than ``min_free_bytes`` free no new alert is taken."""

    ballast_bytes: int = 16 * MIB
    min_free_bytes: int = 32 * MIB

    def on(self, disk: Disk) -> RoomLimits:
        most = disk.total // SMALL_DISK
        return RoomLimits(min(self.ballast_bytes, most), min(self.min_free_bytes, most))


class Room:
    """``look`` often, ``give_up`` when a write found no room; both on the writer's thread.

    Args:
        directory: where the journal is; the ballast is the file ``ballast`` in it.
        look_at: how much room there is.
    """

    def __init__(
        self, directory: Path, limits: RoomLimits | None = None, look_at: Callable[[Path], Disk] = disk_of
    ) -> None:
        self.ballast = directory / "ballast"
        self._directory = directory
        self._wanted = limits or RoomLimits()
        self._look_at = look_at
        self._is_held = False
        self._is_given_up = False
        self.is_short = False
        self.trouble: str | None = None

    def look(self) -> None:
        """Give the ballast up when the disk is nearly full, take it back when there is room, say what is wrong."""
        try:
            disk = self._look_at(self._directory)
        except OSError:
            return  # there is no directory: the journal says so
        limits = self._wanted.on(disk)
        if self._is_held and disk.free < limits.min_free_bytes // 4:
            self.give_up()
        elif not self._is_held and disk.free >= limits.ballast_bytes + limits.min_free_bytes:
            self._take(limits.ballast_bytes)
        elif not self._is_held and self._is_left(limits.ballast_bytes):
            self._is_held = True
        self._judge(disk, limits)

    def give_up(self) -> bool:
        """Make room at once; no new alert is taken until the ballast is back. False: there was none to give."""
        self._is_held, self._is_given_up, self.is_short = False, True, True
        try:
            self.ballast.unlink()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Who does not run needs no ballast."""
        self._is_held = False
        with suppress(OSError):
            self.ballast.unlink(missing_ok=True)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _take(self, size: int) -> None:
        """A file system that cannot reserve blocks has the floor only."""
        if size > 0:
            try:
                _reserve(self.ballast, size)
            except OSError:
                with suppress(OSError):
                    self.ballast.unlink()
                self._is_given_up = False
                return
        self._is_held, self._is_given_up = size > 0, False

    def _is_left(self, size: int) -> bool:
        """By a daemon that was killed."""
        try:
            found = self.ballast.stat()
        except OSError:
            return False
        return 0 < size <= min(found.st_size, found.st_blocks * 512)

    def _judge(self, disk: Disk, limits: RoomLimits) -> None:
        """Closed from the floor on; open again only with the ballast in its place and a quarter more than the floor."""
        if disk.free < limits.min_free_bytes or self._is_given_up:
            self.is_short = True
        elif disk.free >= limits.min_free_bytes * 5 // 4:
            self.is_short = False
        if not self.is_short:
            self.trouble = None
            return
        gone = "; the ballast is given up for decisions, runbooks and events" if self._is_given_up else ""
        self.trouble = (
            f"{self._directory}: the disk is nearly full, {said(disk.free)} of {said(disk.total)} free: "
            f"new alerts are refused below {said(limits.min_free_bytes)}{gone}"
        )


def said(size: int) -> str:
    return f"{size / MIB:.1f} MiB"


def _reserve(path: Path, size: int) -> None:
    """Real blocks, not a hole. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(fd, size)
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)
