"""One row of the matrix: a death (or two, or three), a new daemon, and what was right or wrong afterwards."""

from __future__ import annotations

import contextlib
import enum
import threading
import time
import traceback
from dataclasses import dataclass, replace

from tests.crash.scenarios import ONCE, SCENARIOS, Scenario
from tests.crash.stage import Stage, Struck
from tests.crash.world import OtherWay, Unlike, World

STRIKE_S = 60.0
OK = "ok"
NOT_REACHED = "not reached"
NOT_AGAIN = "ok, not passed again"
"""The second place of a pair was passed by the recovery when it was listed, and not this time; all else was right."""


TRIES = 3
UNSEEN = {("keeper.end.seen", "missed"), ("keeper.end.reaped", "missed")}
"""The keeper dies of the very end that no daemon was there to see."""


class Who(enum.Enum):
    """Who dies at the place: the process that passes it, or the daemon and its keeper at the same time."""

    ALONE = "alone"
    BOTH = "both"


@dataclass(frozen=True)
class Row:
    point: str
    scenario: str
    who: Who = Who.ALONE
    second: str | None = None
    is_warm: bool = True

    @property
    def is_keepers(self) -> bool:
        return self.point.startswith("keeper.")

    def as_cold(self) -> Row:
        return replace(self, is_warm=False)

    def __str__(self) -> str:
        then = f" then {self.second}" if self.second else ""
        return f"{self.point} @{self.scenario} ({self.who.value}){then}"


@dataclass(frozen=True)
class Outcome:
    """``passed``: the places that the daemon after the first death (and its keeper) went through."""

    row: Row
    result: str
    took_s: float
    detail: str = ""
    passed: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        return self.result in (OK, NOT_AGAIN)


