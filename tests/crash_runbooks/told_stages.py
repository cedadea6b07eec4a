"""Runbooks that only tell people: one notice, whoever dies meanwhile. A notice has no way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from guardian_link import Alert
from tests.crash_runbooks.stages import AHEAD, CRITERIA, ON, Stage, both

_WITHOUT_ITS_CRITERIA: Final = tuple(one for one in AHEAD if one not in (*CRITERIA, "runbook.looked.precondition"))


class Told(Stage):
    runbook = "disk_space_low_told"
    variant = "success"
    wanted = "succeeded"
    right: ClassVar[Sequence[str]] = ("told",)
    passes: ClassVar[Sequence[str]] = _WITHOUT_ITS_CRITERIA
    order = 25
    kind = "disk_space_low"
    takes = "echo told >>'{file}'"

    def config(self) -> dict[str, Any]:
        command = ["sh", "-c", self.takes.format(file=self.effects_file)]
        return {"notifications": {"channels": {"default": {"command": command}}}}

    def alert(self) -> Alert:
        return Alert(type=self.kind, source="crash-matrix")


class NotTold(Told):
    """Nobody takes the notice."""

    variant = "failure"
    wanted = "failed"
    right: ClassVar[Sequence[str]] = ()
    passes: ClassVar[Sequence[str]] = (*ON, "runbook.looked.probe", *both("failing"))
    order = 26
    takes = "exit 1"


class BoxBurns(Told):
    runbook = "high_cpu_usage_box"
    kind = "high_cpu_usage"


class NotToldOfBurning(NotTold):
    runbook = "high_cpu_usage_box"
    kind = "high_cpu_usage"


class BoxLeaks(Told):
    runbook = "memory_exhaustion_box"
    kind = "memory_exhaustion"


class NotToldOfLeaking(NotTold):
    runbook = "memory_exhaustion_box"
    kind = "memory_exhaustion"


STAGES = (Told, NotTold, BoxBurns, NotToldOfBurning, BoxLeaks, NotToldOfLeaking)
