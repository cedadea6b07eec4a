from __future__ import annotations

from dataclasses import replace

import pytest

from runbooks import engine, engine_asks
from runbooks.engine_words import (
    Answer,
    CallDone,
    CancelAsked,
    CheckDone,
    Fence,
    Fenced,
    Finish,
    Kind,
    Phase,
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
from runbooks.model import Action, CallType, Effect, OnFailure, Retry, Status
from runbooks.past import fold
from runbooks.plan import Plan, bind
from runbooks.step_views import step_views
from tests.runbooks.files import runbook
from tests.runbooks.simulated import Daemon, World, call, check, mutating, plan


def kinds(daemon: Daemon) -> list[str]:
    return [record.kind.value for record in daemon.records]


def test_one_step_is_intent_done_verified() -> None:
    daemon = Daemon(plan(mutating("a")), World())
    end = daemon.run()
    assert (end.status, end.detail) == (Status.SUCCEEDED, "")
    assert kinds(daemon) == ["intent", "done", "verified"]
    assert daemon.now >= 1.0  # the criterion has to hold


def test_a_snapshot_is_taken_before_the_intent_and_kept_in_it() -> None:
    made = bind(runbook(), {"service": "a"})
    state, (effect,) = engine.start(made, 0.0)
    assert isinstance(effect, TakeSnapshot)
    assert {call.arguments["service"] for call in effect.calls} == {"a"}
    snapshot = {"a": {"run": 3, "state": "ready", "ready": True, "wanted": True}}
    state, (effect,) = engine.step(state, SnapshotTaken(1, snapshot), 0.0)
    assert isinstance(effect, WriteRecord)
    assert (effect.record.kind, effect.record.snapshot) == (Kind.INTENT, snapshot)
    state, (effect,) = engine.step(state, Recorded(2), 0.0)
    assert isinstance(effect, RunCall)
    _, (resumed,) = engine.resume(made, [Record(Kind.INTENT, 0, "restart", 1, snapshot=snapshot)], 0.0, 5.0)
    assert isinstance(resumed, Fence)


def test_without_a_snapshot_nothing_is_begun() -> None:
    state, _ = engine.start(bind(runbook(), {"service": "a"}), 0.0)
    _, (end,) = engine.step(state, SnapshotTaken(1, None, "the engine is away"), 0.0)
    assert isinstance(end, Finish)
    assert end.status is Status.FAILED
    assert "the engine is away" in end.detail


def test_a_call_that_failed_without_effect_is_tried_again_after_growing_pauses() -> None:
    world = World(refuses=frozenset("a"), proving=frozenset("a"))
    daemon = Daemon(plan(replace(mutating("a"), retry=Retry(4, 1.0, 3.0, max_delay_s=5.0))), world)
    assert daemon.run().status is Status.FAILED
    assert [record.attempt for record in daemon.records if record.kind is Kind.INTENT] == [1, 2, 3, 4]
    assert daemon.now == pytest.approx(1 + 3 + 5)
    assert daemon.world.undone == []


def test_a_call_that_said_it_failed_and_was_applied_is_not_repeated() -> None:
    daemon = Daemon(plan(mutating("a", attempts=3)), World(lies=frozenset("a")))
    assert daemon.run().status is Status.SUCCEEDED
    done = next(record for record in daemon.records if record.kind is Kind.DONE)
    assert "said it failed" in done.detail
    assert "the probe says that it was applied" in done.detail


def test_what_nobody_can_tell_ends_all_automation() -> None:
    world = World(lies=frozenset("b"), hidden=frozenset("b"))
    daemon = Daemon(plan(mutating("a"), mutating("b", attempts=9)), world)
    end = daemon.run()
    assert end.status is Status.UNKNOWN
    assert world.done == ["a", "b"]
    assert world.undone == []
    assert daemon.now >= engine_asks.PROBE_PATIENCE_S  # it was asked for a while


def test_failure_undoes_in_reverse_and_verifies() -> None:
    world = World(unwell=frozenset("c"))
    daemon = Daemon(plan(mutating("a"), mutating("b"), mutating("c")), world)
    end = daemon.run()
    assert end.status is Status.ROLLED_BACK
    assert world.undone == ["c", "b", "a"]
    assert kinds(daemon)[-10:] == ["failing", *["undo_intent", "undo_done", "undo_verified"] * 3]
    assert "rolled back: c, b, a" in end.detail


def undone(daemon: Daemon) -> list[str]:
    return [words[1] for words in daemon.world.asked if words[0] == "undo"]


def test_half_a_step_is_undone_although_its_probe_says_no() -> None:
    daemon = Daemon(plan(mutating("a"), mutating("b", attempts=2)), World(halves=frozenset("b")))
    end = daemon.run()
    assert (end.status, end.detail) == (Status.ROLLED_BACK, "step 'b': stopped in the middle; rolled back: b, a")
    assert (daemon.world.half, undone(daemon)) == ([], ["b", "a"])


def test_half_a_step_that_cannot_be_undone_latches() -> None:
    end = Daemon(plan(mutating("a")), World(halves=frozenset("a"), stuck=frozenset("a"))).run()
    assert end.status is Status.ROLLBACK_FAILED
    world = World(halves=frozenset("b"))
    end = Daemon(plan(mutating("a"), mutating("b", irreversible=True)), world).run()
    assert (end.status, world.half) == (Status.FAILED, ["b"])
    assert "rolled back: a; may be applied in part: b (it cannot be taken back)" in end.detail


def test_a_later_attempt_that_changed_nothing_takes_nothing_of_the_earlier_one_away() -> None:
    made = plan(mutating("a", attempts=2))
    records = [
        Record(Kind.INTENT, 0, "a", 1),
        Record(Kind.DONE, 0, "a", 1, ok=False),
        Record(Kind.INTENT, 0, "a", 2),
        Record(Kind.DONE, 0, "a", 2, ok=False, untouched=True),
    ]
    assert [one.is_doubtful for one in fold(made, records).undo] == [True]
    assert fold(made, [*records[:1], replace(records[1], untouched=True)]).undo == ()
    assert [one.is_doubtful for one in fold(made, [*records[:3], Record(Kind.DONE, 0, "a", 2, ok=True)]).undo] == [
        False
    ]


def test_what_may_not_be_there_is_looked_at_before_it_is_undone() -> None:
    """Its undoing need not be one that does no harm where nothing was done."""
    daemon = Daemon(plan(mutating("a"), mutating("b")), World(refuses=frozenset("b")))
    end = daemon.run()
    assert (end.status, undone(daemon)) == (Status.ROLLED_BACK, ["a"])
    assert kinds(daemon).count("undo_verified") == 2


def test_an_undoing_that_compares_with_the_snapshot_is_made_without_a_look() -> None:
    made = bind(runbook(), {"service": "a"})
    records = [Record(Kind.INTENT, 0, "restart", 1), Record(Kind.DONE, 0, "restart", 1, ok=False)]
    state, (effect,) = engine.resume(made, records, 0.0, 0.0)
    for kind in (Kind.FAILING, Kind.UNDO_INTENT):
        assert isinstance(effect, WriteRecord)
        assert effect.record.kind is kind
        state, (effect,) = engine.step(state, Recorded(effect.ticket), 0.0)
    assert isinstance(effect, RunCall)
    assert effect.call.type is CallType.SERVICE_RESTORE


def test_what_is_certain_to_have_changed_nothing_is_not_undone() -> None:
    made = plan(mutating("a"))
    state, _ = engine.start(made, 0.0)
    state, (effect,) = engine.step(state, Recorded(state.ticket), 0.0)
    assert isinstance(effect, RunCall)
    state, _ = engine.step(state, CallDone(state.ticket, ok=False, error="no", is_untouched=True), 0.0)
    state, (effect,) = engine.step(state, CheckDone(state.ticket, Answer.NO), 0.0)
    assert isinstance(effect, WriteRecord)
    assert effect.record.untouched
    _, (end,) = engine.step(state, Recorded(effect.ticket), 0.0)
    assert end == Finish(Status.FAILED, "step 'a': no")


def test_the_word_of_a_call_is_no_proof_for_one_that_died_before_it() -> None:
    state, (effect,) = engine.resume(plan(mutating("a")), [Record(Kind.INTENT, 0, "a", 1)], 0.0, 0.0)
    state, _ = engine.step(state, Fenced(state.ticket), 0.0)
    state, (effect,) = engine.step(state, CheckDone(state.ticket, Answer.NO), 0.0)
    assert isinstance(effect, RunCall)
    state, _ = engine.step(state, CallDone(state.ticket, ok=False, error="no", is_untouched=True), 0.0)
    state, (effect,) = engine.step(state, CheckDone(state.ticket, Answer.NO), 0.0)
    assert isinstance(effect, WriteRecord)
    assert (effect.record.ok, effect.record.untouched) == (False, False)


@pytest.mark.parametrize("ends", ["cancelled", "too late"])
def test_a_step_that_a_death_tore_is_undone_when_the_run_may_not_go_on(ends: str) -> None:
    world = World(torn=frozenset("b"))
    daemon = Daemon(plan(mutating("a"), mutating("b"), max_execution_s=10.0), world)
    state, (effect,) = engine.start(daemon.plan, 0.0)
    while not (isinstance(effect, RunCall) and effect.call.arguments["argv"] == ("do", "b")):
        state, (effect,) = engine.step(state, daemon._act(effect), daemon.now)
    world.tear(("do", "b"))
    cancel, elapsed_s = (CancelAsked("by alice"), 1.0) if ends == "cancelled" else (None, 11.0)
    state, (effect,) = engine.resume(daemon.plan, daemon.records, 0.0, elapsed_s, cancel)
    while not isinstance(effect, Finish):
        state, (effect,) = engine.step(state, daemon._act(effect), daemon.now)
    assert effect.status is (Status.CANCELLED if ends == "cancelled" else Status.ROLLED_BACK)
    assert (world.half, world.applied, world.undone) == ([], [], ["b", "a"])
    assert "rolled back: b, a" in effect.detail


@pytest.mark.parametrize(("refused", "halved", "status"), [("b", "", Status.SUCCEEDED), ("", "b", Status.ROLLED_BACK)])
def test_what_a_step_left_that_was_passed_over_is_looked_at_before_it_is_called_a_success(
    refused: str, halved: str, status: Status
) -> None:
    world = World(refuses=frozenset(refused), halves=frozenset(halved))
    end = Daemon(plan(mutating("a"), replace(mutating("b"), on_failure=OnFailure.CONTINUE)), world).run()
    assert (end.status, world.half) == (status, [])
    assert "step 'b': " in end.detail
    world = World(refuses=frozenset(refused), halves=frozenset(halved))
    passed_over = replace(mutating("b", irreversible=True), on_failure=OnFailure.CONTINUE)
    end = Daemon(plan(mutating("a"), passed_over), world).run()
    assert end.status is Status.SUCCEEDED
    assert "may be applied in part: b" in end.detail


def test_an_undoing_that_does_not_hold_is_tried_again_and_then_said() -> None:
    world = World(refuses=frozenset("b"), stuck=frozenset("a"), proving=frozenset("b"))
    daemon = Daemon(plan(mutating("a", undo_attempts=3), mutating("b")), world)
    end = daemon.run()
    assert end.status is Status.ROLLBACK_FAILED
    assert kinds(daemon).count("undo_intent") == 3


def test_what_cannot_be_undone_is_named() -> None:
    daemon = Daemon(plan(mutating("a"), mutating("b", irreversible=True), mutating("c")), World(refuses=frozenset("c")))
    end = daemon.run()
    assert end.status is Status.FAILED  # not "rolled back": something stands
    assert daemon.world.undone == ["a"]
    assert "stays applied: b (it cannot be taken back)" in end.detail


def test_idempotent_steps_are_tried_again_without_a_probe_also_when_not_verified() -> None:
    action = Action("i", "i", Effect.IDEMPOTENT, call("do", "i"), verify=check("criterion", "x"), retry=Retry(3, 0.1))
    world = World(refuses=frozenset("i"))
    daemon = Daemon(plan(action), world)
    assert daemon.run().status is Status.FAILED
    assert kinds(daemon) == ["intent", "done"] * 3
    state, (effect,) = engine.resume(plan(action), [Record(Kind.INTENT, 0, "i", 1)], 0.0, 1.0)
    assert isinstance(effect, Fence)
    _, (effect,) = engine.step(state, Fenced(effect.ticket), 0.0)
    assert isinstance(effect, RunCall)


def test_a_waiting_step_only_looks() -> None:
    action = Action("w", "w", Effect.NONE, verify=check("criterion", "x", within_s=3))
    daemon = Daemon(plan(action), World(is_pleased=False))
    end = daemon.run()
    assert end.status is Status.FAILED
    assert not any(isinstance(effect, RunCall) for effect in daemon.seen)
    assert daemon.now == pytest.approx(3.0)


def test_a_precondition_that_does_not_hold_rejects_before_anything_is_done() -> None:
    made = plan(mutating("a"), preconditions=(check("verify", "gone", within_s=1),))
    daemon = Daemon(made, World())
    end = daemon.run()
    assert end.status is Status.REJECTED
    assert "precondition 1" in end.detail
    assert daemon.records == []


def test_a_yes_has_to_hold() -> None:
    made = plan(replace(mutating("a"), verify=check("v", "x", within_s=10, hold_for_s=2)))
    state, _ = engine.resume(made, [Record(Kind.INTENT, 0, "a", 1), Record(Kind.DONE, 0, "a", 1, ok=True)], 0.0, 0.0)

    def look(state: State, answer: Answer, now: float) -> engine.Step:
        return engine.step(state, CheckDone(state.ticket, answer), now)

    def wake(state: State, now: float) -> State:
        state, (effect,) = engine.step(state, Woke(state.ticket), now)
        assert isinstance(effect, RunCheck)
        return state

    state, (effect,) = look(state, Answer.YES, 0.0)
    assert effect == WakeAt(state.ticket, 0.5)
    state, _ = look(wake(state, 0.5), Answer.NO, 0.5)
    state, _ = look(wake(state, 1.0), Answer.YES, 1.0)
    state, (effect,) = look(wake(state, 2.8), Answer.YES, 2.8)
    assert effect == WakeAt(state.ticket, 3.0)
    state, (effect,) = look(wake(state, 3.0), Answer.YES, 3.0)
    assert isinstance(effect, WriteRecord)
    assert effect.record.kind is Kind.VERIFIED


def test_unknown_is_no_yes() -> None:
    made = plan(replace(mutating("a"), verify=check("v", "x", within_s=0)))
    state, _ = engine.resume(made, [Record(Kind.INTENT, 0, "a", 1), Record(Kind.DONE, 0, "a", 1, ok=True)], 0.0, 0.0)
    state, (effect,) = engine.step(state, CheckDone(state.ticket, Answer.UNKNOWN, "away"), 0.0)
    assert isinstance(effect, WriteRecord)
    assert effect.record.kind is Kind.FAILING


def test_the_time_of_the_whole_run_is_kept_and_counts_on_after_a_restart() -> None:
    made = plan(mutating("a"), mutating("b"), max_execution_s=10.0)
    records = [
        Record(Kind.INTENT, 0, "a", 1),
        Record(Kind.DONE, 0, "a", 1, ok=True),
        Record(Kind.VERIFIED, 0, "a", 1, ok=True),
    ]
    state, (effect,) = engine.resume(made, records, now=500.0, elapsed_s=11.0)
    assert isinstance(effect, WriteRecord)
    assert (effect.record.kind, effect.record.detail) == (Kind.FAILING, "took longer than 10 s")
    state, (effect,) = engine.resume(made, records, now=500.0, elapsed_s=7.0)
    assert isinstance(effect, WriteRecord)
    state, (effect,) = engine.step(state, Recorded(effect.ticket), 500.0)
    assert isinstance(effect, RunCall)
    assert effect.call.timeout_s == pytest.approx(3.0)  # no longer than what is left
    state, (effect,) = engine.resume(made, [*records, Record(Kind.INTENT, 1, "b", 1)], now=0.0, elapsed_s=11.0)
    state, (effect,) = engine.step(state, Fenced(state.ticket), 0.0)
    state, (effect,) = engine.step(state, CheckDone(state.ticket, Answer.NO), 0.0)
    assert isinstance(effect, WriteRecord)  # not applied and out of time: it is not done now
    assert (effect.record.kind, effect.record.ok) == (Kind.DONE, False)


HOLDING = check("criterion", "x", within_s=2.0, hold_for_s=600.0)


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (plan(replace(mutating("a"), verify=HOLDING), max_execution_s=10.0), Status.ROLLED_BACK),
        (replace(plan(mutating("a"), max_execution_s=10.0), success_criteria=(HOLDING,)), Status.ROLLED_BACK),
        (plan(preconditions=(HOLDING,), max_execution_s=10.0), Status.REJECTED),
        (plan(Action("w", "w", Effect.NONE, verify=HOLDING), max_execution_s=10.0), Status.FAILED),
    ],
    ids=["verify", "criterion", "precondition", "wait"],
)
def test_what_must_hold_longer_than_the_run_may_last_ends_with_its_time(made: Plan, status: Status) -> None:
    daemon = Daemon(made, World())
    end = daemon.run()
    assert end.status is status
    assert "it held for 10 s of 600 s, and the run took longer than 10 s" in end.detail
    assert daemon.now == pytest.approx(10.0)


