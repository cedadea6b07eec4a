"""Alerts that are answered later: ``for``, ``group``, and the modes that answer nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runbooks.deciding.holding import due
from runbooks.deciding.words import History, Pending, Waits
from runbooks.matching import Outcome, decide
from runbooks.model import Status
from tests.deciding.worlds import ALERT, NOW, Books, Virtual, running
from tests.runbooks.files import GOOD, changed, runbook

LASTING = runbook({**GOOD, "for": "5m"})
GROUPED = runbook(group={"by": ["/labels/host"], "wait": "10s", "max": 3})


def test_only_what_goes_on_is_answered_and_by_one_run() -> None:
    world = Virtual((LASTING,))
    first = world.alert()
    assert (first.outcome, first.reason) == (Outcome.PENDING, "it must go on for another 300 s")
    answers = []
    for _ in range(10):
        world.to(world.now + 30)
        answers.append(world.alert().outcome)
    assert answers == [Outcome.DUPLICATE] * 9 + [Outcome.RUN]


def test_a_condition_that_pauses_begins_anew() -> None:
    world = Virtual((LASTING,))
    world.alert()
    world.to(NOW + 301)  # no further alert for as long as it must go on
    again = world.alert()
    assert again.outcome is Outcome.PENDING
    assert again.pending is not None
    assert again.pending.due_at == NOW + 601


PENDING = Pending("for:x", Waits.FOR, "r", 1, NOW, NOW, NOW + 300)


@pytest.mark.parametrize(
    ("pending", "has_ended", "at", "goes", "again_at", "over"),
    [
        (PENDING, True, NOW + 10, False, None, "it is over"),
        (PENDING, False, NOW + 10, False, NOW + 300, ""),
        (PENDING, False, NOW + 300, True, None, ""),  # it fires still
        (PENDING, None, NOW + 300, False, NOW + 300.001, ""),
        (PENDING, None, NOW + 301, False, None, "it did not go on for 300 s"),
        (replace(PENDING, last_at=NOW + 290), None, NOW + 300, False, NOW + 590.001, ""),
        (replace(PENDING, last_at=NOW + 290), None, NOW + 591, False, None, "it did not go on for 300 s"),
        (replace(PENDING, waits=Waits.GROUP), None, NOW + 300, True, None, ""),
        (replace(PENDING, waits=Waits.GROUP), True, NOW + 300, False, None, "it is over"),
        (replace(PENDING, waits=Waits.WARM_UP), None, NOW + 300, True, None, ""),
    ],
)
def test_at_its_time(
    pending: Pending, has_ended: bool | None, at: float, goes: bool, again_at: float | None, over: str
) -> None:
    what = due(pending, has_ended, at)
    assert (bool(what.passed), what.again_at, what.over) == (goes, again_at, over)


def test_what_it_waited_for_is_not_waited_for_twice() -> None:
    assert due(replace(PENDING, waits=Waits.WARM_UP), None, NOW + 300).passed == {Waits.WARM_UP}
    assert due(replace(PENDING, waits=Waits.GROUP), None, NOW + 300).passed == set(Waits)
    both = runbook({**GOOD, "for": "5m", "group": {"by": ["/type"], "wait": "10s"}})
    for passed, waits in ((set(), Waits.FOR), ({Waits.FOR}, Waits.GROUP), ({Waits.FOR, Waits.GROUP}, None)):
        answer = decide(ALERT, Books((both,)), History(), NOW, passed=frozenset(passed))
        assert (answer.pending.waits if answer.pending else None) is waits


def test_a_group_is_answered_by_one_run_when_it_is_full_or_its_time_has_come() -> None:
    world = Virtual((GROUPED,))
    alerts = [world.alert(service=name, labels={"host": "h"}) for name in ("a", "b", "c")]
    assert [one.outcome for one in alerts] == [Outcome.PENDING, Outcome.DUPLICATE, Outcome.RUN]
    assert alerts[2].settles == alerts[0].pending.key  # type: ignore[union-attr]
    assert world.alert(service="d", labels={"host": "other"}).outcome is Outcome.PENDING
    leader = {**ALERT, "service": "d", "labels": {"host": "other"}}
    answer = decide(leader, Books((GROUPED,)), world.history, NOW + 10, passed=frozenset(Waits))
    assert answer.outcome is Outcome.RUN


def test_a_group_is_as_severe_as_its_worst() -> None:
    world = Virtual((GROUPED,))
    world.alert(severity="low", labels={"host": "h"})
    worst = world.alert(severity="critical", service="b", labels={"host": "h"})
    assert worst.pending is not None
    assert (worst.pending.severity, worst.pending.count) == ("critical", 2)


@pytest.mark.parametrize(
    ("severities", "gap_s", "worst"),
    [
        (("critical", "critical", "low"), 0, "critical"),  # it is full
        (("low", "low", "critical"), 0, "critical"),
        (("medium", "low", "low"), 0, "medium"),
        (("critical", "low"), 11, "critical"),  # its time is over, and the alert is before the timer
        (("low", "high"), 11, "high"),
    ],
)
def test_the_run_of_a_group_is_as_severe_as_the_worst_of_it(
    severities: tuple[str, ...], gap_s: float, worst: str
) -> None:
    world = Virtual((GROUPED,))
    for number, severity in enumerate(severities):
        last = world.alert(severity=severity, service=f"s{number}", labels={"host": "h"})
        world.to(world.now + gap_s)
    assert (last.outcome, last.severity, bool(last.settles)) == (Outcome.RUN, worst, True)
    assert [run.severity for run in world.history.runs] == [worst]


def test_what_is_no_group_does_not_change_the_severity() -> None:
    world = Virtual((LASTING,))
    world.alert(severity="critical")
    world.to(NOW + 200)
    world.alert(severity="low")
    world.to(NOW + 301)
    answer = world.alert(severity="low")
    assert (answer.outcome, answer.severity, bool(answer.settles)) == (Outcome.RUN, "low", True)


def test_a_runbook_that_observes_says_what_it_would_have_done() -> None:
    book = runbook(mode="observe")
    answer = decide(ALERT, Books((book,)), History(), NOW)
    assert answer.outcome is Outcome.OBSERVED
    assert answer.reason == "restart_it only observes; it would run (restart)"
    busy = History([running(book, "x-9", NOW, target="service:a")])
    assert "would wait in the queue: x-9 is at work" in decide(ALERT, Books((book,)), busy, NOW).reason
    assert not answer.starts_execution


def test_a_dry_run_says_with_which_values() -> None:
    book = runbook(mode="dry_run")
    answer = decide(ALERT, Books((book,)), History(), NOW)
    assert answer.outcome is Outcome.OBSERVED
    assert answer.reason == "restart_it is a dry run; it would run (restart: service_restart(service='a'))"
    hidden = {**changed("/parameters/service/redact", True), "mode": "dry_run"}
    shown = decide(ALERT, Books((runbook(hidden),)), History(), NOW).reason
    assert "service='***'" in shown


def test_a_runbook_that_is_off_is_not_there() -> None:
    off, other = runbook(mode="off", priority=99), runbook(changed("/id", "other"))
    answer = decide(ALERT, Books((off, other)), History(), NOW)
    assert answer.runbook is other


def test_what_needs_approval_asks_for_it_and_holds_no_target() -> None:
    book = runbook({**changed("/actions/0/requires_confirmation", True), "approval": {"timeout": "5m"}})
    answer = decide(ALERT, Books((book,)), History(), NOW)
    assert (answer.outcome, answer.starts_execution) == (Outcome.AWAITING_APPROVAL, True)
    world = Virtual((book,))
    world.history.put(
        replace(running(runbook(), "x-9", NOW, target="service:a"), status=Status.AWAITING_APPROVAL, started_at=None)
    )
    plain = decide(ALERT, Books((runbook(),)), world.history, NOW)
    assert plain.outcome is Outcome.RUN
