"""Cleanups killed with SIGKILL before and after every system call that changes something: ``python -m
tests.actions.dying FOLDER [FOLDER2]``.

A process of its own, which forks: one child per point dies there, another one goes on as the next daemon would. Prints
one line per direction and method; exits 1 when a file is lost, doubled or changed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.clock import SystemClock
from runbooks.cleaning import LocalCleanups
from runbooks.ports import Cleaning
from runbooks.quarantine import Quarantine

CALLS = ("rename", "unlink", "link", "fsync", "open", "mkdir", "utime")
FILES = {f"d{number % 2}/log.{number}": b"line %d\n" % number * 2000 for number in range(2)}


def forked(job: Callable[[], None]) -> int:
    """How a child that does the job ended: 0, or minus the signal."""
    pid = os.fork()
    if pid == 0:
        try:
            job()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(point: int) -> None:
    """Before call number point // 2, or (odd) after it."""
    seen = 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal seen
            number, seen = seen, seen + 1
            if point == 2 * number:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(*args, **more)
            finally:
                if point == 2 * number + 1:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def matrix(folder: Path, aside: Path, *, must_free: bool, backwards: bool) -> tuple[str, int, int]:
    """(method, points, wrong ends)"""
    point, wrong = 0, 0
    while True:
        root, base = folder / "root", aside / "quarantine"
        for old in (root, base):
            shutil.rmtree(old, ignore_errors=True)
        for name, content in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        before = contents(root)
        cleanups = LocalCleanups((root,), Quarantine(base, 1000, 10**9, SystemClock().moment))
        # a look for open files at each point would take longer than all else
        wanted = Cleaning(str(root), until_free_bytes=2**62 if must_free else None, open_files=True)
        manifest = cleanups.choose(wanted, "x")
        if backwards:
            cleanups.move(manifest, 60)

        def first(at: int = point, it: LocalCleanups = cleanups, of: Any = manifest) -> None:
            die_at(at)
            if backwards:
                it.restore(of, 60)
            else:
                it.move(of, 60)

        def again(it: LocalCleanups = cleanups, of: Any = manifest) -> None:
            if not backwards:
                assert it.progress(of).is_complete or it.move(of, 60).moved == len(FILES)
                assert it.progress(of).aside == len(FILES), it.progress(of)
                assert it.progress(of).is_complete
            for _ in range(3):
                it.restore(of, 60)
                assert (it.progress(of).aside, it.progress(of).troubles) == (0, ())

        ended = forked(first)
        is_well = forked(again) == 0 and contents(root) == before
        wrong += not is_well
        if ended == 0:
            return manifest["method"], point, wrong
        assert ended == -signal.SIGKILL, f"point {point}: ended with {ended}"
        point += 1


def main() -> int:
    folder = Path(sys.argv[1])
    asides = [Path(one) for one in sys.argv[1:]]
    total = 0
    for aside in asides:
        for must_free in (False, True) if aside == folder else (False,):
            for backwards in (False, True):
                method, points, wrong = matrix(folder, aside, must_free=must_free, backwards=backwards)
                way = "restore" if backwards else "move"
                where = "beside" if aside == folder else "elsewhere"
                print(f"{way:8} {method:7} {where:10} {points:4} points {wrong} wrong")
                total += wrong
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
