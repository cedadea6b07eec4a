"""Configuration files on this machine: read whole, replaced whole, and put back to the very bytes. Blocking."""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runbooks.beneath import folder_beneath, real_path
from runbooks.ports import FileState, PortError

MAX_FILE_BYTES: Final = 1024 * 1024
ROOTS_KEY: Final = "runbooks.files.roots"
NEW_FILE_MODE: Final = 0o644
_CHUNK: Final = 65536


@dataclass(frozen=True, slots=True)
class _Place:
    root: Path
    path: Path

    @property
    def fresh(self) -> str:
        """The name of the file that takes the other's place: always the same, so that one left by a death is found."""
        return f".{self.path.name}.selfheal-new"


class LocalFiles:
    """Fulfils ``ports.Files``. A link's target is changed, never the link."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(roots)
        self._lock = threading.Lock()

    def read(self, file: str) -> FileState:
        place = self._place(file)
        try:
            with folder_beneath(place.root, place.path.parent) as folder:
                return _read(folder, place)
        except OSError as error:
            raise _error(place, "cannot be read", error) from error

    def replace(self, file: str, before: FileState, content: bytes) -> None:
        self._put(file, before, FileState(content, before.mode if before.content is not None else NEW_FILE_MODE))

    def restore(self, file: str, now: FileState, before: FileState) -> None:
        self._put(file, now, before)

    def _put(self, file: str, now: FileState, wanted: FileState) -> None:
        """Instead of what is there ``now``, and of nothing else."""
        if wanted.content is not None and len(wanted.content) > MAX_FILE_BYTES:
            raise PortError(f"{file}: would be longer than {MAX_FILE_BYTES} bytes")
        place = self._place(file)
        try:
            with self._lock, folder_beneath(place.root, place.path.parent) as folder:
                if _read(folder, place) != now:
                    raise PortError(f"{file}: was changed by somebody else in this moment; nothing was written")
                if now == wanted:
                    with suppress(FileNotFoundError):
                        os.unlink(place.fresh, dir_fd=folder)  # of a daemon that died over it
                elif wanted.content is None:
                    os.unlink(place.path.name, dir_fd=folder)
                else:
                    _write(folder, place, wanted.content, wanted.mode)
                os.fsync(folder)
        except OSError as error:
            raise _error(place, "cannot be written", error) from error

    def _place(self, file: str) -> _Place:
        root, path = real_path(file, self._roots, "file", ROOTS_KEY)
        if path == root:
            raise PortError(f"{file}: is a folder")
        return _Place(root, path)


def _read(folder: int, place: _Place) -> FileState:
    try:
        fd = os.open(place.path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return FileState(None)
    with os.fdopen(fd, "rb", buffering=0) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise PortError(f"{place.path}: is no ordinary file")
        if status.st_nlink > 1:
            raise PortError(f"{place.path}: has {status.st_nlink} names (hard links), which a change would part")
        raw = bytearray()
        while len(raw) <= MAX_FILE_BYTES and (chunk := file.read(_CHUNK)):
            raw += chunk
    if len(raw) > MAX_FILE_BYTES:
        raise PortError(f"{place.path}: is longer than {MAX_FILE_BYTES} bytes; such a file is not changed")
    return FileState(bytes(raw), stat.S_IMODE(status.st_mode))


def _write(folder: int, place: _Place, content: bytes, mode: int) -> None:
    """A new file beside the old, on disk before it takes the old one's name."""
    with suppress(FileNotFoundError):
        os.unlink(place.fresh, dir_fd=folder)
    fd = os.open(place.fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            _take_after(folder, place, fd)
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.rename(place.fresh, place.path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(place.fresh, dir_fd=folder)
        raise


def _take_after(folder: int, place: _Place, fd: int) -> None:
    """Owner and extended attributes (access lists among them) of the file that is there. As root a file that was not
    there is its folder's owner's, who could have made it; a daemon without root keeps what it makes.
    """
    try:
        old = os.open(place.path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        if os.geteuid() == 0:
            above = os.fstat(folder)
            os.fchown(fd, above.st_uid, above.st_gid)
        return
    try:
        status, mine = os.fstat(old), os.fstat(fd)
        if (status.st_uid, status.st_gid) != (mine.st_uid, mine.st_gid):
            os.fchown(fd, status.st_uid, status.st_gid)
        for name in _attributes(old):
            os.setxattr(fd, name, os.getxattr(old, name))
    finally:
        os.close(old)


def _attributes(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return []
        raise


def _error(place: _Place, what: str, error: OSError) -> PortError:
    return PortError(f"{place.path}: {what}: {error.strerror or error}")


# -- what is remembered -----------------------------------------------------------------------------------------------


def as_snapshot(state: FileState) -> dict[str, Any]:
    """A file as a JSON value: whether it is there, its mode and its very bytes."""
    if state.content is None:
        return {"exists": False}
    content = base64.b64encode(state.content).decode("ascii")
    return {"exists": True, "mode": state.mode, "sha256": sha256(state.content), "content": content}


def from_snapshot(value: Any) -> FileState:
    """Raises PortError for what is no snapshot of a file, or not the one that was taken."""
    if value["exists"] is False:
        return FileState(None)
    content = base64.b64decode(value["content"])
    if sha256(content) != value["sha256"]:
        raise PortError("what was remembered of the file is damaged; it is not put back")
    return FileState(content, value["mode"])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
