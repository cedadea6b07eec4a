"""What the journal forgets: bodies first, ids far later, nothing that is undecided or has not ended."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.journal import consents, holds, rows
from actors.journal.alert_batches import NewDecision, new_alert, record_decisions, store_alerts
from actors.journal.journal import Journal
from actors.journal.retention import AT_ONCE, Retention, forget
from actors.journal.rows import AlertConflict, Execution, StoredAlert
from actors.journal.schema import open_writer
from guardian_link import Alert, AlertRefused, GuardianClient
from runbooks.deciding.timing import Moment
from runbooks.deciding.words import Pending, Waits
from runbooks.model import Status
from supervisors.recovery import RecoveryPlan
from tests.recovery.place import recovering
from tests.support.eventually import eventually

NOW = 1_000_000.0
DECISION = {"outcome": "no_match", "reason": "none", "runbook": None, "execution_id": None}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_writer(tmp_path / "journal.db")
    yield connection
    connection.close()


def fill_up(db: sqlite3.Connection, count: int, *, at: float = NOW, undecided: tuple[int, ...] = ()) -> None:
    store_alerts(db, [new_alert("c", f"alert-{n:05}", {"n": n}, at) for n in range(1, count + 1)])
    seqs = [n for n in range(1, count + 1) if n not in undecided]
    record_decisions(db, [NewDecision(n, DECISION, None, at) for n in seqs])


def bodies(db: sqlite3.Connection) -> list[int]:
    return [row["seq"] for row in db.execute("SELECT seq FROM alerts WHERE body <> '' ORDER BY seq")]


def seqs(db: sqlite3.Connection) -> list[int]:
    return [row["seq"] for row in db.execute("SELECT seq FROM alerts ORDER BY seq")]


def forget_all(db: sqlite3.Connection, keep: Retention, now: float = NOW) -> None:
    while forget(db, keep, now):
        pass


def again(db: sqlite3.Connection, number: int, n: int | None = None) -> StoredAlert | AlertConflict:
    (stored,) = store_alerts(db, [new_alert("c", f"alert-{number:05}", {"n": number if n is None else n}, NOW)])
    return stored


def test_trap_48_what_comes_again_after_its_body_was_forgotten_is_still_a_duplicate(db: sqlite3.Connection) -> None:
    fill_up(db, 100)
    forget_all(db, Retention(bodies=10))
    assert bodies(db) == list(range(91, 101))
    same = again(db, 1)
    assert same == StoredAlert(1, is_new=False, decision={**DECISION, "reason": None})
    assert isinstance(again(db, 1, n=2), AlertConflict)
    assert len(rows.alerts(db, 1000)) == 10


def test_who_asks_for_a_forgotten_alert_hears_what_became_of_it(db: sqlite3.Connection) -> None:
    fill_up(db, 3)
    forget_all(db, Retention(bodies=1))
    found = rows.alert(db, "alert-00001")
    assert found is not None
    assert (found["body"], found["outcome"], found["resolved_at"]) == ({}, "no_match", None)
    kept = rows.alert(db, "alert-00003")
    assert kept is not None
    assert kept["body"] == {"n": 3}
    assert rows.alert(db, "never-sent") is None


def test_by_age_ids_outlive_bodies_and_the_newest_row_stays(db: sqlite3.Connection) -> None:
    fill_up(db, 20)
    keep = Retention(bodies_s=10, ids_s=100)
    forget_all(db, keep, NOW + 9)
    assert len(bodies(db)) == 20
    forget_all(db, keep, NOW + 11)
    assert (bodies(db), len(seqs(db))) == ([20], 20)
    forget_all(db, keep, NOW + 101)
    assert seqs(db) == [20]
    assert again(db, 7) == StoredAlert(21, is_new=True), "the numbers go on"


def test_the_undecided_is_never_forgotten(db: sqlite3.Connection) -> None:
    fill_up(db, 30, undecided=(5,))
    forget_all(db, Retention(bodies=1, ids=1))
    assert bodies(db) == list(range(5, 31))
    record_decisions(db, [NewDecision(5, DECISION, None, NOW)])
    forget_all(db, Retention(bodies=1, ids=1))
    assert seqs(db) == [30]


def test_what_is_at_work_or_waits_keeps_its_facts(db: sqlite3.Connection) -> None:
    """Whether an approval still holds, and what is waited for, is asked of the alert's body."""
    fill_up(db, 30, undecided=(1, 2, 3))
    for seq, status in ((1, Status.AWAITING_APPROVAL), (2, Status.RUNNING)):
        one = Execution(f"x-{seq}", seq, "r", b"{}", "s", "t", {}, "f", "high", 50, status, NOW)
        record_decisions(db, [NewDecision(seq, {**DECISION, "execution_id": one.id}, one, NOW)])
    record_decisions(db, [NewDecision(3, {**DECISION, "outcome": "pending"}, None, NOW)])
    holds.keep_pending(db, Pending("k", Waits.FOR, "r", 3, 1.0, 1.0, 60.0), Moment(NOW, "boot", 1.0))
    forget_all(db, Retention(bodies=10))
    assert bodies(db) == [1, 2, 3, *range(21, 31)]
    case = consents.case(db, "x-1")
    assert case is not None
    assert case.facts["n"] == 1


