"""A small file system that is full of old logs, or of something else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.faults.ended import Ended
from tests.faults.registry import Case, Kind, is_root
from tests.faults.ward import LONG_S, Bed, Part
from tests.support.eventually import eventually
from tests.system.running import SLEEPER
from tests.system.small_disk import small_disk

RUNBOOK: Final = "disk_space_low"
PIECE: Final = 256 * 1024
SIZE: Final = 32 * 2**20
LOGS: Final = 40
FEW: Final = 6
OLD_S: Final = 2 * 86400


def share_free(disk: Path) -> float:
    found = shutil.disk_usage(disk)
    return found.free / found.total


def fill(disk: Path, logs_there: int = LOGS) -> None:
    """To 92 %: logs of two days ago, the first the oldest, and what is no log."""
    logs = disk / "logs"
    logs.mkdir(exist_ok=True)
    now = time.time()
    for number in range(logs_there):
        file = logs / f"app.log.{number:02}"
        file.write_bytes(bytes([number]) * PIECE)
        os.utime(file, (now - OLD_S + number, now - OLD_S + number))
    (logs / "notes.txt").write_text("no log", encoding="ascii")
    (disk / "data.bin").write_bytes(b"\0" * (SIZE * 92 // 100 - logs_there * PIECE))


def state_of(disk: Path) -> dict[str, tuple[int, int, bytes]]:
    """Size, time of change and first byte of every log."""
    found = {}
    for file in sorted((disk / "logs").iterdir()):
        about = file.stat()
        found[file.name] = (about.st_size, round(about.st_mtime), file.read_bytes()[:1])
    return found


@contextmanager
def world(bed: Bed, *, roots: bool = True) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A disk of the case's own, its name in the path. All share one quarantine, on another file system."""
    with small_disk(bed.folder / bed.name, str(SIZE)) as disk:
        (disk / "logs").mkdir()
        cleanup = {"roots": [str(disk / "logs")] if roots else [], "quarantine": str(bed.ward.folder / "quarantine")}
        watch = {"box": {"disk_percent": 90}, "paths": [str(disk)]}
        yield disk, {"services": {bed.name: SLEEPER}, "watch": watch, "runbooks": {"cleanup": cleanup}}


@contextmanager
def old_logs(bed: Bed) -> Iterator[Part]:
    with world(bed) as (disk, config):

        def run() -> Ended:
            began = time.monotonic()
            fill(disk)
            before = state_of(disk)
            end = bed.ended(RUNBOOK, f"disk:{disk}", began)
            if bed.acts:
                after = state_of(disk)
                gone = sorted(before.keys() - after.keys())
                assert share_free(disk) >= 0.24, end
                assert gone == sorted(before)[: len(gone)], "the oldest first"
                assert len(gone) < LOGS / 2 + 5, "only as many as are needed"
                assert {"notes.txt", f"app.log.{LOGS - 1:02}"} <= after.keys()
                assert len(put_aside(bed)) >= len(gone)
            return end

        yield Part(config, run)


def put_aside(bed: Bed) -> list[Path]:
    found = (bed.ward.folder / "quarantine").rglob("*")
    return [one for one in found if one.is_file() and one.name != "manifest.json"]


@contextmanager
def full_of_something_else(bed: Bed) -> Iterator[Part]:
    """All old logs together are not enough: every one comes back, as it was."""
    with world(bed) as (disk, config):

        def run() -> Ended:
            began = time.monotonic()
            fill(disk, FEW)
            before = state_of(disk)
            end = bed.ended(RUNBOOK, f"disk:{disk}", began)
            assert bed.steps(RUNBOOK, f"disk:{disk}")["put_aside"] == "rolled_back", end
            assert state_of(disk) == before, end
            return end

        yield Part(config, run)


@contextmanager
def has_room(bed: Bed) -> Iterator[Part]:
    with world(bed) as (disk, config):

        def run() -> Ended:
            (disk / "logs" / "app.log.1").write_bytes(b"x" * PIECE)
            os.utime(disk / "logs" / "app.log.1", (1, 1))
            before = state_of(disk)
            where = {"path": str(disk), "cleanup_root": str(disk / "logs")}
            end = bed.answered(RUNBOOK, time.monotonic(), service=None, **where)
            assert state_of(disk) == before
            return end

        yield Part(config, run)


@contextmanager
def nothing_may_go(bed: Bed) -> Iterator[Part]:
    with world(bed, roots=False) as (disk, config):

        def run() -> Ended:
            fill(disk)
            before = state_of(disk)
            alert = bed.decided(RUNBOOK, lambda one: str(disk) in str(one.get("message")))
            assert alert.get("execution_id"), alert
            end = bed.over(alert["execution_id"], time.monotonic())
            assert f"{RUNBOOK}_told" in end.detail, end
            assert state_of(disk) == before
            log = bed.selfheal.log
            eventually(
                lambda: "no folder on it may be cleaned" in log.read_text(), within_s=LONG_S, every_s=0.2, what="notice"
            )
            return Ended(end.status)

        yield Part(config, run)


CASES: tuple[Case, ...] = (
    Case(RUNBOOK, "old-logs", Kind.SUCCESS, old_logs, ("succeeded",), is_root),
    Case(RUNBOOK, "rollback", Kind.ROLLBACK, full_of_something_else, ("rolled_back",), is_root),
    Case(RUNBOOK, "no-match", Kind.NO_MATCH, has_room, ("rejected",), is_root),
    Case(f"{RUNBOOK}_told", "told", Kind.OBSERVED, nothing_may_go, ("succeeded",), is_root),
)
