"""Runbooks of bridge endpoints: one that says it is not well is told to help itself, in two ways, and then the service
behind it is restarted. Each command is done once, each start is counted by what is started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from guardian_link import Alert
from tests.crash import witness
from tests.crash.warm import DaemonProcess
from tests.crash.world import World
from tests.crash_runbooks.aside import Command, run_aside, speak
from tests.crash_runbooks.stages import AHEAD, BACK, SNAPSHOT, Services, Stage, both
from tests.support.eventually import eventually

LIMIT_S = 20.0


def _commands(names: Sequence[str], effects: Path, births: Path) -> dict[str, Command]:
    """Only another start of the service makes it well; the commands do not, each time they are done."""

    def note(name: str) -> Command:
        def do(_: Mapping[str, Any]) -> None:
            with effects.open("a", encoding="ascii") as file:
                file.write(f"{name}\n")

        return do

    def health(_: Mapping[str, Any]) -> dict[str, str]:
        is_well = len(births.read_text(encoding="ascii").split()) > 1
        return {"status": "healthy"} if is_well else {"status": "unhealthy", "error": "stuck"}

    return {"health": health, **{name: note(name) for name in names}}


class NotWell(Stage):
    """``offers``: the commands that the endpoint knows, in the order in which they are tried."""

    variant = "success"
    wanted = "succeeded"
    passes: ClassVar[Sequence[str]] = (*AHEAD, *SNAPSHOT, *both("skipped"))
    has_probe = False  # its first step only asks
    order = 37
    offers: ClassVar[Sequence[str]]

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._endpoint: DaemonProcess | None = None

    @property
    def name(self) -> str:
        return self.runbook.removeprefix("bridge_").removesuffix("_failure")

    def services(self) -> Services:
        return {"a": witness.process(self.folder, "a")}

    def config(self) -> dict[str, Any]:
        return {"bridges": {self.name: {"kind": "zeromq", "silence": "5s", "service": "a"}}}

    def begin(self) -> None:
        own, state, name = self.folder / "endpoint", self.world.state, self.name
        own.mkdir()
        commands = _commands(self.offers, self.effects_file, self.folder / "a.births")
        self._endpoint = run_aside(lambda: speak(state, name, own, commands), self.world.folder / "broke")

    def break_it(self) -> None:
        eventually(lambda: self.world.bridges() == {self.name: "ready"}, within_s=LIMIT_S)

    def alert(self) -> Alert:
        return Alert(type=self.runbook, source="crash-matrix", labels={"endpoint": self.name})

    def effects(self) -> list[str]:
        return super().effects() + ["start a"] * self.world.witnesses.births("a")

    def ill(self) -> list[str]:
        alive = len(self.world.processes("a"))
        return [f"{alive} of a live"] if alive != 1 else []

    def close(self) -> None:
        if self._endpoint is not None:
            self._endpoint.kill()


class NotWellForNothing(NotWell):
    """A criterion never holds: the service is wanted and runs, as before."""

    variant = "rollback"
    wanted = "rolled_back"
    helps = False
    passes: ClassVar[Sequence[str]] = (*NotWell.passes, *both("failing"), *BACK)
    order = 38


_OFFERS: dict[str, Sequence[str]] = {
    "bridge_mql4_failure": ("reset", "reconnect"),
    "bridge_powershell_failure": ("reset", "reload"),
    "bridge_python_failure": ("reload", "reset"),
    "bridge_config_sync_failure": ("resync", "reset"),
}
STAGES: tuple[type[Stage], ...] = tuple(
    type(
        f"{way.__name__}_{runbook}",
        (way,),
        {"runbook": runbook, "offers": offers, "right": (*offers, "start a", "start a")},
    )
    for runbook, offers in _OFFERS.items()
    for way in (NotWell, NotWellForNothing)
)
