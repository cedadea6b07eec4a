"""What the daemon tells its init: single bytes through a pipe it was born with. Standard library only, no thread."""

from __future__ import annotations

import os
import stat
from collections.abc import MutableMapping
from typing import Final

VARIABLE: Final = "SELFHEAL_INIT"
"""``PID:FD``: who the init is, and where it hears the daemon."""

LISTENING: Final = b"l"
"""Signals are handled from now on: those held back may come."""
UP: Final = b"u"
"""The tree stands."""
ENDING: Final = b"e"
"""This is the beginning of an orderly end."""


class InitLink:
    """The way to the init that is this process's parent."""

    def __init__(self, init_pid: int, fd: int) -> None:
        self.init_pid = init_pid
        self._fd: int | None = fd
        os.set_inheritable(fd, False)

    def say(self, word: bytes) -> None:
        """An init that does not hear any more is no reason to stop."""
        if self._fd is None:
            return
        try:
            os.write(self._fd, word)
        except OSError:
            os.close(self._fd)
            self._fd = None


def take_link(environ: MutableMapping[str, str]) -> InitLink | None:
    """The link named in ``environ``, which is taken out of it: what this process starts has another parent.

    None without one, and when it was meant for another process.
    """
    pid, _, fd = environ.pop(VARIABLE, "").partition(":")
    if not (pid.isdigit() and fd.isdigit()) or int(pid) != os.getppid():
        return None
    try:
        is_pipe = stat.S_ISFIFO(os.fstat(int(fd)).st_mode)
    except OSError:
        return None
    return InitLink(int(pid), int(fd)) if is_pipe else None


def has_init(environ: MutableMapping[str, str]) -> bool:
    """Whether the init is this process's parent already."""
    return environ.get(VARIABLE, "").partition(":")[0] == str(os.getppid())
