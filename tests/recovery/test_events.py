"""Events in the journal: numbers given once, an identity, bounds; decided and told together."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from actors.board import NodeKind, NodeState, NodeStatus
from actors.journal import events, happened, runs
from actors.journal.alert_batches import NewDecision, new_alert, store_alerts
from actors.journal.journal import Journal
from actors.journal.retention import Retention, forget
from actors.journal.rows import Execution, OpenAlert, StoredAlert
from actors.journal.runs import HasEnded
from bridge_link.publisher import Place
from bridge_link.wire import decode, encode
from runbooks.model import Status
from supervisors.decisions.model import Report, ReportKind
from supervisors.degradation import Degradation
from supervisors.happenings import Happenings
from supervisors.telling import QUIET_LOOKS, Telling
from tests.recovery.place import recovering
from tests.support.eventually import eventually


@pytest.fixture
def rung() -> list[None]:
    return []


@pytest.fixture
def journal(tmp_path: Path, rung: list[None]) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.db", events.ensure_epoch, lambda: rung.append(None))
    made.start()
    yield made
    made.close()


def add(journal: Journal, count: int = 1, **facts: Any) -> None:
    def work(db: sqlite3.Connection) -> None:
        for number in range(count):
            events.add(db, 1.0, "root/services/a", "exited", str(number), facts)

    journal.submit(work).result(10)


def page(journal: Journal, after: int | None, limit: int = 100) -> events.Page:
    return journal.read(lambda db: events.page(db, after, limit))


PATH: Final = "root/links/alerts"
NO_MATCH: Final = {"outcome": "no_match", "execution_id": None, "runbook": None, "reason": ""}


def seqs(found: events.Page) -> list[int]:
    return [one["seq"] for one in found.events]


def test_a_page_has_what_is_behind_a_number_and_the_bounds(journal: Journal) -> None:
    assert (page(journal, 0).first, page(journal, 0).last) == (1, 0)
    add(journal, 5, code=1)
    found = page(journal, 2, limit=2)
    assert (seqs(found), found.first, found.last) == ([3, 4], 1, 5)
    assert (found.events[0]["event"], found.events[0]["evidence"]) == ("exited", {"code": 1})
    assert (seqs(page(journal, None)), page(journal, None).last) == ([], 5)


def test_the_identity_stays_and_a_new_journal_has_another(journal: Journal, tmp_path: Path) -> None:
    first = page(journal, 0).epoch
    journal.close()
    again = Journal(journal.path, events.ensure_epoch)
    again.start()
    assert page(again, 0).epoch == first
    again.close()
    other = Journal(tmp_path / "other.db", events.ensure_epoch)
    other.start()
    assert len(first) == 32
    assert page(other, 0).epoch != first
    other.close()


def test_the_oldest_are_removed_and_no_number_is_given_again(journal: Journal) -> None:
    add(journal, 30)
    keep = Retention(events=10)
    journal.submit(lambda db: forget(db, keep, 0.0)).result(10)
    found = page(journal, 0)
    assert (found.first, found.last) == (21, 30)
    assert seqs(found) == list(range(21, 31))
    add(journal)
    assert page(journal, 0).last == 31


def test_it_rings_after_the_commit(journal: Journal, rung: list[None]) -> None:
    add(journal)
    eventually(lambda: rung)
    assert page(journal, 0).last == 1


def stored(journal: Journal, msg_id: str, facts: Mapping[str, Any]) -> int:
    (one,) = journal.submit(lambda db: store_alerts(db, [new_alert("c", msg_id, facts, 1.0)])).result(10)
    assert isinstance(one, StoredAlert)
    return one.seq


def execution(alert: OpenAlert) -> Execution:
    return Execution("x-1", alert.seq, "rb", b"{}", "0", "service:a", {}, "f", "high", 0, Status.RUNNING, 1.0)


def test_a_decision_and_an_executions_life_are_told_once_each(journal: Journal) -> None:
    facts = {"type": "service_failure", "service": "a", "severity": "high"}
    seq = stored(journal, "alert-01", facts)
    alert = OpenAlert(seq, "alert-01", facts)
    decision = {"outcome": "run", "execution_id": "x-1", "runbook": "rb", "reason": ""}
    begun = execution(alert)

    def all_of_it(db: sqlite3.Connection) -> None:
        happened.decide_alerts(db, PATH, [alert], [NewDecision(seq, dict(decision), begun, 1.0)])
        with suppress(HasEnded):
            runs.claim(db, "root/runbooks/x-1", begun, 2.0)
        happened.finish_execution(db, "root/runbooks/x-1", begun, Status.FAILED, "no", 3.0)

    journal.submit(all_of_it).result(10)
    journal.submit(all_of_it).result(10)  # another incarnation, after a crash
    found = page(journal, 0).events
    assert [one["event"] for one in found] == ["alert_decided", "execution_started", "execution_ended"]
    assert found[0]["evidence"] == facts | {
        "alert": "alert-01",
        "outcome": "run",
        "execution_id": "x-1",
        "runbook": "rb",
    }
    assert found[2]["evidence"] == {
        "execution_id": "x-1",
        "runbook": "rb",
        "target": "service:a",
        "status": "failed",
        "detail": "no",
    }


@pytest.mark.parametrize("count", [3, 20])
def test_one_that_was_decided_before_takes_no_others_event_along(journal: Journal, count: int) -> None:
    facts = {"type": "noise", "service": "a"}
    ids = [f"alert-{number:02}" for number in range(count)]
    alerts = [OpenAlert(stored(journal, one, facts), one, facts) for one in ids]

    def decide(these: list[OpenAlert], reason: str) -> list[Mapping[str, Any]]:
        body = {**NO_MATCH, "reason": reason}
        made = [NewDecision(one.seq, body, None, 1.0) for one in these]
        return journal.submit(lambda db: happened.decide_alerts(db, PATH, these, made)).result(10)

    decide(alerts[:1], "first")
    stands = decide(alerts, "second")
    assert [one["reason"] for one in stands] == ["first", *["second"] * (count - 1)]
    told: list[str] = []
    for event in page(journal, 0).events:
        told += event["evidence"].get("alerts") or [event["evidence"]["alert"]]
    assert told == ids, "each once"


def test_a_decision_that_is_not_written_is_not_told(journal: Journal) -> None:
    alert = OpenAlert(99, "never stored", {"type": "a"})

    def decide(db: sqlite3.Connection) -> None:
        happened.decide_alerts(db, PATH, [alert], [NewDecision(99, NO_MATCH, None, 1.0)])
        raise ValueError("half done")

    with pytest.raises((ValueError, TypeError)):
        journal.submit(decide).result(10)
    assert page(journal, 0).last == 0


def test_what_is_published_begins_where_somebody_begins_to_listen(journal: Journal) -> None:
    happenings = Happenings(journal, lambda: None)
    add(journal, 3)
    here = happenings.batch(None)
    assert here is not None
    assert (here.place.seq, here.messages) == (3, ())
    add(journal, 600, code=1)
    batch = happenings.batch(here.place)
    assert batch is not None
    assert (len(batch.messages), batch.place.seq, batch.is_all) == (500, 503, False)
    rest = happenings.batch(batch.place)
    assert rest is not None
    assert (rest.place.seq, rest.is_all) == (603, True)
    topic, message = batch.messages[0]
    assert (topic, message.id, message.body["seq"]) == ("exited", f"{here.place.epoch}:4", 4)
    assert decode(encode(message)) == message


def test_a_journal_that_was_begun_anew_is_published_from_its_beginning(journal: Journal) -> None:
    add(journal, 2)
    batch = Happenings(journal, lambda: None).batch(Place("another journal", 70))
    assert batch is not None
    assert [message.body["seq"] for _, message in batch.messages] == [1, 2]


def test_a_journal_that_cannot_be_read_publishes_nothing_now(tmp_path: Path) -> None:
    assert Happenings(Journal(tmp_path / "never there.db"), lambda: None).batch(None) is None


def test_the_end_of_a_trouble_is_told_once() -> None:
    troubles = ["full", "full", *[None] * (QUIET_LOOKS + 2)]
    told: list[str] = []
    telling = Telling(
        "disk", lambda: troubles.pop(0), lambda what, trouble: told.append(f"{what} {trouble}"), told.append
    )
    while troubles:
        telling.look()
    assert told == ["disk full", "disk"]


def test_what_runs_and_is_not_well_is_told_once() -> None:
    told: list[tuple[str, str, str]] = []
    degradation = Degradation(lambda *what: told.append(what))
    path = "root/services/a"
    for state in ("ready", "degraded", "degraded", "ready", "degraded", "failed", "ready"):
        degradation.look(NodeStatus(path, NodeKind.SERVICE, NodeState(state), detail="2 of 3 probes"))
    degradation.look(NodeStatus("root/links/guardian", NodeKind.LINK, NodeState.DEGRADED))
    assert told == [
        (path, "degraded", "2 of 3 probes"),
        (path, "well", "well again"),
        (path, "degraded", "2 of 3 probes"),
    ]


def test_the_board_a_report_and_a_trouble_become_events(tmp_path: Path) -> None:
    with recovering(tmp_path / "state") as place:
        parts = place.recovery
        place.system.board.publish(NodeStatus("root/services/a", NodeKind.SERVICE, NodeState.DEGRADED, detail="slow"))
        parts.reported("root/services/a", Report(ReportKind.STARTED, "a", 1))
        parts.reported("root/links", Report(ReportKind.STARTED, "links", 1))
        parts.trouble_alert("guardian", "cannot write")

        def found() -> list[tuple[str, str]] | None:
            page = parts._journal.read(lambda db: events.page(db, 0, 500))
            told = [(one["path"], one["event"]) for one in page.events]
            return told if ("root/links/guardian", "trouble") in told else None

        told = eventually(found)
    assert told[0] == ("root/journal", "journal_opened")
    assert {("root/services/a", "degraded"), ("root/services/a", "started")} <= set(told)
    assert ("root/links", "started") not in told


def test_a_storm_is_told_in_sums_that_name_each_alert_once(journal: Journal) -> None:
    alerts = [
        OpenAlert(stored(journal, f"alert-{n:02}", {"type": "t"}), f"alert-{n:02}", {"type": "t"}) for n in range(12)
    ]
    runs = execution(alerts[0])
    run: dict[str, Any] = {"outcome": "run", "execution_id": "x-1", "runbook": "rb", "reason": ""}
    outcomes = [run, *({**NO_MATCH, "outcome": "cooling" if n % 2 else "no_match"} for n in range(1, 12))]
    decisions = [
        NewDecision(alert.seq, body, runs if body is run else None, 1.0)
        for alert, body in zip(alerts, outcomes, strict=True)
    ]
    journal.submit(lambda db: happened.decide_alerts(db, PATH, alerts, decisions)).result(10)
    journal.submit(lambda db: happened.decide_alerts(db, PATH, alerts, decisions)).result(10)  # another incarnation
    found = page(journal, 0).events
    assert sorted(one["event"] for one in found) == ["alert_decided", "alerts_decided", "alerts_decided"]
    named = {one["evidence"]["outcome"]: one["evidence"] for one in found}
    assert named["run"]["alert"] == "alert-00"
    assert named["cooling"]["alerts"] == [f"alert-{n:02}" for n in range(1, 12, 2)]
    assert (named["no_match"]["alerts"], named["no_match"]["count"]) == ([f"alert-{n:02}" for n in range(2, 12, 2)], 5)
