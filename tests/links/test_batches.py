"""Alerts that go together: one message, one answer, and still each by itself when anything is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge_link.batch import MOST_ALERTS, batch_of, each_answer, frames_of_batch, grouped
from bridge_link.bodies import pack_msgpack
from bridge_link.channel import DealerChannel, Exchange
from bridge_link.errors import Refused
from bridge_link.pump import Incoming, RouterPump
from bridge_link.wire import Kind, Message, decode, nack
from guardian_link import Alert, AlertRefused, GuardianClient
from guardian_link.delivery import Delivery
from guardian_link.errors import OutboxFull
from guardian_link.outbox import Outbox
from tests.support.eventually import eventually

Script = Callable[[Message], list[Message]]
BODY = {"type": "noise"}


@contextmanager
def served(script: Script) -> Iterator[tuple[list[Message], DealerChannel]]:
    """What a daemon of this script sees, and a channel to it."""
    seen: list[Message] = []

    def take(incoming: Incoming) -> None:
        seen.append(incoming.message)
        for answer in script(incoming.message):
            pump.send(incoming.peer, answer)

    pump = RouterPump("tcp://127.0.0.1:0", take)
    pump.start()
    assert pump.address is not None
    channel = DealerChannel(pump.address)
    try:
        yield seen, channel
    finally:
        channel.close()
        pump.close()


def begin_together(channel: DealerChannel, count: int) -> list[Exchange]:
    """All of them wait before the channel's thread hears of the first."""
    ring, channel._wake.ring = channel._wake.ring, lambda: None  # type: ignore[method-assign]
    exchanges = [channel.begin(Message(Kind.ALERT, f"alert-{n:04}", BODY), (Kind.STORED,)) for n in range(count)]
    ring()
    channel._wake.ring = ring  # type: ignore[method-assign]
    return exchanges


def stored(message: Message) -> list[Message]:
    if message.kind is Kind.ALERTS:
        return [Message(Kind.STORED, message.id, {"stored": list(message.body["alerts"])})]
    return [Message(Kind.STORED, message.id, {"status": "stored"})]


def test_groups_have_room_and_no_id_twice() -> None:
    small = [(f"alert-{n:03}", b"x") for n in range(MOST_ALERTS + 1)]
    assert [len(group) for group in grouped(small)] == [MOST_ALERTS, 1]
    assert [len(group) for group in grouped([("alert-001", b"1"), ("alert-001", b"2")])] == [1, 1]
    large = [(f"alert-{n:03}", b"x" * 30_000) for n in range(3)]
    assert [len(group) for group in grouped(large)] == [1, 1, 1]
    assert list(grouped([])) == []


def test_packed_bodies_make_the_message_that_their_values_make() -> None:
    alerts = {f"alert-{n:03}": {"type": "noise", "labels": {"n": n}} for n in range(40)}
    frames = frames_of_batch("a-batch-1", [(one, pack_msgpack(body)) for one, body in alerts.items()])
    message = decode(frames)
    assert (message.kind, message.id, message.body) == (Kind.ALERTS, "a-batch-1", batch_of(alerts).body)


def test_an_answer_to_many_is_an_answer_to_each() -> None:
    refused = nack("alert-003", "busy", "later", permanent=False, retry_after_ms=5).body
    answer = Message(
        Kind.STORED,
        "a-batch-1",
        {"stored": ["alert-001"], "duplicate": ["alert-002"], "refused": {"alert-003": refused}},
    )
    assert list(each_answer(answer)) == [
        Message(Kind.STORED, "alert-001", {"status": "stored"}),
        Message(Kind.STORED, "alert-002", {"status": "duplicate"}),
        Message(Kind.NACK, "alert-003", refused),
    ]
    assert list(each_answer(Message(Kind.STORED, "a-batch-1", {"stored": 3, "refused": "x"}))) == []


def test_what_waits_together_goes_together_and_each_is_answered() -> None:
    with served(stored) as (seen, channel):
        exchanges = begin_together(channel, 200)
        for one in exchanges:
            assert one.answers[Kind.STORED].result(10) == {"status": "stored"}
        assert len(seen) < 100, "not one message for each"
        eventually(lambda: not channel._batches and not channel._pending)


def test_what_is_begun_at_once_goes_in_one_message() -> None:
    with served(stored) as (seen, channel):
        channel.begin(Message(Kind.ALERT, "the-first-1", BODY), (Kind.STORED,)).answers[Kind.STORED].result(10)
        messages = [Message(Kind.ALERT, f"alert-{n:04}", BODY) for n in range(MOST_ALERTS)]
        exchanges = [channel.prepared(one, (Kind.STORED,)) for one in messages]
        ring = channel._wake.ring

        def heard() -> None:
            """Whoever is told before all are there finds only some: the first of them leaves before more can come."""
            ring()
            eventually(lambda: any(one.tries for one in exchanges))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(channel._wake, "ring", heard)
            channel.begin_all(exchanges)
        for one in exchanges:
            assert one.answers[Kind.STORED].result(10) == {"status": "stored"}
        assert [list(message.body.get("alerts", ())) for message in seen] == [[], [one.id for one in messages]]