def test_a_yes_that_comes_after_the_time_is_over_is_no_success() -> None:
    made = replace(plan(mutating("a"), max_execution_s=10.0), success_criteria=(check("criterion", "x"),))
    daemon = Daemon(made, World())
    state, (effect,) = engine.start(made, 0.0)
    while state.phase is not Phase.CRITERION:
        state, (effect,) = engine.step(state, daemon._act(effect), 0.0)
    _, (end,) = engine.step(state, CheckDone(state.ticket, Answer.YES), 9.9)
    assert end == Finish(Status.SUCCEEDED, "")
    state, (effect,) = engine.step(state, CheckDone(state.ticket, Answer.YES), 10.0)
    assert isinstance(effect, WriteRecord)
    assert (effect.record.kind, effect.record.detail) == (Kind.FAILING, "took longer than 10 s")


@pytest.mark.parametrize("after_effects", range(1, 10))
def test_a_cancelled_run_undoes_what_it_did(after_effects: int) -> None:
    world = World()
    daemon = Daemon(plan(mutating("a"), mutating("b")), world)
    state, (effect,) = engine.start(daemon.plan, 0.0)
    for _ in range(after_effects):
        assert not isinstance(effect, Finish)
        state, (effect,) = engine.step(state, daemon._act(effect), daemon.now)
    state, effects = engine.step(state, CancelAsked("by alice"), daemon.now)
    (effect,) = effects or (effect,)
    while not isinstance(effect, Finish):
        state, (effect,) = engine.step(state, daemon._act(effect), daemon.now)
    assert effect.status is Status.CANCELLED
    assert "by alice" in effect.detail
    assert world.applied == []
    assert world.done.count("b") <= (1 if after_effects >= 5 else 0)


