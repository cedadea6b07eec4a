"""The keeper's lines in the daemon's ledger: what it did by itself. Appended, never flushed, never in anyone's way.

The daemon writes the same file (``actors.ledger``); both append whole lines with one write each, so they do not mix.
Now and then the daemon puts a shorter one in its place: each write here is made under a shared lock (flock) on the file
that is in place, so none goes into one that nobody reads any more. While the daemon holds its lock, lines wait here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from typing import Any

from actors.keeper.words import End, KeptRun

RUNTIME = "process"


class Record:
    """Appends to the ledger at ``path``. Trouble is kept, not raised: a full disk must not prevent a restart."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._path: str | None = None
        self._waiting = b""
        """Lines that could not be written while the daemon shortened the file."""
        self._is_torn = False
        """The last line is cut short: the next one begins with a line end."""
        self.trouble: str | None = None

    def open(self, path: str | None) -> None:
        """Write into this file from now on (the daemon has put a new one in place)."""
        self._path = path
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if path is not None:
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            except OSError as error:
                self.trouble = f"cannot write {path}: {error.strerror}"

    def look(self) -> None:
        """Once in a while: a file that is no longer the one of that name is read by nobody."""
        if self._path is None:
            return
        if self._is_elsewhere(self._path):
            self.open(self._path)
        self._put()

    def write(self, *entries: Mapping[str, Any]) -> None:
        self._waiting += b"".join(json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in entries)
        self._put()

    def _put(self) -> None:
        """What cannot be written is not tried again: it would come after what is newer."""
        if self._fd is None:
            self._waiting = b""
        fd = self._take_turn() if self._waiting else None
        if fd is None:
            return
        data, self._waiting = b"\n" + self._waiting if self._is_torn else self._waiting, b""
        try:
            self._is_torn = os.write(fd, data) != len(data)
            self.trouble = "disk full" if self._is_torn else None
        except OSError as error:
            self.trouble = error.strerror
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)

    def _take_turn(self) -> int | None:
        """Lock the file in place, at once or not at all (None): the daemon may be frozen while it holds its lock."""
        while self._fd is not None and self._path is not None:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            except OSError:
                return self._fd  # a file system without locks: the daemon shortens the file only when it starts
            if not self._is_elsewhere(self._path):
                return self._fd
            self.open(self._path)  # which closes the old one, and with it its lock
        return None

    def _is_elsewhere(self, path: str) -> bool:
        """Whether ours is no longer the file of that name. One that is not there is made anew by the daemon."""
        try:
            place = os.stat(path)  # noqa: PTH116  as all of this file
        except OSError:
            return False
        own = None if self._fd is None else os.fstat(self._fd)
        return own is None or (own.st_dev, own.st_ino) != (place.st_dev, place.st_ino)


def intent(service: str, run: int, token: str) -> dict[str, Any]:
    return {"is": "intent", "service": service, "run": run, "runtime": RUNTIME, "token": token}


def launched(run: KeptRun, boot_id: str) -> dict[str, Any]:
    identity = {"pid": run.pid, "start_ticks": run.start_ticks, "boot_id": boot_id}
    return {
        "is": "launched",
        "service": run.service,
        "run": run.run,
        "identity": identity,
        "started_at": run.started_at,
    }


def exited(service: str, run: int, end: End) -> dict[str, Any]:
    cause = f"exit {end.code}" if end.signal is None else f"signal {_signal_name(end.signal)}"
    facts = {
        "cause": cause,
        "code": end.code,
        "signal": end.signal,
        "oom_killed": False,
        "asked": end.asked,
        "stopped_by_hand": False,
        "at": end.at,
    }
    return {"is": "exited", "service": service, "run": run, "exit": facts}


def _signal_name(number: int) -> str:
    import signal  # noqa: PLC0415  only for the name, off the common way

    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
