"""The quarantine: files put aside so that they can be put back, and thrown away when they are old. Blocking.

One cleanup has one folder, ``EXECUTION/HASH``: ``manifest.json`` (written first), the files by their number in it,
``taken`` with the numbers of those that went, ``done.json`` when the move came to its end, ``restored`` with the
numbers that were put back. A death in between leaves each file at one place or, for a moment, at both; it is never at
none. Where somebody else has removed what was put aside, that is seen, and said: a file that went and is at neither
place is lost. Without ``taken`` nobody knows which went, and any that is missing counts as lost.
"""

from __future__ import annotations

import enum
import errno
import gzip
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any, Final

from runbooks.beneath import folder_beneath
from runbooks.deciding.timing import Moment
from runbooks.kept import MANIFEST, Kept, OpenRuns, no_runs, write
from runbooks.ports import CleaningDone, CleaningProgress, PortError

_CHUNK: Final = 1024 * 1024
_WORTH: Final = 0.9
"""On its own file system a copy that is longer than this share of the original is not worth the undoing."""
DONE: Final = "done.json"
TAKEN: Final = "taken"
RESTORED: Final = "restored"
Held = frozenset[tuple[int, int]]


class Method(enum.Enum):
    RENAME = "rename"
    GZIP = "gzip"


class _Skip(Exception):
    """This file stays where it is."""


class _Full(Exception):
    """No more can be put aside."""


@dataclass(frozen=True, slots=True)
class _File:
    number: int
    name: str
    size: int
    mtime_ns: int
    inode: int
    method: Method

    @property
    def aside(self) -> str:
        return f"{self.number:05d}{'.gz' if self.method is Method.GZIP else ''}"

    @property
    def path(self) -> PurePath:
        return PurePath(self.name)

    def is_it(self, status: os.stat_result) -> bool:
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


@dataclass(frozen=True, slots=True)
class _Aside:
    """A cleanup's folder: its descriptor and that of ``taken``; ``base`` is the quarantine it is in."""

    base: Path
    fd: int
    taken: IO[bytes]


