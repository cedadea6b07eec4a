"""How long what was put aside is kept, and how it is thrown away. Blocking.

Never before its run has ended: that run may still want it back. Never within its first hour. How long a cleanup has
been kept is counted in the time this machine has been up, in ``kept.json`` beside its files: setting the clock adds
nothing, and what passes while the machine is off is not counted. So something may be kept longer than was said, and is
never thrown away earlier.

A quarantine that a runbook names is remembered in the configured one (``elsewhere.json``) and purged by the same rules.
It may lie where others can write: what is there is thrown away only when the folder is still the one we made, reached
without a link, ours, marked and written to by nobody else.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runbooks.beneath import folder_beneath
from runbooks.deciding.timing import Moment

MANIFEST: Final = "manifest.json"
KEPT: Final = "kept.json"
ELSEWHERE: Final = "elsewhere.json"
MARK: Final = ".selfheal-quarantine"
"""An empty file in each quarantine."""
AT_LEAST_S: Final = 3600.0
"""Nothing younger is thrown away, whatever is said: of a run that began since it was asked which are under way."""
_WORTH_WRITING_S: Final = 600.0
OpenRuns = Callable[[], Collection[str] | None]
"""The ids of the executions that have not ended, also of those that a death has interrupted; None: not known now."""


def no_runs() -> Collection[str]:
    return ()


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
        self._elsewhere: frozenset[Path] = frozenset()

    def begin(self, base: Path) -> None:
        """A quarantine is used: it is there, marked and remembered. Raises OSError."""
        with self._lock:
            base.parent.mkdir(parents=True, exist_ok=True)
            base.mkdir(mode=0o755, exist_ok=True)
            os.close(os.open(base / MARK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            if not _is_same(base, self._base):
                self._elsewhere |= {Path(os.path.realpath(base))}
                with suppress(OSError):  # a full disk must not keep from making room on another: ``purge`` tries again
                    self._remembered()

    def bases(self) -> frozenset[Path]:
        """All quarantines that are known, by their real paths. Raises OSError."""
        with self._lock:
            return frozenset(Path(os.path.realpath(one)) for one in (self._base, *self._elsewhere, *self._written()))

    def _remembered(self) -> frozenset[Path]:
        """Where the quarantines are that runbooks named; what is new is written down. Raises OSError."""
        written = self._written()
        self._elsewhere |= written
        if self._elsewhere != written:
            self._base.mkdir(parents=True, exist_ok=True)
            with _opened(self._base) as folder:
                write(folder, ELSEWHERE, sorted(map(str, self._elsewhere)))
        return self._elsewhere

    def _written(self) -> frozenset[Path]:
        file = self._base / ELSEWHERE
        try:
            return frozenset(Path(one) for one in json.loads(file.read_bytes()))
        except FileNotFoundError:
            return frozenset()
        except (ValueError, TypeError) as error:
            raise OSError(errno.EINVAL, "is no list of folders: remove it", str(file)) from error

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
            if under_way is None:
                return 0
            troubles = list[OSError]()
            with _opened(self._base) as folder:
                gone = self._purge(folder, under_way, troubles)
            try:
                elsewhere = self._remembered()
            except OSError as error:
                troubles.append(error)
                elsewhere = self._elsewhere
            for base in sorted(elsewhere):
                try:
                    with _ours(base) as folder:
                        gone += self._purge(folder, under_way, troubles)
                except OSError as error:
                    troubles.append(error)
            if troubles:
                raise troubles[0]
            return gone

    def _purge(self, folder: int, under_way: Collection[str], troubles: list[OSError]) -> int:
        now, gone = self._moment(), 0
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
        return gone


def marked_around(path: Path) -> Path | None:
    """The folder with a quarantine's mark that the real path is, or is in: also one nobody remembers any more, or that
    is mounted a second time.
    """
    return next((one for one in (path, *path.parents) if os.path.lexists(one / MARK)), None)


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
def _ours(base: Path) -> Iterator[int]:
    """As ``_opened``, of one that a runbook named. Raises OSError for what is not the folder any more that we made."""
    try:
        with folder_beneath(Path("/"), base.parent) as parent:
            fd = os.open(base.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        yield -1
        return
    with _closing(fd):
        status = os.fstat(fd)
        is_closed = status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not is_closed or MARK not in _names(fd):
            raise OSError(errno.EPERM, "is not the quarantine any more that was made there", str(base))
        yield fd


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


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
