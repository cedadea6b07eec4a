"""Where a runbook is played: a real fault in a world of its own, and what an outsider must see of it at the end.

A new runbook gets its stages in a module ``*_stages.py`` beside this one, with ``STAGES: tuple[type[Stage], ...]``: one
whose run succeeds, and one whose run fails (and is rolled back, where there is a way back). Nothing else is needed:
a stage says what the daemon runs (``services``, ``config``), what is wrong (``break_it``, ``alert``), how it must end
(``wanted``, ``then``) and which effects are right (``right``), counted where they are made (``effects``).

The runbooks are the shipped files with less patience (``hasty``): every look, hold and pause is short, because here
the daemon dies, and nothing else is late. Steps, calls and checks are the shipped ones.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import tests.crash_runbooks
from guardian_link import Alert
from runbooks.parse import SHIPPED
from tests.crash import witness
from tests.crash.world import World
from tests.system.running import write_config

QUIET: Final = {
    "box": {"cpu_percent": None, "memory_percent": None, "disk_percent": None},
    "daemon": {"cpu_percent": None, "memory_mb": None},
}
"""The machine is busy: nobody shall be told of it."""
Services = Mapping[str, Mapping[str, Any]]
BYSTANDER: Final = "b"
HASTE: Final = {"every": "50ms", "hold_for": "100ms", "delay": "100ms", "quiet_for": "100ms"}
"""What becomes of a runbook's waits."""


def both(kind: str) -> tuple[str, str]:
    """The two places of a record."""
    return f"runbook.{kind}.writing", f"runbook.{kind}.written"


SNAPSHOT: Final = ("runbook.snapshot",)
VERIFIED: Final = ("runbook.looked.verify", *both("verified"))
CRITERIA: Final = ("runbook.looked.criterion",)
ON: Final = (
    "runbook.decided",
    "runbook.claiming",
    "runbook.claimed",
    *both("intent"),
    "runbook.calling",
    "runbook.called",
    *both("done"),
    "runbook.ending",
    "runbook.ended",
    "runbook.told",
)
"""Places that every run passes."""
AHEAD: Final = (*ON, "runbook.looked.precondition", *VERIFIED, *CRITERIA)
BACK: Final = (
    *both("undo_intent"),
    "runbook.undoing",
    "runbook.undone",
    *both("undo_done"),
    "runbook.looked.undo_verify",
    *both("undo_verified"),
)


class Stage(ABC):
    """One play. ``runbook``: whose; ``variant``: which way it goes; ``wanted``: the one right end; ``order``: the
    cheapest first.

    Effects are counted where they are made, never in the journal: ``wrong`` looks as an outsider does.
    """

    runbook: ClassVar[str]
    variant: ClassVar[str]
    wanted: ClassVar[str]
    right: ClassVar[Sequence[str]]
    """The effects that an outsider counts, in their order."""
    then: ClassVar[Mapping[str, str]] = {}
    """The runs that must follow from this one's end: how each ends, by runbook."""
    helps: ClassVar[bool] = True
    """False: the runbook has one criterion more, which never holds."""
    answered: ClassVar[str] = "run"
    """What is decided about the alert."""
    passes: ClassVar[Sequence[str]] = (*AHEAD, *SNAPSHOT)
    """The places that it leads through when nobody dies. The full run finds out whether this is true."""
    has_probe: ClassVar[bool] = True
    """False: its step is done again after a death; the second time changes nothing."""
    order: ClassVar[int] = 50
    is_own: ClassVar[bool] = False
    """No shipped runbook: it is there for fail points that no shipped one passes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._alert: Alert | None = None

    @classmethod
    def id(cls) -> str:
        return f"{cls.runbook}/{cls.variant}"

    @classmethod
    def trouble(cls) -> str | None:
        """Why it cannot be played on this machine; None: it can."""
        return None

    @property
    def folder(self) -> Path:
        """For what the stage needs; ready when it begins."""
        return self.world.witnesses.folder

    # -- the world ----------------------------------------------------------------------------------------------------

    def services(self) -> Services:
        """What the daemon runs beside the bystander."""
        return {}

    def config(self) -> dict[str, Any]:
        """More of the daemon's configuration."""
        return {}

    def runbooks(self) -> Mapping[str, Any]:
        """Runbook files that replace shipped ones, by file name."""
        files = {f"{name}.json": hasty(name) for name in (self.runbook, *self.then)}
        if not self.helps:
            files[f"{self.runbook}.json"]["success_criteria"].append(
                {"call": {"type": "command_ok", "argv": ["false"]}}
            )
        return files

    def begin(self) -> None:  # noqa: B027  most need nothing of it
        """Before there is a daemon."""

    def break_it(self) -> None:  # noqa: B027
        """The fault: all services are ready, the alert is not sent."""

    @abstractmethod
    def alert(self) -> Alert: ...

    def alert_once(self) -> Alert:
        """The same one, whoever sends it again."""
        self._alert = self._alert or self.alert()
        return self._alert

    def meanwhile(self) -> None:  # noqa: B027
        """Called again and again while the run is under way."""

    def close(self) -> None:  # noqa: B027
        """Nothing may be left."""

    def all_services(self) -> Services:
        return {BYSTANDER: witness.process(self.folder, BYSTANDER), **self.services()}

    def configure(self) -> None:
        more = {"watch": QUIET, **self.config()}
        if files := self.runbooks():
            folder = self.world.folder / "runbooks"
            folder.mkdir()
            for name, raw in files.items():
                (folder / name).write_text(json.dumps(raw), encoding="utf-8")
            more["runbooks"] = {**more.get("runbooks", {}), "directories": [str(folder)]}
        write_config(self.world.folder, self.all_services(), **more)

    # -- what an outsider sees ----------------------------------------------------------------------------------------

    @property
    def effects_file(self) -> Path:
        return self.folder / "effects"

    def effects(self) -> list[str]:
        """Each as often as it was made. Here: whoever makes one adds a line to a file."""
        file = self.effects_file
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    def ill(self) -> list[str]:
        """What is not as it should be, beside the effects."""
        return []

    def wrong(self) -> list[str]:
        """What an outsider sees after the end that should not be so; effects made twice among it."""
        effects, seen = self.effects(), self.world.witnesses
        found = [] if effects == [*self.right] else [f"effects {effects}, not {[*self.right]}"]
        alive = len(self.world.processes(BYSTANDER))
        if (seen.births(BYSTANDER), alive) != (1, 1):
            found.append(f"a bystander was started {seen.births(BYSTANDER)} times, {alive} live")
        return [*found, *(f"twins of {name}" for name in seen.twins()), *self.ill()]


def shipped(runbook: str) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((SHIPPED / f"{runbook}.json").read_text(encoding="utf-8"))
    return raw


def hasty(runbook: str) -> dict[str, Any]:
    """A shipped runbook with less patience, and no other change."""
    raw = shipped(runbook)
    _hasten(raw)
    return raw


def _hasten(part: Any) -> None:
    match part:
        case dict():
            for key, value in part.items():
                part[key] = HASTE.get(key, value)
                _hasten(value)
        case list():
            for one in part:
                _hasten(one)


def all_stages() -> dict[str, type[Stage]]:
    """By id, the cheapest first."""
    names = sorted(one.name for one in pkgutil.iter_modules(tests.crash_runbooks.__path__))
    modules = [importlib.import_module(f"tests.crash_runbooks.{name}") for name in names if name.endswith("_stages")]
    stages: list[type[Stage]] = [stage for module in modules for stage in module.STAGES]
    return {stage.id(): stage for stage in sorted(stages, key=lambda one: (one.order, one.id()))}