@pytest.mark.parametrize("keeps", [True, False])
def test_what_was_to_begin_while_its_record_was_written_does_not(keeps: bool) -> None:
    """A journal that is held for a minute must not let a step begin a minute after recovery was switched off."""
    world = World()
    daemon = Daemon(plan(mutating("a"), mutating("b")), world)
    state, (effect,) = engine.start(daemon.plan, 0.0)
    while not (isinstance(effect, WriteRecord) and effect.record.kind is Kind.INTENT and effect.record.step == 1):
        state, (effect,) = engine.step(state, daemon._act(effect), daemon.now)
    state, effects = engine.step(state, CancelAsked("by alice", keeps), daemon.now)
    assert effects == ()
    while not isinstance(effect, Finish):
        state, (effect,) = engine.step(state, daemon._act(effect), daemon.now)
    assert effect.status is Status.CANCELLED
    assert world.done.count("b") == 0
    assert world.applied == (["a"] if keeps else [])
    assert ("stays applied: a" if keeps else "rolled back: a") in effect.detail


def test_after_the_end_and_for_old_tickets_nothing_happens() -> None:
    state, _ = engine.start(plan(mutating("a")), 0.0)
    assert engine.step(state, CallDone(state.ticket + 1, ok=True), 0.0) == (state, ())
    over = replace(state, phase=Phase.FINISHED)
    assert engine.step(over, Recorded(over.ticket), 0.0) == (over, ())


def test_no_undoing_where_the_file_says_so() -> None:
    world = World(refuses=frozenset("b"))
    end = Daemon(plan(mutating("a"), mutating("b"), rollback_on_failure=False), world).run()
    assert (end.status, world.undone) == (Status.FAILED, [])
    assert "stays applied: a" in end.detail


# -- what people see --------------------------------------------------------------------------------------------------


def test_steps_as_people_see_them() -> None:
    daemon = Daemon(
        plan(mutating("a"), mutating("b", attempts=2)), World(refuses=frozenset("b"), proving=frozenset("b"))
    )
    end = daemon.run()
    timed = [(float(number), record) for number, record in enumerate(daemon.records)]
    first, second = step_views(timed, end.status, 99.0)
    assert (first.id, first.status, first.attempts, first.error) == ("a", "rolled_back", 1, None)
    assert (second.status, second.attempts, second.error) == ("failed", 2, "refused")
    (running,) = step_views(timed[:1], Status.RUNNING, None)
    assert (running.status, running.ended_at) == ("running", None)
    (left,) = step_views(timed[:1], Status.UNKNOWN, 9.0)
    assert (left.status, left.ended_at) == ("unknown", 9.0)
