"""Drives the supervisor's judgement in virtual time with children that misbehave, and checks what must always hold.

Late and duplicate messages of older incarnations are delivered all along.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from actors.messages import ChildExited, ChildIgnored, ChildReady, ChildStarted, ChildStartFailed, StopMode
from actors.spec import (
    BRUTAL_KILL,
    INFINITY,
    NORMAL,
    SHUTDOWN,
    Backoff,
    ChildSpec,
    ExitKind,
    ExitReason,
    OnExhausted,
    Origin,
    Pacing,
    Restart,
    Shutdown,
    WaitFor,
)
from supervisors.decisions import step as judgement
from supervisors.decisions.edits import HELD
from supervisors.decisions.model import (
    Answer,
    Ask,
    AutoShutdown,
    Boot,
    Call,
    ExitSelf,
    Flags,
    Forget,
    KillActor,
    Mode,
    Phase,
    Report,
    Requeue,
    Respec,
    SelfStarted,
    SelfStartFailed,
    StartActor,
    StopActor,
    StopRequested,
    Strategy,
    SupervisorState,
    TryAgain,
    WakeAt,
    Woke,
)

MAX_EVENTS = 4000
SHUTDOWNS: list[Shutdown] = [1.0, 0.5, INFINITY, BRUTAL_KILL]


class Violated(AssertionError):
    """Something that must always hold did not."""


@dataclass
class Run:
    """One run of a child in the simulated world."""

    id: str
    incarnation: int
    is_up: bool = False
    is_stopping: bool = False
    is_abandoned: bool = False


@dataclass
class World:
    """The supervisor under test, its children, and the queue of what happens next."""

    random: Random
    state: SupervisorState
    now: float = 100.0
    live: dict[str, Run] = field(default_factory=dict)
    queue: list[tuple[float, int, object]] = field(default_factory=list)
    count: Any = field(default_factory=itertools.count)
    unanswered: set[int] = field(default_factory=set)
    past: list[object] = field(default_factory=list)
    ends: list[object] = field(default_factory=list)
    wakes: set[float] = field(default_factory=set)
    is_calm: bool = False
    stop_order: list[str] = field(default_factory=list)
    look: Callable[[SupervisorState, float], None] | None = None

    # -- time -----------------------------------------------------------------------------------------------------

    def at(self, delay_s: float, event: object) -> None:
        heapq.heappush(self.queue, (self.now + delay_s, next(self.count), event))

    def run(self) -> None:
        for _ in range(MAX_EVENTS):
            if not self.queue:
                return
            self.now, _, event = heapq.heappop(self.queue)
            if callable(event):
                event()
            else:
                self.take(event)
        raise Violated(f"not quiet after {MAX_EVENTS} events")

    # -- the supervisor ---------------------------------------------------------------------------------------------

    def take(self, event: object) -> None:
        if isinstance(event, (ChildStarted, ChildExited, ChildReady, ChildStartFailed, ChildIgnored)):
            self.past.append(event)
        before = self.state
        self.state, effects = judgement.step(before, event, self.now, self.random.random())  # type: ignore[arg-type]
        for effect in effects:
            self._act(effect, before)
        self._check()
        if self.look is not None:
            self.look(self.state, self.now)
        if not self.is_calm and self.past and self.random.random() < 0.2:  # late and duplicate messages
            self.at(self.random.random(), self.random.choice(self.past))

    def _act(self, effect: object, before: SupervisorState) -> None:
        match effect:
            case StartActor(spec, incarnation):
                self._start(spec, incarnation, before)
            case StopActor(child_id, incarnation):
                self._stop(child_id, incarnation)
            case KillActor(child_id, incarnation):
                self._kill(child_id, incarnation, before)
            case WakeAt(at_s):
                if at_s not in self.wakes:
                    self.wakes.add(at_s)
                    self.at(max(0.0, at_s - self.now), Woke())
            case Requeue(child_id):
                self.at(0.0, TryAgain(child_id))
            case Answer(number):
                if number not in self.unanswered:
                    raise Violated(f"call {number} answered twice, or never asked")
                self.unanswered.discard(number)
            case ExitSelf() | SelfStartFailed():
                self.ends.append(effect)
                if self.live:
                    raise Violated(f"ended while {sorted(self.live)} live")
            case Respec(spec, incarnation):
                run = self.live.get(spec.id)
                if run is not None and run.incarnation != incarnation:
                    raise Violated(f"{spec.id}#{incarnation} is told its new spec; #{run.incarnation} lives")
            case SelfStarted() | Report() | Forget():
                pass
            case unknown:
                raise Violated(f"unknown effect {unknown}")

    def _start(self, spec: ChildSpec, incarnation: int, before: SupervisorState) -> None:
        if spec.id in self.live:
            raise Violated(f"two live runs of {spec.id}")
        if self.state.mode in (Mode.HALTING, Mode.DONE) or before.mode is Mode.DONE:
            raise Violated(f"{spec.id} started while halting")
        if self.state.children[spec.id].held:
            raise Violated(f"{spec.id} is held and was started")
        self._check_gate(spec.id)
        run = self.live[spec.id] = Run(spec.id, incarnation)
        self.at(self.random.choice([0.0, 0.0, 0.5]), lambda: self._started(run))

    def _check_gate(self, child_id: str) -> None:
        """In a group the next starts only when those before it are as far as they must be."""
        is_by_call = self.state.children[child_id].is_new or child_id in self.state.callers
        if not self.state.flags.strategy.is_group or is_by_call:
            return
        for other in self.state.children.values():
            if other.spec.id == child_id:
                return
            if other.wanted and other.phase is not Phase.UP:
                raise Violated(f"{child_id} started before {other.spec.id} ({other.phase.value})")
            if other.wanted and other.spec.wait_for is WaitFor.READY and not other.is_ready:
                raise Violated(f"{child_id} started before {other.spec.id} was ready")

    def _kill(self, child_id: str, incarnation: int, before: SupervisorState) -> None:
        run = self.live.get(child_id)
        if run is not None and run.incarnation == incarnation:
            run.is_abandoned = True
            del self.live[child_id]
            return
        if not _has_died(before, child_id, incarnation):
            raise Violated(f"killed {child_id}#{incarnation}, which does not live")

    # -- the children -----------------------------------------------------------------------------------------------

    def _started(self, run: Run) -> None:
        if run.is_abandoned:
            return
        roll = 1.0 if self.is_calm else self.random.random()
        if roll < 0.12:
            self._gone(run)
            self.take(ChildStartFailed(run.id, run.incarnation, ExitReason(ExitKind.START_FAILED, "boom")))
        elif roll < 0.16:
            self._gone(run)
            self.take(ChildIgnored(run.id, run.incarnation))
        else:
            run.is_up = True
            self.take(ChildStarted(run.id, run.incarnation))
            if self.is_calm or self.random.random() < 0.8:
                self.at(self.random.random(), lambda: self._ready(run))
            if not self.is_calm and self.random.random() < 0.6:
                self.at(self.random.random() * 8, lambda: self._die(run))

    def _ready(self, run: Run) -> None:
        if run.is_up and self.live.get(run.id) is run:
            self.take(ChildReady(run.id, run.incarnation))

    def _die(self, run: Run) -> None:
        if self.live.get(run.id) is run and not self.is_calm:
            reason = self.random.choice(
                [NORMAL, SHUTDOWN, ExitReason.crashed("ours"), ExitReason.crashed("world", origin=Origin.WORLD)]
            )
            self._gone(run)
            self.take(ChildExited(run.id, run.incarnation, reason))

    def _stop(self, child_id: str, incarnation: int) -> None:
        run = self.live.get(child_id)
        if run is None or run.incarnation != incarnation:
            return  # it died by itself; its notice is on its way
        if run.is_stopping:
            raise Violated(f"{child_id} was asked to stop twice")
        run.is_stopping = True
        if self.state.flags.strategy is not Strategy.SIMPLE_ONE_FOR_ONE:
            self._check_newest_first(child_id)
        limit = self.state.children[child_id].spec.shutdown_or_default
        if limit is not INFINITY and self.random.random() < 0.15:
            return  # it never stops: the deadline must
        self.at(self.random.random() * 2, lambda: self._stopped(run))

    def _check_newest_first(self, child_id: str) -> None:
        """Whoever is newer and must go too has gone already."""
        children = list(self.state.children.values())
        index = next(number for number, child in enumerate(children) if child.spec.id == child_id)
        halting = self.state.mode is Mode.HALTING
        for newer in children[index + 1 :]:
            both_go = halting or (newer.recycle and children[index].recycle)
            if both_go and newer.spec.id in self.live and child_id in self.live:
                raise Violated(f"{child_id} stopped before {newer.spec.id}")

    def _stopped(self, run: Run) -> None:
        if self.live.get(run.id) is run:
            self._gone(run)
            self.take(ChildExited(run.id, run.incarnation, SHUTDOWN))

    def _gone(self, run: Run) -> None:
        if self.live.get(run.id) is run:
            del self.live[run.id]

    # -- what must always hold --------------------------------------------------------------------------------------

    def _check(self) -> None:
        if len(self.ends) > 1:
            raise Violated(f"ended {len(self.ends)} times")
        if self.ends and self.state.mode is not Mode.DONE:
            raise Violated("ended and not done")
        window = [at for at in self.state.restarts if self.now - at <= self.state.flags.period_s]
        if len(window) > self.state.flags.intensity and self.state.mode is Mode.RUNNING:
            raise Violated("more restarts than the intensity, and still running")
        for child in self.state.children.values():
            if child.phase in (Phase.UP, Phase.STARTING, Phase.STOPPING) and child.phase is Phase.UP:
                continue
            if child.phase in (Phase.DOWN, Phase.RESTARTING, Phase.PARKED) and child.spec.id in self.live:
                run = self.live[child.spec.id]
                if run.incarnation == child.incarnation and run.is_up:
                    raise Violated(f"{child.spec.id} lives and is believed down")

    def check_quiet(self) -> None:
        """Nothing is under way any more: everything wanted is up, or waits for a moment that was asked for."""
        if self.unanswered:
            raise Violated(f"never answered: {sorted(self.unanswered)}")
        if self.state.mode is Mode.DONE:
            if not self.ends:
                raise Violated("done without an end")
            return
        if self.state.mode is not Mode.RUNNING:
            raise Violated(f"quiet in mode {self.state.mode.value}")
        is_blocked = False
        for child in self.state.children.values():
            if not child.wanted:
                continue
            if child.phase is Phase.UP:
                is_blocked = is_blocked or (
                    self.state.flags.strategy.is_group and child.spec.wait_for is WaitFor.READY and not child.is_ready
                )
                continue
            waits = child.not_before is not None and child.not_before in self.wakes
            if not is_blocked and not waits:
                raise Violated(f"{child.spec.id} is wanted and {child.phase.value}")
            is_blocked = is_blocked or self.state.flags.strategy.is_group


def _has_died(state: SupervisorState, child_id: str, incarnation: int) -> bool:
    return any(
        isinstance(one, ChildExited) and (one.id, one.incarnation) == (child_id, incarnation) for one in state.deferred
    )


def random_world(random: Random) -> World:
    strategy = random.choice([Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
    auto = random.choice([AutoShutdown.NEVER, AutoShutdown.NEVER, *AutoShutdown])
    is_dynamic = random.random() < 0.15
    specs = [random_spec(random, f"c{number}", auto) for number in range(random.randint(1, 5))]
    held = frozenset(spec.id for spec in specs if random.random() < 0.08)
    flags = Flags(
        Strategy.SIMPLE_ONE_FOR_ONE if is_dynamic else strategy,
        random.choice([0, 1, 3, 10]),
        random.choice([1.0, 5.0]),
        auto,
        held=held,
    )
    return World(random, judgement.initial(flags, () if is_dynamic else specs))


def random_spec(random: Random, name: str, auto: AutoShutdown) -> ChildSpec:
    restart = random.choice(list(Restart))
    pacing = Pacing(
        Backoff(random.choice([0.0, 0.3]), 0.2, 2.0, 2.0, random.random() < 0.5, 3.0),
        random.choice([0, 1, 3]),
        10.0,
        random.choice([OnExhausted.PARK, OnExhausted.PARK, OnExhausted.ESCALATE]),
    )
    return ChildSpec(
        id=name,
        start=object,
        restart=restart,
        shutdown=random.choice(SHUTDOWNS),
        significant=auto is not AutoShutdown.NEVER and restart is not Restart.PERMANENT and random.random() < 0.3,
        wait_for=random.choice(list(WaitFor)),
        pacing=random.choice([None, pacing]),
    )


def random_calls(world: World, how_many: int) -> None:
    """Run-time calls at random moments, also about children that are not there."""
    asks: list[Callable[[int], Call]] = [
        lambda n: Call(n, Ask.WHICH),
        lambda n: Call(n, Ask.COUNT),
        lambda n: Call(n, Ask.TERMINATE, _some(world)),
        lambda n: Call(n, Ask.HOLD, _some(world)),
        lambda n: Call(n, Ask.RESTART, _some(world)),
        lambda n: Call(n, Ask.DELETE, _some(world)),
        lambda n: Call(n, Ask.GET_SPEC, _some(world)),
        lambda n: Call(n, Ask.START, spec=random_spec(world.random, _some(world), AutoShutdown.NEVER)),
        lambda n: Call(n, Ask.START, spec=random_spec(world.random, f"n{n}", AutoShutdown.NEVER)),
        lambda n: Call(n, Ask.REPLACE, spec=random_spec(world.random, _some(world), AutoShutdown.NEVER)),
        lambda n: Call(n, Ask.TAKE_OUT, _some(world)),
        lambda n: Call(n, Ask.INSERT, spec=random_spec(world.random, f"n{n}", AutoShutdown.NEVER), args=_load(world)),
        lambda n: Call(n, Ask.ARRANGE, spec=_flags(world), args=tuple(reversed(tuple(world.state.children)))),
    ]

    def ask(number: int) -> None:
        world.unanswered.add(number)
        world.take(world.random.choice(asks)(number))

    for number in range(how_many):
        world.at(world.random.random() * 12, lambda n=number: ask(n))


def _load(world: World) -> tuple[object, ...]:
    """What a child comes with: nothing, the wish not to be started, or the record it had elsewhere."""
    records = [replace(child, is_moving=True) for child in world.state.children.values()]
    return world.random.choice([(), (HELD,), *[(record,) for record in records]])


def _flags(world: World) -> Flags | None:
    """Other flags for a static supervisor; None: only another order."""
    flags = world.state.flags
    strategy = world.random.choice([Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE])
    is_static = flags.strategy is not Strategy.SIMPLE_ONE_FOR_ONE and world.random.random() < 0.7
    return replace(flags, strategy=strategy, intensity=flags.intensity + 2) if is_static else None


def _some(world: World) -> str:
    return world.random.choice([*world.state.children, "nobody"])


def simulate(seed: int, look: Callable[[SupervisorState, float], None] | None = None) -> World:
    """One life: a stormy time, maybe a stop, then a calm in which everything must come to rest. Raises Violated.

    Args:
        look: called with the state and the clock after each event.
    """
    random = Random(seed)
    world = random_world(random)
    world.look = look
    world.at(0.0, Boot())
    random_calls(world, random.randint(0, 8))
    if random.random() < 0.5:
        world.at(random.random() * 15, StopRequested(SHUTDOWN, random.choice(list(StopMode))))

    def calm() -> None:
        world.is_calm = True

    world.at(20.0, calm)
    world.run()
    world.check_quiet()
    return world
