"""Steps that depend on others: what they give back, when they are left out, blocked, tried again, or failed past."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runbooks import engine
from runbooks.engine_words import CallDone, CancelAsked, Fenced, Finish, Kind, Record, RunCall, SnapshotTaken
from runbooks.model import Action, CallType, Effect, FieldTest, OnFailure, Op, Retry, Rollback, Status, Trouble
from runbooks.past import fold
from runbooks.plan import Plan, bind
from runbooks.step_views import step_views
from runbooks.templating import BadTemplate
from tests.runbooks.files import COMMAND, GOOD, runbook
from tests.runbooks.simulated import Daemon, World, call, check, mutating, plan


def kinds(daemon: Daemon) -> list[tuple[str, str]]:
    return [(record.kind.value, record.step_id) for record in daemon.records]


def giving(name: str, **outputs: str) -> Action:
    return replace(mutating(name), outputs=outputs)


def taking(name: str, *words: str) -> Action:
    return replace(mutating(name), call=call("do", name, *words))


# -- outputs ----------------------------------------------------------------------------------------------------------


def test_what_a_step_gives_back_is_put_into_later_ones() -> None:
    world = World(results={"a": {"found": {"pid": 17, "name": "x"}}})
    made = plan(giving("a", pid="/found/pid", owner="/found/name", gone="/nowhere"), taking("b", "{pid}", "of {owner}"))
    daemon = Daemon(made, world)
    assert daemon.run().status is Status.SUCCEEDED
    assert ("do", "b", "17", "of x") in world.asked
    done = next(record for record in daemon.records if record.kind is Kind.DONE)
    assert done.outputs == {"pid": 17, "owner": "x"}


def test_a_value_is_never_looked_at_again() -> None:
    """Neither a parameter nor an output that looks like a placeholder is filled a second time."""
    world = World(results={"a": "{secret} {{x}}"})
    made = replace(plan(giving("a", out=""), taking("b", "{out}", "{word}")), values={"word": "{out}", "secret": "s"})
    daemon = Daemon(made, world)
    assert daemon.run().status is Status.SUCCEEDED
    assert ("do", "b", "{secret} {{x}}", "{out}") in world.asked


def test_a_parameter_wins_over_an_output_of_its_name() -> None:
    world = World(results={"a": 1})
    made = replace(plan(giving("a", x=""), taking("b", "{x}")), values={"x": "mine"})
    Daemon(made, world).run()
    assert ("do", "b", "mine") in world.asked


@pytest.mark.parametrize("given", [None, {"other": 1}, "x" * (engine.MAX_OUTPUT_CHARS + 1)])
def test_a_step_whose_value_is_not_there_fails_before_anything_of_it_is_done(given: Any) -> None:
    world = World(results={"a": given})
    pointer = "" if isinstance(given, str) else "/x"
    daemon = Daemon(plan(giving("a", x=pointer), taking("b", "{x}")), world)
    end = daemon.run()
    assert (end.status, world.done, world.undone) == (Status.ROLLED_BACK, ["a"], ["a"])
    assert "no value for {x}" in end.detail


def test_an_output_that_would_be_read_as_an_option_is_refused() -> None:
    world = World(results={"a": "--force"})
    end = Daemon(plan(giving("a", x=""), taking("b", "{x}")), world).run()
    assert end.status is Status.ROLLED_BACK
    assert "would be read as an option" in end.detail


def test_a_resumed_run_makes_the_very_same_call() -> None:
    world = World(results={"a": {"id": [1, 2]}})
    made = plan(giving("a", ids="/id"), taking("b", "{ids}"))
    daemon = Daemon(made, world, after=frozenset({8}))  # the call of b is made, and nobody hears of it
    assert daemon.run().status is Status.SUCCEEDED
    intent = next(record for record in daemon.records if (record.kind, record.step_id) == (Kind.INTENT, "b"))
    state = fold(made, daemon.records[: daemon.records.index(intent) + 1])
    assert state.action.call == replace(call("do", "b", "[1, 2]"))


def test_what_would_not_do_the_same_again_is_not_done_at_all() -> None:
    """Another program version, or a journal that was changed: the intent names another call."""
    made = plan(mutating("a"))
    records = [Record(Kind.INTENT, 0, "a", 1, bound="0" * 64)]
    _, (end,) = engine.resume(made, records, 0.0, 0.0)
    assert isinstance(end, Finish)
    assert end.status is Status.UNKNOWN
    assert "would not do again" in end.detail


def test_rollback_is_bound_with_what_was_known_at_the_intent() -> None:
    world = World(results={"a": 5}, refuses=frozenset("c"))
    undoing = replace(mutating("b"), rollback=Rollback(call("undo", "b", "{x}"), check("undone", "b", "{x}")))
    end = Daemon(plan(giving("a", x=""), undoing, mutating("c")), world).run()
    assert end.status is Status.ROLLED_BACK
    assert ("undo", "b", "5") in world.asked


def test_criteria_know_the_outputs() -> None:
    world = World(results={"a": 5})
    made = replace(plan(giving("a", x="")), success_criteria=(check("criterion", "{x}"),))
    daemon = Daemon(made, world)
    assert daemon.run().status is Status.SUCCEEDED
    asked = [effect.call.arguments["argv"] for effect in daemon.seen if hasattr(effect, "call")]
    assert ("criterion", "5") in asked


def test_binding_finds_at_once_what_can_never_be_filled() -> None:
    raw = {**GOOD, "actions": [*GOOD["actions"], COMMAND]}
    with pytest.raises(BadTemplate, match="option"):
        bind(runbook(raw), {"service": "-rf"})
    with pytest.raises(BadTemplate, match="no value"):
        bind(runbook(raw), {})


# -- when -------------------------------------------------------------------------------------------------------------


def only_if(action: Action, pointer: str, value: Any) -> Action:
    return replace(action, when=FieldTest(pointer, Op.EQ, value))


@pytest.mark.parametrize(
    ("pointer", "value", "is_made"),
    [
        ("/alert/severity", "high", True),
        ("/alert/severity", "low", False),
        ("/alert/nothing", "x", False),
        ("/parameters/mode", "fast", True),
        ("/outputs/found", 3, True),
        ("/outputs/found", 4, False),
        ("/outputs/missing", 4, False),
    ],
)
def test_a_step_is_made_only_when_its_condition_holds(pointer: str, value: Any, is_made: bool) -> None:
    world = World(results={"a": 3})
    made = plan(giving("a", found=""), only_if(mutating("b"), pointer, value))
    daemon = Daemon(replace(made, values={"mode": "fast"}, facts={"severity": "high"}), world)
    end = daemon.run()
    assert end.status is Status.SUCCEEDED
    assert world.done == (["a", "b"] if is_made else ["a"])
    skipped = [record for record in daemon.records if record.kind is Kind.SKIPPED]
    assert [record.step_id for record in skipped] == ([] if is_made else ["b"])
    assert all(pointer in record.detail for record in skipped)


def test_a_step_that_was_left_out_stays_so() -> None:
    """The decision is on record: the alert may have been forgotten when the run goes on."""
    made = plan(only_if(mutating("a"), "/alert/x", 1), mutating("b"))
    state, (effect,) = engine.resume(
        replace(made, facts={"x": 1}), [Record(Kind.SKIPPED, 0, "a", 1, detail="/x is 2")], 0.0, 0.0
    )
    assert state.action.id == "b"
    assert not isinstance(effect, Finish)


@pytest.mark.parametrize("number", range(16))
def test_after_a_death_a_step_that_was_left_out_still_blocks_nobody(number: int) -> None:
    """It was the step before it, the one last bound, that counted as passed."""
    third = replace(mutating("c"), dependencies=("b",))
    world, made = World(), plan(mutating("a"), only_if(mutating("b"), "/alert/x", 1), third)
    end = Daemon(made, world, after=frozenset({number})).run()
    assert (end.status, world.done) == (Status.SUCCEEDED, ["a", "c"])


@pytest.mark.parametrize("number", range(16))
def test_after_a_death_the_step_that_failed_is_still_named(number: int) -> None:
    going_on = {"on_failure": OnFailure.CONTINUE}
    second = replace(mutating("b"), **going_on)  # type: ignore[arg-type]
    third = replace(mutating("c"), dependencies=("b",), **going_on)  # type: ignore[arg-type]
    world = World(refuses=frozenset("b"))
    end = Daemon(plan(mutating("a"), second, third), world, after=frozenset({number})).run()
    assert (end.status, world.applied) == (Status.SUCCEEDED, ["a"])
    assert end.detail == "although step 'b': refused; step 'c': blocked: b did not succeed"


def test_a_step_that_was_begun_is_gone_on_with_whatever_the_alert_says_now() -> None:
    made = plan(only_if(mutating("a"), "/alert/x", 1))
    daemon = Daemon(made, World(), records=[Record(Kind.INTENT, 0, "a", 1)])
    state, (effect,) = engine.resume(made, daemon.records, 0.0, 0.0)
    while not isinstance(effect, Finish):
        state, (effect,) = engine.step(state, daemon._act(effect), daemon.now)
    assert (effect.status, daemon.world.done) == (Status.SUCCEEDED, ["a"])


# -- dependencies and on_failure --------------------------------------------------------------------------------------


def failing(name: str, what: OnFailure, **more: Any) -> Action:
    return replace(mutating(name), on_failure=what, **more)


def test_going_on_after_a_failed_step_is_said_at_the_end() -> None:
    world = World(refuses=frozenset("a"))
    daemon = Daemon(plan(failing("a", OnFailure.CONTINUE), mutating("b")), world)
    end = daemon.run()
    assert (end.status, world.applied) == (Status.SUCCEEDED, ["b"])
    assert end.detail == "although step 'a': refused"
    assert ("step_failed", "a") in kinds(daemon)


def test_what_a_failed_step_left_unverified_is_no_success() -> None:
    """It went on, all criteria hold, and still something stands that nobody has verified: all of it is undone."""
    world = World(unwell=frozenset("a"))
    end = Daemon(plan(failing("a", OnFailure.CONTINUE), mutating("b")), world).run()
    assert (end.status, world.applied, world.undone) == (Status.ROLLED_BACK, [], ["b", "a"])
    assert "what a did is not verified" in end.detail


def test_going_on_does_not_help_when_a_criterion_fails() -> None:
    world = World(refuses=frozenset("a"), is_pleased=False)
    end = Daemon(plan(failing("a", OnFailure.CONTINUE), mutating("b")), world).run()
    assert (end.status, world.undone) == (Status.ROLLED_BACK, ["b"])


@pytest.mark.parametrize(("what", "word", "escalates"), [("halt", "halted", False), ("escalate", "escalated", True)])
def test_a_run_may_end_where_it_is(what: str, word: str, escalates: bool) -> None:
    world = World(refuses=frozenset("b"), proving=frozenset("b"))
    end = Daemon(plan(mutating("a"), failing("b", OnFailure(what)), mutating("c")), world).run()
    assert (end.status, end.escalates) == (Status.FAILED, escalates)
    assert (world.applied, world.undone) == (["a"], [])
    assert end.detail == f"{word}: step 'b': refused; stays applied: a"
    end = Daemon(plan(mutating("a"), failing("b", OnFailure(what))), World(refuses=frozenset("b"))).run()
    assert end.detail == f"{word}: step 'b': refused; may be applied in part: b; stays applied: a"


def test_a_step_whose_dependency_failed_is_blocked_and_that_is_a_failure() -> None:
    world = World(refuses=frozenset("a"))
    made = plan(failing("a", OnFailure.CONTINUE), mutating("b"), replace(mutating("c"), dependencies=("b", "a")))
    daemon = Daemon(made, world)
    end = daemon.run()
    assert (end.status, world.done, world.undone) == (Status.ROLLED_BACK, ["b"], ["b"])
    assert "step 'c': blocked: a did not succeed" in end.detail


def test_blocked_steps_block_those_that_need_them() -> None:
    world = World(refuses=frozenset("a"))
    made = plan(
        failing("a", OnFailure.CONTINUE),
        failing("b", OnFailure.CONTINUE, dependencies=("a",)),
        failing("c", OnFailure.CONTINUE, dependencies=("b",)),
        mutating("d"),
    )
    daemon = Daemon(made, world)
    end = daemon.run()
    assert (end.status, world.done) == (Status.SUCCEEDED, ["d"])
    assert end.detail.count("blocked") == 2
    timed = [(1.0, record) for record in daemon.records]
    views = {view.id: view.status for view in step_views(timed, end.status, 2.0)}
    assert views == {"a": "failed", "b": "failed", "c": "failed", "d": "succeeded"}


def test_a_step_that_was_left_out_blocks_nobody() -> None:
    made = plan(only_if(mutating("a"), "/alert/x", 1), replace(mutating("b"), dependencies=("a",)))
    daemon = Daemon(made, World())
    assert daemon.run().status is Status.SUCCEEDED
    views = {view.id: view.status for view in step_views([(1.0, one) for one in daemon.records], Status.SUCCEEDED, 2.0)}
    assert views == {"a": "skipped", "b": "succeeded"}


def test_a_step_without_verification_is_shown_as_succeeded_once_the_run_goes_on() -> None:
    made = plan(Action("a", "a", Effect.NONE, call("do", "a")), only_if(mutating("b"), "/alert/x", 1), mutating("c"))
    daemon = Daemon(made, World())
    assert daemon.run().status is Status.SUCCEEDED
    views = {view.id: view.status for view in step_views([(1.0, one) for one in daemon.records], Status.SUCCEEDED, 2.0)}
    assert views == {"a": "succeeded", "b": "skipped", "c": "succeeded"}


@pytest.mark.parametrize("verify", [check("verify", "a"), None])
def test_what_is_done_without_verification_counts_as_done_after_a_resume_too(verify: Any) -> None:
    first = Action("a", "a", Effect.IDEMPOTENT, call("do", "a"), verify=verify)
    made = plan(first, replace(mutating("b"), dependencies=("a",)))
    records = [Record(Kind.INTENT, 0, "a", 1), Record(Kind.DONE, 0, "a", 1, ok=True)]
    records += [Record(Kind.VERIFIED, 0, "a", 1, ok=True)] if verify else []
    records += [Record(Kind.INTENT, 1, "b", 1)]
    assert fold(made, records).passed == {"a"}


# -- retry ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "trouble", "attempts"),
    [
        ((), Trouble.OTHER, 3),
        ((), Trouble.REFUSED, 3),
        ((), Trouble.PERMANENT, 1),
        (("timeout",), Trouble.REFUSED, 1),
        (("timeout", "refused"), Trouble.REFUSED, 3),
        (("permanent",), Trouble.PERMANENT, 3),
    ],
)
def test_only_failures_worth_it_are_tried_again(on: tuple[str, ...], trouble: Trouble, attempts: int) -> None:
    world = World(refuses=frozenset("a"), proving=frozenset("a"), troubles={"a": trouble})
    daemon = Daemon(plan(replace(mutating("a"), retry=Retry(3, 0.1, on=on))), world)
    assert daemon.run().status is Status.FAILED
    assert kinds(daemon).count(("intent", "a")) == attempts
    failed = [record for record in daemon.records if record.kind is Kind.DONE]
    assert {record.trouble for record in failed} == {trouble.value}


def test_a_resumed_run_knows_what_is_worth_another_try() -> None:
    made = plan(replace(mutating("a"), retry=Retry(3, 0.1)))
    records = [
        Record(Kind.INTENT, 0, "a", 1),
        Record(Kind.DONE, 0, "a", 1, ok=False, trouble="permanent", untouched=True),
    ]
    _, (end,) = engine.resume(made, records, 0.0, 0.0)
    assert isinstance(end, Finish)
    assert end.status is Status.FAILED


def pauses(seed: str) -> list[float]:
    made = replace(plan(replace(mutating("a"), retry=Retry(5, 4.0, 1.0, jitter=True))), seed=seed)
    daemon = Daemon(made, World(refuses=frozenset("a")))
    daemon.run()
    return [effect.at_s for effect in daemon.seen if hasattr(effect, "at_s")]


def test_pauses_differ_by_run_and_attempt_and_are_the_same_when_resumed() -> None:
    assert pauses("x") == pauses("x")
    assert pauses("x") != pauses("y")
    waits = [after - before for before, after in zip([0.0, *pauses("x")], pauses("x"), strict=False)]
    assert len(set(waits)) == len(waits)
    assert all(2.0 <= wait <= 4.0 for wait in waits)


# -- calls nobody can end, and the end asked for ----------------------------------------------------------------------


def until_call(made: Plan, daemon: Daemon, name: str) -> tuple[Any, RunCall]:
    state, (effect,) = engine.start(made, 0.0)
    while not (isinstance(effect, RunCall) and effect.call.arguments["argv"][1] == name):
        state, (effect,) = engine.step(state, daemon._act(effect), daemon.now)
    return state, effect


def test_a_call_nobody_can_end_is_never_followed_by_another() -> None:
    made = plan(mutating("a"), mutating("b", attempts=5))
    daemon = Daemon(made, World())
    state, effect = until_call(made, daemon, "b")
    _, (end,) = engine.step(state, CallDone(effect.ticket, ok=False, error="hangs", is_lost=True), 1.0)
    assert isinstance(end, Finish)
    assert (end.status, end.detail) == (Status.UNKNOWN, "step 'b': hangs; stays applied: a")


def test_a_fence_that_does_not_hold_ends_the_run() -> None:
    made = plan(mutating("a"))
    state, _ = engine.resume(made, [Record(Kind.INTENT, 0, "a", 1)], 0.0, 0.0)
    _, (end,) = engine.step(state, Fenced(state.ticket, "pid 7 will not die"), 0.0)
    assert isinstance(end, Finish)
    assert end.status is Status.UNKNOWN
    assert "pid 7" in end.detail


def test_the_end_that_keeps_lets_the_step_finish_and_undoes_nothing() -> None:
    made = plan(mutating("a"), mutating("b"), mutating("c"))
    daemon = Daemon(made, World())
    state, effect = until_call(made, daemon, "b")
    state, effects = engine.step(state, CancelAsked("switched off", keeps=True), 0.0)
    assert effects == ()
    step_ = engine.step(state, daemon._act(effect), 0.0)
    while not isinstance(step_[1][0], Finish):
        step_ = engine.step(step_[0], daemon._act(step_[1][0]), daemon.now)
    end = step_[1][0]
    assert (end.status, daemon.world.applied) == (Status.CANCELLED, ["a", "b"])
    assert end.detail == "cancelled: switched off; stays applied: a, b"
    assert kinds(daemon)[-1] == ("verified", "b")


@pytest.mark.parametrize("keeps", [True, False])
def test_an_end_asked_for_before_a_death_is_still_asked_for(keeps: bool) -> None:
    made = plan(mutating("a"), mutating("b"))
    world = World(applied=["a"], done=["a"])
    records = [Record(Kind.INTENT, 0, "a", 1), Record(Kind.DONE, 0, "a", 1, ok=True)]
    daemon = Daemon(made, world, records=records)
    state, (effect,) = engine.resume(made, records, 0.0, 0.0, CancelAsked("by alice", keeps))
    while not isinstance(effect, Finish):
        state, (effect,) = engine.step(state, daemon._act(effect), daemon.now)
    assert (effect.status, world.applied) == (Status.CANCELLED, ["a"] if keeps else [])


def test_a_run_that_is_to_end_before_it_began_does_nothing() -> None:
    _, (end,) = engine.start(plan(mutating("a")), 0.0, CancelAsked("by alice"))
    assert isinstance(end, Finish)
    assert end.status is Status.CANCELLED


def test_snapshot_trouble_is_the_steps_own_failure() -> None:
    state, _ = engine.start(bind(runbook(), {"service": "a"}), 0.0)
    _, (end,) = engine.step(state, SnapshotTaken(1, None, "away"), 0.0)
    assert isinstance(end, Finish)
    assert end.detail == "step 'restart': no snapshot could be taken: away"
    assert state.action.call is not None
    assert state.action.call.type is CallType.SERVICE_RESTART
