"""Random deaths of the daemon, and sometimes of its keeper, over a mixed crowd of children: what became of each.

After every death a new daemon is started and the crowd is looked at from outside: one living instance of every child,
nobody changed who was not killed, nobody shown as anything but ready from the new daemon's first answer on, no twin.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.crash import witness
from tests.crash.warm import DaemonProcess
from tests.crash.world import World

LIMIT_S: Final = 180.0
LOOK_S: Final = 0.03
STARTING_S: Final = 2.5
BUSY_S: Final = 0.5
KEEPER_SHARE: Final = 0.2
MOMENTS: Final = ("idle", "busy", "starting")
"""When the daemon is killed: settled; just after some children were; while it is still coming up."""
_PATIENCE: Final = {
    "max_restarts": 1_000_000,
    "within": "30d",
    "backoff": {"initial": "20ms", "max": "200ms", "reset_after": "500ms"},
}


@dataclass(frozen=True)
class Wave:
    """One death. ``missing``: children that were not there once at ``LIMIT_S``. ``changed``: survivors that are not
    what they were. ``unready``: what survivors were shown as, other than ready.
    """

    moment: str
    with_keeper: bool
    killed: int
    survivors: int
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unready: tuple[str, ...] = ()
    took_s: float = 0.0

    @property
    def is_right(self) -> bool:
        """One of each, the very same, and never shown as less than ready."""
        return not (self.changed or self.missing or self.unready)


@dataclass
class Storm:
    """Args: ``tell`` hears of each wave as it ends."""

    world: World
    processes: int
    containers: int
    seed: int
    tell: Callable[[int, Wave], None] = lambda _number, _wave: None
    names: list[str] = field(default_factory=list)

    def run(self, kills: int) -> list[Wave]:
        chance = random.Random(self.seed)
        self._configure()
        daemon = self.world.start(notes="storm")
        missing, _ = self._settle(daemon)
        if missing:
            raise AssertionError(f"the storm could not begin: {missing}; {self.world.log.read_text()[-3000:]}")
        waves = []
        for number in range(kills):
            daemon, wave = self._wave(daemon, chance)
            waves.append(wave)
            self.tell(number + 1, wave)
        return waves

    def _configure(self) -> None:
        folder = self.world.witnesses.folder
        services: dict[str, dict[str, Any]] = {}
        for number in range(max(self.processes, self.containers)):  # mixed, also in the order they are started in
            if number < self.processes:
                probed = {"health_check": {"exec": ["true"], "interval": "2s"}} if number % 2 else {}
                services[f"p{number}"] = witness.process(folder, f"p{number}", **_PATIENCE, **probed)
            if number < self.containers:
                name = f"box{number}-{self.world.tag}"
                services[name] = witness.container(folder, name, number, **_PATIENCE)
        self.names = list(services)
        self.world.configure(services)

    # -- one wave -----------------------------------------------------------------------------------------------------

    def _wave(self, daemon: DaemonProcess, chance: random.Random) -> tuple[DaemonProcess, Wave]:
        moment, with_keeper = chance.choice(MOMENTS), chance.random() < KEEPER_SHARE
        before = self._identities()
        births = {name: self.world.witnesses.births(name) for name in self.names}
        killed: set[str] = set()
        if moment == "starting":  # one death more: the settled daemon's, then that of one still coming up
            daemon.kill()
            daemon = self.world.start(notes="storm")
            time.sleep(chance.uniform(0, STARTING_S))
        elif moment == "busy":
            killed = set(chance.sample(self.names, chance.randint(1, 3)))
            for name in killed:
                self.world.crash(name)
            time.sleep(chance.uniform(0, BUSY_S))
        daemon.kill()
        if with_keeper:
            self.world.kill_keeper()
        began = time.monotonic()
        daemon = self.world.start(notes="storm")
        missing, unready = self._settle(daemon, frozenset(before) - killed)
        took_s = time.monotonic() - began
        after = self._identities()
        changed = [name for name in self.names if name not in killed and after.get(name) != before[name]]
        for name in self.names:
            born = self.world.witnesses.births(name) - births[name]
            if born != int(name in killed):
                changed.append(f"{name} born {born} times")
        wave = Wave(
            moment, with_keeper, len(killed), len(self.names) - len(killed), tuple(changed), missing, unready, took_s
        )
        return daemon, wave

    def _settle(
        self, daemon: DaemonProcess, survivors: frozenset[str] = frozenset()
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Until all are shown ready and live once. Returns who did not come, and survivors' states that dropped."""
        unready: dict[str, None] = {}
        wrong: list[str] = ["no daemon answers"]
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            if (code := daemon.wait(0)) is not None:
                return (f"the daemon ended with {code}",), tuple(unready)
            nodes = self.world.nodes()
            for name in survivors & nodes.keys():
                if nodes[name]["state"] != "ready":
                    unready[f"{name} {nodes[name]['state']}"] = None
            wrong = [name for name in self.names if name not in nodes or nodes[name]["state"] != "ready"]
            wrong = wrong or self._not_once()
            if not wrong:
                return (), tuple(unready)
            time.sleep(LOOK_S)
        return tuple(wrong), tuple(unready)

    def _not_once(self) -> list[str]:
        alive = Counter(one.service for one in self.world.processes())
        alive.update(box["Labels"]["selfheal.service"] for box in self.world.containers() if box["State"] == "running")
        return [f"{alive[name]} of {name}" for name in self.names if alive[name] != 1]

    def _identities(self) -> dict[str, object]:
        """Pid or container id of every child."""
        found: dict[str, object] = {one.service: one.pid for one in self.world.processes()}
        return found | {box["Labels"]["selfheal.service"]: box["Id"] for box in self.world.containers()}


# -- the table --------------------------------------------------------------------------------------------------------


def table(waves: Sequence[Wave]) -> Iterator[str]:
    head = "deaths  children  survivors  changed  missing  not ready  right again p50 / max"
    yield f"{'the daemon was killed':<34} {head}"
    for moment in MOMENTS:
        for with_keeper in (False, True):
            chosen = [one for one in waves if (one.moment, one.with_keeper) == (moment, with_keeper)]
            if chosen:
                yield _line(f"{moment}{', with its keeper' if with_keeper else ''}", chosen)
    yield _line("all", waves)


def _line(label: str, waves: Sequence[Wave]) -> str:
    times = sorted(one.took_s for one in waves)
    return (
        f"{label:<34} {len(waves):>6}  {sum(one.killed for one in waves):>8}  {sum(one.survivors for one in waves):>9}"
        f"  {sum(len(one.changed) for one in waves):>7}  {sum(len(one.missing) for one in waves):>7}"
        f"  {sum(len(one.unready) for one in waves):>9}  {times[len(times) // 2]:.1f} s / {times[-1]:.1f} s"
    )
