"""Rotates the services' log files: one thread that looks every now and then. Children hold their files open, so a log
is copied and cut, never moved; one that was deleted or moved away by somebody is brought back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from actors.log_rotation import LogFile, finish, rescue, rotate_if_needed

LOOK_S: Final = 1.0
FLOOD_LOOK_S: Final = 0.25
"""After a rotation the next look comes sooner: that log may be flooded."""
Limits = Mapping[Path, tuple[int, int]]
"""For each log file the bytes at which it is rotated, and how many older ones are kept."""


class LogKeeper:
    """Args:
    limits: which logs there are; ``update`` gives others.
    writers: asked at each look: the main process that writes into a log now.
    """

    def __init__(
        self, limits: Limits, writers: Callable[[], Mapping[Path, int]] = dict, *, look_s: float = LOOK_S
    ) -> None:
        self._limits = dict(limits)
        self._writers = writers
        self._look_s = look_s
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._troubles: dict[Path, str] = {}
        self._trouble: str | None = None
        self._files: dict[Path, LogFile | None] = {}

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def trouble(self) -> str | None:
        """Which log cannot be kept small now, and why; None: all is well."""
        return self._trouble

    def update(self, limits: Limits) -> None:
        """Keep these logs from the next look on. Any thread; logs of services that are gone are left as they are."""
        self._limits = dict(limits)

    def start(self) -> None:
        self._closed.clear()
        self._thread = threading.Thread(target=self._run, name="log-keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        has_rotated = False
        while not self._closed.wait(min(self._look_s, FLOOD_LOOK_S) if has_rotated else self._look_s):
            has_rotated = self.look()

    def look(self) -> bool:
        """Rotate what has grown too long, bring back what was taken away; returns whether anything was rotated.

        On the log keeper's thread.
        """
        has_rotated = False
        limits, writers = self._limits, self._writers()
        for path in self._troubles.keys() - limits.keys():
            del self._troubles[path]
        for path in self._files.keys() - writers.keys():
            del self._files[path]
        for path, (max_bytes, backups) in limits.items():
            has_rotated |= self._look_at(path, max_bytes, backups, writers.get(path))
        self._trouble = next(iter(self._troubles.values()), None)
        return has_rotated

    def _look_at(self, path: Path, max_bytes: int, backups: int, pid: int | None) -> bool:
        has_rotated = False
        try:
            has_rotated = rotate_if_needed(path, max_bytes, backups)
            if pid is not None:  # last, so that what it remembers is how the rotation left the file
                self._files[path] = finish(rescue(path, pid, self._files.get(path), max_bytes))
            self._troubles.pop(path, None)
        except OSError as error:  # a full disk: say it once, try again
            text = f"cannot rotate log {path}: {error.strerror}"
            if self._troubles.get(path) != text:
                self._troubles[path] = text
                structlog.get_logger().error("cannot rotate log", path=str(path), error=error.strerror)
        return has_rotated
