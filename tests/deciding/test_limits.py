"""Each limit by itself, and what the records say when it breaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runbooks.deciding.breaker import Position, breaker_state
from runbooks.deciding.words import Health, History
from runbooks.matching import Decision, Outcome, decide
from runbooks.model import Runbook, Status
from tests.deciding.worlds import ALERT, NOW, Books, Virtual, ended, limited, past, running
from tests.runbooks.files import runbook


def decided(book: Runbook, *runs: Any, alert: Any = ALERT, now: float = NOW, **more: Any) -> Decision:
    return decide(alert, Books((book,)), History(runs, **more), now)


@pytest.mark.parametrize(("scope", "others"), [("target", "target"), ("runbook", "runbook_id"), ("global", "")])
def test_max_runs_counts_what_began_in_its_scope(scope: str, others: str) -> None:
    book = limited(max_runs=[{"count": 2, "per": "1h", "scope": scope}])
    runs = [ended(book, Status.SUCCEEDED, NOW - 3000, 1), ended(book, Status.FAILED, NOW - 10, 2)]
    answer = decided(book, *runs)
    assert (answer.outcome, "2 runs" in answer.reason) == (Outcome.LIMITED, True)
    assert decided(book, *runs, now=NOW + 700).outcome is Outcome.RUN  # the first is an hour old
    assert decided(book, runs[0]).outcome is Outcome.RUN
    nothing_done = replace(runs[1], status=Status.REJECTED)
    assert decided(book, runs[0], nothing_done).outcome is Outcome.RUN
    if others:
        more: Any = {others: "another"}
        elsewhere = [replace(run, **more) for run in runs]
        assert decided(book, *elsewhere).outcome is Outcome.RUN


def test_runs_of_one_runbook_at_once() -> None:
    book = limited(concurrency=1)
    at_work = running(book, "x-9", NOW - 5, target="service:b")
    answer = decided(book, at_work)
    assert (answer.outcome, answer.reason) == (Outcome.QUEUED, "1 runs of restart_it may be at work at once")
    assert decided(book, replace(at_work, runbook_id="another")).outcome is Outcome.RUN


def test_queue_one_runs_once_more_and_not_twice() -> None:
    book = runbook(dedup={"on_repeat": "queue_one"})
    world = Virtual((book,))
    assert world.alert().outcome is Outcome.RUN
    assert world.alert().outcome is Outcome.QUEUED
    third = world.alert()
    assert (third.outcome, third.execution_id) == (Outcome.DUPLICATE, "x-2")
    world.to(NOW + 60)
    assert world.began == ["x-1", "x-2"]


def test_ignored_repeats_are_no_part_of_the_run() -> None:
    book = runbook(dedup={"on_repeat": "ignore"})
    answer = decided(book, running(book, "x-1", NOW - 1, fingerprint=past(book).fingerprint))
    assert (answer.outcome, answer.execution_id) == (Outcome.DUPLICATE, None)
    assert "ignored" in answer.reason


def test_a_worse_severity_breaks_through() -> None:
    world = Virtual((runbook(dedup={"window": "10m"}),))
    assert world.alert(severity="medium").outcome is Outcome.RUN
    assert world.alert(severity="medium").outcome is Outcome.DUPLICATE
    assert world.alert(severity="critical").outcome is Outcome.QUEUED
    assert world.alert(severity="high").outcome is Outcome.DUPLICATE


# -- the breaker ------------------------------------------------------------------------------------------------------

BROKEN = {"failures": 3, "per": "1h", "open_for": "10m"}


def test_three_runs_that_did_not_help_open_it_and_half_open_lets_exactly_one_through() -> None:
    book = limited(breaker=BROKEN)
    world = Virtual((book,), ends=lambda _run, _now: Status.ROLLED_BACK)
    for _ in range(3):
        assert world.alert().outcome is Outcome.RUN
        world.to(world.now + 10)
    opened_at = world.now
    answers = set()
    while world.now < opened_at + 590:
        answers.add(world.alert().outcome)
        world.to(world.now + 7)
    assert answers == {Outcome.BREAKER_OPEN}
    world.to(opened_at + 600)
    outcomes = [world.alert(message=str(n), severity="critical").outcome for n in range(50)]
    assert outcomes == [Outcome.RUN] + [Outcome.DUPLICATE] * 49
    world.to(world.now + 10)
    assert world.alert().outcome is Outcome.BREAKER_OPEN  # it did not help either
    assert len(world.began) == 4


def test_half_open_another_alert_on_the_target_waits_for_the_trial() -> None:
    book = limited(breaker=BROKEN)
    fails = [ended(book, Status.FAILED, NOW - 1000 + n, n) for n in range(3)]
    trial = running(book, "x-9", NOW - 1, target="service:a")
    answer = decided(book, *fails, trial)
    assert (answer.outcome, "x-9 is tried first" in answer.reason) == (Outcome.BREAKER_OPEN, True)


def test_a_success_closes_it_and_old_failures_do_not_count() -> None:
    book = limited(breaker=BROKEN)

    def position(*runs: Any, now: float = NOW) -> Position:
        state = breaker_state(book, "service:a", History(runs), now)
        assert state is not None
        return state.position

    fails = [ended(book, Status.FAILED, NOW - 30 + n, n) for n in range(3)]
    assert position(*fails) is Position.OPEN
    assert position(*fails, now=NOW + 700) is Position.HALF_OPEN
    assert position(*fails[:2]) is Position.CLOSED
    assert position(*fails[:2], ended(book, Status.CANCELLED, NOW - 1)) is Position.CLOSED
    healed = ended(book, Status.SUCCEEDED, NOW + 700)
    assert position(*fails, healed, now=NOW + 701) is Position.CLOSED
    assert position(*fails, healed, ended(book, Status.FAILED, NOW + 705), now=NOW + 706) is Position.CLOSED
    far = [ended(book, Status.FAILED, NOW - 4000 * n, n) for n in range(3)]
    assert position(*far) is Position.CLOSED
    assert position(*[replace(run, target="service:b") for run in fails]) is Position.CLOSED


# -- blast radius -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "ready", "wanted", "outcome"),
    [
        ("50%", 2, 4, Outcome.RUN),
        ("50%", 1, 4, Outcome.BLAST_RADIUS),
        ("60%", 2, 3, Outcome.RUN),
        ("67%", 2, 3, Outcome.BLAST_RADIUS),
        ("2", 2, 40, Outcome.RUN),
        ("2", 1, 1, Outcome.BLAST_RADIUS),
        ("100%", 0, 0, Outcome.RUN),
    ],
)
def test_too_few_are_ready(rule: str, ready: int, wanted: int, outcome: Outcome) -> None:
    answer = decided(limited(min_healthy=rule), health=lambda: Health(ready, wanted))
    assert answer.outcome is outcome, answer.reason


def test_a_storm_has_a_cooldown_and_a_relapse_begins_it_anew() -> None:
    book, ready = limited(min_healthy="2"), [1]
    history = History(health=lambda: Health(ready[0], 4))

    def answer(at: float) -> Outcome:
        return decide(ALERT, Books((book,)), history, at).outcome

    assert answer(NOW) is Outcome.BLAST_RADIUS
    ready[0] = 3
    assert answer(NOW + 10) is Outcome.BLAST_RADIUS
    ready[0] = 1
    assert answer(NOW + 60) is Outcome.BLAST_RADIUS
    ready[0] = 3
    assert [answer(NOW + s) for s in (65, 124)] == [Outcome.BLAST_RADIUS] * 2
    assert history.storms["2"].since == NOW
    assert answer(NOW + 125) is Outcome.RUN
    assert history.storms == {}


def test_who_cannot_tell_how_many_are_ready_begins_nothing() -> None:
    book = limited(min_healthy="1")
    assert decided(book).outcome is Outcome.BLAST_RADIUS

    def broken() -> Health:
        raise RuntimeError("no board")

    answer = decided(book, health=broken)
    assert (answer.outcome, "no board" in answer.reason) == (Outcome.REJECTED, True)


# -- fail closed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["max_runs", "breaker", "cooldown_s", "concurrency", "min_healthy"])
def test_a_limit_that_throws_lets_nothing_through(limit: str) -> None:
    """The opposite of a dispatcher that logs a policy's error and carries on."""
    nonsense: Any = object()
    book = limited()
    broken = replace(book, limits=replace(book.limits, **{limit: nonsense}))
    answer = decided(broken, ended(book, Status.FAILED, NOW - 1), health=lambda: Health(1, 1))
    assert answer.outcome is Outcome.REJECTED, answer
    assert "could not be decided" in answer.reason


def test_a_latched_target_is_left_alone() -> None:
    answer = decided(limited(), latches={"service:a": "x-7 ended unknown"})
    assert answer.outcome is Outcome.LATCHED
    assert "x-7 ended unknown" in answer.reason
    assert "selfheal recovery release service:a" in answer.reason
    assert decided(limited(), latches={"service:b": "x"}).outcome is Outcome.RUN
