"""A world and a journal in virtual time, and a daemon that is killed at chosen moments.

The world is not transactional with the journal: a call may have been applied although nobody was told. Whatever the
engine does is checked against the rules while it does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runbooks import engine
from runbooks.engine_words import (
    Answer,
    CallDone,
    CheckDone,
    Effect,
    Event,
    Fence,
    Fenced,
    Finish,
    Kind,
    Record,
    Recorded,
    RunCall,
    RunCheck,
    SnapshotTaken,
    State,
    TakeSnapshot,
    WakeAt,
    Woke,
    WriteRecord,
)
from runbooks.model import Action, Call, CallType, Check, Retry, Rollback, Status, Trouble
from runbooks.model import Effect as ActionEffect
from runbooks.plan import Plan

MAX_EFFECTS = 2000
OUTAGE_S = 0.01


def call(*words: str) -> Call:
    return Call(CallType.COMMAND, {"argv": words})


def check(*words: str, within_s: float = 2.0, hold_for_s: float = 0.0) -> Check:
    return Check(Call(CallType.COMMAND_OK, {"argv": words}), within_s, 0.5, hold_for_s)


def mutating(name: str, *, attempts: int = 1, undo_attempts: int = 1, irreversible: bool = False) -> Action:
    return Action(
        name,
        name,
        ActionEffect.IRREVERSIBLE if irreversible else ActionEffect.MUTATING,
        call("do", name),
        probe=check("probe", name),
        verify=check("verify", name),
        rollback=None if irreversible else Rollback(call("undo", name), check("undone", name), undo_attempts),
        retry=Retry(attempts, 0.1),
        irreversible_reason="it cannot be taken back" if irreversible else None,
    )


def plan(
    *actions: Action,
    preconditions: tuple[Check, ...] = (),
    max_execution_s: float = 1e6,
    rollback_on_failure: bool = True,
) -> Plan:
    criteria = (check("criterion", "all", hold_for_s=1.0),)
    return Plan("r", "t", actions, criteria, preconditions, max_execution_s, rollback_on_failure)


@dataclass
class World:
    """What is really applied. Faults are named by action: ``refuses`` never applies, ``lies`` applies and says it
    failed, ``unwell`` is applied and never verifies, ``stuck`` cannot be undone, ``hidden`` cannot be probed,
    ``halves`` stops in the middle and says it failed, ``torn`` stops there when the daemon dies in its call, and
    ``proving`` can be probed for whether any of it is there.
    """

    refuses: frozenset[str] = frozenset()
    lies: frozenset[str] = frozenset()
    unwell: frozenset[str] = frozenset()
    stuck: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    halves: frozenset[str] = frozenset()
    torn: frozenset[str] = frozenset()
    proving: frozenset[str] = frozenset()
    is_pleased: bool = True
    results: Mapping[str, Any] = field(default_factory=dict)
    """What each call gives back."""
    troubles: Mapping[str, Trouble] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    half: list[str] = field(default_factory=list)
    """Begun, and neither there nor away."""
    asked: list[tuple[str, ...]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    """What was begun at least, in that order."""
    undone: list[str] = field(default_factory=list)

    def make(self, words: tuple[str, ...]) -> tuple[bool, str]:
        what, name, *_ = words
        self.asked.append(words)
        if what == "do":
            if name in self.refuses:
                return False, "refused"
            assert name not in self.applied, f"{name} applied twice"
            if name in self.halves:
                self.halve(name)
                return False, "stopped in the middle"
            if name in self.half:
                self.half.remove(name)
            else:
                self.done.append(name)
            self.applied.append(name)
            return name not in self.lies, "" if name not in self.lies else "said it failed"
        assert what == "undo"
        if name in self.stuck:
            return False, "stuck"
        for there in (self.applied, self.half):
            if name in there:
                there.remove(name)
                self.undone.append(name)
        return True, ""

    def halve(self, name: str) -> None:
        if name not in self.half:
            self.half.append(name)
            self.done.append(name)

    def tear(self, words: tuple[str, ...]) -> None:
        """The daemon dies in this call."""
        what, name, *_ = words
        if what == "do" and name in self.torn - self.refuses and name not in self.applied:
            self.halve(name)

    def is_untouched(self, words: tuple[str, ...]) -> bool:
        what, name, *_ = words
        return what == "probe" and name in self.proving and name not in (*self.applied, *self.half)

    def look(self, words: tuple[str, ...]) -> Answer:
        what, name, *_ = words
        match what:
            case "probe" if name in self.hidden:
                return Answer.UNKNOWN
            case "probe":
                is_so = name in self.applied
            case "verify":
                is_so = name in self.applied and name not in self.unwell
            case "undone":
                is_so = name not in (*self.applied, *self.half)
            case _:
                is_so = self.is_pleased
        return Answer.YES if is_so else Answer.NO


@dataclass
class Daemon:
    """Carries a plan out. It is killed around the effects whose numbers are in ``before`` and ``after``."""

    plan: Plan
    world: World
    before: frozenset[int] = frozenset()
    after: frozenset[int] = frozenset()
    records: list[Record] = field(default_factory=list)
    now: float = 0.0
    effects: int = 0
    crashes: int = 0
    seen: list[Effect] = field(default_factory=list)

    def run(self) -> Finish:
        step = engine.start(self.plan, self.now)
        while True:
            state, effects = step
            assert len(effects) == 1, effects
            (effect,) = effects
            if isinstance(effect, Finish) and self.effects not in self.before:
                return effect
            step = self._resumed() if (event := self._try(effect)) is None else self._told(state, event)

    def _try(self, effect: Effect) -> Event | None:
        """The answer to the effect; None when the daemon died before or after it."""
        number, self.effects = self.effects, self.effects + 1
        assert number < MAX_EFFECTS, "it does not end"
        if number in self.before:
            if isinstance(effect, RunCall):
                self.world.tear(effect.call.arguments["argv"])
            return None
        event = self._act(effect)
        self.seen.append(effect)
        return None if number in self.after else event

    def _told(self, state: State, event: Event) -> engine.Step:
        """Late and repeated answers change nothing."""
        step = engine.step(state, event, self.now)
        again, nothing = engine.step(step[0], event, self.now)
        assert (again, nothing) == (step[0], ())
        return step

    def _resumed(self) -> engine.Step:
        self.crashes += 1
        self.now += OUTAGE_S
        return engine.resume(self.plan, self.records, self.now, self.now)

    def _act(self, effect: Effect) -> Event:
        match effect:
            case WriteRecord(ticket, record):
                self.records.append(record)
                return Recorded(ticket)
            case RunCall(ticket, made, _):
                words = made.arguments["argv"]
                self._has_intent(words)
                ok, error = self.world.make(words)
                name = words[1]
                result = self.world.results.get(name) if ok else None
                trouble = self.world.troubles.get(name, Trouble.OTHER)
                return CallDone(ticket, ok, error=error, result=result, trouble=trouble)
            case RunCheck(ticket, made, _):
                words = made.arguments["argv"]
                return CheckDone(ticket, self.world.look(words), "looked", self.world.is_untouched(words))
            case WakeAt(ticket, at_s):
                assert at_s > self.now, "it would spin"
                self.now = at_s
                return Woke(ticket)
            case Fence(ticket):
                return Fenced(ticket)
            case TakeSnapshot(ticket, calls):
                return SnapshotTaken(ticket, {str(call.arguments): {"run": 1} for call in calls})
            case Finish():
                raise AssertionError("an end has no answer")

    def _has_intent(self, words: tuple[str, ...]) -> None:
        """No effect without its committed intent, which is the last thing on record."""
        last = self.records[-1]
        wanted = Kind.INTENT if words[0] == "do" else Kind.UNDO_INTENT
        assert (last.kind, last.step_id) == (wanted, words[1])


def check_end(world: World, plan_: Plan, end: Finish) -> None:
    """Whether the status tells the truth about the world."""
    irreversible = {action.id for action in plan_.actions if action.rollback is None}
    standing = {*world.applied, *world.half}
    match end.status:
        case Status.SUCCEEDED:
            assert world.applied == [action.id for action in plan_.actions]
            assert world.is_pleased
            assert not standing & world.unwell
        case Status.ROLLED_BACK:
            assert not standing
            assert world.undone or world.refuses - world.proving
        case Status.FAILED | Status.CANCELLED:
            assert standing <= irreversible or not plan_.rollback_on_failure
        case Status.ROLLBACK_FAILED:
            assert standing & world.stuck
        case Status.UNKNOWN:
            assert world.hidden
        case _:
            raise AssertionError(f"{end} is no end of a run that began")
    _, _, claimed = end.detail.partition("stays applied: ")
    assert not set(world.half) & world.stuck or end.status is not Status.SUCCEEDED
    told = {part.split(" ")[0] for part in claimed.split(", ") if part}
    assert told <= standing, f"{told} is said to stand, {standing} does"
    in_reverse = [name for name in reversed(world.done) if name in world.undone]
    assert world.undone == in_reverse, "undone in reverse order of intent"
    assert all(name in end.detail for name in standing) or end.status in (Status.SUCCEEDED, Status.UNKNOWN)
