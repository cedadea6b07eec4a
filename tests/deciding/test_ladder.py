"""Escalation: rung after rung, each once, and no loop."""

from __future__ import annotations

from dataclasses import replace

from runbooks.deciding.ladder import NextRung, Rung, next_rungs
from runbooks.deciding.words import History, PastRun
from runbooks.model import Status
from tests.deciding.worlds import NOW, ended, past
from tests.runbooks.files import changed, runbook

BOOK = runbook(escalate=[{"runbook": "next_one", "after": "10s"}, {"notify": "somebody look", "after": "60s"}])
ROOT = ended(BOOK, Status.ROLLED_BACK, NOW, 1)
ON_RUNG = past(runbook(), execution_id="x-r", runbook_id="next_one", fingerprint="f", decided_at=NOW + 10)


def rungs(*runs: PastRun, climbed: tuple[Rung, ...] = ()) -> list[NextRung]:
    by_root: dict[str, list[Rung]] = {}
    for rung in climbed:
        by_root.setdefault(rung.root, []).append(rung)
    return list(next_rungs((BOOK,), History(runs), by_root))


def test_the_first_rung_is_due_after_the_end() -> None:
    (found,) = rungs(ROOT)
    assert (found.number, found.due_at, found.escalation.runbook) == (0, NOW + 10, "next_one")


def test_a_run_whose_step_asks_for_it_is_followed_at_once_and_only_that_one() -> None:
    (found,) = rungs(replace(ROOT, escalates=True))
    assert (found.number, found.due_at) == (0, NOW)
    climbed = (Rung(ROOT.execution_id, 0, NOW + 1, "x-r"),)
    on_rung = replace(ON_RUNG, status=Status.FAILED, ended_at=NOW + 30)
    (found,) = rungs(replace(ROOT, escalates=True), on_rung, climbed=climbed)
    assert (found.number, found.due_at) == (1, NOW + 90)
    (found,) = rungs(ROOT, replace(on_rung, escalates=True), climbed=climbed)
    assert (found.number, found.due_at) == (1, NOW + 30)
    (found,) = rungs(replace(ROOT, escalates=True), climbed=(Rung(ROOT.execution_id, 0, NOW + 1),))
    assert (found.number, found.due_at) == (1, NOW + 61), "a notice was told"


def test_what_helped_was_cancelled_or_has_no_ladder_leads_nowhere() -> None:
    for status in (Status.SUCCEEDED, Status.CANCELLED, Status.REJECTED, Status.EXPIRED):
        assert rungs(replace(ROOT, status=status)) == []
    assert list(next_rungs((runbook(),), History([ROOT]), {})) == []


def test_a_rung_waits_for_the_end_of_its_run_and_ends_the_ladder_when_it_helped() -> None:
    climbed = (Rung(ROOT.execution_id, 0, NOW + 10, "x-r"),)
    at_work = replace(ON_RUNG, status=Status.RUNNING, ended_at=None)
    assert rungs(ROOT, at_work, climbed=climbed) == []
    (found,) = rungs(ROOT, replace(ON_RUNG, status=Status.FAILED, ended_at=NOW + 30), climbed=climbed)
    assert (found.number, found.due_at, found.escalation.notify) == (1, NOW + 90, "somebody look")
    assert rungs(ROOT, replace(ON_RUNG, ended_at=NOW + 30), climbed=climbed) == []


def test_a_rung_that_led_to_no_run_leads_to_the_next() -> None:
    (found,) = rungs(ROOT, climbed=(Rung(ROOT.execution_id, 0, NOW + 10),))
    assert (found.number, found.due_at) == (1, NOW + 70)


def test_the_ladder_has_an_end() -> None:
    both = (Rung(ROOT.execution_id, 0, NOW + 10), Rung(ROOT.execution_id, 1, NOW + 70))
    assert rungs(ROOT, climbed=both) == []


def test_one_ladder_at_a_time_and_a_success_ends_it() -> None:
    later = ended(BOOK, Status.FAILED, NOW + 5, 2)
    assert [one.root for one in rungs(ROOT, later)] == [ROOT]
    assert rungs(ROOT, ended(BOOK, Status.SUCCEEDED, NOW + 5, 2)) == []
    both = (Rung(ROOT.execution_id, 0, NOW + 10), Rung(ROOT.execution_id, 1, NOW + 70))
    anew = ended(BOOK, Status.FAILED, NOW + 100, 3)
    assert [one.root for one in rungs(ROOT, later, anew, climbed=both)] == [anew]


def test_a_runbook_that_escalates_to_itself_makes_no_loop() -> None:
    """A run on a rung has no ladder of its own."""
    own = runbook(escalate=[{"runbook": BOOK.id}])
    root = ended(own, Status.FAILED, NOW, 1)
    on_rung = ended(own, Status.FAILED, NOW + 20, 2)
    climbed = {root.execution_id: [Rung(root.execution_id, 0, NOW + 1, on_rung.execution_id)]}
    assert next_rungs((own,), History([root, on_rung]), climbed) == ()


def test_a_run_on_a_rung_does_not_climb_the_ladder_of_its_own_runbook() -> None:
    other = runbook({**changed("/id", "next_one"), "escalate": [{"runbook": BOOK.id}]})
    on_rung = replace(ON_RUNG, status=Status.FAILED, ended_at=NOW + 30)
    climbed = {ROOT.execution_id: [Rung(ROOT.execution_id, 0, NOW + 10, "x-r")]}
    found = next_rungs((BOOK, other), History([ROOT, on_rung]), climbed)
    assert [(one.root.execution_id, one.number) for one in found] == [(ROOT.execution_id, 1)]
    assert [one.root for one in next_rungs((other,), History([on_rung]), {})] == [on_rung]
