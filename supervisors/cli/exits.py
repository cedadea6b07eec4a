"""The exit codes of the command line, and which error gives which."""

from __future__ import annotations

from typing import Final

from supervisors.manager import BadConfig, DaemonUnreachable, ManagerError, TimedOut

WELL: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
SOMETHING_DOWN: Final = 3
UNREACHABLE: Final = 4
TIMED_OUT: Final = 5


class Quit(Exception):
    """End the command with ``code``; ``text`` is the one line for standard error (None: all is said already)."""

    def __init__(self, code: int, text: str | None = None) -> None:
        super().__init__(text or f"exit {code}")
        self.code = code
        self.text = text


def code_of(error: ManagerError) -> int:
    if isinstance(error, DaemonUnreachable):
        return UNREACHABLE
    if isinstance(error, BadConfig):
        return WRONG_USAGE
    return TIMED_OUT if isinstance(error, TimedOut) else FAILED
