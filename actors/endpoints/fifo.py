"""An endpoint that writes JSON lines into a named pipe."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from actors.bridge_fsm import Connected
from actors.endpoints.lines import CHUNK_BYTES, read_lines
from actors.endpoints.transport import Tell, ThreadedTransport


class FifoTransport(ThreadedTransport):
    """Reads the pipe at ``path``, which it makes when nothing is there. Anything else there is left alone, and said."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name)
        self._path = path

    def _run(self, tell: Tell) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.mkfifo(self._path, 0o600)
        # also for writing: writers may come and go, and the pipe never ends
        fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if not stat.S_ISFIFO(os.fstat(fd).st_mode):
                raise ValueError(f"{self._path} is no named pipe; take it away")
            tell(Connected())
            read_lines(fd, lambda: _read(fd), self._wake, self._closed, tell, lambda: self._replaced(fd))
        finally:
            os.close(fd)

    def _replaced(self, fd: int) -> str | None:
        """Writers open what is at the path now."""
        ours = os.fstat(fd)
        try:
            there = os.lstat(self._path)
        except FileNotFoundError:
            return f"{self._path} was taken away"
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            return f"{self._path} was replaced"
        return None


def _read(fd: int) -> bytes:
    return os.read(fd, CHUNK_BYTES)
