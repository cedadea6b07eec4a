"""Which files a cleanup takes: below an allowed root, ordinary, old or large enough, open in no process. Blocking."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runbooks.beneath import real_path
from runbooks.kept import MANIFEST, MARK, marked_around
from runbooks.ports import Cleaning, CleaningDone, CleaningProgress, PortError
from runbooks.quarantine import Method, Quarantine

ROOTS_KEY: Final = "runbooks.cleanup.roots"
QUARANTINE_KEY: Final = "runbooks.cleanup.quarantine"
MOST_FILES: Final = 5000
"""In one cleanup: what is to be put aside stands in the journal."""


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    size: int
    mtime_ns: int
    inode: int


class LocalCleanups:
    """Fulfils ``ports.Cleanups``. Never follows a link, never leaves the root's file system, never takes from a
    quarantine.

    Args:
        roots: below which files may be put aside.
        quarantine: where they are put, unless a runbook names another folder under it or under a root.
    """

    def __init__(self, roots: Sequence[Path], quarantine: Quarantine) -> None:
        self._roots = tuple(roots)
        self._quarantine = quarantine

    def choose(self, wanted: Cleaning, token: str) -> Mapping[str, Any]:
        _, root = real_path(wanted.root, self._roots, "root", ROOTS_KEY)
        base = self._base(wanted)
        try:
            aside = self._quarantine.bases() | {Path(os.path.realpath(base))}
            _refuse_inside(root, aside)
            device = root.stat().st_dev
            is_beside = _device(base) == device
            files = self._files(root, device, aside, wanted)
        except OSError as error:
            raise PortError(f"{root}: cannot be looked at: {error.strerror or error}") from error
        rows = [[one.name, one.size, one.mtime_ns, one.inode] for one in files]
        mark = hashlib.sha256(json.dumps([str(root), rows]).encode()).hexdigest()[:16]
        return {
            "root": str(root),
            "home": str(base / token / mark),
            "method": _method(is_beside=is_beside, must_free=wanted.until_free_bytes is not None).value,
            "until_free": wanted.until_free_bytes,
            "open_files": wanted.open_files,
            "files": rows,
        }

    def move(self, manifest: Mapping[str, Any], timeout_s: float) -> CleaningDone:
        root = self._check(manifest)
        home = Path(manifest["home"])
        try:
            _refuse_inside(root, self._quarantine.bases() | {Path(os.path.realpath(home.parent.parent))})
        except OSError as error:
            raise PortError(f"{root}: cannot be looked at: {error.strerror or error}") from error
        is_held = frozenset[tuple[int, int]]() if manifest["open_files"] else open_files()
        return self._quarantine.move(manifest, time.monotonic() + timeout_s, is_held)

    def restore(self, manifest: Mapping[str, Any], timeout_s: float) -> int:
        self._check(manifest)
        return self._quarantine.restore(manifest, time.monotonic() + timeout_s)

    def progress(self, manifest: Mapping[str, Any]) -> CleaningProgress:
        return self._quarantine.progress(manifest)

    def free_bytes(self, path: str) -> tuple[int, int]:
        try:
            at = os.statvfs(path)
        except OSError as error:
            raise PortError(f"{path}: cannot be asked for its free space: {error.strerror or error}") from error
        return at.f_bavail * at.f_frsize, at.f_blocks * at.f_frsize

    def _base(self, wanted: Cleaning) -> Path:
        if wanted.quarantine is None:
            return self._quarantine.base
        allowed = (self._quarantine.base, *self._roots)
        base = real_path(wanted.quarantine, allowed, "quarantine", QUARANTINE_KEY)[1]
        if any((above / MANIFEST).exists() and marked_around(above) for above in (base, *base.parents)):
            raise PortError(f"quarantine {base}: is inside what was put aside")
        return base

    def _check(self, manifest: Mapping[str, Any]) -> Path:
        """The configuration may have changed since the manifest was made."""
        _, root = real_path(manifest["root"], self._roots, "root", ROOTS_KEY)
        if str(root) != manifest["root"]:
            raise PortError(f"{manifest['root']}: leads elsewhere now, to {root}; nothing was touched")
        return root

    def _files(self, root: Path, device: int, aside: Collection[Path], wanted: Cleaning) -> list[_Found]:
        matching = sorted(_walk(root, device, aside, wanted.patterns), key=lambda one: (one[0].mtime_ns, one[0].name))
        if wanted.keep_newest:
            matching = matching[: -wanted.keep_newest]
        held = open_files() if not wanted.open_files else frozenset()
        before_ns = time.time_ns() - round(wanted.older_than_s * 1e9)
        fitting = (
            one
            for one, key in matching
            if one.mtime_ns <= before_ns and one.size >= wanted.larger_than_bytes and key not in held
        )
        most = min(wanted.most_files, MOST_FILES)
        return [one for one, _ in zip(fitting, range(most), strict=False)]


def _refuse_inside(root: Path, quarantines: Collection[Path]) -> None:
    """Raises PortError for a root that is a quarantine, or in one: what is there was put aside by somebody."""
    found = next((one for one in quarantines if root.is_relative_to(one)), None) or marked_around(root)
    if found is not None:
        raise PortError(f"root {root}: is in the quarantine {found}, where nothing is cleaned")


def _method(*, is_beside: bool, must_free: bool) -> Method:
    """Another file system takes a compressed copy. On the root's own a rename frees nothing, so where room must be
    made what is put aside is compressed there too.
    """
    return Method.RENAME if is_beside and not must_free else Method.GZIP


def _device(base: Path) -> int:
    """Of the folder, or of where it will be made."""
    for folder in (base, *base.parents):
        with suppress(FileNotFoundError):
            return folder.stat().st_dev
    raise FileNotFoundError(base)


def _walk(
    root: Path, device: int, aside: Collection[Path], patterns: Sequence[str]
) -> Iterator[tuple[_Found, tuple[int, int]]]:
    def stop(error: OSError) -> None:
        if Path(error.filename or root) == root:
            raise error  # a folder below that cannot be read is passed over

    for folder, folders, names, fd in os.fwalk(root, follow_symlinks=False, onerror=stop):
        here = Path(folder)
        if MARK in names:
            folders.clear()  # a quarantine nobody remembers, or one that is mounted here a second time
            continue
        folders[:] = sorted(name for name in folders if _may_enter(fd, name, device) and here / name not in aside)
        for name in names:
            relative = str((here / name).relative_to(root))
            if not _fits(relative, patterns):
                continue
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                # a second name (hard link) would keep the room
                if stat.S_ISREG(status.st_mode) and status.st_dev == device and status.st_nlink == 1:
                    found = _Found(relative, status.st_size, status.st_mtime_ns, status.st_ino)
                    yield found, (status.st_dev, status.st_ino)


def _may_enter(fd: int, name: str, device: int) -> bool:
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_dev == device


def _fits(relative: str, patterns: Sequence[str]) -> bool:
    """A pattern with a slash is about the path below the root, one without about the name."""
    name = relative.rpartition("/")[2]
    if "\n" in relative or name.endswith(".selfheal-new"):
        return False
    return any(fnmatch.fnmatchcase(relative if "/" in pattern else name, pattern) for pattern in patterns)


def open_files() -> frozenset[tuple[int, int]]:
    """Device and inode of what is open in any process. Without root: in those of our own user."""
    found = set()
    for process in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if not process.name.isdecimal():
            continue
        with suppress(OSError):
            for fd in (process / "fd").iterdir():
                with suppress(OSError):
                    status = fd.stat()
                    if stat.S_ISREG(status.st_mode):
                        found.add((status.st_dev, status.st_ino))
    return frozenset(found)