def test_an_alert_stays_with_its_execution_until_that_has_ended_long_ago(db: sqlite3.Connection) -> None:
    fill_up(db, 30, undecided=(3, 4))
    for seq in (3, 4):
        one = Execution(f"x-{seq}", seq, "r", b"{}", "s", "t", {}, "f", "high", 50, Status.RUNNING, NOW)
        record_decisions(db, [NewDecision(seq, {**DECISION, "execution_id": one.id}, one, NOW)])
        moment = Moment(NOW, "boot", 1.0)
        holds.add_rung(db, holds.StoredRung(one.id, 0, 0.0, None, "a rung"), "root/links/alerts", moment)
    keep = Retention(bodies=1, ids_s=100)
    rows.finish_execution(db, "x-3", Status.SUCCEEDED, "", NOW)
    forget_all(db, keep, NOW + 101)
    assert seqs(db) == [4, 30]
    assert [one.root for one in holds.all_rungs(db, moment)] == ["x-4"], "its ladder goes with it"
    assert rows.execution(db, "x-3") is None
    assert rows.execution(db, "x-4") is not None


def test_executions_in_front_hold_up_no_ids_behind_them(db: sqlite3.Connection) -> None:
    """More than are looked at in one go; and those in front go with their executions."""
    first, count, most = AT_ONCE + 100, 3 * AT_ONCE, 300
    fill_up(db, count, undecided=tuple(range(1, first + 1)))
    for seq in range(1, first + 1):
        one = Execution(f"x-{seq}", seq, "r", b"{}", "s", "t", {}, "f", "high", 50, Status.RUNNING, NOW)
        record_decisions(db, [NewDecision(seq, {**DECISION, "execution_id": one.id}, one, NOW)])
    forget_all(db, Retention(bodies=1, ids=most))
    assert seqs(db) == [*range(1, first + 1), *range(count - most + 1, count + 1)]
    for seq in range(1, first + 1):
        rows.finish_execution(db, f"x-{seq}", Status.SUCCEEDED, "", NOW)
    forget_all(db, Retention(bodies=1, ids=most))
    assert seqs(db) == [*range(first - most + 1, first + 1), *range(count - most + 1, count + 1)]
    forget_all(db, Retention(bodies=1, ids_s=100), NOW + 101)
    assert seqs(db) == [first, count], "the newest of each stays"


def test_a_little_at_a_time(db: sqlite3.Connection) -> None:
    count = AT_ONCE * 2 + 100
    fill_up(db, count)
    assert [forget(db, Retention(bodies=1), NOW) for _ in range(4)] == [AT_ONCE, AT_ONCE, 99, 0]


def test_events_are_forgotten_and_their_numbers_go_on(db: sqlite3.Connection) -> None:
    for number in range(10):
        rows.add_event(db, NOW + number, "root/a", "e", str(number), {})
    forget_all(db, Retention(events=3), NOW)
    forget_all(db, Retention(events_s=1), NOW + 1000)
    assert [one["seq"] for one in rows.events(db, "root/a", 100)] == [10]
    rows.add_event(db, NOW, "root/a", "e", "new", {})
    assert rows.events(db, "root/a", 1)[0]["seq"] == 11


def test_the_writer_forgets_by_itself_while_alerts_come_in(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", retention=Retention(bodies=50))
    journal.start()
    try:
        for part in range(10):
            first = part * 200 + 1
            made = [new_alert("c", f"alert-{n:05}", {"n": n}, time.time()) for n in range(first, first + 200)]
            journal.submit(lambda db, a=made: store_alerts(db, a)).result(10)  # type: ignore[misc]
            decided = [NewDecision(n, DECISION, None, NOW) for n in range(first, first + 200)]
            journal.submit(lambda db, d=decided: record_decisions(db, d)).result(10)  # type: ignore[misc]
        eventually(lambda: len(journal.read(lambda db: rows.alerts(db, 10_000))) == 50)
    finally:
        journal.close()


def test_trap_48_over_the_link(tmp_path: Path) -> None:
    plan = RecoveryPlan(tmp_path, True, 5, (), "tcp://127.0.0.1:0", None, retention=Retention(bodies=1))
    old = Alert(type="noise", message="old")
    with recovering(tmp_path, plan=plan) as place, GuardianClient(place.address) as guardian:
        guardian.send(old)
        guardian.send(Alert(type="noise"))
        eventually(lambda: [one["id"] for one in guardian.alerts()].count(old.id) == 0)
        ack = guardian.send(old)
        assert ack.status == "duplicate"
        assert ack.decision is not None
        assert ack.decision.outcome == "no_match"
        with pytest.raises(AlertRefused, match="conflict"):
            guardian.send(Alert(type="noise", message="another", id=old.id))
