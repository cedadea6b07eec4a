"""Old logs are put aside on a small disk of its own: each once, and all come back where that does not help."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Final

from guardian_link import Alert
from tests.crash.world import World
from tests.crash_runbooks.stages import AHEAD, BACK, SNAPSHOT, Stage, both
from tests.system.small_disk import small_disk

PIECE: Final = 64 * 1024
SIZE: Final = 8 * 2**20
OLD_S: Final = 2 * 86400


class PutAside(Stage):
    """The disk is full to 95 %, most of it logs: the oldest go, as many as are needed for a quarter to be free."""

    runbook = "disk_space_low"
    variant = "success"
    wanted = "succeeded"
    logs: ClassVar[int] = 60
    goes: ClassVar[int] = 26
    """So many logs are put aside."""
    right: ClassVar[Sequence[str]] = ("told",)
    order = 35

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.held = ExitStack()
        self.old = time.time() - OLD_S

    @classmethod
    def trouble(cls) -> str | None:
        return None if os.geteuid() == 0 else "needs root"

    @property
    def disk(self) -> Path:
        return self.folder / "disk"

    def begin(self) -> None:
        self.held.enter_context(small_disk(self.disk, str(SIZE)))
        (self.disk / "logs").mkdir()
        for number in range(self.logs):
            file = self.disk / "logs" / f"app.log.{number:02}"
            file.write_bytes(bytes([number]) * PIECE)
            os.utime(file, (self.old + number, self.old + number))
        (self.disk / "data.bin").write_bytes(b"\0" * (SIZE * 95 // 100 - self.logs * PIECE))

    def config(self) -> dict[str, Any]:
        cleanup = {"roots": [str(self.disk / "logs")], "quarantine": str(self.folder / "quarantine")}
        command = ["sh", "-c", f"echo told >>'{self.effects_file}'"]
        channels = {"default": {"command": command}}
        return {"runbooks": {"cleanup": cleanup}, "notifications": {"channels": channels}}

    def alert(self) -> Alert:
        labels = {"path": str(self.disk), "cleanup_root": str(self.disk / "logs")}
        return Alert(type=self.runbook, source="crash-matrix", labels=labels)

    def ill(self) -> list[str]:
        there = {file.read_bytes()[0]: round(file.stat().st_mtime) for file in (self.disk / "logs").iterdir()}
        aside = [_number(file) for file in sorted((self.folder / "quarantine").rglob("*.gz"))]
        stays = {number: round(self.old + number) for number in range(self.goes, self.logs)}
        found = [f"in place {sorted(there)}, or changed"] if there != stays else []
        return found + ([f"aside {sorted(aside)}"] if sorted(aside) != [*range(self.goes)] else [])

    def close(self) -> None:
        self.held.close()


class NotEnough(PutAside):
    """Most of the disk is no log: what may go is not enough, so all of it comes back, as it was."""

    variant = "rollback"
    wanted = "rolled_back"
    logs = 8
    goes = 0
    right: ClassVar[Sequence[str]] = ()
    passes: ClassVar[Sequence[str]] = (
        *(one for one in AHEAD if one not in (*both("verified"), "runbook.looked.criterion")),
        *SNAPSHOT,
        *both("failing"),
        *BACK,
    )
    order = 36

    def runbooks(self) -> Mapping[str, Any]:
        """It is seen at once that it is not enough."""
        files = super().runbooks()
        files[f"{self.runbook}.json"]["actions"][0]["verify"]["within"] = "500ms"
        return files


def _number(file: Path) -> int:
    """Of a log that was put aside: what it is full of."""
    whole = gzip.decompress(file.read_bytes())
    return whole[0] if whole == bytes([whole[0]]) * PIECE else -1


STAGES = (PutAside, NotEnough)
