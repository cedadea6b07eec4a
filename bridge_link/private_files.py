"""Files that only their owner may read: written so, and refused at reading when they are not so any more.

No thread. Standard library only. Windows has neither such bits nor owners: what is checked there is that it is a file
(docs/security.md says what to do).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bridge_link.errors import KeyMissing, KeyRefused

MAX_BYTES: Final = 16 * 1024 * 1024
_HAS_MODES: Final = os.name == "posix"
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)


def read_private(path: Path) -> str:
    """The text of a file that nobody else can read.

    Raises:
        KeyMissing: it is not there.
        KeyRefused: it is a link, another user's, readable by others, or not readable; the text says what to do.
    """
    try:
        fd = os.open(path, os.O_RDONLY | _NOFOLLOW | _CLOEXEC | _NONBLOCK)
    except FileNotFoundError:
        raise KeyMissing(f"there is no {path}") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise KeyRefused(f"{path} is a symbolic link; a key must be a file of its own") from None
        raise KeyRefused(f"{path} cannot be read: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        _refuse_shared(path, os.fstat(fd), stat.S_ISREG, "a regular file", "chmod 600")
        try:
            return file.read(MAX_BYTES).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise KeyRefused(f"{path} is no text") from None
        except OSError as error:
            raise KeyRefused(f"{path} cannot be read: {error.strerror}") from None


def write_private(path: Path, text: str, *, replace: bool = False) -> None:
    """Write a whole file that only its owner may read, or nothing.

    Raises:
        FileExistsError: it is there already and ``replace`` was not said.
        OSError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        if replace:
            fresh.replace(path)
        else:
            os.link(fresh, path)  # fails when there is one, also a dangling link
    finally:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()


def sweep_unfinished(directory: Path) -> None:
    """Remove what a writer left that died in the middle; nobody else may be writing there now."""
    for fresh in directory.glob(".*.new"):
        with contextlib.suppress(OSError):
            fresh.unlink()


def make_private_directory(directory: Path) -> Path:
    """The directory, made if there is none.

    Raises:
        KeyRefused: others may enter it, or it is another user's, or no directory.
        OSError: it cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        directory.mkdir(parents=True, mode=0o700)
    _refuse_shared(directory, directory.lstat(), stat.S_ISDIR, "a directory", "chmod 700")
    return directory


def _refuse_shared(path: Path, facts: os.stat_result, is_right: Callable[[int], bool], what: str, remedy: str) -> None:
    if not is_right(facts.st_mode):
        raise KeyRefused(f"{path} is not {what}")
    if not _HAS_MODES:
        return
    if facts.st_uid != os.geteuid():
        raise KeyRefused(f"{path} belongs to user {facts.st_uid}, not to user {os.geteuid()}, who asks for it")
    if facts.st_mode & 0o077:
        mode = stat.S_IMODE(facts.st_mode)
        raise KeyRefused(f"{path} may be used by others (mode {mode:04o}): {remedy} {path}")
