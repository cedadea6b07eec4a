"""One answer that cannot be written costs nobody else his own, and no stored alert its decision."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import zmq

from actors.answers import Asker, Refusal, Replies
from actors.intake import MAX_TOLD, AlertIntake
from actors.journal.alert_batches import new_alert, store_alerts
from actors.messages import IoDone
from bridge_link.batch import batch_of
from bridge_link.keys import find_key
from bridge_link.sockets import make_dealer
from bridge_link.wire import ContentType, Kind, Message, decode, encode
from guardian_link import Alert, GuardianClient
from guardian_link.messages import BadAlert, facts_of
from supervisors.recovery import GUARDIAN_PATH
from tests.links.guarded import add_client, heard, raw_client, said
from tests.recovery.place import Place, recovering
from tests.support.eventually import eventually

NOISE = {"type": "noise"}
ASKED_FOR = {"type": "service_failure"}
"""A runbook asks for it (and lacks a service): it takes the decider."""


class Back:
    """A pump that keeps what it is given; a broken one takes nothing."""

    def __init__(self, *, is_broken: bool = False) -> None:
        self.given: list[Message] = []
        self.is_broken = is_broken

    def send(self, _peer: bytes, message: Message) -> None:
        self.given.append(message)

    def send_frames(self, answers: Iterable[tuple[bytes, list[bytes]]]) -> None:
        if self.is_broken:
            raise OSError("closed")
        self.given += [decode(frames) for _, frames in answers]


def test_each_answer_stands_for_itself(caplog: pytest.LogCaptureFixture) -> None:
    unwritable: Any = {"outcome": "no_match", "reason": object()}
    large = {"outcome": "no_match", "reason": None, "runbook": "r" * 70_000}
    back, replies = Back(), Replies()
    replies.decided(Asker(Back(is_broken=True), b"p", "to-nobody"), {"outcome": "no_match"})
    replies.decided(Asker(back, b"p", "single-bad"), {"outcome": unwritable})
    replies.decided(Asker(back, b"p", "batched-bad", "batch-bad-1"), large)
    replies.refused(Asker(back, b"p", "refused-bad"), Refusal("busy", "half a pair: \ud800"))
    replies.decided(Asker(back, b"p", "batched-good", "batch-good-1", ContentType.JSON), {"outcome": "no_match"})
    replies.stored(Asker(back, b"p", "single-good"), is_new=True)
    replies.send()
    assert {(one.kind, one.id) for one in back.given} == {(Kind.STORED, "single-good"), (Kind.DECIDED, "batch-good-1")}
    for lost in ("single-bad", "batch-bad-1", "refused-bad", "1 answers could not be handed"):
        assert lost in caplog.text
    back.given.clear()
    replies.send()
    assert back.given == [], "nothing is said twice"


def undecided(place: Place) -> int:
    count = "SELECT count(*) FROM alerts WHERE outcome IS NULL"
    return place.recovery._journal.read(lambda db: int(db.execute(count).fetchone()[0]))


def test_a_batch_whose_answer_is_too_large_holds_up_no_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wordy(body: Any) -> Any:
        if body.get("severity") == "worst":
            raise BadAlert("severity", "x" * 3000)
        return facts_of(body)

    monkeypatch.setattr("actors.intake.facts_of", wordy)
    monkeypatch.setattr("actors.answers.MOST_BYTES", 10_000)
    bad = {f"alert-bad-{n:02}": {**NOISE, "severity": "worst"} for n in range(60)}
    with recovering(tmp_path) as place, zmq.Context() as context, make_dealer(context, find_key()) as raw:
        raw.connect(place.address)
        raw.send_multipart(encode(Message(Kind.ALERT, "alert-plain", ASKED_FOR)))
        raw.send_multipart(encode(batch_of({**bad, "alert-good": ASKED_FOR})))
        eventually(lambda: place.recovery.statistics()["intake"]["stored"] == 2)
        eventually(lambda: undecided(place) == 0)
        plain: list[Message] = []
        while {one.kind for one in plain if one.id == "alert-plain"} != {Kind.STORED, Kind.DECIDED}:
            assert raw.poll(10_000)
            plain.append(decode(raw.recv_multipart()))


def test_answers_that_fail_altogether_hold_up_no_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recovering(tmp_path) as place, zmq.Context() as context, make_dealer(context, find_key()) as raw:
        raw.connect(place.address)

        def fail(_replies: Replies) -> None:
            raise RuntimeError("a fault of ours")

        intake = place.recovery._intake
        monkeypatch.setattr(intake, "_tell_decisions", lambda _told, _replies: None)
        monkeypatch.setattr(Replies, "send", fail)
        raw.send_multipart(encode(Message(Kind.ALERT, "alert-plain", ASKED_FOR)))
        eventually(lambda: intake.counters.stored == 1)
        eventually(lambda: undecided(place) == 0)


def test_an_incarnation_of_the_decider_knows_nothing_of_what_the_last_one_was_told(tmp_path: Path) -> None:
    """What it had decided and not told would count as told for ever: then nothing more is."""
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        intake = place.recovery._intake
        with intake._lock:
            intake._told.update(range(10**6, 10**6 + MAX_TOLD + 1))
            intake._is_untold = True
        decider = place.system.whereis(GUARDIAN_PATH)
        assert decider is not None
        decider.tell(IoDone("load", error=RuntimeError("dies")))
        eventually(lambda: not intake._told and not intake._is_untold, within_s=20)
        assert guardian.send(Alert(type="service_failure"), timeout_s=10).decision is not None


def test_what_was_stored_and_told_to_nobody_is_found_by_the_next_incarnation(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        intake = place.recovery._intake
        with intake._lock:
            intake._told.update(range(10**6, 10**6 + MAX_TOLD + 1))
            intake._is_untold = True
        guardian.post(Alert(type="service_failure"))
        eventually(lambda: undecided(place) == 1)
        decider = place.system.whereis(GUARDIAN_PATH)
        assert decider is not None
        decider.tell(IoDone("load", error=RuntimeError("dies")))
        eventually(lambda: undecided(place) == 0, within_s=20)


def test_a_guardian_that_beats_is_no_offender_and_may_speak_for_nobody(tmp_path: Path) -> None:
    with recovering(tmp_path) as place:
        key = add_client(tmp_path, "guardian-1", "guardian")
        assert place.recovery._book.look() is None
        beats: list[str] = []
        intake = place.recovery._intake
        object.__setattr__(intake.parts, "bridge", lambda incoming, _answer: beats.append(incoming.client))
        with raw_client(place.address, key) as socket:
            said(socket, Kind.HEARTBEAT, {"name": "mql4", "session": "session-1"})
            asked = said(socket, Kind.QUERY, {"ask": "statistics"})
            answer = heard(socket, 10_000)
            assert answer is not None
            assert (answer.kind, answer.id) == (Kind.ANSWER, asked)
            assert offences(place) == []
            said(socket, Kind.HELLO, {"name": "mql4", "session": "session-1"})
            answer = heard(socket, 10_000)
            assert answer is not None
            assert answer.body["code"] == "forbidden"
            eventually(lambda: offences(place) == ["forbidden: guardian-1 (guardian) may not send HELLO"])
        assert beats == []


def offences(place: Place) -> list[str]:
    query = "SELECT text FROM events WHERE event='denied'"
    return place.recovery._journal.read(lambda db: [row["text"] for row in db.execute(query)])


def test_what_is_stored_while_the_decider_begins_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has read what was undecided, and nobody told it of this one."""
    began = AlertIntake.decider_began

    def store_first(intake: AlertIntake) -> None:
        late = new_alert("c", "alert-late", NOISE, 1.0)
        intake.parts.journal.submit(lambda db: store_alerts(db, [late])).result(10)
        began(intake)

    monkeypatch.setattr(AlertIntake, "decider_began", store_first)
    with recovering(tmp_path) as place:
        eventually(lambda: (found := place.recovery.records.alert("alert-late")) and found["outcome"] == "no_match")
