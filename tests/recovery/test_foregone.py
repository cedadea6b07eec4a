"""An alert no runbook asks for is decided with the commit that stores it; every other one by the decider."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from structlog.testing import capture_logs

from actors.deciding.words import AlertsStored
from actors.journal import events, happened
from actors.journal.alert_batches import new_alert, store_alerts
from actors.journal.rows import AlertConflict
from actors.journal.schema import open_writer
from bridge_link.batch import MOST_ALERTS, batch_of
from bridge_link.keys import find_key
from bridge_link.sockets import make_dealer
from bridge_link.wire import Kind, Message, decode, encode
from tests.recovery.place import Place, recovering
from tests.support.eventually import eventually

NOISE = {"type": "noise"}
ASKED_FOR = {"type": "service_failure"}
NO_MATCH = {"outcome": "no_match", "execution_id": None, "runbook": None, "reason": "none for it"}
TOLD = {"outcome": "no_match", "reason": "no runbook for an alert of type 'noise'"}


@contextmanager
def raw_peer(place: Place) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, make_dealer(context, find_key()) as raw:
        raw.connect(place.address)
        yield raw


def heard(raw: zmq.Socket[bytes]) -> Message:
    assert raw.poll(10_000)
    return decode(raw.recv_multipart())


def without_decider(place: Place) -> list[Any]:
    """What it would have been told."""
    told: list[Any] = []
    object.__setattr__(place.recovery._intake.parts, "hint", told.append)
    return told


def stored_rows(place: Place) -> dict[str, str | None]:
    query = "SELECT msg_id, outcome FROM alerts"
    return place.recovery._journal.read(lambda db: {row["msg_id"]: row["outcome"] for row in db.execute(query)})


def test_it_is_decided_by_no_decider_and_each_other_one_is(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, raw_peer(place) as raw:
        hints = without_decider(place)
        raw.send_multipart(encode(Message(Kind.ALERT, "alert-plain", NOISE)))
        stored, decided = heard(raw), heard(raw)
        assert (stored.kind, stored.id, stored.body) == (Kind.STORED, "alert-plain", {"status": "stored"})
        assert (decided.kind, decided.id, decided.body) == (Kind.DECIDED, "alert-plain", TOLD)
        raw.send_multipart(encode(Message(Kind.ALERT, "alert-asked", ASKED_FOR)))
        assert heard(raw).kind is Kind.STORED
        eventually(lambda: hints)
        (hint,) = hints
        assert isinstance(hint, AlertsStored)
        assert [one.msg_id for one in hint.alerts] == ["alert-asked"]
        assert stored_rows(place) == {"alert-plain": "no_match", "alert-asked": None}
        raw.send_multipart(encode(Message(Kind.ALERT, "alert-plain", NOISE)))
        stored, decided = heard(raw), heard(raw)
        assert (stored.body, decided.body) == ({"status": "duplicate"}, TOLD)


def test_in_one_message_each_is_what_it_would_be_alone(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, raw_peer(place) as raw:
        raw.send_multipart(encode(batch_of({"alert-0001": NOISE, "alert-0002": {**NOISE, "message": "as it was"}})))
        assert heard(raw).body == {"stored": ["alert-0001", "alert-0002"]}
        assert heard(raw).body == {"decided": {"alert-0001": TOLD, "alert-0002": TOLD}}
        mixed: dict[str, Mapping[str, Any]] = {
            "alert-0001": NOISE,
            "alert-0002": {**NOISE, "message": "changed"},
            "alert-0003": {**NOISE, "severity": "worst"},
            "alert-0004": NOISE,
            "alert-0005": ASKED_FOR,
            "alert-0006": {"type": "rumour"},
        }
        raw.send_multipart(encode(batch_of(mixed)))
        stored = heard(raw).body
        assert stored["stored"] == ["alert-0004", "alert-0005", "alert-0006"]
        assert stored["duplicate"] == ["alert-0001"]
        codes = {one: told["code"] for one, told in stored["refused"].items()}
        assert codes == {"alert-0002": "conflict", "alert-0003": "malformed"}
        outcomes: dict[str, str] = {}
        while len(outcomes) < 4:
            outcomes |= {one: told["outcome"] for one, told in heard(raw).body["decided"].items()}
        assert outcomes == {
            "alert-0001": "no_match",
            "alert-0004": "no_match",
            "alert-0005": "rejected",
            "alert-0006": "no_match",
        }


def test_while_recovery_is_off_the_decider_says_so(tmp_path: Path) -> None:
    with recovering(tmp_path, enabled=False) as place, raw_peer(place) as raw:
        raw.send_multipart(encode(Message(Kind.ALERT, "alert-plain", NOISE)))
        assert [heard(raw).kind, heard(raw).body["outcome"]] == [Kind.STORED, "recovery_off"]


def test_a_persons_wish_and_the_daemons_own_alerts_take_the_decider(tmp_path: Path) -> None:
    with recovering(tmp_path) as place:
        hints = without_decider(place)
        place.recovery._intake.take_mapping(NOISE)
        place.recovery._intake.take_asked(NOISE)
        eventually(lambda: len(hints) == 2)
        assert set(stored_rows(place).values()) == {None}


def test_they_are_logged_one_by_one_until_they_are_too_many(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, raw_peer(place) as raw:
        with capture_logs() as lines:
            for part in range(10):
                ids = [f"alert-{part}-{number:02}" for number in range(MOST_ALERTS)]
                raw.send_multipart(encode(batch_of(dict.fromkeys(ids, NOISE))))
                assert heard(raw).kind is Kind.STORED
                assert heard(raw).kind is Kind.DECIDED

            def all_said() -> bool:
                place.recovery._intake._sayer.look()
                ones = sum(line["event"] == "alert decided" for line in lines)
                summed = sum(line["more"] for line in lines if line["event"] == "alerts decided")
                return bool(ones + summed == 10 * MOST_ALERTS and summed)

            eventually(all_said)
        assert {line["outcome"] for line in lines if line["event"] == "alert decided"} == {"no_match"}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_writer(tmp_path / "journal.db")
    yield connection
    connection.close()


@pytest.mark.parametrize("count", [1, 3, 20, 70])
def test_each_is_told_once_as_the_decider_tells_it(db: sqlite3.Connection, count: int) -> None:
    """Among them one that was known before, one with another body, and one that is not decided."""
    store_alerts(db, [new_alert("c", "alert-known", NOISE, 1.0), new_alert("c", "alert-other", NOISE, 1.0)])
    ids = [f"alert-{number:02}" for number in range(count)]
    rows = [new_alert("c", one, NOISE, 2.0, NO_MATCH) for one in ids]
    rows += [
        new_alert("c", "alert-known", NOISE, 2.0, NO_MATCH),
        new_alert("c", "alert-other", ASKED_FOR, 2.0, NO_MATCH),
        new_alert("c", "alert-open", ASKED_FOR, 2.0),
    ]
    stored = happened.take_alerts(db, "root/links/alerts", rows, [NOISE] * len(rows))
    assert isinstance(stored[-2], AlertConflict)
    assert [one.decision for one in stored if not isinstance(one, AlertConflict)] == [NO_MATCH] * count + [None, None]
    page = events.page(db, 0, 500)
    told: list[str] = []
    for event in page.events:
        assert event["evidence"]["outcome"] == "no_match"
        told += event["evidence"].get("alerts") or [event["evidence"]["alert"]]
    assert told == ids
    assert len(page.events) == (count if count <= happened.FEW else 1)
    found = db.execute("SELECT msg_id, outcome, reason, decided_at FROM alerts WHERE outcome IS NOT NULL").fetchall()
    assert [tuple(row) for row in found] == [(one, "no_match", "none for it", 2.0) for one in ids]
