"""The daemon is killed at every boundary, twice: the end is right and nothing that mutates is done twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks import engine, past
from runbooks.engine_words import Finish, Kind, Record, State
from runbooks.model import Action, OnFailure, Status
from runbooks.plan import Plan
from tests.runbooks.simulated import Daemon, World, check_end, mutating, plan

PLAN = plan(mutating("a"), mutating("b"), mutating("c"))
SCHEMES: dict[str, tuple[Callable[[], World], Status]] = {
    "all succeed": (World, Status.SUCCEEDED),
    "the last is refused": (lambda: World(refuses=frozenset("c")), Status.ROLLED_BACK),
    "the last is never well": (lambda: World(unwell=frozenset("c")), Status.ROLLED_BACK),
    "the last lies": (lambda: World(lies=frozenset("c")), Status.SUCCEEDED),
    "the criterion fails": (lambda: World(is_pleased=False), Status.ROLLED_BACK),
    "the last stops in the middle": (lambda: World(halves=frozenset("c")), Status.ROLLED_BACK),
    "each is torn by a death in it": (lambda: World(torn=frozenset("abc")), Status.SUCCEEDED),
    "each is torn and the last is never well": (
        lambda: World(torn=frozenset("abc"), unwell=frozenset("c")),
        Status.ROLLED_BACK,
    ),
    "half of it cannot be undone": (lambda: World(halves=frozenset("c"), stuck=frozenset("c")), Status.ROLLBACK_FAILED),
    "the undoing fails": (lambda: World(refuses=frozenset("c"), stuck=frozenset("a")), Status.ROLLBACK_FAILED),
}


def effects_of(plan_: Plan, world: World) -> int:
    daemon = Daemon(plan_, world)
    daemon.run()
    return daemon.effects


@pytest.mark.parametrize("scheme", SCHEMES)
def test_killed_at_every_boundary_and_at_every_second_one(scheme: str) -> None:
    make, status = SCHEMES[scheme]
    boundaries = [(side, number) for number in range(effects_of(PLAN, make()) + 1) for side in ("before", "after")]
    schedules = [(one,) for one in boundaries] + list(itertools.combinations(boundaries, 2))
    for schedule in schedules:
        before = frozenset(number for side, number in schedule if side == "before")
        after = frozenset(number for side, number in schedule if side == "after")
        world = make()
        daemon = Daemon(PLAN, world, before, after)
        end = daemon.run()
        assert end.status is status, (schedule, end)
        check_end(world, PLAN, end)


def test_killed_while_undoing_past_what_cannot_be_undone() -> None:
    made = plan(mutating("a"), mutating("b", irreversible=True), mutating("c"))
    for number in range(effects_of(made, World(unwell=frozenset("c"))) + 1):
        for before, after in ((frozenset({number}), frozenset[int]()), (frozenset[int](), frozenset({number}))):
            world = World(unwell=frozenset("c"))
            end = Daemon(made, world, before, after).run()
            check_end(world, made, end)
            assert (end.status, world.undone, world.applied) == (Status.FAILED, ["c", "a"], ["b"]), number
            assert "stays applied: b (" in end.detail


def test_the_schedules_do_kill() -> None:
    daemon = Daemon(PLAN, World(), frozenset({0, 5}), frozenset({9}))
    daemon.run()
    assert daemon.crashes == 3


some = st.frozensets(st.sampled_from("abcd"))
actions = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.booleans()),
    min_size=1,
    max_size=4,
).map(
    lambda made: tuple(
        mutating(name, attempts=attempts, undo_attempts=undo, irreversible=irreversible)
        for name, (attempts, undo, irreversible) in zip("abcd", made, strict=False)
    )
)


@settings(max_examples=400, deadline=None)
@given(
    actions=actions,
    world=st.builds(
        World,
        refuses=some,
        lies=some,
        unwell=some,
        stuck=some,
        hidden=some,
        halves=some,
        torn=some,
        proving=some,
        is_pleased=st.booleans(),
    ),
    before=st.frozensets(st.integers(0, 40), max_size=6),
    after=st.frozensets(st.integers(0, 40), max_size=6),
    rolls_back=st.booleans(),
)
def test_any_faults_and_any_kills(
    actions: tuple[Action, ...], world: World, before: frozenset[int], after: frozenset[int], rolls_back: bool
) -> None:
    made = plan(*actions, rollback_on_failure=rolls_back)
    check_end(world, made, Daemon(made, world, before, after).run())


@settings(max_examples=100, deadline=None)
@given(
    actions=actions,
    world=st.builds(World, refuses=some, lies=some, unwell=some, stuck=some, halves=some, is_pleased=st.booleans()),
    failures=st.lists(st.sampled_from(OnFailure), min_size=4, max_size=4),
    before=st.frozensets(st.integers(0, 40), max_size=3),
)
def test_a_record_that_stands_there_twice_says_it_once(
    actions: tuple[Action, ...], world: World, failures: list[OnFailure], before: frozenset[int]
) -> None:
    """Its commit was said to have failed, and had not. Any of them, at any moment of the run, and all of them."""
    steps = (replace(one, on_failure=what) for one, what in zip(actions, failures, strict=False))
    made = plan(*steps)
    daemon = Daemon(made, world, before)
    daemon.run()
    records = daemon.records
    for number, record in enumerate(records):
        so_far = records[: number + 1]
        assert past.fold(made, [*so_far, record]) == past.fold(made, so_far)
        assert past.fold(made, [*so_far, record, *records[number + 1 :]]) == past.fold(made, records)
    assert past.fold(made, [one for record in records for one in (record, record)]) == past.fold(made, records)
    assert not past.fold(made, records).strange


def test_what_is_undone_and_was_not_begun_is_strange() -> None:
    _, (end,) = engine.resume(PLAN, [Record(Kind.FAILING), Record(Kind.UNDO_INTENT, 1, "b", 1)], 0.0, 0.0)
    assert isinstance(end, Finish)
    assert (end.status, end.detail) == (Status.UNKNOWN, "step 'b' is undone, and was not begun")


# -- the simulation finds the faults it is there for -------------------------------------------------------------------


def _every_single_kill(make: Callable[[], World]) -> None:
    for number in range(60):
        for before, after in ((frozenset({number}), frozenset()), (frozenset(), frozenset({number}))):
            world = make()
            check_end(world, PLAN, Daemon(PLAN, world, before, after).run())


def _blind(state: State, now: float) -> engine.Step:
    """Seeded fault: an intent without done is done again without looking."""
    return engine._call(state, now)


def test_a_resume_without_a_probe_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_go_on_after_fence", _blind)
    with pytest.raises(AssertionError, match="applied twice"):
        _every_single_kill(World)


def _forgotten(state: State) -> State:
    """Seeded fault: a probe's no is taken for a proof that nothing was changed."""
    return replace(state, undo=tuple(one for one in state.undo if one.step != state.index))


def test_half_a_step_that_is_not_undone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "not_applied", _forgotten)
    monkeypatch.setattr(engine, "not_applied", _forgotten)
    with pytest.raises(AssertionError):
        _every_single_kill(SCHEMES["the last stops in the middle"][0])


def test_forgotten_intents_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "with_intent", lambda state: state)
    with pytest.raises(AssertionError):
        _every_single_kill(SCHEMES["the last is refused"][0])


def test_undoing_in_the_wrong_order_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = past.with_intent

    def reverse(state: State) -> State:
        return replace(state, undo=tuple(reversed(right(state).undo)))

    monkeypatch.setattr(engine, "with_intent", reverse)
    with pytest.raises(AssertionError):
        _every_single_kill(SCHEMES["the criterion fails"][0])
