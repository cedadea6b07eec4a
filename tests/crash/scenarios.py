"""What is done to a world, and what must be true of it at last; and which scenario leads through which fail point.

``a`` (or ``box``) is acted upon, ``b`` is a bystander that must never be born twice.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from supervisors.manager import ManagerError
from tests.crash import witness
from tests.crash.stage import Stage
from tests.crash.world import OtherWay

Step = Callable[[Stage], None]
Services = dict[str, dict[str, Any]]
Range = tuple[int, int]
ONCE: Final[Range] = (1, 1)
TWICE: Final[Range] = (2, 2)
CLAIM_S: Final = 6.5
"""What the keeper started and nobody claims is killed after five beats: right is only what outlives that."""


@dataclass(frozen=True)
class Scenario:
    """``before``: an earlier daemon does this and is killed, and then ``between`` happens. ``act``: the armed daemon
    does this until it dies. ``later`` is what is configured from the armed daemon on, if something else.
    """

    name: str
    what: str
    services: Callable[[Stage], Services]
    act: tuple[Step, ...]
    before: tuple[Step, ...] | None = None
    between: tuple[Step, ...] = ()
    later: Callable[[Stage], Services] | None = None
    down: frozenset[str] = frozenset()
    births: Mapping[str, Range] = field(default_factory=dict)
    restarts: Mapping[str, Range] = field(default_factory=dict)
    hold_s: float = 0.3


# -- what is configured -----------------------------------------------------------------------------------------------


def pair(stage: Stage) -> Services:
    folder = stage.world.witnesses.folder
    return {name: witness.process(folder, name) for name in ("a", "b")}


def slow_pair(stage: Stage) -> Services:
    """A crash of ``a`` is answered by the daemon, not by the keeper: it must wait first."""
    return pair(stage) | {
        "a": witness.process(stage.world.witnesses.folder, "a", backoff={"first": "20ms", "initial": "20ms"})
    }


def only_b(stage: Stage) -> Services:
    return {"b": witness.process(stage.world.witnesses.folder, "b")}


def boxed(stage: Stage) -> Services:
    box = witness.container(stage.world.witnesses.folder, stage.box)
    return only_b(stage) | {stage.box: box}


def reboxed(stage: Stage) -> Services:
    services = boxed(stage)
    services[stage.box]["environment"] = {"ANOTHER": "one"}
    return services


def edited(stage: Stage) -> Services:
    services = pair(stage)
    services["a"]["environment"] = {"ANOTHER": "one"}
    return services


def unboxed(stage: Stage) -> Services:
    """What the box is elsewhere is a process here."""
    return only_b(stage) | {stage.box: witness.process(stage.world.witnesses.folder, stage.box)}


# -- what is done -----------------------------------------------------------------------------------------------------


def ready(stage: Stage) -> None:
    stage.until_ready()


def armed(stage: Stage) -> None:
    """Until the keeper has the standing orders of both services."""
    ready(stage)
    stage.until(lambda: stage.notes.passed().count("daemon.arm.done") >= 2, "both services are armed")


def crash(stage: Stage) -> None:
    """Kill ``a`` and wait for its next run."""
    births = stage.world.witnesses.births(stage.target)
    stage.world.crash(stage.target)
    stage.until(lambda: stage.world.witnesses.births(stage.target) > births, "the next run is born")
    ready(stage)


def by_the_keeper(stage: Stage) -> None:
    """A keeper that still sees something of the ended run leaves it to the daemon, which sweeps first."""
    if "keeper.armed.written" not in stage.notes.passed():
        raise OtherWay("the daemon answered the crash itself")


def stop(stage: Stage) -> None:
    with contextlib.suppress(ManagerError):  # the daemon may die of it: that is what is wanted
        stage.world.manager().stop(stage.target, by="a person", timeout_s=20)
    stage.look()


def start(stage: Stage) -> None:
    with contextlib.suppress(ManagerError):
        stage.world.manager().start(stage.target, by="a person", timeout_s=20)
    stage.look()


def restart(stage: Stage) -> None:
    with contextlib.suppress(ManagerError):
        stage.world.manager().restart(stage.target, by="a person", timeout_s=20)
    stage.look()


def end(stage: Stage) -> None:
    with contextlib.suppress(ManagerError):
        stage.world.manager().shutdown(by="a person")
    stage.until(lambda: stage.has_struck, "the daemon dies while it ends")


def keeper_dies(stage: Stage) -> None:
    stage.world.kill_keeper()


def wait_for_strike(stage: Stage) -> None:
    stage.until(lambda: stage.has_struck, "the point is reached")


def crash_alone(stage: Stage) -> None:
    """Kill ``a`` while no daemon lives; its keeper starts the next run, unless it dies of that."""
    births = stage.world.witnesses.births(stage.target)
    stage.world.crash(stage.target)
    with contextlib.suppress(Exception):
        stage.until(lambda: stage.world.witnesses.births(stage.target) > births, "the next run is born")
    time.sleep(0.05)  # the keeper may be in the middle of writing what it did


_A_TWICE: Final = {"a": TWICE, "b": ONCE}
_A_RESTARTED: Final = {"a": ONCE}

_LIST: Final = (
    Scenario("launch", "first start of two services", pair, (ready, wait_for_strike)),
    Scenario(
        "crash",
        "a crash, answered by the keeper",
        pair,
        (armed, crash, by_the_keeper, wait_for_strike),
        births=_A_TWICE,
        restarts=_A_RESTARTED,
        hold_s=CLAIM_S,
    ),
    Scenario(
        "slow",
        "a crash, answered by the daemon",
        slow_pair,
        (ready, crash, wait_for_strike),
        births=_A_TWICE,
        restarts=_A_RESTARTED,
    ),
    Scenario("stop", "a stop by hand", pair, (ready, stop, wait_for_strike), down=frozenset({"a"})),
    Scenario("start", "a stop and a start by hand", pair, (ready, stop, start, wait_for_strike), births=_A_TWICE),
    Scenario(
        "restart",
        "a restart by hand",
        pair,
        (ready, restart, wait_for_strike),
        births={"a": (1, 2), "b": ONCE},
        restarts={"a": (0, 1)},  # it was cut short: the next daemon starts what it finds ended
    ),
    Scenario(
        "end",
        "the orderly end of the daemon",
        pair,
        (ready, end),
        births={"a": (1, 2), "b": (1, 2)},
        restarts={"a": (0, 1), "b": (0, 1)},
    ),
    Scenario("adopt", "adoption from the keeper", pair, (ready, wait_for_strike), before=(ready,)),
    Scenario(
        "orphans",
        "adoption when both were killed",
        pair,
        (ready, wait_for_strike),
        before=(ready,),
        between=(keeper_dies,),
    ),
    Scenario(
        "missed",
        "a crash while no daemon lives, then adoption",
        pair,
        (ready, wait_for_strike),
        before=(armed,),
        between=(crash_alone,),
        births=_A_TWICE,
        restarts=_A_RESTARTED,
        hold_s=CLAIM_S,
    ),
    Scenario("lost", "the keeper is killed under a living daemon", pair, (ready, keeper_dies, wait_for_strike)),
    Scenario(
        "lost-crash",
        "the keeper is killed, then a service crashes",
        slow_pair,
        (ready, keeper_dies, crash, wait_for_strike),
        births=_A_TWICE,
        restarts={"a": (0, 1)},  # nobody else saw the end
    ),
    Scenario(
        "removed",
        "a service is no longer configured",
        pair,
        (ready, wait_for_strike),
        before=(ready,),
        later=only_b,
        down=frozenset({"a"}),
    ),
    Scenario(
        "edited",
        "a process's configuration has changed",
        pair,
        (ready, wait_for_strike),
        before=(ready,),
        later=edited,
        births=_A_TWICE,
        hold_s=CLAIM_S,
    ),
    Scenario("box", "first start of a container", boxed, (ready, wait_for_strike)),
    Scenario(
        "box-crash",
        "a container is killed",
        boxed,
        (ready, crash, wait_for_strike),
        births={"box": TWICE, "b": ONCE},
        restarts={"box": (0, 1)},
    ),
    Scenario(
        "box-stop", "a container is stopped by hand", boxed, (ready, stop, wait_for_strike), down=frozenset({"box"})
    ),
    Scenario("box-adopt", "adoption of a container", boxed, (ready, wait_for_strike), before=(ready,)),
    Scenario(
        "box-changed",
        "a container's configuration has changed",
        boxed,
        (ready, wait_for_strike),
        before=(ready,),
        later=reboxed,
        births={"box": TWICE, "b": ONCE},
        restarts={"box": (0, 1)},
    ),
    Scenario(
        "box-to-process",
        "a container is configured as a process",
        boxed,
        (ready, wait_for_strike),
        before=(ready,),
        later=unboxed,
        births={"box": TWICE, "b": ONCE},
    ),
    Scenario(
        "box-from-process",
        "a process is configured as a container",
        unboxed,
        (ready, wait_for_strike),
        before=(ready,),
        later=boxed,
        births={"box": TWICE, "b": ONCE},
        hold_s=CLAIM_S,
    ),
    Scenario(
        "box-removed",
        "a container is no longer configured",
        boxed,
        (ready, wait_for_strike),
        before=(ready,),
        later=only_b,
        down=frozenset({"box"}),
    ),
)
SCENARIOS: Final = {one.name: one for one in _LIST}

ROUTES: Final[dict[str, tuple[str, ...]]] = {
    "daemon.lock.taken": ("launch", "adopt"),
    "daemon.keeper.bound": ("launch", "orphans"),
    "daemon.keeper.bound:2": ("lost",),
    "daemon.keeper.started": ("launch", "orphans"),
    "daemon.keeper.started:2": ("lost",),
    "daemon.keeper.welcomed": ("launch", "adopt"),
    "daemon.keeper.welcomed:2": ("lost",),
    "daemon.keeper.lost": ("lost", "lost-crash"),
    "daemon.launch.wanted": ("launch",),
    "daemon.launch.wanted:3": ("slow", "start"),
    "daemon.launch.intent": ("launch",),
    "daemon.launch.intent:3": ("slow", "start", "lost-crash"),
    "daemon.spawn.asked": ("launch",),
    "daemon.spawn.asked:3": ("slow", "start", "lost-crash"),
    "daemon.spawn.answered": ("launch",),
    "daemon.spawn.answered:3": ("slow", "start"),
    "daemon.launch.spawned": ("launch",),
    "daemon.launch.spawned:3": ("slow", "start", "lost-crash"),
    "daemon.launch.watched": ("launch",),
    "daemon.launch.watched:3": ("slow", "start"),
    "daemon.launch.recorded": ("launch",),
    "daemon.launch.recorded:3": ("slow", "start"),
    "daemon.adopt.wanted": ("adopt", "orphans", "missed"),
    "daemon.adopt.kept": ("adopt", "missed"),
    "daemon.adopt.checked": ("orphans",),
    "daemon.adopt.entered": ("adopt", "orphans", "missed"),
    "daemon.adopt.done": ("adopt", "orphans", "missed"),
    "daemon.missed.counted": ("missed",),
    "daemon.arm.wanted": ("launch", "adopt"),
    "daemon.arm.done": ("launch", "adopt"),
    "daemon.end.seen": ("crash", "slow", "stop", "lost-crash"),
    "daemon.end.recorded": ("crash", "slow", "stop", "lost-crash"),
    "daemon.end.successor": ("crash",),
    "daemon.end.told": ("crash", "slow", "stop", "lost-crash"),
    "daemon.end.forgotten": ("crash", "slow", "stop"),
    "daemon.restart.counted": ("crash", "slow"),
    "daemon.stop.wanted": ("stop", "restart", "end", "edited", "box-from-process"),
    "daemon.stop.signalled": ("stop", "restart", "end", "edited", "box-from-process"),
    "daemon.stop.ended": ("stop", "restart", "end", "edited", "box-from-process"),
    "daemon.stop.swept": ("stop", "restart", "end", "edited", "box-from-process"),
    "daemon.stop.done": ("stop", "restart", "end", "edited", "box-from-process"),
    "daemon.wish.stop": ("stop",),
    "daemon.wish.start": ("start",),
    "daemon.former.found": ("edited", "box-to-process", "box-from-process", "box-changed"),
    "daemon.former.ended": ("edited", "box-to-process", "box-from-process", "box-changed"),
    "daemon.clear.wanted": ("removed", "box-removed"),
    "daemon.clear.done": ("removed", "box-removed"),
    "daemon.clear.forgotten": ("removed", "box-removed"),
    "daemon.leave.said": ("end",),
    "daemon.ledger.append": ("launch",),
    "daemon.ledger.append:2": ("launch",),
    "daemon.ledger.append:3": ("launch",),
    "daemon.ledger.append:4": ("launch",),
    "daemon.ledger.appended": ("launch",),
    "daemon.ledger.appended:2": ("launch",),
    "daemon.ledger.appended:3": ("launch",),
    "daemon.ledger.appended:4": ("launch",),
    "daemon.ledger.compact.written": ("adopt", "orphans", "missed"),
    "daemon.ledger.compact.replaced": ("adopt", "orphans", "missed"),
    "daemon.journal.commit": ("launch", "adopt"),
    "daemon.journal.committed": ("launch", "adopt"),
    "daemon.instance.written": ("box",),
    "daemon.container.create": ("box", "box-from-process"),
    "daemon.container.created": ("box",),
    "daemon.container.intent": ("box", "box-from-process"),
    "daemon.container.started": ("box",),
    "daemon.container.recorded": ("box", "box-adopt"),
    "daemon.container.found": ("box-adopt",),
    "daemon.container.stop": ("box-stop",),
    "daemon.container.stopped": ("box-stop",),
    "daemon.container.end.seen": ("box-crash", "box-stop"),
    "daemon.container.end.told": ("box-crash", "box-stop"),
    "daemon.container.end.recorded": ("box-crash", "box-stop"),
    "daemon.container.old.stopped": ("box-changed", "box-removed", "box-to-process"),
    "daemon.container.old.removed": ("box-changed", "box-removed", "box-to-process"),
    "keeper.hello.taken": ("launch",),
    "keeper.hello.taken:2": ("adopt", "missed"),
    "keeper.spawn.wanted": ("launch",),
    "keeper.spawn.wanted:3": ("slow", "start"),
    "keeper.spawned": ("launch",),
    "keeper.spawned:3": ("slow", "start"),
    "keeper.end.seen": ("crash", "slow", "stop", "missed"),
    "keeper.end.reaped": ("crash", "slow", "stop", "missed"),
    "keeper.armed.written": ("crash", "missed"),
    "keeper.armed.spawned": ("crash", "missed"),
    "keeper.armed.recorded": ("crash", "missed"),
    "keeper.told": ("crash", "slow", "stop"),
    "keeper.arm.taken": ("launch",),
    "keeper.claimed": ("launch",),
    "keeper.claimed:3": ("adopt", "missed"),
    "keeper.signalled": ("stop", "restart"),
    "keeper.forgotten": ("crash", "slow"),
}
"""The scenarios that lead through each place (``NAME`` or ``NAME:NTH``). The first is the quickest."""
