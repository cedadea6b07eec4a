"""Keeping a service's log small, and bringing back one that was deleted or moved away under the service.

Services hold the file open themselves (``O_APPEND``), so it is rotated by copying its bytes away and cutting them off
in place: no pipe, nobody to wait for, and it works for processes of an earlier daemon too. Where the file system can
cut off a file's beginning (ext4, xfs) nothing is lost, at any speed of the writer. Elsewhere the file is truncated, and
what is written between the last look at its end and that is lost.

All work is cut into slices: the generators here do a bounded piece of it between two ``yield``s, so that the keeper's
one thread sees deaths in between. The daemon's log keeper thread simply runs them to their end.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypeVar

from actors.keeper.kernel import cut_off_beginning

SLICE_BYTES: Final = 256 * 1024
EMERGENCY_BYTES: Final = 1024 * 1024
"""What is kept of a log that ran away when there is no room for a copy."""
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_LAST_SLICES: Final = 16
_GIVE_UP_AFTER: Final = 4
"""A writer that is faster than our copying: after so many times what is to be kept, the newest piece must do."""

OWN_LOGS: Final = ("daemon.log", "keeper.log")
OWN_BYTES: Final = 10 * 1024 * 1024
OWN_BACKUPS: Final = 3
"""What a daemon that the keeper started, or that shows its tree in a terminal, and the keeper itself have to say."""

Steps = Iterator[None]
Result = TypeVar("Result")


def backup_path(path: Path, number: int) -> Path:
    """The ``number``-th older file; 1 is the newest."""
    return path.with_name(f"{path.name}.{number}")


def run(steps: Steps) -> bool:
    """All steps at once; returns whether there was anything to do."""
    return sum(1 for _ in steps) > 0


def finish(steps: Generator[None, None, Result]) -> Result:
    """All steps at once; returns what they return."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


def rotate_if_needed(path: Path, max_bytes: int, backups: int) -> bool:
    """``rotation`` in one go; returns whether the log was longer than ``max_bytes``."""
    return run(rotation(path, max_bytes, backups))


def own_limits(state_dir: Path) -> dict[Path, tuple[int, int]]:
    """Our own logs: at how many bytes each is rotated, and how many older ones are kept."""
    return {state_dir / name: (OWN_BYTES, OWN_BACKUPS) for name in OWN_LOGS}


def own_rotation(state_dir: Path) -> Steps:
    """``rotation`` of our own logs. One that cannot be rotated is left as it is until the next time."""
    for path, (max_bytes, backups) in own_limits(state_dir).items():
        with contextlib.suppress(OSError):
            yield from rotation(path, max_bytes, backups)


def rotation(path: Path, max_bytes: int, backups: int) -> Steps:
    """Move the content aside when it is longer than ``max_bytes``.

    The ``backups`` older files and the log are always the newest bytes there were, without a hole (but for the moment
    of a truncation, and what is written faster than it can be copied): a log that ran away fills several older files,
    and pushes as many out. Each is shorter than twice ``max_bytes``, but for what is written while it is copied. A line
    may begin in one file and end in the next.

    Raises:
        OSError: the files cannot be written. The log is then left as it is; one that ran away (twice ``max_bytes``)
            and for whose copy there is no room is cut to its newest MiB.
    """
    with contextlib.suppress(FileNotFoundError), path.open("rb+", buffering=0) as log:
        size = _size(log)
        if size <= max_bytes:
            return
        yield
        if backups < 1:
            _cut_in_half(log, size, max_bytes)
            return
        _clear_asides(path, backups)  # somebody was ended in the middle of this
        try:
            yield from _copy_and_truncate(log, path, max_bytes, backups)
        except OSError as error:
            _clear_asides(path, backups)
            if error.errno in _NO_ROOM and size >= 2 * max_bytes:
                _keep_newest_only(log, path, min(max_bytes, EMERGENCY_BYTES))
            raise


