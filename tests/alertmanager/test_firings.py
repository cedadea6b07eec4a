"""Which firing a message is about: the rule, and what is written, in a real journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.journal import firings, rows
from actors.journal.alert_batches import NewDecision, new_alert, record_decisions, store_alerts
from actors.journal.firings import Ended, Firing, Kept, Known, is_over, is_repeat
from actors.journal.schema import APPLICATION_ID, MIGRATIONS, open_writer

HOUR = 3600.0
T0 = 1_795_000_000.0


@pytest.mark.parametrize(
    ("known", "starts_at", "age_s", "expected"),
    [
        (Known(T0, T0, "run", None), T0, 10, True),
        (Known(T0, T0, None, None), T0, 10, True),
        (Known(T0, T0, "no_match", None), T0, HOUR - 1, True),
        (Known(T0, T0, "run", None), T0, HOUR, False),  # it fires still: worth another recovery
        (Known(T0, T0, "cooling", None), T0, 10, False),  # "not now" was the answer
        (Known(T0, T0, "recovery_off", None), T0, 10, False),
        (Known(T0, T0, "run", T0 + 5), T0, 10, False),  # it ended: the same start is told when Prometheus was away
        (Known(T0, T0, "run", None), T0 + 1, 10, False),  # its end was never told
        (Known(T0, T0, "run", None), T0 - 1, 10, True),  # a second Prometheus had noticed it earlier
        (Known(T0, T0, "run", None), T0, -500, True),  # the clock was set back
    ],
)
def test_the_rule(known: Known, starts_at: float, age_s: float, expected: bool) -> None:
    assert is_repeat(known, starts_at, known.received_at + age_s, HOUR) is expected


@pytest.mark.parametrize(
    ("known", "starts_at", "age_s", "expected"),
    [
        (Known(T0, T0, "run", T0 + 5), T0, 10, True),
        (Known(T0, T0, "recovery_off", T0 + 5), T0, 10, True),
        (Known(T0, T0, "run", T0 + 5), T0 - 1, 10, True),
        (Known(T0, T0, "run", T0 + 5), T0, -500, True),  # clocks differ
        (Known(T0, T0, "run", T0 + 5), T0 + 1, 10, False),  # it fires anew
        (Known(T0, T0, "run", None), T0, 10, False),
        (Known(T0, T0, "run", T0 + 5), T0, HOUR + 5, False),  # it fires: its Prometheus was away
    ],
)
def test_what_is_told_after_its_end(known: Known, starts_at: float, age_s: float, expected: bool) -> None:
    assert is_over(known, starts_at, known.received_at + age_s, HOUR) is expected


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_writer(tmp_path / "journal.db")
    yield connection
    connection.close()


def kept(db: sqlite3.Connection, starts_at: float = T0, at: float = T0, fingerprint: str = "f1") -> Kept:
    firing = Firing(fingerprint, starts_at, f"am-{fingerprint}-{starts_at:.0f}", {"type": "service_down", "at": at})
    return firings.keep(db, "alertmanager", firing, at, HOUR, may_be_late=True)


def ended(db: sqlite3.Connection, starts_at: float, ended_at: float, fingerprint: str = "f1") -> str | None:
    return firings.end(db, Ended(fingerprint, starts_at, ended_at, "ServiceDown"), ended_at + 1, "root/links/alerts")


def resolved(db: sqlite3.Connection) -> list[tuple[str, float | None]]:
    return [(row["msg_id"], row["resolved_at"]) for row in reversed(rows.alerts(db, 100))]


def test_a_repeat_is_the_same_alert_whatever_its_text_is_by_now(db: sqlite3.Connection) -> None:
    first = kept(db)
    assert kept(db, at=T0 + 60) == Kept(first.seq, first.msg_id, is_new=False)
    assert len(rows.alerts(db, 10)) == 1


def test_what_fires_still_after_an_hour_is_taken_anew(db: sqlite3.Connection) -> None:
    ids = [kept(db, at=T0 + hours * HOUR).msg_id for hours in range(3)]
    assert ids == [f"am-f1-{T0:.0f}", f"am-f1-{T0:.0f}-2", f"am-f1-{T0:.0f}-3"]
    assert not kept(db, at=T0 + 2.5 * HOUR).is_new
    assert ended(db, T0, T0 + 3 * HOUR) == ids[-1]
    assert resolved(db) == [(one, T0 + 3 * HOUR) for one in ids]


def test_an_answer_of_not_now_is_asked_for_again(db: sqlite3.Connection) -> None:
    first = kept(db)
    answer = {"outcome": "recovery_off", "reason": "", "runbook": None, "execution_id": None}
    record_decisions(db, [NewDecision(first.seq, answer, None, T0)])
    assert kept(db, at=T0 + 10).is_new


def test_resolved_ends_it_once_and_the_next_firing_is_new(db: sqlite3.Connection) -> None:
    first = kept(db)
    other = kept(db, fingerprint="f2")
    assert ended(db, T0, T0 + 30) == first.msg_id
    assert ended(db, T0, T0 + 30) is None
    assert resolved(db) == [(first.msg_id, T0 + 30), (other.msg_id, None)]
    (event,) = rows.events(db, "root/links/alerts", 10)
    assert (event["event"], event["evidence"]["alert"]) == ("resolved", first.msg_id)
    assert kept(db, T0 + 60, T0 + 60).is_new
    assert resolved(db)[0] == (first.msg_id, T0 + 30)


def test_an_end_that_comes_late_does_not_end_what_began_after_it(db: sqlite3.Connection) -> None:
    first, second = kept(db), kept(db, T0 + 60, T0 + 60)
    assert ended(db, T0, T0 + 30) is None
    assert resolved(db) == [(first.msg_id, T0 + 60), (second.msg_id, None)]


def test_a_firing_that_comes_after_its_own_end_is_over(db: sqlite3.Connection) -> None:
    first = kept(db)
    assert ended(db, T0, T0 + 30) == first.msg_id
    assert kept(db, at=T0 + 40) == Kept(first.seq, first.msg_id, is_new=False, is_over=True)
    assert resolved(db) == [(first.msg_id, T0 + 30)]
    own = Firing("f1", T0 - 5, "self-1", {"type": "x"})
    assert firings.keep(db, "selfheal", own, T0 + 40, HOUR).is_new, "our own clock was set back"
    assert ended(db, T0, T0 + 45) == "self-1"
    assert kept(db, at=T0 + 45 + HOUR).is_new, "it is told still"


def test_an_end_of_what_never_fired_here_changes_nothing(db: sqlite3.Connection) -> None:
    assert ended(db, T0, T0 + 30) is None
    assert resolved(db) == []
    assert rows.events(db, "root/links/alerts", 10) == []
    assert kept(db, T0 + 60, T0 + 60).is_new


def test_a_journal_of_before_gets_the_table(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    old = sqlite3.connect(path, isolation_level=None)
    old.executescript(f"{MIGRATIONS[1]}; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=1")
    store_alerts(old, [new_alert("local", "alert-of-old", {"type": "x"}, T0)])
    old.close()
    now = open_writer(path)
    assert kept(now).is_new
    assert resolved(now)[0] == ("alert-of-old", None)
    now.close()
