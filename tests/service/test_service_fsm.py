"""The state machine of one run: every event in every state, and what the four policies make of an end."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from actors.health import Verdict
from actors.messages import StopMode
from actors.runtimes.base import ExitStatus
from actors.runtimes.observing import NOTHING_SEEN, Observed, OwnHealth
from actors.service_fsm import (
    ALLOWED,
    Adopted,
    AdoptOnly,
    AdoptOrLaunch,
    BeginProbing,
    Begun,
    Cleared,
    ClearFirst,
    DependencySeen,
    Effect,
    Event,
    Exit,
    FreezeOrThaw,
    Frozen,
    HealthSeen,
    IllegalTransition,
    Launched,
    LaunchRefused,
    NoneLives,
    PauseAsked,
    RestartPolicy,
    ResumeAsked,
    RetryDue,
    RetryLater,
    Rules,
    RulesChanged,
    RunEnded,
    RunSeen,
    RunState,
    SayPresent,
    SayReady,
    ServiceRun,
    StopAsked,
    StopDue,
    StopRun,
    _Step,
    begin,
    step,
)
from actors.spec import SHUTDOWN, ExitKind, Origin

CRASH = ExitStatus("exit 3", code=3)
CLEAN = ExitStatus("exit 0", code=0)
PAUSED = RunSeen(Observed(paused="paused from outside"))
SEEN_WELL = RunSeen(Observed(health=OwnHealth.HEALTHY))
SEEN_ILL = RunSeen(Observed(health=OwnHealth.UNHEALTHY, health_detail="2 failures"))
SEEN_STARTING = RunSeen(Observed(health=OwnHealth.STARTING))
BY_HAND = ExitStatus("docker stop", code=143, stopped_by_hand=True)


@dataclass(frozen=True)
class FakeHandle:
    service: str = "a"
    run: int = 1
    pid: int | None = 1
    container_id: str | None = None
    started_at: float = 0.0


def run_to(state: RunState, rules: Rules | None = None) -> ServiceRun:
    """A run brought to ``state`` by real events."""
    rules = rules or Rules(is_probed=True)
    if state is RunState.WAITING:
        return step(begin(Rules(dependencies=frozenset({"db"}), is_probed=True)), Begun())[0]
    run = step(begin(rules), Begun(rules.dependencies))[0]
    paths: dict[RunState, tuple[Event, ...]] = {
        RunState.LAUNCHING: (),
        RunState.UNKNOWN: (LaunchRefused("engine away", is_unknown=True),),
        RunState.UP: (Launched(FakeHandle()),),
        RunState.READY: (Launched(FakeHandle()), HealthSeen(Verdict.READY)),
        RunState.DEGRADED: (Launched(FakeHandle()), HealthSeen(Verdict.DEGRADED, "slow")),
        RunState.PAUSED: (Launched(FakeHandle()), PauseAsked(), Frozen()),
        RunState.STOPPING: (Launched(FakeHandle()), StopAsked(SHUTDOWN, StopMode.TERMINATE)),
        RunState.ENDED: (LaunchRefused("no such program"),),
    }
    for event in paths[state]:
        run = step(run, event)[0]
    assert run.state is state
    return run


@pytest.mark.parametrize(("old", "new"), list(itertools.product(RunState, RunState)))
def test_every_transition_is_allowed_or_refused_by_the_table(old: RunState, new: RunState) -> None:
    now = _Step(ServiceRun(Rules(), state=old))
    if new is old or new in ALLOWED[old]:
        now.move(new)
        assert now.run.state is new
    else:
        with pytest.raises(IllegalTransition, match=f"{old.value} -> {new.value}"):
            now.move(new)


EVENTS: list[Event] = [
    Begun(),
    DependencySeen("db", is_ready=True),
    Launched(FakeHandle()),
    LaunchRefused("no such program"),
    LaunchRefused("engine away", is_unknown=True),
    NoneLives(),
    RetryDue(),
    RunEnded(CRASH),
    PAUSED,
    SEEN_WELL,
    SEEN_ILL,
    RunSeen(NOTHING_SEEN),
    StopDue(),
    *(HealthSeen(verdict, "x") for verdict in Verdict),
    *(StopAsked(SHUTDOWN, mode) for mode in StopMode),
    PauseAsked(),
    Cleared(),
    Cleared("engine away"),
    Frozen(),
    Frozen("cannot be paused"),
    ResumeAsked(),
]


def is_possible(state: RunState, events: tuple[object, ...]) -> bool:
    """A launch is answered once, and only while one is under way."""
    answers = [event for event in events if isinstance(event, Launched | LaunchRefused)]
    return len(answers) <= (1 if state is RunState.LAUNCHING else 0)


@pytest.mark.parametrize("state", list(RunState))
@pytest.mark.parametrize("policy", list(RestartPolicy))
def test_no_sequence_of_two_events_is_illegal_and_an_exit_comes_once(state: RunState, policy: RestartPolicy) -> None:
    for first, second in itertools.product(EVENTS, EVENTS):
        if not is_possible(state, (first, second)):
            continue
        run = run_to(state) if state is RunState.WAITING else run_to(state, Rules(policy, is_probed=True))
        before_is_over = run.state is RunState.ENDED
        effects: list[Effect] = []
        for event in (first, second):
            run, more = step(run, event)
            effects += more
        exits = [effect for effect in effects if isinstance(effect, Exit)]
        assert len(exits) == (0 if before_is_over or run.state is not RunState.ENDED else 1), (first, second)


def test_waits_for_its_dependencies_and_says_which() -> None:
    rules = Rules(dependencies=frozenset({"db", "queue"}))
    run, effects = step(begin(rules), Begun(frozenset({"db"})))
    assert (run.state, run.detail, effects) == (RunState.WAITING, "waiting for queue:ready", (AdoptOnly(),))
    run, effects = step(run, DependencySeen("queue", is_ready=True))
    assert (run.state, effects) == (RunState.LAUNCHING, (AdoptOrLaunch(),))


def waiting() -> ServiceRun:
    return step(begin(Rules(dependencies=frozenset({"db"}))), Begun())[0]


def test_a_service_that_runs_already_waits_for_nothing() -> None:
    run, effects = step(waiting(), Adopted(Launched(FakeHandle(), was_ready=True)))
    assert (run.state, effects) == (RunState.READY, (SayReady(),))


def test_nothing_found_goes_on_waiting() -> None:
    run, effects = step(waiting(), Adopted(None))
    assert (run.state, effects) == (RunState.WAITING, ())
    assert step(run, DependencySeen("db", is_ready=True))[1] == (AdoptOrLaunch(),)


def test_a_stop_waits_for_the_look_and_stops_what_it_found() -> None:
    run, effects = step(waiting(), StopAsked(SHUTDOWN, StopMode.TERMINATE))
    assert (run.state, effects) == (RunState.WAITING, ())
    assert step(run, DependencySeen("db", is_ready=True))[1] == ()
    assert step(run, Adopted(None))[1] == (Exit(SHUTDOWN),)
    run, effects = step(run, Adopted(Launched(FakeHandle())))
    assert (run.state, effects) == (RunState.STOPPING, (StopRun(),))


def test_a_dependency_lost_while_waiting_is_waited_for_again() -> None:
    rules = Rules(dependencies=frozenset({"db", "queue"}))
    run, _ = step(begin(rules), Begun(frozenset({"db"})))
    run, _ = step(run, DependencySeen("db", is_ready=False))
    run, effects = step(run, DependencySeen("queue", is_ready=True))
    assert (run.state, run.detail, effects) == (RunState.WAITING, "waiting for db:ready", ())


def test_a_dependency_lost_later_does_not_end_a_healthy_service() -> None:
    run = run_to(RunState.READY, Rules(dependencies=frozenset({"db"}), is_probed=True))
    assert step(run, DependencySeen("db", is_ready=False)) == (run, ())


def test_without_a_check_it_is_ready_when_it_is_up() -> None:
    run = run_to(RunState.LAUNCHING, Rules())
    run, effects = step(run, Launched(FakeHandle()))
    assert (run.state, effects) == (RunState.READY, (SayReady(),))


def test_with_a_check_it_is_ready_when_the_check_passes() -> None:
    run = run_to(RunState.LAUNCHING)
    run, effects = step(run, Launched(FakeHandle()))
    assert (run.state, effects) == (RunState.UP, (BeginProbing(),))
    run, effects = step(run, HealthSeen(Verdict.READY))
    assert (run.state, effects) == (RunState.READY, (SayReady(),))


def test_an_adopted_run_that_had_proved_itself_is_not_probed_from_the_start() -> None:
    run, effects = step(run_to(RunState.LAUNCHING), Launched(FakeHandle(), was_ready=True))
    assert (run.state, effects) == (RunState.READY, (SayReady(), BeginProbing()))


def test_unhealthy_is_stopped_and_ends_as_a_fault_of_the_world() -> None:
    run, effects = step(run_to(RunState.READY), HealthSeen(Verdict.UNHEALTHY, "http /healthz: 503"))
    assert (run.state, effects) == (RunState.STOPPING, (StopRun(),))
    run, effects = step(run, RunEnded(ExitStatus("signal SIGTERM", signal=15, asked=True)))
    (exit_,) = effects
    assert isinstance(exit_, Exit)
    assert (exit_.reason.kind, exit_.reason.origin) == (ExitKind.CRASHED, Origin.WORLD)
    assert exit_.reason.detail == "unhealthy: http /healthz: 503"


def test_unhealthy_is_left_alone_when_nobody_would_start_it_again() -> None:
    run = run_to(RunState.READY, Rules(RestartPolicy.NEVER, is_probed=True))
    run, effects = step(run, HealthSeen(Verdict.UNHEALTHY, "http /healthz: 503"))
    assert (run.state, effects) == (RunState.UP, ())


def test_while_the_truth_is_unknown_nothing_is_started_but_asked_again() -> None:
    run, effects = step(run_to(RunState.LAUNCHING), LaunchRefused("engine away", is_unknown=True))
    assert (run.state, effects) == (RunState.UNKNOWN, (RetryLater(),))
    run, effects = step(run, RetryDue())
    assert (run.state, effects) == (RunState.LAUNCHING, (AdoptOrLaunch(),))


def test_a_stop_during_the_launch_stops_what_the_launch_brings() -> None:
    run, effects = step(run_to(RunState.LAUNCHING), StopAsked(SHUTDOWN, StopMode.TERMINATE))
    assert effects == ()
    run, effects = step(run, Launched(FakeHandle()))
    assert (run.state, effects) == (RunState.STOPPING, (StopRun(),))


@pytest.mark.parametrize("state", [RunState.UP, RunState.READY, RunState.DEGRADED, RunState.LAUNCHING])
def test_detach_ends_the_actor_and_leaves_the_run(state: RunState) -> None:
    run, effects = step(run_to(state), StopAsked(SHUTDOWN, StopMode.DETACH))
    assert (run.state, effects) == (RunState.ENDED, (Exit(SHUTDOWN),))


@pytest.mark.parametrize(("stops", "expected"), [(True, (StopRun(),)), (False, (Exit(SHUTDOWN),))])
def test_the_end_of_the_daemon_leaves_what_it_only_attached_to(stops: bool, expected: tuple[object, ...]) -> None:
    run = run_to(RunState.READY, Rules(is_probed=True, stops_with_daemon=stops))
    assert step(run, StopAsked(SHUTDOWN, StopMode.END_OF_DAEMON))[1] == expected


@pytest.mark.parametrize(
    ("policy", "status", "kind"),
    [
        (RestartPolicy.ALWAYS, CRASH, ExitKind.CRASHED),
        (RestartPolicy.ALWAYS, CLEAN, ExitKind.CRASHED),
        (RestartPolicy.ALWAYS, BY_HAND, ExitKind.CRASHED),
        (RestartPolicy.UNLESS_STOPPED, CRASH, ExitKind.CRASHED),
        (RestartPolicy.UNLESS_STOPPED, CLEAN, ExitKind.CRASHED),
        (RestartPolicy.UNLESS_STOPPED, BY_HAND, ExitKind.SHUTDOWN),
        (RestartPolicy.ON_FAILURE, CRASH, ExitKind.CRASHED),
        (RestartPolicy.ON_FAILURE, CLEAN, ExitKind.SHUTDOWN),
        (RestartPolicy.NEVER, CRASH, ExitKind.SHUTDOWN),
        (RestartPolicy.NEVER, CLEAN, ExitKind.SHUTDOWN),
    ],
)
def test_what_an_end_means_under_each_policy(policy: RestartPolicy, status: ExitStatus, kind: ExitKind) -> None:
    (exit_,) = step(run_to(RunState.READY, Rules(policy, is_probed=True)), RunEnded(status))[1]
    assert isinstance(exit_, Exit)
    assert exit_.reason.kind is kind
    assert exit_.reason.evidence["failed"] is (not status.is_clean)
    assert exit_.reason.origin is Origin.WORLD
    assert bool(exit_.reason.evidence.get("hold")) is (policy is RestartPolicy.UNLESS_STOPPED and status is BY_HAND)


# -- what the runtime sees of a living run ----------------------------------------------------------------------------


@pytest.mark.parametrize("before", [RunState.UP, RunState.READY])
def test_a_paused_run_is_not_judged_and_goes_on_as_what_it_was(before: RunState) -> None:
    run, effects = step(run_to(before), PAUSED)
    assert (run.state, run.detail, effects) == (RunState.PAUSED, "paused from outside", ())
    still, effects = step(run, HealthSeen(Verdict.UNHEALTHY, "no answer"))  # a probe that was under way
    assert (still, effects) == (run, ())
    run, effects = step(run, RunSeen(NOTHING_SEEN))
    assert (run.state, effects) == (before, (BeginProbing(),))


def test_a_run_found_paused_is_shown_so() -> None:
    run = step(step(begin(Rules()), Begun())[0], PAUSED)[0]
    assert run.state is RunState.LAUNCHING
    assert step(run, Launched(FakeHandle()))[0].state is RunState.PAUSED


def test_a_paused_run_can_be_stopped() -> None:
    run, effects = step(run_to(RunState.PAUSED), StopAsked(SHUTDOWN, StopMode.TERMINATE))
    assert (run.state, effects) == (RunState.STOPPING, (StopRun(),))


def launched(rules: Rules, *seen: Event) -> tuple[ServiceRun, tuple[Effect, ...]]:
    run = step(begin(rules), Begun())[0]
    for event in seen:
        run = step(run, event)[0]
    return step(run, Launched(FakeHandle()))


def test_a_run_that_checks_itself_is_ready_when_it_says_so() -> None:
    run, effects = launched(Rules(), SEEN_STARTING)
    assert (run.state, effects) == (RunState.UP, ())
    run, effects = step(run, SEEN_WELL)
    assert (run.state, effects) == (RunState.READY, (SayReady(),))
    run, effects = launched(Rules(), SEEN_WELL)
    assert (run.state, effects) == (RunState.READY, (SayReady(),))


def test_a_run_that_calls_itself_unhealthy_is_restarted_unless_nobody_would() -> None:
    run = launched(Rules(), SEEN_WELL)[0]
    run, effects = step(run, SEEN_ILL)
    assert (run.state, run.detail, effects) == (RunState.STOPPING, "unhealthy: 2 failures", (StopRun(),))
    run = launched(Rules(RestartPolicy.NEVER), SEEN_WELL)[0]
    run, effects = step(run, SEEN_ILL)
    assert (run.state, run.detail, effects) == (RunState.UP, "2 failures", ())


def test_our_own_check_has_the_word_when_there_is_one() -> None:
    run, effects = step(run_to(RunState.READY), SEEN_ILL)
    assert (run.state, effects) == (RunState.READY, ())


def test_what_was_seen_last_does_not_count_while_nobody_can_tell() -> None:
    run = launched(Rules(), SEEN_WELL)[0]
    gone = RunSeen(Observed(health=OwnHealth.UNHEALTHY, unknown="engine away"))
    assert step(run, gone)[0].state is RunState.READY


def test_a_stop_that_failed_is_tried_again_and_only_a_stop() -> None:
    assert step(run_to(RunState.STOPPING), StopDue())[1] == (StopRun(),)
    assert step(run_to(RunState.READY), StopDue())[1] == ()


@pytest.mark.parametrize("state", [RunState.UP, RunState.READY, RunState.DEGRADED])
def test_other_rules_leave_a_live_run_as_it_is(state: RunState) -> None:
    run = run_to(state)
    rules = Rules(RestartPolicy.ON_FAILURE, frozenset({"db"}), is_probed=True)
    after, effects = step(run, RulesChanged(rules))
    assert (after.state, after.rules, effects) == (state, rules, ())
    (exit_,) = step(after, RunEnded(CLEAN))[1]
    assert isinstance(exit_, Exit)
    assert exit_.reason.is_clean, "the new policy judges the end"


@pytest.mark.parametrize("state", list(RunState))
def test_other_rules_in_any_state_start_nothing_that_was_not_waiting(state: RunState) -> None:
    after, effects = step(run_to(state), RulesChanged(Rules(is_probed=True)))
    if state is RunState.WAITING:
        assert (after.state, effects) == (RunState.LAUNCHING, (AdoptOrLaunch(),)), "what it waited for is taken out"
    else:
        assert (after.state, effects) == (state, ())


def test_a_run_that_waits_goes_on_waiting_for_what_is_new() -> None:
    rules = Rules(dependencies=frozenset({"db", "cache"}))
    run, effects = step(run_to(RunState.WAITING), RulesChanged(rules, frozenset({"db"})))
    assert (run.missing, effects) == (frozenset({"cache"}), ())
    assert step(run, DependencySeen("cache", is_ready=True))[1] == (AdoptOrLaunch(),)


def test_a_health_check_may_come_and_go_under_a_run() -> None:
    run, effects = step(run_to(RunState.READY, Rules()), RulesChanged(Rules(is_probed=True)))
    assert (run.state, effects) == (RunState.READY, (BeginProbing(),))
    run, effects = step(run_to(RunState.UP), RulesChanged(Rules()))
    assert (run.state, effects) == (RunState.READY, (SayReady(),)), "nobody asks any more: it counts as ready"


def test_a_paused_run_is_frozen_and_its_health_counts_for_nothing() -> None:
    run, effects = step(run_to(RunState.READY), PauseAsked())
    assert (run.state, effects) == (RunState.READY, (FreezeOrThaw(),))
    assert step(run, HealthSeen(Verdict.UNHEALTHY, "silent")) == (run, ())
    run, effects = step(run, Frozen())
    assert (run.state, effects) == (RunState.PAUSED, ())
    for verdict in Verdict:
        assert step(run, HealthSeen(verdict)) == (run, ())


def test_a_resumed_run_has_to_prove_itself_again() -> None:
    run, effects = step(run_to(RunState.PAUSED), ResumeAsked())
    assert (run.state, effects) == (RunState.UP, (FreezeOrThaw(), BeginProbing()))
    run, effects = step(run, HealthSeen(Verdict.READY))
    assert (run.state, effects) == (RunState.READY, (SayReady(),))
    run, effects = step(run_to(RunState.PAUSED, Rules()), ResumeAsked())
    assert (run.state, effects) == (RunState.READY, (FreezeOrThaw(), SayReady()))


def test_what_cannot_be_frozen_goes_on_and_says_why() -> None:
    run = step(run_to(RunState.READY), PauseAsked())[0]
    run, effects = step(run, Frozen("the engine is away"))
    assert (run.state, run.detail, run.is_paused, effects) == (RunState.READY, "the engine is away", False, ())


@pytest.mark.parametrize("policy", list(RestartPolicy))
def test_who_ends_while_paused_stays_down_whatever_the_policy(policy: RestartPolicy) -> None:
    run, (end,) = step(run_to(RunState.PAUSED, Rules(policy, is_probed=True)), RunEnded(CRASH))
    assert run.state is RunState.ENDED
    assert isinstance(end, Exit)
    assert (end.reason.kind, end.reason.origin, end.reason.evidence["hold"]) == (
        ExitKind.SHUTDOWN,
        Origin.WORLD,
        True,
    )
    assert end.reason.detail == "exit 3 while paused"


def test_a_stop_of_a_paused_run_ends_it() -> None:
    run, effects = step(run_to(RunState.PAUSED), StopAsked(SHUTDOWN, StopMode.TERMINATE))
    assert (run.state, effects) == (RunState.STOPPING, (StopRun(),))
    run, effects = step(run_to(RunState.PAUSED), StopAsked(SHUTDOWN, StopMode.DETACH))
    assert (run.state, effects) == (RunState.ENDED, (Exit(SHUTDOWN),))


def test_one_that_is_paused_from_the_start_is_taken_on_frozen_or_not_started_at_all() -> None:
    run, effects = step(begin(Rules(is_probed=True), is_paused=True), Begun())
    assert (run.state, run.detail, effects) == (RunState.WAITING, "paused", (AdoptOnly(),))
    found, effects = step(run, Adopted(Launched(FakeHandle(), was_ready=True)))
    assert (found.state, effects) == (RunState.UP, (SayPresent(), FreezeOrThaw()))
    assert step(found, Frozen())[0].state is RunState.PAUSED
    gone, (end,) = step(run, Adopted(None))
    assert gone.state is RunState.ENDED
    assert isinstance(end, Exit)
    assert end.reason.evidence["hold"]
    resumed, effects = step(run, ResumeAsked())
    assert (resumed.state, effects) == (RunState.LAUNCHING, (AdoptOrLaunch(),))


def test_while_nobody_can_tell_a_paused_one_is_looked_for_again_and_never_launched() -> None:
    run = step(begin(Rules(), is_paused=True), Begun())[0]
    run, effects = step(run, Adopted(None, "engine away"))
    assert (run.state, effects) == (RunState.UNKNOWN, (RetryLater(),))
    run, effects = step(run, RetryDue())
    assert (run.state, effects) == (RunState.WAITING, (AdoptOnly(),))


# -- a fresh start: whatever lives of it is stopped first -------------------------------------------------------------


def fresh(dependencies: frozenset[str] = frozenset(), *, is_paused: bool = False) -> ServiceRun:
    run, effects = step(begin(Rules(dependencies=dependencies), is_paused=is_paused, is_fresh=True), Begun())
    assert effects == (ClearFirst(),)
    assert run.state is RunState.WAITING
    return run


def test_a_fresh_run_begins_when_nothing_of_the_old_one_lives() -> None:
    run, effects = step(fresh(), Cleared())
    assert (run.state, effects) == (RunState.LAUNCHING, (AdoptOrLaunch(),))


def test_a_fresh_run_waits_for_its_dependencies_after_the_old_one_was_stopped() -> None:
    run = fresh(frozenset({"db"}))
    run, effects = step(run, DependencySeen("db", is_ready=True))
    assert effects == (), "the old one still lives"
    run, _ = step(run, DependencySeen("db", is_ready=False))
    run, effects = step(run, Cleared())
    assert (run.state, effects) == (RunState.WAITING, ())
    assert step(run, DependencySeen("db", is_ready=True))[1] == (AdoptOrLaunch(),)


def test_where_the_old_one_cannot_be_stopped_now_it_is_tried_again() -> None:
    run, effects = step(fresh(), Cleared("the engine is away"))
    assert (run.state, run.detail, effects) == (RunState.UNKNOWN, "the engine is away", (RetryLater(),))
    run, effects = step(run, RetryDue())
    assert (run.state, effects) == (RunState.WAITING, (ClearFirst(),))


def test_a_stop_in_the_midst_of_it_waits_for_the_old_one_to_be_gone() -> None:
    run, effects = step(fresh(), StopAsked(SHUTDOWN, StopMode.TERMINATE))
    assert (run.state, effects) == (RunState.WAITING, ())
    run, effects = step(run, Cleared())
    assert (run.state, effects) == (RunState.ENDED, (Exit(SHUTDOWN),))


def test_a_paused_one_is_stopped_with_its_group_and_not_started() -> None:
    run, _ = step(fresh(is_paused=True), Cleared())
    assert run.state is RunState.ENDED
