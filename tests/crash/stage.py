"""Where a scenario plays: a world, the daemon that is armed now, and the waits that end when death has struck."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.crash.warm import DaemonProcess
from tests.crash.world import Notes, Unlike, World

LIMIT_S = 90.0
LOOK_S = 0.04


class Struck(Exception):
    """Death came: the scenario is over."""


@dataclass
class Stage:
    """Args:
    wanted: how many living instances each service must have now.
    is_counted: whether every restart must be counted; none may ever be counted twice.
    target: the service that is acted upon.
    """

    world: World
    target: str = "a"
    point: str | None = None
    notes: Notes = field(init=False)
    daemon: DaemonProcess | None = None
    wanted: Mapping[str, int] = field(default_factory=dict)
    is_counted: bool = True

    def __post_init__(self) -> None:
        self.notes = self.world.notes("none")

    @property
    def box(self) -> str:
        return f"box-{self.world.tag}"

    @property
    def has_struck(self) -> bool:
        return self.point is not None and self.notes.has_died(self.point)

    def look(self) -> None:
        """Raises Struck when the armed place was reached, Unlike when the daemon died of something else."""
        if self.has_struck:
            raise Struck
        if self.daemon is not None and (code := self.daemon.wait(0)) is not None:
            if self.has_struck:
                raise Struck
            raise Unlike(f"the daemon ended with {code}")

    def until(self, is_there: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
        """Wait. Raises Struck, Unlike."""
        deadline = time.monotonic() + limit_s
        while not is_there():
            self.look()
            if time.monotonic() > deadline:
                raise Unlike(f"not within {limit_s:g} s: {what}")
            time.sleep(LOOK_S)
        self.look()

    def until_ready(self) -> None:
        """Until the daemon says of all services what it should. Raises Struck, Unlike."""
        self._until_none(self.states)

    def until_right(self) -> None:
        """As ``until_ready``, and an outsider sees the same. Raises Struck, Unlike."""
        self._until_none(lambda: self.states() or self.differences())

    def _until_none(self, find: Callable[[], list[str]]) -> None:
        wrong: list[str] = []

        def is_right() -> bool:
            wrong[:] = find()
            return not wrong

        try:
            self.until(is_right, "all is right")
        except Unlike as unlike:
            if wrong and self.daemon is not None and self.daemon.code is None:
                raise Unlike(wrong[0]) from unlike
            raise

    def differences(self) -> list[str]:
        """What an outsider sees that should not be so."""
        seen = self.world.processes()
        found = []
        for name, count in self.wanted.items():
            alive = sum(one.service == name for one in seen)
            if name.startswith("box"):  # before or after an edit it may be a process
                boxes = self.world.boxes(name)
                alive += sum(one["State"] == "running" for one in boxes)
                if len(boxes) > 1:
                    found.append(f"{len(boxes)} containers of {name}")
            if alive != count:
                found.append(f"{alive} instances of {name}")
        return found + [f"a stray of {one.service}" for one in seen if one.service not in self.wanted]

    def states(self) -> list[str]:
        """What the daemon says of the services that should not be so."""
        nodes = self.world.nodes()
        found = []
        for name, count in self.wanted.items():
            node = nodes.get(name)
            if node is None:
                if count:
                    found.append(f"the daemon does not show {name}")
            elif count and node["state"] != "ready":
                found.append(f"{name} is {node['state']}")
            elif not count and node["state"] != "stopped":
                found.append(f"{name} is {node['state']}, not stopped")
        return found
