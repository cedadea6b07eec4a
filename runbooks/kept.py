"""How long what was put aside is kept, and how it is thrown away. Blocking.

Never before its run has ended: that run may still want it back. Never within its first hour. How long a cleanup has
been kept is counted in the time this machine has been up, in ``kept.json`` beside its files: setting the clock adds
nothing, and what passes while the machine is off is not counted. So something may be kept longer than was said, and is
never thrown away earlier.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from runbooks.deciding.timing import Moment

MANIFEST: Final = "manifest.json"
KEPT: Final = "kept.json"
AT_LEAST_S: Final = 3600.0
"""Nothing younger is thrown away, whatever is said: of a run that began since it was asked which are under way."""
_WORTH_WRITING_S: Final = 600.0
OpenRuns = Callable[[], Collection[str] | None]
"""The ids of the executions that have not ended, also of those that a death has interrupted; None: not known now."""


def no_runs() -> Collection[str]:
    return ()


def this_moment() -> Moment:
    return Moment(time.time(), _boot(), time.clock_gettime(time.CLOCK_BOOTTIME))


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@dataclass(frozen=True, slots=True)
class _Cleanup:
    execution: str
    mark: str
    kept_s: float
    written_s: float
    size: int


class Kept:
    """Args as ``quarantine.Quarantine``."""

    def __init__(
        self, base: Path, keep_s: float, most_bytes: int, open_runs: OpenRuns, moment: Callable[[], Moment]
    ) -> None:
        self._base = base
        self._keep_s = keep_s
        self._most_bytes = most_bytes
        self._open_runs = open_runs
        self._moment = moment
        self._lock = threading.Lock()

    def room(self, base: Path) -> int:
        """How many bytes more may be put aside there."""
        with _opened(base) as folder:
            return self._most_bytes - sum(size_of(one) for *_, one in _cleanups(folder))

    def count(self, cleanup: int) -> None:
        """From here on, of the folder's descriptor, where it is not counted yet."""
        _kept_s(cleanup, self._moment())

    def purge(self) -> int:
        """Throw away what has been kept long enough, then what was kept longest until all of it fits; how many
        cleanups that were. Where nobody can say which runs are under way nothing is.

        Raises:
            OSError: some of it could not be thrown away; the rest was.
        """
        with self._lock:
            under_way = self._open_runs()
            return 0 if under_way is None else self._purge(self._base, under_way)

    def _purge(self, base: Path, under_way: Collection[str]) -> int:
        now, gone, troubles = self._moment(), 0, list[OSError]()
        with _opened(base) as folder:
            found = [
                _Cleanup(execution, mark, _kept_s(one, now), _written_s(one), size_of(one))
                for execution, mark, one in _cleanups(folder)
            ]
            total = sum(one.size for one in found)
            for one in sorted(found, key=lambda one: (-one.kept_s, one.written_s)):
                if one.execution in under_way or one.kept_s < AT_LEAST_S:
                    continue
                if one.kept_s < self._keep_s and total <= self._most_bytes:
                    continue
                try:
                    _throw_away(folder, one)
                except OSError as error:
                    troubles.append(error)
                    continue
                total -= one.size
                gone += 1
        if troubles:
            raise troubles[0]
        return gone


def _kept_s(cleanup: int, now: Moment) -> float:
    """How long the cleanup has been kept, of its folder's descriptor. What is unreadable is counted from now."""
    try:
        with os.fdopen(os.open(KEPT, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=cleanup), "rb") as file:
            known = json.loads(file.read())
        before_s, boot, passed_s = float(known["kept_s"]), known["boot"], now.up_s - float(known["up_s"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        before_s, boot, passed_s = 0.0, "", 0.0
    is_counted = boot == now.boot and passed_s >= 0  # less: a container with another count of the same boot
    kept_s = before_s + (passed_s if is_counted else 0.0)
    if not is_counted or passed_s >= _WORTH_WRITING_S:
        with suppress(OSError):  # a full disk: it is counted from where it stands, and written the next time
            write(cleanup, KEPT, {"boot": now.boot, "up_s": now.up_s, "kept_s": kept_s})
    return kept_s


def _throw_away(folder: int, cleanup: _Cleanup) -> None:
    """The manifest last: what is left by a death is found again."""
    with _below(folder, cleanup.execution) as run:
        with _below(run, cleanup.mark) as one:
            for name in sorted(_names(one), key=lambda name: name == MANIFEST):
                os.unlink(name, dir_fd=one)
        os.rmdir(cleanup.mark, dir_fd=run)
    with suppress(OSError):  # another cleanup of the same run is there
        os.rmdir(cleanup.execution, dir_fd=folder)


def _cleanups(base: int) -> Iterator[tuple[str, str, int]]:
    """(execution, mark, descriptor while it is looked at) of each cleanup in the quarantine."""
    for execution in _names(base) if base >= 0 else ():
        with _below(base, execution) as run:
            for mark in _names(run) if run >= 0 else ():
                with _below(run, mark) as one:
                    if one >= 0 and MANIFEST in _names(one):
                        yield execution, mark, one


@contextmanager
def _opened(base: Path) -> Iterator[int]:
    """A descriptor of the quarantine, or -1 where there is none."""
    try:
        fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield -1
        return
    with _closing(fd):
        yield fd


@contextmanager
def _below(folder: int, name: str) -> Iterator[int]:
    """A descriptor of a folder in the folder; -1 for what is none, a link, or gone."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):  # the latter of a link, too
        yield -1
        return
    with _closing(fd):
        yield fd


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as found:
        return sorted(one.name for one in found)


@contextmanager
def _closing(fd: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(fd)


def _written_s(cleanup: int) -> float:
    return os.stat(MANIFEST, dir_fd=cleanup, follow_symlinks=False).st_mtime


def size_of(cleanup: int) -> int:
    """Bytes of the files in a folder."""
    total = 0
    for name in _names(cleanup):
        with suppress(FileNotFoundError):
            total += os.stat(name, dir_fd=cleanup, follow_symlinks=False).st_size
    return total


def write(folder: int, name: str, value: Any) -> None:
    """A JSON file, whole or not at all, on disk when it is there."""
    fresh = f"{name}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(fresh, flags, 0o600, dir_fd=folder), "wb") as file:
        file.write(json.dumps(value, default=list).encode())
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
