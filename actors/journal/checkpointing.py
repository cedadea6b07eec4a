"""Copies what is committed from the write-ahead log into the journal's file, so that the writer need not stop for it.

Owns one thread and, while it copies, a connection of its own. SQLite lets the writer go on meanwhile; the log is begun
anew by the writer's own checkpoint, which then finds little left to copy.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

CHANGES: Final = 2000
"""Rows changed between two copies."""


class Checkpointer:
    """``kick`` after a commit, from the writer's thread. What goes wrong is the writer's to find.

    Args:
        is_ours: whether the name still stands for the journal's file.
    """

    def __init__(self, path: Path, is_ours: Callable[[], bool]) -> None:
        self._path = path
        self._is_ours = is_ours
        self._copied_at = 0
        self._asked = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="journal-checkpointer", daemon=True)
        self._thread.start()

    def kick(self, total_changes: int, *, at_least: int = CHANGES) -> None:
        """Copy, when at least so many rows were changed since the last time."""
        if not 0 <= total_changes - self._copied_at < at_least:
            self._copied_at = total_changes
            self._asked.set()

    def close(self, timeout_s: float = 5.0) -> None:
        self._closing = True
        self._asked.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._closing:
                return
            if self._is_ours():
                with contextlib.suppress(sqlite3.Error):
                    _copy(self._path)


def _copy(path: Path) -> None:
    """Raises sqlite3.Error."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    finally:
        connection.close()