class Quarantine:
    """Args:
    base: the folder; made when it is first needed.
    keep_s: how long what was put aside is kept.
    most_bytes: how much it may be; what is oldest goes first.
    open_runs: which runs have not ended; what they put aside is kept whatever is said.
    moment: now, on a clock that nobody sets.
    """

    def __init__(
        self,
        base: Path,
        keep_s: float,
        most_bytes: int,
        moment: Callable[[], Moment],
        open_runs: OpenRuns = no_runs,
    ) -> None:
        self.base = base
        self._kept = Kept(base, keep_s, most_bytes, open_runs, moment)

    # -- there --------------------------------------------------------------------------------------------------------

    def move(self, manifest: Mapping[str, Any], deadline_s: float, held: Held) -> CleaningDone:
        files, home, root = _files(manifest), Path(manifest["home"]), Path(manifest["root"])
        if not files:
            return CleaningDone(0, (), 0)
        with suppress(OSError):  # it is tried again, and told, once an hour
            self.purge()
        base, free_before = home.parent.parent, _free(root)
        moved, skipped = 0, list[str]()
        try:
            self._kept.begin(base)
            with _folder(home) as aside, _noted(aside, TAKEN) as taken:
                write(aside, MANIFEST, manifest)
                self._kept.count(aside)
                for file in files:
                    try:
                        self._move(root, file, _Aside(base, aside, taken), deadline_s, held)
                        moved += 1
                    except _Skip as why:
                        skipped.append(f"{file.name}: {why}")
                    except _Full as why:
                        skipped.append(f"{file.name} and what follows: {why}")
                        break
                    if manifest["until_free"] is not None and _free(root) >= manifest["until_free"]:
                        break
                os.fsync(taken.fileno())
                if moved:
                    write(aside, DONE, {"moved": moved, "skipped": skipped})
        except OSError as error:
            raise PortError(f"quarantine {home}: {error.strerror or error}") from error
        if not moved:
            raise PortError(f"nothing could be put aside: {'; '.join(skipped[:3])}")
        return CleaningDone(moved, tuple(skipped), max(0, _free(root) - free_before))

    def _move(self, root: Path, file: _File, there: _Aside, deadline_s: float, held: Held) -> None:
        aside = there.fd
        if time.monotonic() >= deadline_s:
            raise _Full("the time is over")
        try:
            with folder_beneath(root, root / file.path.parent) as folder:
                status = _stat(folder, file.path.name)
                if status is None and _stat(aside, file.aside) is not None:
                    _note(there.taken, file)
                    return  # before a death
                if status is None or status.st_ino != file.inode or not file.is_it(status):
                    raise _Skip("changed or gone since it was chosen")
                if (status.st_dev, status.st_ino) in held:
                    raise _Skip("is open")
                if file.method is Method.RENAME:
                    _note(there.taken, file)
                    os.rename(file.path.name, file.aside, src_dir_fd=folder, dst_dir_fd=aside)
                else:
                    self._copy(folder, file, there, deadline_s)
                    _note(there.taken, file)
                    os.unlink(file.path.name, dir_fd=folder)
                os.fsync(aside)
                os.fsync(folder)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise _Full(f"the quarantine takes no more: {error.strerror}") from error
            raise _Skip(str(error.strerror or error)) from error

    def _copy(self, folder: int, file: _File, there: _Aside, deadline_s: float) -> None:
        """A compressed copy, on disk and read back before it counts."""
        aside = there.fd
        part = f"{file.aside}.part"
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=aside)
        room = self._kept.room(there.base)
        try:
            with _opened(folder, file.path.name, os.O_RDONLY | os.O_NOFOLLOW) as source:
                before = os.fstat(source.fileno())
                with _opened(aside, part, os.O_RDWR | os.O_CREAT | os.O_EXCL) as copy:
                    digest = _compress(source, copy, deadline_s, room)
                    _keep_owner(before, copy.fileno())
                    os.fchmod(copy.fileno(), stat.S_IMODE(before.st_mode))  # nobody else reaches this folder
                    os.fsync(copy.fileno())
                    length = os.fstat(copy.fileno()).st_size
                    copy.seek(0)
                    with gzip.GzipFile(fileobj=copy, mode="rb") as readable:
                        is_good = _digest(readable) == digest
                after = _stat(folder, file.path.name)
            if not is_good or after is None or after.st_ino != before.st_ino or not file.is_it(after):
                raise _Skip("changed while it was copied")
            is_beside = before.st_dev == os.fstat(aside).st_dev
            if is_beside and length > _WORTH * file.size:
                raise _Skip("can hardly be compressed: putting it aside on its own file system would free nothing")
            os.rename(part, file.aside, src_dir_fd=aside, dst_dir_fd=aside)
            os.fsync(aside)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=aside)
            raise

    # -- and back -----------------------------------------------------------------------------------------------------

    def restore(self, manifest: Mapping[str, Any], deadline_s: float) -> int:
        home = Path(manifest["home"])
        restored, troubles = 0, list[str]()
        if home.is_dir():
            try:
                restored, troubles = self._restore(manifest, deadline_s)
            except OSError as error:
                raise PortError(f"quarantine {home}: {error.strerror or error}") from error
        if troubles:
            raise PortError(f"{len(troubles)} not put back: {'; '.join(troubles[:3])}; they are in {home}")
        if lost := self.progress(manifest).troubles:
            raise PortError(f"{len(lost)} not put back: {'; '.join(lost[:3])}")
        return restored

    def _restore(self, manifest: Mapping[str, Any], deadline_s: float) -> tuple[int, list[str]]:
        files, home, root = _files(manifest), Path(manifest["home"]), Path(manifest["root"])
        restored, troubles = 0, list[str]()
        with _folder(home) as aside, _noted(aside, RESTORED) as record:
            for file in files:
                if _stat(aside, file.aside) is None:
                    continue
                if time.monotonic() >= deadline_s:
                    troubles.append(f"{file.name}: the time is over")
                    break
                _note(record, file)
                try:
                    with folder_beneath(root, root / file.path.parent) as folder:
                        _bring_back(folder, file, aside)
                    restored += 1
                except _Skip as why:
                    troubles.append(f"{file.name}: {why}")
                except (OSError, EOFError) as error:
                    troubles.append(f"{file.name}: {getattr(error, 'strerror', None) or error}")
            if not troubles:
                for name in (DONE, *(f"{file.aside}.part" for file in files)):
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=aside)
        return restored, troubles

    def progress(self, manifest: Mapping[str, Any]) -> CleaningProgress:
        files, home, root = _files(manifest), Path(manifest["home"]), Path(manifest["root"])
        try:
            names = frozenset(one.name for one in home.iterdir())
            taken = _numbers(home / TAKEN) if TAKEN in names else None
            back = _numbers(home / RESTORED) if RESTORED in names else frozenset()
        except FileNotFoundError:
            names, taken, back = frozenset(), None, frozenset()
        except OSError as error:
            raise PortError(f"quarantine {home}: {error.strerror or error}") from error
        aside, at_home, troubles = 0, 0, []
        for file in files:
            status = _stat_path(root / file.name)
            if file.aside in names and (status is None or not file.is_it(status)):
                aside += 1
                continue
            at_home += status is not None
            if file.number in back:
                if not _is_back(file, status):
                    troubles.append(f"{file.name} is {'not back' if status is None else 'not what it was'}")
            elif _is_lost(file, status, taken):
                there = "" if status is None else ": what is there by that name is another"
                troubles.append(f"{file.name} is at neither place{there}")
        return CleaningProgress(at_home, aside, DONE in names, tuple(troubles))

    # -- away ---------------------------------------------------------------------------------------------------------

    def purge(self) -> int:
        """As ``Kept.purge``."""
        return self._kept.purge()

    def bases(self) -> frozenset[Path]:
        """As ``Kept.bases``."""
        return self._kept.bases()


