"""Rotates the services' log files: one thread that looks every now and then. Children hold their files open, so a log
is copied and cut, never moved.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from actors.service_logs import rotate_if_needed

LOOK_S: Final = 1.0


class LogKeeper:
    """Args: ``limits``: for each log file the bytes at which it is rotated, and how many older ones are kept."""

    def __init__(self, limits: Mapping[Path, tuple[int, int]]) -> None:
        self._limits = limits
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._troubled: set[Path] = set()

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def update(self, limits: Mapping[Path, tuple[int, int]]) -> None:
        """Other limits, or other files, from the next look on. Any thread."""
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
        while not self._closed.wait(LOOK_S):
            for path, (max_bytes, backups) in self._limits.items():
                self._look(path, max_bytes, backups)

    def _look(self, path: Path, max_bytes: int, backups: int) -> None:
        try:
            rotate_if_needed(path, max_bytes, backups)
            self._troubled.discard(path)
        except OSError as error:  # a full disk: say it once, try again
            if path not in self._troubled:
                self._troubled.add(path)
                structlog.get_logger().error("cannot rotate log", path=str(path), error=error.strerror)
