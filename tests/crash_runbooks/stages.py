"""Where a runbook is played: a real fault in a world of its own, and what an outsider must see of it at the end.

A new runbook gets its stages in a module ``*_stages.py`` beside this one, with ``STAGES: tuple[type[Stage], ...]``: one
whose run succeeds and one whose run fails and is rolled back. Nothing else is needed.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import tests.crash_runbooks
from guardian_link import Alert
from runbooks.parse import SHIPPED
from tests.crash.world import World
from tests.system.running import write_config

QUIET: Final = {
    "box": {"cpu_percent": None, "memory_percent": None, "disk_percent": None},
    "daemon": {"cpu_percent": None, "memory_mb": None},
}
"""The machine is busy: nobody shall be told of it."""
Services = Mapping[str, Mapping[str, Any]]


class Stage(ABC):
    """One play. ``runbook``: whose; ``variant``: which way it goes; ``wanted``: the one right end; ``order``: the
    cheapest first.

    Effects are counted where they are made, never in the journal: ``wrong`` looks as an outsider does.
    """

    runbook: ClassVar[str]
    variant: ClassVar[str]
    wanted: ClassVar[str]
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

    @abstractmethod
    def services(self) -> Services:
        """What the daemon runs."""

    def runbooks(self) -> Mapping[str, Any]:
        """Runbook files that replace shipped ones, by file name."""
        return {}

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

    @abstractmethod
    def wrong(self) -> list[str]:
        """What an outsider sees after the end that should not be so; effects made twice among it."""

    def close(self) -> None:  # noqa: B027
        """Nothing may be left."""

    def configure(self) -> None:
        more: dict[str, Any] = {"watch": QUIET}
        if files := self.runbooks():
            folder = self.world.folder / "runbooks"
            folder.mkdir()
            for name, raw in files.items():
                (folder / name).write_text(json.dumps(raw), encoding="utf-8")
            more["runbooks"] = {"directories": [str(folder)]}
        write_config(self.world.folder, self.services(), **more)


def never_helps(runbook: str) -> dict[str, Any]:
    """A shipped runbook with one criterion more, which never holds: all it did is undone."""
    raw: dict[str, Any] = json.loads((SHIPPED / f"{runbook}.json").read_text(encoding="utf-8"))
    raw["success_criteria"].append({"call": {"type": "command_ok", "argv": ["false"]}})
    return raw


def all_stages() -> dict[str, type[Stage]]:
    """By id, the cheapest first."""
    names = sorted(one.name for one in pkgutil.iter_modules(tests.crash_runbooks.__path__))
    modules = [importlib.import_module(f"tests.crash_runbooks.{name}") for name in names if name.endswith("_stages")]
    stages: list[type[Stage]] = [stage for module in modules for stage in module.STAGES]
    return {stage.id(): stage for stage in sorted(stages, key=lambda one: (one.order, one.id()))}
