"""Whether the journal's file is still where it was opened, and how it is put back. Runs on the writer's thread."""

from __future__ import annotations

import enum
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from actors.journal.schema import COMPANIONS, JournalTrouble, move_aside

_HEAD: Final = b"SQLite format 3\0"


class Fault(enum.Enum):
    """What happened to the file behind our back."""

    REMOVED = "was removed while it was open"
    REPLACED = "was replaced while it was open"
    DAMAGED = "was damaged while it was open"


@dataclass(frozen=True, slots=True)
class Place:
    """The file as it was opened: a name alone is no identity.

    It holds a descriptor for looking, closed (``release``) only when no connection is open any more: closing any
    descriptor of a file drops all POSIX locks of the process on it, SQLite's too. Without them the next stranger who
    closes a connection of his own is the last one for SQLite, and removes the WAL that we write into.
    """

    path: Path
    device: int
    inode: int
    fd: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        found = os.fstat(fd)
        return cls(path, found.st_dev, found.st_ino, fd)

    def release(self) -> None:
        os.close(self.fd)

    def fault(self) -> Fault | None:
        """One look at the name: is it still this file?"""
        try:
            found = self.path.stat()
        except OSError:
            return Fault.REMOVED
        return None if (found.st_dev, found.st_ino) == (self.device, self.inode) else Fault.REPLACED

    def looked_into(self) -> Fault | None:
        """``fault``, and whether the file's first bytes are still a database's."""
        if (fault := self.fault()) is not None:
            return fault
        try:
            return None if os.pread(self.fd, len(_HEAD), 0) == _HEAD else Fault.DAMAGED
        except OSError:
            return Fault.DAMAGED


def put_back(connection: sqlite3.Connection, path: Path) -> str | None:
    """Write everything the open connection still knows to ``path``; returns where a file that was found there went.

    The connection holds the removed file open, so nothing is lost. It must be closed and opened anew afterwards.

    Raises:
        JournalTrouble: no room, or the directory cannot be written.
    """
    fresh = path.with_name(f"{path.name}.new")
    aside = None
    try:
        fresh.unlink(missing_ok=True)
        copy = sqlite3.connect(fresh, isolation_level=None)
        try:
            connection.backup(copy)
        finally:
            copy.close()
        if path.exists():
            aside = move_aside(path, f"replaced-{time.time_ns()}").name
        for suffix in COMPANIONS:  # they belong to the removed file
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        fresh.replace(path)
    except (OSError, sqlite3.Error) as error:
        raise JournalTrouble(f"{path}: was removed and cannot be put back: {error}") from error
    return aside