def run_row(row: Row) -> Outcome:
    """Play it in a world of its own. Never raises: what goes wrong here is a wrong outcome too."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(OtherWay):
            return _outcome(row)
    try:
        return _outcome(row)
    except OtherWay as other:
        return Outcome(row, f"{other}, {TRIES} times", 0.0)


def _outcome(row: Row) -> Outcome:
    """Raises OtherWay."""
    began = time.monotonic()
    passed: tuple[str, ...] = ()
    try:
        with World(is_warm=row.is_warm) as world:
            try:
                passed, result = _play(row, world)
            except Unlike as unlike:
                twins = world.witnesses.twins()
                if isinstance(unlike, OtherWay) and not twins:
                    raise
                found = [f"twins of {name}" for name in twins] + [str(unlike)]
                text = "; ".join(dict.fromkeys(found)).replace(world.tag, "")
                return Outcome(row, text, time.monotonic() - began, _evidence(world))
            detail = "" if result in (OK, NOT_AGAIN) else _evidence(world)
    except OtherWay:
        raise
    except Exception as error:
        return Outcome(row, f"broke: {type(error).__name__}", time.monotonic() - began, traceback.format_exc())
    return Outcome(row, result, time.monotonic() - began, detail, passed)


def _evidence(world: World) -> str:
    """What the daemons said and wrote, for the one who looks into it."""
    paths = (world.log, world.state / "ledger.jsonl", world.state / "keeper.log")
    texts = [f"--- {one.name}\n{one.read_text(errors='replace')[-6000:]}" for one in paths if one.exists()]
    births = {path.name: path.read_text().split() for path in sorted(world.witnesses.folder.iterdir())}
    passes = {path.parent.name: path.read_text().split() for path in sorted(world.folder.glob("*/passed"))}
    return "\n".join([f"--- witnesses {births}", f"--- passed {passes}", *texts])


def _play(row: Row, world: World) -> tuple[tuple[str, ...], str]:
    scenario = SCENARIOS[row.scenario]
    stage = _stage(row, scenario, world)
    _earlier(row, scenario, stage)
    if not _first_death(row, scenario, stage):
        return (), NOT_REACHED
    _aim(stage, scenario)
    if row.is_keepers and row.who is Who.ALONE and stage.daemon is not None:
        _judge(stage, scenario)  # under the daemon that lost its keeper
        stage.daemon.kill()
    if row.second is not None:
        return (), _second_death(row, scenario, stage)
    _recover(stage, "recovery")
    _judge(stage, scenario)
    return tuple(dict.fromkeys(world.notes("recovery").passed())), OK


def _stage(row: Row, scenario: Scenario, world: World) -> Stage:
    # Otherwise nobody who saw the end may be left:
    is_counted = row.who is Who.ALONE and row.second is None and (row.point, row.scenario) not in UNSEEN
    stage = Stage(world, point=row.point, is_counted=is_counted)
    if row.scenario.startswith("box"):
        stage.target = stage.box
    services = scenario.services(stage)
    world.configure(services)
    stage.wanted = dict.fromkeys(services, 1)
    return stage


def _earlier(row: Row, scenario: Scenario, stage: Stage) -> None:
    """What happens before the armed daemon comes. A keeper may meet its death here already."""
    world = stage.world
    stage.notes = world.notes("armed")
    if scenario.before is None:
        return
    stage.daemon = world.start(keeper_point=row.point if row.is_keepers else None, notes="armed")
    try:
        for step in scenario.before:
            step(stage)
    except Struck:
        raise Unlike(f"{row.point} was reached too early") from None
    stage.daemon.kill()
    stage.daemon = None
    try:
        for step in scenario.between:
            step(stage)
    except Struck:
        return
    finally:
        if scenario.later is not None:
            world.configure(scenario.later(stage))


def _first_death(row: Row, scenario: Scenario, stage: Stage) -> bool:
    """The armed daemon acts until the place is reached; False when it never is."""
    world = stage.world
    if stage.has_struck:
        return True  # the keeper died alone, before
    if scenario.before is not None:
        _aim(stage, scenario)
        if scenario.later is None:
            stage.wanted = dict.fromkeys(stage.wanted, 1)
    stage.daemon = world.start(
        daemon_point=None if row.is_keepers else row.point,
        keeper_point=row.point if row.is_keepers else None,
        notes="armed",
    )
    other = _OtherDies(row, stage) if row.who is Who.BOTH else None
    try:
        for step in scenario.act:
            step(stage)
    except Struck:
        pass
    except Unlike:
        if not _strikes_soon(stage):
            raise
    finally:
        if other is not None:
            other.join()
    if not _strikes_soon(stage):
        return False
    if row.is_keepers and row.who is Who.ALONE:
        return True
    code = stage.daemon.wait(STRIKE_S)
    if code != -9:
        raise Unlike(f"the daemon ended with {code}, not by the kill")
    return True


def _strikes_soon(stage: Stage) -> bool:
    deadline = time.monotonic() + 1.0
    while not stage.has_struck and time.monotonic() < deadline:
        time.sleep(0.01)
    return stage.has_struck


class _OtherDies:
    """Kills the other one of daemon and keeper as soon as the first has met its death."""

    def __init__(self, row: Row, stage: Stage) -> None:
        self._row, self._stage = row, stage
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def join(self) -> None:
        self._over.set()
        self._thread.join()

    def _has_struck(self) -> bool:
        return self._stage.has_struck

    def _watch(self) -> None:
        while not self._over.wait(0.002) and not self._has_struck():
            pass
        if not self._has_struck():
            return
        if not self._row.is_keepers:
            self._stage.world.kill_keeper()
        elif self._stage.daemon is not None:
            self._stage.daemon.kill()


def _second_death(row: Row, scenario: Scenario, stage: Stage) -> str:
    """A second daemon recovers, and dies (or its keeper does) at ``row.second``; then a third must be right."""
    stage.notes, stage.point = stage.world.notes("second"), row.second
    stage.daemon = stage.world.start(daemon_point=row.second, keeper_point=row.second, notes="second")
    with contextlib.suppress(Struck):
        _judge(stage, scenario, is_last=False)
    has_struck = stage.has_struck
    stage.daemon.kill()
    _recover(stage, "third")
    _judge(stage, scenario)
    return OK if has_struck else NOT_AGAIN


def _aim(stage: Stage, scenario: Scenario) -> None:
    """From now on this is what is wanted."""
    down = {stage.target if name == "box" else name for name in scenario.down}
    stage.wanted = {name: int(name not in down) for name in stage.wanted}


def _recover(stage: Stage, notes: str) -> None:
    stage.point = None
    stage.notes = stage.world.notes(notes)
    stage.daemon = stage.world.start(notes=notes)


def _judge(stage: Stage, scenario: Scenario, *, is_last: bool = True) -> None:
    """Raises Unlike with what is wrong, Struck when the place of a pair is reached meanwhile."""
    is_over = stage.point is not None and stage.has_struck and is_last
    if is_over:
        stage.point = None  # struck before: it is no news
    stage.until_right()
    deadline = time.monotonic() + scenario.hold_s
    while time.monotonic() < deadline:
        time.sleep(0.05)
        stage.look()
        if wrong := stage.differences():
            raise Unlike(f"right at first, then {wrong[0]}")
    _judge_witnesses(stage, scenario)


def _judge_witnesses(stage: Stage, scenario: Scenario) -> None:
    seen = stage.world.witnesses
    if twins := seen.twins():
        raise Unlike(f"twins of {', '.join(twins)}")
    nodes = stage.world.nodes()
    for name in stage.wanted:
        role = "box" if name == stage.box else name
        low, high = scenario.births.get(role, ONCE)
        if not low <= (born := seen.births(name)) <= high:
            raise Unlike(f"{name} was born {born} times, not {low if low == high else f'{low} to {high}'}")
        node = nodes.get(name)
        if node is None:
            continue
        least, most = scenario.restarts.get(role, (0, 0))
        least = least if stage.is_counted else 0
        if not least <= node["restarts"] <= most:
            raise Unlike(f"{name}: {node['restarts']} restarts counted, not {least} to {most}")
        if stage.wanted[name] and not role.startswith("box"):
            (one,) = stage.world.processes(name)
            if node.get("pid") != one.pid:
                raise Unlike(f"the daemon shows pid {node.get('pid')} for {name}, not {one.pid}")
    if (stage.world.state / "ledger.jsonl.corrupt").exists():
        raise Unlike("the ledger was damaged")
