"""An endpoint that drops files into a folder: each new or changed one is a sign of life.

What the files hold does not matter here, so a half-written one does not either; nor do clocks, for no time in a file's
record is ever compared with ours.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from actors.bridge_fsm import Connected, Heard
from actors.endpoints.transport import ErrorHeard, Tell, ThreadedTransport

MAX_FILES: Final = 20_000
"""Of a fuller folder no more files are looked at, and the folder's own change time counts as well."""
BUSY_SHARE: Final = 10
"""A look that takes t seconds is followed by ten times t of rest."""


class SpoolTransport(ThreadedTransport):
    """Looks at the folder three times in ``silence_s``, at least once a second while that is quick."""

    def __init__(self, name: str, directory: Path, silence_s: float, max_files: int = MAX_FILES) -> None:
        super().__init__(name)
        self._directory = directory
        self._every_s = min(1.0, silence_s / 3)
        self._max_files = max_files
        self._is_full = False
        self._has_told = False

    def _run(self, tell: Tell) -> None:
        seen = self._look()
        if seen is not None:
            tell(Connected())
        took_s = 0.0
        while not self._closed.wait(max(self._every_s, BUSY_SHARE * took_s)):
            began = time.monotonic()
            found = self._look()
            took_s = time.monotonic() - began
            if found is not None:
                if found - (seen or frozenset()):
                    tell(Heard())
                seen = found
            self._say_full(tell)

    def _look(self) -> frozenset[int] | None:
        """One number for each file as it is now; None when there is no folder."""
        marks: set[int] = set()
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if len(marks) >= self._max_files:
                        marks.add(hash(self._directory.stat().st_mtime_ns))
                        break
                    with suppress(OSError):  # taken away meanwhile, or a link that leads nowhere
                        if entry.is_file():
                            facts = entry.stat()
                            marks.add(hash((entry.name, facts.st_ino, facts.st_mtime_ns, facts.st_size)))
        except FileNotFoundError:
            return None
        self._is_full = self._is_full or len(marks) > self._max_files
        return frozenset(marks)

    def _say_full(self, tell: Tell) -> None:
        if self._is_full and not self._has_told:
            self._has_told = True
            text = f"{self._directory} holds more than {self._max_files} files: is nobody taking them away?"
            tell(ErrorHeard({"error_type": "SpoolTooFull", "error_message": text}, is_life=False))
