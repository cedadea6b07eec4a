"""What pacing knows of a child is the same for the next supervisor of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.context import ActorContext
from actors.messages import ChildExited, ChildReady, ChildStarted, StopMode
from actors.spec import SHUTDOWN, Backoff, Begin, ChildPast, ChildSpec, ExitReason, Origin, Pacing, Restart, WaitFor
from supervisors.decisions.model import (
    Boot,
    Effect,
    Flags,
    Phase,
    Report,
    ReportKind,
    StartActor,
    StopActor,
    StopRequested,
    Strategy,
    SupervisorState,
    WakeAt,
    Woke,
)
from supervisors.decisions.step import initial, past_of, step

PACING = Pacing(Backoff(initial_s=4.0, factor=2.0, max_s=100.0, jitter=False, reset_after_s=30.0), 3, 60.0)
CRASH = ExitReason.crashed("world", origin=Origin.WORLD)


def start_actor(_context: ActorContext) -> None:
    raise AssertionError("nothing is started here")


SPEC = ChildSpec("a", start_actor, restart=Restart.TRANSIENT, pacing=PACING)


def take(state: SupervisorState, event: object, now: float) -> tuple[SupervisorState, tuple[Effect, ...]]:
    return step(state, event, now)  # type: ignore[arg-type]


def booted(past: ChildPast | None, now: float, strategy: Strategy = Strategy.ONE_FOR_ONE) -> SupervisorState:
    state, _ = take(initial(Flags(strategy), [SPEC], {} if past is None else {"a": past}), Boot(), now)
    return state


def crash(state: SupervisorState, now: float) -> tuple[SupervisorState, float | None]:
    """The state after a crash of the running child, and the delay of its restart."""
    child = state.children["a"]
    if child.phase is Phase.STARTING:
        state, _ = take(state, ChildStarted("a", child.incarnation), now)
    state, effects = take(state, ChildExited("a", child.incarnation, CRASH), now)
    reports = (one for one in effects if isinstance(one, Report))
    return state, next(one.delay_s for one in reports if one.kind in (ReportKind.RESTARTING, ReportKind.PARKED))


def test_the_next_supervisor_goes_on_with_the_backoff() -> None:
    state, first_s = crash(booted(None, 100.0), 100.0)
    state, second_s = crash(state, 101.0)
    assert (first_s, second_s) == (0.0, 4.0)
    later = booted(past_of(state.children["a"]), 106.0)
    assert later.children["a"].phase is Phase.STARTING, "its time had come"
    assert crash(later, 106.0)[1] == 8.0
    assert crash(booted(None, 106.0), 106.0)[1] == 0.0, "without a past it would begin anew"


def test_who_was_waiting_waits_on_and_is_woken() -> None:
    past = ChildPast(failures=2, paced_at=(100.0, 101.0), not_before=120.0)
    state, effects = take(initial(Flags(), [SPEC], {"a": past}), Boot(), 105.0)
    assert not any(isinstance(effect, StartActor) for effect in effects)
    assert WakeAt(120.0) in effects
    state, effects = take(state, Woke(), 120.0)
    assert any(isinstance(effect, StartActor) for effect in effects)


@pytest.mark.parametrize("is_exhausted", [False, True])
@pytest.mark.parametrize(("first_s", "latest"), [(0.0, 205.0), (300.0, 405.0)])
def test_nobody_waits_longer_than_its_backoff_allows(first_s: float, latest: float, is_exhausted: bool) -> None:
    """A backoff that was edited meanwhile, or a damaged record."""
    spec = replace(SPEC, pacing=replace(PACING, backoff=replace(PACING.backoff, first_s=first_s)))
    for written, kept in ((1e12, latest), (latest + 0.1, latest), (latest - 1.0, latest - 1.0)):
        past = ChildPast(failures=2, is_exhausted=is_exhausted, not_before=written)
        state, effects = take(initial(Flags(), [spec], {"a": past}), Boot(), 105.0)
        assert state.children["a"].phase is (Phase.PARKED if is_exhausted else Phase.RESTARTING)
        assert state.children["a"].not_before == kept
        assert WakeAt(kept) in effects


def test_parked_stays_parked() -> None:
    past = ChildPast(failures=9, is_exhausted=True, paced_at=(), not_before=200.0)
    assert booted(past, 105.0).children["a"].phase is Phase.PARKED


def test_in_a_group_nobody_behind_waits_for_an_old_deadline() -> None:
    past = ChildPast(failures=2, paced_at=(100.0, 101.0), not_before=120.0)
    child = booted(past, 105.0, Strategy.REST_FOR_ONE).children["a"]
    assert (child.phase, child.failures) == (Phase.STARTING, 2)


def test_the_budget_of_the_window_goes_on() -> None:
    past = ChildPast(failures=3, paced_at=(100.0, 101.0, 102.0))
    state, _ = crash(booted(past, 103.0), 103.0)
    assert state.children["a"].phase is Phase.PARKED


def test_long_readiness_of_an_adopted_run_counts_as_stable() -> None:
    past = ChildPast(failures=3, paced_at=(100.0,))
    state = booted(past, 500.0)
    incarnation = state.children["a"].incarnation
    state, _ = take(state, ChildStarted("a", incarnation), 500.0)
    since_long, _ = take(state, ChildReady("a", incarnation, since=110.0), 500.0)
    assert crash(since_long, 501.0)[1] == 0.0
    just_now, _ = take(state, ChildReady("a", incarnation), 500.0)
    assert crash(just_now, 501.0)[1] == 16.0


def test_a_stable_run_that_is_stopped_leaves_no_failures_behind() -> None:
    past = ChildPast(failures=3, paced_at=(100.0,))
    for ready_for_s, left in ((31.0, 0), (5.0, 3)):
        state = booted(past, 500.0)
        incarnation = state.children["a"].incarnation
        state, _ = take(state, ChildStarted("a", incarnation), 500.0)
        state, _ = take(state, ChildReady("a", incarnation), 500.0)
        state, _ = take(state, StopRequested(SHUTDOWN, StopMode.END_OF_DAEMON), 500.0 + ready_for_s)
        state, _ = take(state, ChildExited("a", incarnation, SHUTDOWN), 501.0 + ready_for_s)
        assert past_of(state.children["a"]).failures == left


# -- a group whose restart began before there was this supervisor ------------------------------------------------------

GROUP = [
    ChildSpec(name, start_actor, restart=Restart.TRANSIENT, pacing=PACING, wait_for=WaitFor.READY) for name in "abc"
]


def begins(effects: tuple[Effect, ...]) -> dict[str, Begin]:
    return {one.spec.id: one.begin for one in effects if isinstance(one, StartActor)}


def started(state: SupervisorState, child_id: str) -> tuple[SupervisorState, tuple[Effect, ...]]:
    """It is up and ready."""
    incarnation = state.children[child_id].incarnation
    state, first = take(state, ChildStarted(child_id, incarnation), 100.0)
    state, second = take(state, ChildReady(child_id, incarnation), 100.0)
    return state, first + second


def group_with_a_death(strategy: Strategy) -> tuple[SupervisorState, dict[str, Begin]]:
    """The first start of ``b`` tells that it had died before there was this supervisor; all are started then."""
    state, effects = take(initial(Flags(strategy), GROUP), Boot(), 100.0)
    seen = begins(effects)
    state, effects = started(state, "a")
    seen |= begins(effects)
    assert seen == {"a": Begin.RESUME, "b": Begin.RESUME}
    incarnation = state.children["b"].incarnation
    state, _ = take(state, ChildStarted("b", incarnation), 100.0)
    state, effects = take(state, ChildExited("b", incarnation, CRASH), 100.0)
    seen |= begins(effects)
    if strategy is Strategy.ONE_FOR_ALL:
        assert [one.id for one in effects if isinstance(one, StopActor)] == ["a"]
        state, effects = take(state, ChildExited("a", state.children["a"].incarnation, SHUTDOWN), 100.0)
        seen |= begins(effects)
        state, effects = started(state, "a")
        seen |= begins(effects)
    return state, seen


@pytest.mark.parametrize("strategy", [Strategy.REST_FOR_ONE, Strategy.ONE_FOR_ALL])
def test_who_restarts_with_the_dead_one_and_may_live_is_started_fresh(strategy: Strategy) -> None:
    state, seen = group_with_a_death(strategy)
    assert past_of(state.children["c"]).is_stale, "the next supervisor must know, too"
    state, effects = started(state, "b")
    seen |= begins(effects)
    is_all = strategy is Strategy.ONE_FOR_ALL
    assert seen == {"a": Begin.FRESH if is_all else Begin.RESUME, "b": Begin.NEW, "c": Begin.FRESH}
    assert past_of(state.children["c"]).is_stale, "only when it is ready it is certain that what lived is gone"
    state, _ = started(state, "c")
    assert not any(past_of(child).is_stale for child in state.children.values())


def test_a_stale_past_is_a_fresh_start_and_only_in_a_group() -> None:
    past = ChildPast(is_stale=True)
    for strategy, begin in ((Strategy.REST_FOR_ONE, Begin.FRESH), (Strategy.ONE_FOR_ONE, Begin.RESUME)):
        _, effects = take(initial(Flags(strategy), [SPEC], {"a": past}), Boot(), 100.0)
        assert begins(effects) == {"a": begin}


def test_a_fault_of_ours_leaves_the_living_alone() -> None:
    """The siblings' actors are started again; the services they stand for live on and are taken on."""
    state, _ = take(initial(Flags(Strategy.REST_FOR_ONE), GROUP), Boot(), 100.0)
    child = state.children["a"]
    state, _ = take(state, ChildStarted("a", child.incarnation), 100.0)
    state, effects = take(state, ChildExited("a", child.incarnation, ExitReason.crashed("a bug of ours")), 100.0)
    assert not any(child.is_stale for child in state.children.values())
    assert begins(effects) == {"a": Begin.RESUME}, "its end may have been told to the actor that crashed"
    assert all(state.children[name].is_resumed for name in "bc")
