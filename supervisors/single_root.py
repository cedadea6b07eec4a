"""One daemon per state directory: an exclusive lock that dies with its holder, and the holder's pid inside."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self


class StateInUse(Exception):
    """Another daemon owns the state directory."""

    def __init__(self, directory: Path, pid: str) -> None:
        super().__init__(
            f"{directory}: in use by the daemon with pid {pid}; stop it with 'selfheal stop --state {directory}' "
            "or choose another --state"
        )
        self.pid = pid


class RootLock:
    """``RootLock(directory)`` holds the lock until ``release`` or the death of the process (flock)."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(self._fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._fd)
            raise StateInUse(directory, pid) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