def test_what_is_posted_at_once_without_an_outbox_goes_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    begin_all = DealerChannel.begin_all

    def counting(channel: DealerChannel, exchanges: Sequence[Exchange]) -> None:
        begun.append(len(exchanges))
        begin_all(channel, exchanges)

    monkeypatch.setattr(DealerChannel, "begin_all", counting)
    alerts = [Alert(type="noise", message=str(number)) for number in range(MOST_ALERTS)]
    with served(stored) as (seen, channel), GuardianClient(channel.address) as guardian:
        assert guardian.post_all(alerts) == [one.id for one in alerts]
        eventually(lambda: guardian.unacknowledged == 0)
        assert begun == [MOST_ALERTS]
        assert [list(message.body.get("alerts", ())) for message in seen] == [[one.id for one in alerts]]
        with pytest.raises(AlertRefused):
            guardian.post_all([Alert(type="noise"), Alert(type="noise", labels={"large": "x" * 20_000})])
        monkeypatch.setattr("guardian_link.client.MOST_POSTED", 2)
        with pytest.raises(OutboxFull):
            guardian.post_all([Alert(type="noise") for _ in range(3)])
        guardian.post(Alert(type="noise", id="the-last-1"))
        eventually(lambda: guardian.unacknowledged == 0)
        assert [one.id for one in seen[1:]] == ["the-last-1"], "none was sent of those that were refused"


def test_what_waits_in_an_outbox_is_begun_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    begin_all = DealerChannel.begin_all

    def counting(channel: DealerChannel, exchanges: Sequence[Exchange]) -> None:
        begun.append(len(exchanges))
        begin_all(channel, exchanges)

    monkeypatch.setattr(DealerChannel, "begin_all", counting)
    box = Outbox(tmp_path / "outbox.db")
    box.put_all([Alert(type="noise", message=str(number)) for number in range(2 * MOST_ALERTS)])
    with served(stored) as (_, channel):
        delivery = Delivery(box, lambda: channel.address)
        try:
            eventually(lambda: len(box) == 0, within_s=20)
        finally:
            delivery.close()
            box.close()
    assert begun[0] == max(begun) == MOST_ALERTS
    assert sum(begun) == 2 * MOST_ALERTS


@pytest.mark.parametrize("answer", ["refused as a whole", "never answered"])
def test_who_knows_no_batches_gets_each_alone(answer: str) -> None:
    def old(message: Message) -> list[Message]:
        if message.kind is Kind.ALERTS:
            text = "unknown kind or content type"
            return [nack(message.id, "malformed", text, permanent=True)] if answer == "refused as a whole" else []
        return stored(message)

    with served(old) as (seen, channel):
        for one in begin_together(channel, 20):
            assert one.answers[Kind.STORED].result(10) == {"status": "stored"}
        assert any(message.kind is Kind.ALERTS for message in seen)


def test_of_many_one_is_refused_for_good_and_one_for_now() -> None:
    def picky(message: Message) -> list[Message]:
        if message.kind is not Kind.ALERTS:
            return stored(message)
        bad = nack("alert-0003", "conflict", "another", permanent=True).body
        late = nack("alert-0004", "busy", "later", permanent=False, retry_after_ms=30).body
        refused = {"alert-0003": bad, "alert-0004": late}
        kept = [one for one in message.body["alerts"] if one not in refused]
        return [Message(Kind.STORED, message.id, {"stored": kept, "refused": refused})]

    with served(picky) as (_, channel):
        exchanges = {one.message.id: one.answers[Kind.STORED] for one in begin_together(channel, 20)}
        with pytest.raises(Refused, match="another"):
            exchanges.pop("alert-0003").result(10)
        for future in exchanges.values():
            assert future.result(10) == {"status": "stored"}


def test_the_first_question_after_a_long_silence_is_not_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A give-up leaves silence behind. The socket is made anew before the next question, not after it."""
    monkeypatch.setattr("bridge_link.channel.SILENCE_S", 0.2)
    is_back = threading.Event()
    with served(lambda message: stored(message) if is_back.is_set() else []) as (seen, channel):
        given_up = channel.begin(Message(Kind.ALERT, "given-up-1", BODY), (Kind.STORED,))
        eventually(lambda: seen)
        given_up.forget()
        eventually(lambda: not channel._pending and channel._is_unheard)
        silent_from = time.monotonic()
        is_back.set()
        eventually(lambda: time.monotonic() - silent_from > 0.3)
        asked = channel.begin(Message(Kind.ALERT, "asked-now-1", BODY), (Kind.STORED,))
        assert asked.answers[Kind.STORED].result(10) == {"status": "stored"}
        assert asked.tries == 1, "it was sent once, and answered"


def test_another_body_under_an_id_on_its_way_is_refused_and_answered_with_nothing_else() -> None:
    """Answers have an id only: nobody could say which of the two was stored."""
    goes_on = threading.Event()

    def late(message: Message) -> list[Message]:
        goes_on.wait(10)
        return stored(message)

    same = Message(Kind.ALERT, "the-same-1", {**BODY, "labels": {"a": [1], "b": 2}})
    ordered = Message(Kind.ALERT, "the-same-1", {"labels": {"b": 2, "a": [1]}, **BODY})
    other = Message(Kind.ALERT, "the-same-1", {"type": "another"})
    with served(late) as (seen, channel):
        first, twin, equal, rival = (channel.begin(message, (Kind.STORED,)) for message in (same, same, ordered, other))
        with pytest.raises(Refused, match="another body is being sent under the id the-same-1"):
            rival.answers[Kind.STORED].result(10)
        goes_on.set()
        for exchange in (first, twin, equal):
            assert exchange.answers[Kind.STORED].result(10) == {"status": "stored"}
        again = channel.begin(other, (Kind.STORED,))
        assert again.answers[Kind.STORED].result(10) == {"status": "stored"}, "the daemon judges it"
        assert other.body in [message.body for message in seen]
