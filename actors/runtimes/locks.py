"""Who holds a service's lock: all processes of a run inherit the locked file, whatever else they change of themselves.

Somebody who merely has the file open (a backup, a curious person) holds nothing, and is nobody of ours.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from actors.runtimes.procfs import HAS_PROC, ProcessIdentity, identity_of


def lock_holders(path: Path) -> tuple[ProcessIdentity, ...]:
    """The living processes that hold this lock, ourselves left out. Processes of other users are not seen."""
    try:
        place = path.stat()
    except OSError:
        return ()
    if not HAS_PROC:
        return ()
    pids = (pid for pid in psutil.pids() if pid != os.getpid())
    found = (identity_of(pid) for pid in pids if _holds(pid, (place.st_dev, place.st_ino)))
    return tuple(known for known in found if known is not None)


def holds(pid: int, path: Path) -> bool:
    """Whether this process holds that lock."""
    try:
        place = path.stat()
    except OSError:
        return False
    return HAS_PROC and _holds(pid, (place.st_dev, place.st_ino))


def _holds(pid: int, place: tuple[int, int]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)  # noqa: PTH208  thousands of them
    except OSError:
        return False
    return any(_place_of(f"{folder}/{name}") == place and _is_locked(pid, name) for name in names)


def _is_locked(pid: int, fd: str) -> bool:
    """Whether this very open file carries the lock (Linux 4.1 says so in fdinfo)."""
    try:
        return b"FLOCK" in Path(f"/proc/{pid}/fdinfo/{fd}").read_bytes()
    except OSError:
        return False


def _place_of(path: str) -> tuple[int, int] | None:
    try:
        known = os.stat(path)  # noqa: PTH116  thousands of them
    except OSError:
        return None
    return known.st_dev, known.st_ino
