"""Starting the daemon anew when it is gone and nobody else does it: with growing pauses, never beside a living one.

On the keeper's one thread; never blocks. The new daemon writes to a file: whoever looked at the old one's terminal may
have left.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from actors.keeper.patience import Patience

DYING_S: Final = 0.05
"""How often it is looked whether a dying daemon is gone."""
YOUNG_S: Final = 60.0
"""How long a daemon that was started may take to say hello; then it is killed, and another one started."""
MOST_IN_VAIN: Final = 5
"""Without a service to look after, so many starts in vain are enough."""


@dataclass
class _Wanted:
    """A daemon is to be started once ``old`` (a pidfd) is gone and the time has come."""

    how: Mapping[str, Any]
    old: int
    due_s: float


@dataclass
class _Young:
    """The daemon started last, which has not said hello yet."""

    how: Mapping[str, Any]
    pidfd: int
    began_s: float


class Respawner:
    """Args: ``state_dir`` is where the output of a started daemon goes; ``on_started`` is told its pid."""

    def __init__(self, state_dir: Path, on_started: Callable[[int], object]) -> None:
        self._state_dir = state_dir
        self._on_started = on_started
        self._patience = Patience()
        self._wanted: _Wanted | None = None
        self._young: _Young | None = None

    def daemon_gone(self, how: Mapping[str, Any], pidfd: int, lived_s: float) -> None:
        """A daemon that had said hello is dead or dying. ``how`` is what it said of starting it."""
        self._want(how, os.dup(pidfd), lived_s)

    def has_daemon(self) -> None:
        """Somebody said hello: whoever it is, no other one is needed."""
        self.give_up()

    def give_up(self) -> None:
        for held in (self._wanted, self._young):
            if held is not None:
                os.close(held.old if isinstance(held, _Wanted) else held.pidfd)
        self._wanted = self._young = None

    def pause_s(self, most_s: float) -> float:
        """How long the keeper's loop may wait."""
        if self._wanted is None:
            return most_s
        return min(most_s, max(DYING_S, self._wanted.due_s - time.monotonic()))

    def is_busy(self, *, has_services: bool) -> bool:
        """Whether the keeper must stay for this."""
        return self._young is not None or (
            self._wanted is not None and (has_services or self._patience.quick < MOST_IN_VAIN)
        )

    def look(self) -> None:
        """Do what is due."""
        young = self._young
        if young is not None and _is_gone(young.pidfd):
            self._lose(young, "ended before it was up")
        elif young is not None and time.monotonic() - young.began_s > YOUNG_S:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(young.pidfd, signal.SIGKILL)
            self._lose(young, f"was not up within {YOUNG_S:.0f} s and was killed")
        wanted = self._wanted
        if wanted is not None and time.monotonic() >= wanted.due_s and _is_gone(wanted.old):
            self._wanted = None
            os.close(wanted.old)
            self._start(wanted.how)

    def _lose(self, young: _Young, what: str) -> None:
        self._young = None
        sys.stderr.write(f"keeper: the daemon {what}: see daemon.log in the state directory\n")
        sys.stderr.flush()
        self._want(young.how, young.pidfd, 0.0)

    def _want(self, how: Mapping[str, Any], old: int, lived_s: float) -> None:
        self.give_up()
        self._patience = self._patience.after(lived_s)
        self._wanted = _Wanted(how, old, time.monotonic() + self._patience.delay_s)

    def _start(self, how: Mapping[str, Any]) -> None:
        with _output(self._state_dir) as output:
            try:
                daemon = self._popen(how, output)
            except OSError as error:
                sys.stderr.write(f"keeper: cannot start the daemon: {how['argv'][0]}: {error.strerror}\n")
                sys.stderr.flush()
                self._want(how, _pidfd_of_the_dead(), 0.0)
                return
        daemon.returncode = 0  # reaped as an orphan, not by Popen
        self._on_started(daemon.pid)
        self._young = _Young(how, os.pidfd_open(daemon.pid), time.monotonic())

    def _popen(self, how: Mapping[str, Any], output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Where the old one ran; if that directory is gone, in the state directory, or at the root.

        Raises:
            OSError: the program cannot be run.
        """
        for folder in (how["cwd"], str(self._state_dir)):
            if os.path.isdir(folder) and os.access(folder, os.X_OK):  # noqa: PTH112  they never raise
                break
        else:
            folder = "/"
        if folder != how["cwd"]:
            sys.stderr.write(f"keeper: the daemon's directory {how['cwd']} is gone: it is started in {folder}\n")
            sys.stderr.flush()
        return subprocess.Popen(
            how["argv"],
            cwd=folder,
            env=how["env"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _is_gone(pidfd: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(select.select([pidfd], [], [], 0)[0])
    return True


def _pidfd_of_the_dead() -> int:
    """A descriptor that is readable at once, as that of a process that is gone."""
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _output(state_dir: Path) -> IO[bytes]:
    try:
        return (state_dir / "daemon.log").open("ab")
    except OSError:  # a full disk must not prevent the daemon
        return Path(os.devnull).open("ab")
