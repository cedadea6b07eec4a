"""A small file system that is full of old logs, of something else, or of both and filling on."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.faults.registry import Case, Ended, Kind
from tests.faults.stage import decided, ended, executions, is_root, send, staged
from tests.support.eventually import eventually
from tests.system.running import SLEEPER, Running
from tests.system.small_disk import small_disk

RUNBOOK: Final = "disk_space_low"
PIECE: Final = 256 * 1024
SIZE: Final = 32 * 2**20
LOGS: Final = 40
BALLAST: Final = SIZE * 92 // 100 - LOGS * PIECE
"""With the logs it fills 92 %."""
OLD_S: Final = 2 * 86400


def share_free(disk: Path) -> float:
    found = shutil.disk_usage(disk)
    return found.free / found.total


def fill(disk: Path) -> None:
    """Logs of two days ago, the first the oldest, and what is no log."""
    logs = disk / "logs"
    logs.mkdir()
    now = time.time()
    for number in range(LOGS):
        file = logs / f"app.log.{number:02}"
        file.write_bytes(bytes([number]) * PIECE)
        os.utime(file, (now - OLD_S + number, now - OLD_S + number))
    (logs / "notes.txt").write_text("no log", encoding="ascii")
    (disk / "data.bin").write_bytes(b"\0" * BALLAST)


def state_of(disk: Path) -> dict[str, tuple[int, int, bytes]]:
    """Size, time of change and first byte of every log."""
    found = {}
    for file in sorted((disk / "logs").iterdir()):
        about = file.stat()
        found[file.name] = (about.st_size, round(about.st_mtime), file.read_bytes()[:1])
    return found


@contextmanager
def world(folder: Path, *, acts: bool = True, roots: bool = True) -> Iterator[tuple[Path, Running]]:
    with small_disk(folder / "disk", str(SIZE)) as disk:
        cleanup = {"roots": [str(disk / "logs")] if roots else [], "quarantine": str(folder / "quarantine")}
        box = {"cpu_percent": None, "memory_percent": None, "disk_percent": 90}
        more: dict[str, Any] = {"watch": {"box": box, "paths": [str(disk)]}, "runbooks": {"cleanup": cleanup}}
        with staged(folder, {"quiet": SLEEPER}, acts=acts, **more) as selfheal:
            yield disk, selfheal


def old_logs(folder: Path, *, acts: bool) -> Ended:
    with world(folder, acts=acts) as (disk, selfheal):
        began = time.monotonic()
        fill(disk)
        before = state_of(disk)
        end = ended(selfheal, RUNBOOK, began, 120)
        if acts:
            after = state_of(disk)
            gone = sorted(before.keys() - after.keys())
            assert share_free(disk) >= 0.24, end
            assert gone == sorted(before)[: len(gone)], "the oldest first"
            assert len(gone) < LOGS / 2 + 5, "only as many as are needed"
            assert {"notes.txt", f"app.log.{LOGS - 1:02}"} <= after.keys()
            aside = [one for one in (folder / "quarantine").rglob("*") if one.stat().st_size == PIECE]
            assert len(aside) >= len(gone)
        return end


def fills_on(folder: Path, *, acts: bool) -> Ended:
    """What is gained is taken again by somebody else: all logs come back, as they were."""
    del acts
    stop = threading.Event()
    with world(folder) as (disk, selfheal):

        def take() -> None:
            while not stop.wait(0.005):
                if share_free(disk) > 0.2:
                    (disk / "more.bin").write_bytes(b"\0" * (SIZE * 72 // 1000))
                    return

        taker = threading.Thread(target=take)
        began = time.monotonic()
        fill(disk)
        before = state_of(disk)
        taker.start()
        try:
            end = ended(selfheal, RUNBOOK, began, 150)
        finally:
            stop.set()
            taker.join()
        assert (disk / "more.bin").exists(), end
        assert state_of(disk) == before, end
        return end


def has_room(folder: Path, *, acts: bool) -> Ended:
    del acts
    with world(folder) as (disk, selfheal):
        (disk / "logs").mkdir()
        (disk / "logs" / "app.log.1").write_bytes(b"x" * PIECE)
        os.utime(disk / "logs" / "app.log.1", (1, 1))
        before = state_of(disk)
        send(selfheal, {"type": RUNBOOK, "labels": {"path": str(disk), "cleanup_root": str(disk / "logs")}})
        end = ended(selfheal, RUNBOOK, time.monotonic())
        assert state_of(disk) == before
        return end


def nothing_may_go(folder: Path, *, acts: bool) -> Ended:
    del acts
    with world(folder, roots=False) as (disk, selfheal):
        fill(disk)
        before = state_of(disk)
        decided(selfheal, RUNBOOK)
        end = ended(selfheal, f"{RUNBOOK}_told", time.monotonic())
        assert state_of(disk) == before
        assert [one["runbook"] for one in executions(selfheal)] == [f"{RUNBOOK}_told"]
        eventually(lambda: "no folder on it may be cleaned" in selfheal.log.read_text(), within_s=10)
        return Ended(end.status)


CASES: tuple[Case, ...] = (
    Case(RUNBOOK, "old-logs", Kind.SUCCESS, old_logs, ("succeeded",), is_root),
    Case(RUNBOOK, "rollback", Kind.ROLLBACK, fills_on, ("rolled_back",), is_root),
    Case(RUNBOOK, "no-match", Kind.NO_MATCH, has_room, ("rejected",), is_root),
    Case(f"{RUNBOOK}_told", "told", Kind.OBSERVED, nothing_may_go, ("succeeded",), is_root),
)
