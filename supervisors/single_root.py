"""One daemon per state directory: two guards that die with their holder, and the holder's pid for who comes second.

The lock file (flock) also counts between network namespaces and on systems without abstract sockets. The abstract
socket (Linux), named by the directory's device and inode, cannot be removed or replaced, needs no room and no right to
write, and is the same however the path is written. Who has both is the root. Used on the main thread; ``look`` on a
monitor's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import structlog

_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})
_CREDENTIALS: Final = struct.Struct("3i")
_TRIES: Final = 10
_HAS_ABSTRACT: Final = sys.platform == "linux"
LOCK_NAME: Final = "lock"
ENDING: Final = "stopping"
"""In the lock file, behind the pid: the daemon ends in order and answers no command any more."""


class StateInUse(Exception):
    """Another daemon owns the state directory."""

    def __init__(self, directory: Path, pid: str, *, is_ending: bool = False) -> None:
        what_to_do = ", which is stopping; await its end" if is_ending else "; stop it"
        super().__init__(
            f"{directory}: in use by the daemon with pid {pid}{what_to_do} "
            f"with 'selfheal stop --state {directory}' or choose another --state"
        )
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Holder:
    """The daemon that owns a state directory; ``is_ending``: it stops in order."""

    pid: int
    is_ending: bool


def holder(directory: Path) -> Holder | None:
    """Who owns the directory, without taking anything even for a moment; None: nobody that can be seen from here."""
    try:
        fd = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        pid = _holder_of(fd)
        return None if pid is None else Holder(pid, ENDING in _written(fd)[1:])
    except OSError:
        return None
    finally:
        os.close(fd)


class RootLock:
    """``RootLock(directory)`` holds both guards until ``release`` or the death of the process."""

    def __init__(self, directory: Path) -> None:
        """Raises: StateInUse; OSError, the directory cannot be made or entered."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._directory = directory
        self._path = directory / LOCK_NAME
        self._word = ""
        self.trouble: str | None = None
        self._fd = self._locked()
        try:
            self._socket = _bound(directory)
        except StateInUse:
            self.release()
            raise
        if self._fd is None and self._socket is None:
            raise OSError(errno.EROFS, "it has no lock file and none can be made", str(self._path))
        self._write_pid()

    def look(self) -> str | None:
        """Once in a while: the lock file must be there for who knows no other guard. Returns what is wrong."""
        if self._fd is not None and _is_there(self._fd, self._path):
            if self.trouble is not None:
                self._write_pid()
            return self.trouble
        old = self._fd
        try:
            self._fd = self._locked()
        except StateInUse as other:
            self.trouble = f"{self._path} was replaced, and the daemon with pid {other.pid} holds the new one"
            return self.trouble
        if self._fd is None:
            self._fd = old
            return self.trouble
        if old is not None:
            structlog.get_logger().warning("the lock file was removed and is put back", path=str(self._path))
            os.close(old)
        self._write_pid()
        return self.trouble

    def ending(self) -> None:
        """From now on who finds the lock taken can tell why nobody answers. Any thread."""
        self._word = f"{ENDING}\n"
        self._write_pid()

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        sock = getattr(self, "_socket", None)
        if sock is not None:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    # -- the lock file ------------------------------------------------------------------------------------------------

    def _locked(self) -> int | None:
        """The lock on the file that has the name now. None: there is none and it cannot be made. Raises: StateInUse."""
        for _ in range(_TRIES):
            fd = self._opened()
            if fd is None:
                return None
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner, is_ending = _owner_of(fd), ENDING in _written(fd)[1:]
                os.close(fd)
                raise StateInUse(self._directory, owner, is_ending=is_ending) from None
            if _is_there(fd, self._path):
                return fd
            os.close(fd)  # removed or replaced between open and lock
        raise StateInUse(self._directory, "unknown")

    def _opened(self) -> int | None:
        """An existing lock file may be locked although nothing can be written."""
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            self.trouble = f"cannot write {self._path}: {error.strerror}"
        try:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def _write_pid(self) -> None:
        """For people and for older daemons; on a full or read-only disk the kernel knows it all the same."""
        if self._fd is None:
            return
        try:
            self._path.write_text(f"{os.getpid()}\n{self._word}", encoding="ascii")
        except OSError as error:
            self.trouble = f"cannot write {self._path}: {error.strerror}"
        else:
            self.trouble = None


def address_of(directory: Path) -> str:
    """The abstract address that stands for a directory. Raises OSError."""
    place = directory.stat()
    return f"\0selfheal-root/{os.getuid()}/{place.st_dev:x}.{place.st_ino:x}"


def _bound(directory: Path) -> socket.socket | None:
    """Raises StateInUse. None: another user squats on the address, or the system has no such addresses."""
    if not _HAS_ABSTRACT:
        return None
    address = address_of(directory)
    guard = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        guard.bind(address)
        guard.listen(8)
    except OSError:
        guard.close()
        pid, uid = _peer_of(address)
        if uid not in (None, os.getuid(), 0):
            structlog.get_logger().warning("another user holds our address: the lock file decides alone", uid=uid)
            return None
        raise StateInUse(directory, "unknown" if pid is None else str(pid)) from None
    return guard


def _peer_of(address: str) -> tuple[int | None, int | None]:
    """Pid and uid of who listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(address)
        except OSError:
            return None, None
        pid, uid, _ = _CREDENTIALS.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid or None, uid


def _is_there(fd: int, path: Path) -> bool:
    try:
        named = path.stat()
    except OSError:
        return False
    own = os.fstat(fd)
    return (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino)


def _owner_of(fd: int) -> str:
    """Who holds the lock: the kernel's word, else what the holder wrote (it may be an older one's)."""
    pid = _holder_of(fd)
    return str(pid) if pid is not None else (_written(fd) or ["unknown"])[0]


def _written(fd: int) -> list[str]:
    """The words in the lock file."""
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, 64).decode(errors="replace").split()


def _holder_of(fd: int) -> int | None:
    """The pid the kernel knows (Linux; within one pid namespace)."""
    place = os.fstat(fd)
    wanted = f":{place.st_ino}"
    device = f"{os.major(place.st_dev):02x}:{os.minor(place.st_dev):02x}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            words = line.split()
            is_held = len(words) > 5 and words[1] == "FLOCK" and words[5] == device + wanted
            if is_held and words[4].isdecimal() and words[4] != "0":
                return int(words[4])
    return None