def _copy_and_truncate(log: IO[bytes], path: Path, max_bytes: int, backups: int) -> Steps:
    size = _size(log)
    pieces = max(1, min(backups, size // max_bytes))
    for number in range(backups, backups - pieces, -1):  # these fall out: their room may be needed
        backup_path(path, number).unlink(missing_ok=True)
    at = size - pieces * max_bytes if size >= (pieces + 1) * max_bytes else 0
    for number in range(pieces - 1, 0, -1):
        with _begun(_aside(path, number), log) as copy:
            yield from _copy(log, copy, at, at + max_bytes)
        at += max_bytes
    with _begun(_aside(path, 0), log) as copy:
        at = yield from _copy_to_the_end(log, copy, at, max_bytes)
        if _size(log) < at:  # somebody else has emptied it meanwhile: what is in it now is new
            _put_in_place(path, pieces, backups)
            return
        cut = _last_block_before(log, at)
        if at - cut <= _size(copy):
            copy.seek(cut - at, os.SEEK_END)
            copy.truncate()
            at = cut
        _put_in_place(path, pieces, backups)
        if at == cut > 0 and cut_off_beginning(log.fileno(), cut):
            return
        for _ in range(_LAST_SLICES):
            copied = _copy_slice(log, copy, at)
            at += copied
            if copied < SLICE_BYTES:
                break
        os.ftruncate(log.fileno(), 0)


def _cut_in_half(log: IO[bytes], size: int, max_bytes: int) -> None:
    """Without older files the log itself is all there is: half of it stays, where that can be done."""
    cut = _last_block_before(log, size - max_bytes // 2)
    if not (cut > 0 and cut_off_beginning(log.fileno(), cut)):
        os.ftruncate(log.fileno(), 0)


def _last_block_before(log: IO[bytes], at: int) -> int:
    """Where whole blocks end, before ``at`` and before the end of the file."""
    block = os.fstat(log.fileno()).st_blksize
    return max(0, min(at, _size(log) - 1) // block * block)


def _begun(path: Path, log: IO[bytes]) -> IO[bytes]:
    """An empty file for bytes of the log: nobody may read it who may not read the log, whatever our own mask is."""
    status = os.fstat(log.fileno())
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb", buffering=0)
    with contextlib.suppress(OSError):  # another's log, and we are not root
        os.fchown(file.fileno(), status.st_uid, status.st_gid)
    os.fchmod(file.fileno(), status.st_mode & 0o640)
    return file


def _copy(log: IO[bytes], copy: IO[bytes], at: int, end: int) -> Steps:
    while at < end and (copied := _copy_slice(log, copy, at, end - at)):
        at += copied
        yield


def _copy_to_the_end(log: IO[bytes], copy: IO[bytes], at: int, max_bytes: int) -> Generator[None, None, int]:
    """Copy until the file stands still, or is outrun; returns up to where."""
    limit = at + _GIVE_UP_AFTER * max(max_bytes, SLICE_BYTES)
    while copied := _copy_slice(log, copy, at):
        at += copied
        if at >= limit and _size(log) - at > SLICE_BYTES:
            newest = _size(log) - max_bytes
            if newest > at:  # else what is copied already belongs to the newest
                copy.truncate(0)
                copy.seek(0)
                at = newest
            for _ in range(1 + max_bytes // SLICE_BYTES):
                at += _copy_slice(log, copy, at)
                yield
            break
        yield
    return at


def _copy_slice(log: IO[bytes], copy: IO[bytes], at: int, most: int = SLICE_BYTES) -> int:
    block = os.pread(log.fileno(), min(most, SLICE_BYTES), at)
    _write_all(copy, block)
    return len(block)


def _write_all(file: IO[bytes], data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


def _put_in_place(path: Path, pieces: int, backups: int) -> None:
    for number in range(backups - pieces, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            backup_path(path, number).replace(backup_path(path, number + pieces))
    for number in range(pieces - 1, -1, -1):
        _aside(path, number).replace(backup_path(path, number + 1))


def _keep_newest_only(log: IO[bytes], path: Path, kept_bytes: int) -> None:
    """Truncating makes the room that the copy needs."""
    size = _size(log)
    newest = os.pread(log.fileno(), kept_bytes, max(0, size - kept_bytes))
    os.ftruncate(log.fileno(), 0)
    with _begun(backup_path(path, 1), log) as copy:
        _write_all(copy, newest)


def _clear_asides(path: Path, backups: int) -> None:
    for number in range(backups):
        with contextlib.suppress(OSError):  # the rotation itself says what is in its way
            _aside(path, number).unlink(missing_ok=True)


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.rotating{number or ''}")


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


# -- deleted and moved logs -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogFile:
    """The file a service writes into, as it was at the last look: which one, and up to where it was at its place."""

    device: int
    inode: int
    size: int


def rescue(path: Path, pid: int, before: LogFile | None, max_bytes: int) -> Generator[None, None, LogFile | None]:
    """Bring what a service writes back to its log's path, when that file was deleted or moved away.

    Args:
        before: what the last call returned for this path (``yield from`` gives it); None at first.
        max_bytes: of more than this only the newest are brought back.

    Returns the file to remember. What was in a moved file stays there; only what is added is taken out again.

    Raises:
        OSError: it cannot be written.
    """
    fd = _descriptor(path, pid, before)
    if fd is None:
        return None
    with contextlib.suppress(FileNotFoundError), open(fd, "rb+", buffering=0) as held:  # noqa: PTH123  a link of /proc
        now = os.fstat(held.fileno())
        known = before if before is not None and before.inode == now.st_ino else None
        if _is_at(path, now):
            return LogFile(now.st_dev, now.st_ino, now.st_size)
        is_gone = now.st_nlink == 0
        begin = known.size if known is not None else 0 if is_gone else now.st_size
        begin = min(begin, now.st_size)
        if now.st_size > begin:
            yield
            yield from _bring_back(held, path, max(begin, now.st_size - max_bytes), max_bytes)
            os.ftruncate(held.fileno(), 0 if is_gone else begin)
        return LogFile(now.st_dev, now.st_ino, 0 if is_gone else begin)
    return before


def _bring_back(held: IO[bytes], path: Path, at: int, max_bytes: int) -> Steps:
    limit = at + _GIVE_UP_AFTER * max(max_bytes, SLICE_BYTES)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, flags, 0o640), "wb", buffering=0) as log:
        while at < limit and (copied := _copy_slice(held, log, at)):
            at += copied
            yield


def _descriptor(path: Path, pid: int, before: LogFile | None) -> str | None:
    """The service's standard output (or error) if that is its log, wherever the file is now."""
    for number in (1, 2):
        fd = f"/proc/{pid}/fd/{number}"
        try:
            now, link = os.stat(fd), os.readlink(fd)  # noqa: PTH115,PTH116  a link of /proc
        except OSError:
            continue
        place = path.parent.resolve() / path.name
        is_known = before is not None and (before.device, before.inode) == (now.st_dev, now.st_ino)
        if is_known or link in (str(place), f"{place} (deleted)"):
            return fd
    return None


def _is_at(path: Path, status: os.stat_result) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino)
