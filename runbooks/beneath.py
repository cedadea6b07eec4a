"""Paths that runbooks may touch: under a configured root, whatever links stand on the way. Blocking."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runbooks.ports import PortError


def real_path(given: str, roots: Sequence[Path], what: str, key: str) -> tuple[Path, Path]:
    """The root, and the path itself below it, with all links followed.

    Args:
        key: where the roots stand in the configuration.

    Raises:
        PortError: the path is relative, has a ``..`` or ends up outside all roots.
    """
    if not given.startswith("/") or "\0" in given or ".." in given.split("/"):
        raise PortError(f"{what} {given!r}: say an absolute path without '..'")
    path = Path(os.path.realpath(given))
    for root in roots:
        real_root = Path(os.path.realpath(root))
        if path.is_relative_to(real_root):
            return real_root, path
    if not roots:
        raise PortError(f"{what} {given}: no folder is allowed: name those that are in {key}")
    led = f" (it leads to {path})" if str(path) != os.path.normpath(given) else ""
    raise PortError(f"{what} {given}{led}: is not under {' or '.join(map(str, roots))}, which {key} allows")


@contextmanager
def folder_beneath(root: Path, folder: Path) -> Iterator[int]:
    """A descriptor of ``folder``, reached from ``root`` step by step without following a link.

    Raises:
        OSError: a step is missing or became a link.
    """
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in folder.relative_to(root).parts:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        yield at
    finally:
        os.close(at)