def _bring_back(folder: int, file: _File, aside: int) -> None:
    name, fresh = file.path.name, f".{file.path.name}.selfheal-new"
    with suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=folder)
    there, kept = _stat(folder, name), _stat(aside, file.aside)
    if there is not None and not file.is_it(there):
        raise _Skip("there is another file of that name by now")
    if there is None and file.method is Method.RENAME:
        os.link(file.aside, name, src_dir_fd=aside, dst_dir_fd=folder)  # a link never runs over another file
    elif there is None and kept is not None:
        with (
            _opened(aside, file.aside, os.O_RDONLY) as packed,
            gzip.GzipFile(fileobj=packed, mode="rb") as source,
            _opened(folder, fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as copy,
        ):
            shutil.copyfileobj(source, copy, _CHUNK)
            copy.flush()
            _keep_owner(kept, copy.fileno())
            os.fchmod(copy.fileno(), stat.S_IMODE(kept.st_mode))
            os.utime(copy.fileno(), ns=(file.mtime_ns, file.mtime_ns))
            os.fsync(copy.fileno())
            if os.fstat(copy.fileno()).st_size != file.size:
                raise _Skip("what was kept of it is damaged")
        os.link(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.unlink(fresh, dir_fd=folder)
    os.fsync(folder)
    os.unlink(file.aside, dir_fd=aside)
    os.fsync(aside)


def _is_back(file: _File, status: os.stat_result | None) -> bool:
    """It may have been written to since by whose it is."""
    return status is not None and (file.is_it(status) or status.st_mtime_ns > file.mtime_ns)


def _is_lost(file: _File, status: os.stat_result | None, taken: frozenset[int] | None) -> bool:
    """Of a file that is not aside and was not brought back. A file of that name with the same inode may be another."""
    is_there = status is not None and file.is_it(status)
    return not is_there and (taken is None or file.number in taken)


def _compress(source: IO[bytes], copy: IO[bytes], deadline_s: float, room: int) -> bytes:
    digest = hashlib.sha256()
    with gzip.GzipFile(filename="", fileobj=copy, mode="wb", compresslevel=1, mtime=0) as packed:
        while chunk := source.read(_CHUNK):
            if time.monotonic() >= deadline_s:
                raise _Full("the time is over")
            if copy.tell() > room:
                raise _Full("the quarantine has as much as it may (runbooks.cleanup.max_size)")
            digest.update(chunk)
            packed.write(chunk)
    copy.flush()
    return digest.digest()


def _digest(source: gzip.GzipFile) -> bytes:
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
    return digest.digest()


def _keep_owner(of: os.stat_result, fd: int) -> None:
    mine = os.fstat(fd)
    if (of.st_uid, of.st_gid) != (mine.st_uid, mine.st_gid):
        os.fchown(fd, of.st_uid, of.st_gid)


# -- files ------------------------------------------------------------------------------------------------------------


def _files(manifest: Mapping[str, Any]) -> list[_File]:
    method = Method(manifest["method"])
    return [
        _File(number, name, size, mtime_ns, inode, method)
        for number, (name, size, mtime_ns, inode) in enumerate(manifest["files"])
    ]


@contextmanager
def _folder(home: Path) -> Iterator[int]:
    """A descriptor of the cleanup's folder, which is made."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _opened(folder: int, name: str, flags: int) -> Iterator[IO[bytes]]:
    writes = flags & (os.O_WRONLY | os.O_RDWR)
    fd = os.open(name, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600, dir_fd=folder)
    mode = "ab" if flags & os.O_APPEND else "w+b" if flags & os.O_RDWR else "wb" if writes else "rb"
    with os.fdopen(fd, mode) as file:
        yield file


@contextmanager
def _noted(folder: int, name: str) -> Iterator[IO[bytes]]:
    """A file of numbers, one a line, to which more are added."""
    with _opened(folder, name, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as file:
        yield file


def _note(record: IO[bytes], file: _File) -> None:
    """Before it is done: who dies over it has said so."""
    record.write(f"{file.number}\n".encode())
    record.flush()


def _stat(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _stat_path(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _numbers(file: Path) -> frozenset[int]:
    return frozenset(int(line) for line in file.read_text(encoding="ascii").split())


def _free(root: Path) -> int:
    at = os.statvfs(root)
    return at.f_bavail * at.f_frsize
