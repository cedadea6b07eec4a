"""The engine beside a plain model of what a runbook means: conditions, dependencies, outputs, classes of failure worth
another try, and what becomes of a run whose step failed. The model knows no records, no tickets and no deaths.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from runbooks import engine, past
from runbooks.engine_undo import fail
from runbooks.engine_words import Kind
from runbooks.model import Action, Effect, FieldTest, OnFailure, Op, Retry, Status, Trouble
from runbooks.plan import Plan
from tests.runbooks.simulated import Daemon, World, call, mutating, plan

ALWAYS = 99


@dataclass(frozen=True)
class Drawn:
    """One step as it is drawn. ``refused``: so many of its calls do nothing and say so, for the reason ``trouble``; so
    many after those leave half of it (``halved``). ``proves``: its probe can tell that nothing at all is there.
    """

    name: str
    effect: Effect
    attempts: int
    on: tuple[str, ...]
    on_failure: OnFailure
    needs: frozenset[str]
    when: bool | str | None
    """A fact of the alert that holds or not; the name of a step whose output has to be there; None: always."""
    takes: str | None
    """The step whose output its call is filled with."""
    refused: int
    trouble: Trouble
    lies: bool
    unwell: bool
    stuck: bool
    hidden: bool
    halved: int
    proves: bool

    @property
    def is_undoable(self) -> bool:
        return self.effect is Effect.MUTATING

    @property
    def mutates(self) -> bool:
        return self.effect is not Effect.IDEMPOTENT

    def action(self) -> Action:
        made = mutating(self.name, irreversible=self.effect is Effect.IRREVERSIBLE)
        if not self.mutates:
            made = replace(made, effect=Effect.IDEMPOTENT, probe=None, rollback=None)
        words = ("do", self.name) if self.takes is None else ("do", self.name, f"{{from_{self.takes}}}")
        test = None
        if isinstance(self.when, str):
            test = FieldTest(f"/outputs/from_{self.when}", Op.EXISTS, True)
        elif self.when is not None:
            test = FieldTest("/alert/is_so", Op.EQ, self.when)
        return replace(
            made,
            call=call(*words),
            retry=Retry(self.attempts, 0.1, on=self.on),
            on_failure=self.on_failure,
            dependencies=tuple(sorted(self.needs)),
            when=test,
            outputs={f"from_{self.name}": "/value"},
        )


@dataclass
class Outcome:
    """What the model says of a run, and what is read off a real one."""

    status: Status = Status.RUNNING
    escalates: bool = False
    done: list[str] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)


class _Ended(Exception):
    pass


class Stands(enum.Enum):
    """How much of a step is there that something is known of."""

    WHOLE = "whole"
    HALF = "half"
    NOTHING = "nothing"
    """Which nobody could prove."""


@dataclass
class Model:
    steps: Sequence[Drawn]
    is_pleased: bool
    rolls_back: bool
    seen: Outcome = field(default_factory=Outcome)
    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)
    stands: dict[Drawn, Stands] = field(default_factory=dict)

    def run(self) -> Outcome:
        try:
            for one in self.steps:
                self._step(one)
            failed = [(one, much) for one, much in self.stands.items() if one.name in self.failed]
            left = [one for one, much in failed if much is Stands.WHOLE or (much is Stands.HALF and one.is_undoable)]
            if left or not self.is_pleased:
                self._fail()
            self._end(Status.SUCCEEDED)
        except _Ended:
            return self.seen
        raise AssertionError("a run has an end")

    def _end(self, status: Status, *, escalates: bool = False) -> None:
        self.seen.status, self.seen.escalates = status, escalates
        raise _Ended

    def _step(self, one: Drawn) -> None:
        if one.needs - self.passed:
            self._failed(one)
        elif one.when is False or (isinstance(one.when, str) and one.when not in self.outputs):
            self.seen.skipped.append(one.name)
            self.passed.add(one.name)
        elif (one.takes is not None and one.takes not in self.outputs) or not self._is_made(one):
            self._failed(one)
        else:
            self.passed.add(one.name)

    def _is_made(self, one: Drawn) -> bool:
        for attempt in range(1, one.attempts + 1):
            self.seen.calls[one.name] += 1
            is_refused, trouble = attempt <= one.refused, one.trouble
            is_half = one.mutates and not is_refused and attempt <= one.refused + one.halved
            if one.mutates and not is_refused and one.name not in self.seen.done:
                self.seen.done.append(one.name)
            if one.mutates and one.hidden and (is_refused or is_half or one.lies):
                self._end(Status.UNKNOWN)
            if is_half:
                self.stands[one] = Stands.HALF
            elif is_refused and one.mutates and not one.proves:
                self.stands[one] = Stands.NOTHING
            elif not is_refused:
                if one.mutates:
                    self.stands[one] = Stands.WHOLE
                if not (one.mutates and one.lies):
                    self.outputs.add(one.name)
                if not one.unwell:
                    return True
                if one.mutates:
                    return False
                trouble = Trouble.UNVERIFIED
            is_worth = trouble.value in one.on if one.on else trouble is not Trouble.PERMANENT
            if not is_worth:
                return False
        return False

    def _failed(self, one: Drawn) -> None:
        match one.on_failure:
            case OnFailure.CONTINUE:
                self.failed.add(one.name)
            case OnFailure.HALT:
                self._end(Status.FAILED)
            case OnFailure.ESCALATE:
                self._end(Status.FAILED, escalates=True)
            case OnFailure.ROLLBACK:
                self._fail()

    def _fail(self) -> None:
        if not self.rolls_back:
            self._end(Status.FAILED)
        undoable = [one for one in reversed(self.stands) if one.is_undoable]
        there = [one for one in undoable if self.stands[one] is not Stands.NOTHING]
        self.seen.undone = [one.name for one in there if not one.stuck]
        if any(one.stuck for one in there):
            self._end(Status.ROLLBACK_FAILED)
        is_clean = bool(undoable) and len(undoable) == len(self.stands)
        self._end(Status.ROLLED_BACK if is_clean else Status.FAILED)


@dataclass
class Forgiving(World):
    """``refusals``: how many more calls are refused; ``halvings``: how many after those leave half; ``again``: what may
    be applied twice.
    """

    refusals: dict[str, int] = field(default_factory=dict)
    halvings: dict[str, int] = field(default_factory=dict)
    again: frozenset[str] = frozenset()

    def make(self, words: tuple[str, ...]) -> tuple[bool, str]:
        what, name, *_ = words
        if what == "do" and self.refusals.get(name, 0) > 0:
            self.refusals[name] -= 1
            self.asked.append(words)
            return False, "refused"
        if what == "do" and self.halvings.get(name, 0) > 0:
            self.halvings[name] -= 1
            self.asked.append(words)
            self.halve(name)
            return False, "stopped in the middle"
        if what == "do" and name in self.again and name in self.applied:
            self.asked.append(words)
            return True, ""
        return super().make(words)


def world_of(steps: Sequence[Drawn], *, is_pleased: bool) -> Forgiving:
    def those(word: str) -> frozenset[str]:
        return frozenset(one.name for one in steps if getattr(one, word))

    return Forgiving(
        lies=those("lies") & those("mutates"),
        unwell=those("unwell"),
        stuck=those("stuck"),
        hidden=those("hidden"),
        proving=those("proves"),
        is_pleased=is_pleased,
        results={one.name: {"value": f"v-{one.name}"} for one in steps},
        troubles={one.name: one.trouble for one in steps},
        refusals={one.name: one.refused for one in steps},
        halvings={one.name: one.halved for one in steps if one.mutates},
        again=frozenset(one.name for one in steps if not one.mutates),
    )


def seen(
    steps: Sequence[Drawn],
    made: Plan,
    *,
    is_pleased: bool,
    before: frozenset[int] = frozenset(),
    after: frozenset[int] = frozenset(),
    torn: frozenset[str] = frozenset(),
) -> Outcome:
    world = replace(world_of(steps, is_pleased=is_pleased), torn=torn)
    daemon = Daemon(made, world, before, after)
    end = daemon.run()
    mutate = {one.name for one in steps if one.mutates}
    return Outcome(
        end.status,
        end.escalates,
        [name for name in world.done if name in mutate],
        world.undone,
        list(dict.fromkeys(one.step_id for one in daemon.records if one.kind is Kind.SKIPPED)),
        Counter(words[1] for words in world.asked if words[0] == "do"),
    )


def drawn(name: str, earlier: str) -> st.SearchStrategy[Drawn]:
    before = st.sampled_from(earlier) if earlier else st.nothing()
    rarely = st.sampled_from([False, False, False, True])
    return st.builds(
        Drawn,
        st.just(name),
        st.sampled_from([Effect.MUTATING, Effect.MUTATING, Effect.IRREVERSIBLE, Effect.IDEMPOTENT]),
        st.integers(1, 3),
        st.sampled_from([(), (), ("refused",), ("unverified", "timeout")]),
        st.sampled_from(OnFailure),
        st.frozensets(before, max_size=2) if earlier else st.just(frozenset[str]()),
        st.none() | st.booleans() | before,
        st.none() | before,
        st.sampled_from([0, 0, 0, 1, 2, ALWAYS]),
        st.sampled_from(Trouble),
        rarely,
        rarely,
        rarely,
        rarely,
        st.sampled_from([0, 0, 0, 1, ALWAYS]),
        rarely,
    )


STEPS = st.integers(1, 5).flatmap(
    lambda count: st.tuples(*(drawn("abcde"[number], "abcde"[:number]) for number in range(count)))
)
KILLS = st.frozensets(st.integers(0, 45), max_size=5)


def run_of(steps: Sequence[Drawn], *, rolls_back: bool) -> Plan:
    made = plan(*(one.action() for one in steps), rollback_on_failure=rolls_back)
    return replace(made, facts={"is_so": True})


@settings(max_examples=100, deadline=None)
@given(STEPS, st.booleans(), st.booleans())
def test_a_run_means_what_the_model_says(steps: tuple[Drawn, ...], is_pleased: bool, rolls_back: bool) -> None:
    """Status, order and number of effects, what is undone in which order, what is left out, how often it is tried."""
    _means_what_the_model_says(steps, is_pleased, rolls_back)


def _means_what_the_model_says(steps: tuple[Drawn, ...], is_pleased: bool, rolls_back: bool) -> None:
    made = run_of(steps, rolls_back=rolls_back)
    found = seen(steps, made, is_pleased=is_pleased)
    assert found == Model(steps, is_pleased, rolls_back).run()


@settings(max_examples=100, deadline=None)
@given(STEPS, st.booleans(), st.booleans(), KILLS, KILLS)
def test_and_still_means_it_when_the_daemon_is_killed_over_and_over(
    steps: tuple[Drawn, ...], is_pleased: bool, rolls_back: bool, before: frozenset[int], after: frozenset[int]
) -> None:
    """Without what a death changes: a value nobody heard, a call that only sometimes does nothing, a probe that is
    asked because of the death. A death in a call that would have gone well, or have stopped in the middle, leaves half.
    """
    plainer = tuple(
        replace(
            one,
            takes=None,
            when=one.when if isinstance(one.when, bool) else None,
            refused=ALWAYS if one.refused else 0,
            halved=ALWAYS if one.halved else 0,
            hidden=False,
        )
        for one in steps
    )
    made = run_of(plainer, rolls_back=rolls_back)
    torn = frozenset(one.name for one in plainer if one.mutates and not one.refused)
    found = seen(plainer, made, is_pleased=is_pleased, before=before, after=after, torn=torn)
    wanted = Model(plainer, is_pleased, rolls_back).run()
    for one in plainer:  # a call that did nothing, or may be made twice, is made again when nobody knows of it
        assert found.calls[one.name] >= wanted.calls[one.name]
        assert found.done.count(one.name) <= 1
    assert replace(found, calls=wanted.calls) == wanted


@pytest.mark.parametrize("fault", ["tries on", "forgets what depends", "forgets what is half done", "goes on"])
def test_the_model_finds_the_faults_it_is_there_for(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match fault:
        case "tries on":
            monkeypatch.setattr(Retry, "is_worth", lambda _self, _trouble: True)
        case "forgets what depends":
            monkeypatch.setattr(engine, "passed", lambda state: replace(state, passed=frozenset("abcde")))
        case "forgets what is half done":
            monkeypatch.setattr(
                engine, "not_applied", lambda state: past.not_applied(replace(state, is_untouched=True))
            )
        case _:
            monkeypatch.setattr(engine, "end_here", lambda state, reason, **_: fail(state, reason))
    means = settings(max_examples=3000, deadline=None, phases=(Phase.generate,))(
        given(STEPS, st.booleans(), st.booleans())(_means_what_the_model_says)
    )
    with pytest.raises((AssertionError, ExceptionGroup)):
        means()
