"""Following events: each once and in order, whatever is lost on the way; and plain words where events are gone."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from bridge_link.publisher import EventPublisher
from bridge_link.wire import encode
from guardian_link import EventsLost
from guardian_link.errors import AlertRefused, BadAnswer
from guardian_link.events import Event, Follower, Page, is_wanted
from guardian_link.reader import SHELF, EventReader, Shelf, _reachable
from guardian_link.streams import AsyncEventStream, EventStream
from supervisors.happenings import MOST_BYTES, as_message, fitting, shown
from tests.links.event_source import EventSource, following, taken
from tests.support.eventually import eventually, holds_for


def seqs(events: list[Event]) -> list[int]:
    return [one.seq for one in events]


def event(seq: int, epoch: str = "e", **changes: Any) -> Event:
    return Event(
        **({"path": "root/services/a", "event": "exited"} | changes), seq=seq, at="", text="", evidence={}, epoch=epoch
    )


# -- the reader, over real sockets ------------------------------------------------------------------------------------


def test_what_happened_before_and_after_comes_in_order_and_once() -> None:
    source = EventSource()
    source.happen(250)
    with following(source) as reader:
        assert seqs(taken(reader, 250)) == list(range(1, 251))
        source.happen(50)
        found = taken(reader, 50)
    assert seqs(found) == list(range(251, 301))
    assert (found[0].path, found[0].event, found[0].evidence, found[0].epoch) == (
        "root/services/a",
        "exited",
        {"n": 251},
        "epoch-one",
    )


def test_the_published_ones_are_heard_without_asking() -> None:
    source = EventSource()
    with following(source) as reader:
        eventually(lambda: source.publisher._topics)
        source.happen()
        taken(reader, 1)
        before = len(source.questions)
        for _ in range(20):
            source.happen()
            taken(reader, 1)
        assert len(source.questions) <= before + 1, "a poll may fall in between"
        assert source.publisher.figures.published >= 20


@pytest.mark.parametrize("drop", [0.3, 0.95])
def test_lost_messages_are_asked_for(drop: float) -> None:
    source = EventSource(drop=drop)
    with following(source) as reader:
        for _ in range(40):
            source.happen(25)
        assert seqs(taken(reader, 1000)) == list(range(1, 1001))
        assert reader.shelf.take(0.0) is None


def test_the_last_message_may_be_lost_and_nothing_follows_it() -> None:
    source = EventSource(drop=1.0)
    with following(source) as reader:
        eventually(lambda: source.publisher._topics)
        source.happen()
        assert seqs(taken(reader, 1)) == [1]


def test_without_a_publisher_it_asks() -> None:
    source = EventSource(is_published=False)
    with following(source) as reader:
        eventually(lambda: source.questions)
        source.happen(3)
        assert seqs(taken(reader, 3)) == [1, 2, 3]
        assert not source.publisher._topics


def test_trap_2_a_slow_consumer_loses_nothing_and_holds_little() -> None:
    """Neither its own shelf nor the sockets hold what it does not take; the gap is asked for."""
    count = 30_000
    source = EventSource(text="x" * 1000)
    with following(source) as reader:
        eventually(lambda: source.publisher._topics)
        source.happen(count)
        eventually(lambda: source.publisher.figures.published >= count, within_s=60)
        assert len(reader.shelf._found) <= SHELF
        before = len(source.questions)
        assert seqs(taken(reader, count, within_s=60)) == list(range(1, count + 1))
        assert len(source.questions) > before, "the sockets would have held everything: nothing was tested"


def test_the_publisher_may_come_back_somewhere_else() -> None:
    source = EventSource()
    with following(source) as reader:
        source.happen()
        taken(reader, 1)
        source.publisher.close()
        source.publisher = EventPublisher("tcp://127.0.0.1:0", source._read)
        source.publisher.start()
        eventually(lambda: source.publisher._topics, within_s=20)
        before = len(source.questions)
        source.happen(2)
        assert seqs(taken(reader, 2)) == [2, 3]
        assert len(source.questions) <= before + 1, "it hears the new one"


def test_a_daemon_that_is_away_is_waited_for() -> None:
    source = EventSource(is_away=True)
    with following(source) as reader:
        eventually(lambda: reader.trouble == "nobody there")
        source.happen(2)
        source.is_away = False
        assert seqs(taken(reader, 2)) == [1, 2]
        assert reader.trouble is None


def test_what_is_gone_is_said_and_the_stream_goes_on() -> None:
    source = EventSource()
    source.happen(100)
    source.forget(60)
    with following(source, after=10) as reader:
        with pytest.raises(EventsLost, match="the oldest events are no longer kept") as lost:
            reader.shelf.take(10)
        assert (lost.value.after, lost.value.first_available, lost.value.epoch) == (10, 61, "epoch-one")
        assert seqs(taken(reader, 40)) == list(range(61, 101))


def test_a_journal_that_was_begun_anew_is_said() -> None:
    source = EventSource()
    source.happen(5)
    with following(source) as reader:
        taken(reader, 5)
        source.begin_anew("epoch-two")
        source.happen(7)
        with pytest.raises(EventsLost, match="begun anew") as lost:
            reader.shelf.take(10)
        assert (lost.value.first_available, lost.value.epoch) == (1, "epoch-two")
        found = taken(reader, 7)
    assert seqs(found) == list(range(1, 8))
    assert {one.epoch for one in found} == {"epoch-two"}


def test_a_place_of_another_journal_is_noticed() -> None:
    source = EventSource()
    source.happen(5)
    with following(source, after=3, epoch="an older one") as reader, pytest.raises(EventsLost, match="begun anew"):
        reader.shelf.take(10)


def test_topics_are_chosen_and_numbers_still_watched() -> None:
    source = EventSource(drop=0.5)
    with following(source, topics=("execution_*", "root/links/*")) as reader:
        for _ in range(20):
            source.happen()
            source.happen(event="execution_ended")
            source.happen(path="root/links/guardian", event="trouble")
        found = taken(reader, 40)
    assert [one.event for one in found] == ["execution_ended", "trouble"] * 20


def test_who_may_not_follow_is_told_so_once() -> None:
    def ask(_question: object, _timeout_s: float) -> Any:
        raise AlertRefused("forbidden", "mql4 is no viewer")

    reader = EventReader(ask, Follower(0), (), lambda: "127.0.0.1")
    stream = EventStream(reader)
    with pytest.raises(AlertRefused, match="mql4 is no viewer"):
        next(stream)
    assert list(stream) == []
    stream.close()


def test_an_answer_that_is_none_is_trouble_and_asked_again() -> None:
    source = EventSource(is_published=False)
    source.happen()
    answers: list[Any] = [None, {"epoch": 1}, {"epoch": "e", "first": 1, "last": 1, "events": [{"seq": "1"}]}]

    def ask(question: Any, timeout_s: float) -> Any:
        return answers.pop(0) if answers else source.ask(question, timeout_s)

    reader = EventReader(ask, Follower(0), (), lambda: "127.0.0.1")
    assert seqs(taken(reader, 1)) == [1]
    assert not answers
    reader.close()


def test_junk_on_the_publishers_address_is_no_event() -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as junk:
        junk.linger = 0
        junk.bind_to_random_port("tcp://127.0.0.1")
        source = EventSource()
        source.publisher.address = junk.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        reader = EventReader(source.ask, Follower(0), (), lambda: "127.0.0.1")
        good = as_message("epoch-one", {"seq": 1, "at": "", "path": "p", "event": "e", "text": "", "evidence": {}})

        def heard() -> Event | None:
            junk.send(b"\xff" * 10)
            junk.send_multipart([b"t", b"SH1", b"EVENT", b"m", b"0123456789", b"\x80"])
            junk.send_multipart([b"exited", *encode(good)])
            return reader.shelf.take(0.05)

        assert eventually(heard, within_s=20).seq == 1
        reader.close()


def test_a_peer_that_talks_to_the_publisher_changes_nothing() -> None:
    source = EventSource()
    with following(source) as reader, zmq.Context() as context, context.socket(zmq.XSUB) as loud:
        loud.linger = 0
        loud.connect(str(source.publisher.address))
        eventually(lambda: source.publisher._topics == {b""})
        for text in (b"", b"\x02junk", b"\x00never", b"\x01other"):
            loud.send(text)
        eventually(lambda: b"other" in source.publisher._topics)
        source.happen()
        assert seqs(taken(reader, 1)) == [1]


def test_nobody_listening_costs_nothing() -> None:
    source = EventSource()
    read: list[object] = []
    publisher = EventPublisher("tcp://127.0.0.1:0", read.append)
    publisher.start()
    for _ in range(100):
        publisher.ring()
    holds_for(lambda: not read and source.questions == [], 0.1)
    publisher.close()
    assert not publisher.is_alive


# -- streams ----------------------------------------------------------------------------------------------------------


def test_a_closed_stream_lets_go_who_waits() -> None:
    with following(EventSource()) as reader:
        stream = EventStream(reader)
        found: list[Event] = []
        thread = threading.Thread(target=lambda: found.extend(stream))
        thread.start()
        stream.close()
        thread.join(10)
        assert not thread.is_alive()
        assert found == []


def test_a_dropped_stream_ends_its_thread() -> None:
    source = EventSource()
    source.happen(3)
    source.publisher.start()
    reader = EventReader(source.ask, Follower(0), (), lambda: "127.0.0.1")
    thread = reader._thread
    for first in EventStream(reader):
        assert first.seq == 1
        break
    gc.collect()
    eventually(lambda: not thread.is_alive())
    source.publisher.close()


def test_many_async_streams_at_once_and_a_cancelled_wait_loses_nothing() -> None:
    source = EventSource()
    source.publisher.start()

    async def go() -> None:
        made = [
            AsyncEventStream(lambda: EventReader(source.ask, Follower(0), (), lambda: "127.0.0.1")) for _ in range(12)
        ]
        for stream in made:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(stream), 0.02)
        source.happen(30)

        async def collect(stream: AsyncEventStream) -> list[int]:
            found = []
            async for one in stream:
                found.append(one.seq)
                if len(found) == 30:
                    break
            return found

        results = await asyncio.wait_for(asyncio.gather(*map(collect, made)), 30)
        assert results == [list(range(1, 31))] * 12
        waiting = asyncio.ensure_future(anext(made[0]))
        await asyncio.sleep(0)
        await made[0].close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        for stream in made[1:]:
            await stream.close()

    asyncio.run(go())
    source.publisher.close()


def test_a_full_shelf_waits_and_a_closed_one_takes_nothing() -> None:
    shelf = Shelf(most=2)
    assert shelf.put(event(1))
    assert shelf.put(event(2))
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(shelf.put(event(3))))
    thread.start()
    holds_for(lambda: not results, 0.05)
    assert shelf.take(0.0) == event(1)
    thread.join(10)
    assert results == [True]
    shelf.close()
    assert not shelf.put(event(4))
    assert shelf.take(1.0) is None


def test_a_stream_that_nobody_holds_is_collected() -> None:
    with following(EventSource()) as reader:
        stream = EventStream(reader)
        gone = weakref.ref(stream)
        del stream
        gc.collect()
        assert gone() is None
        assert reader.shelf.is_over


# -- pure -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["push", "page"]), st.integers(1, 30)), max_size=60))
def test_any_mixture_of_pushed_and_asked_gives_each_once(moves: list[tuple[str, int]]) -> None:
    follower, found = Follower(0), []
    for kind, number in moves:
        if kind == "push" and follower.take_pushed(event(number)):
            found.append(number)
        elif kind == "page":
            events = tuple(map(event, range(1, number + 1)))
            if number >= follower.seq:
                found += [one.seq for one in follower.take_page(Page("e", 1, number, events, None))]
    assert found == list(range(1, len(found) + 1))


def test_a_journal_that_goes_back_is_said() -> None:
    follower = Follower(9, "e")
    with pytest.raises(EventsLost, match="the journal ends with event 4") as lost:
        follower.take_page(Page("e", 1, 4, (), None))
    assert (lost.value.first_available, follower.seq) == (5, 4)


@pytest.mark.parametrize(
    ("topics", "wanted"),
    [
        ((), True),
        (("exited",), True),
        (("ready",), False),
        (("ex*",), True),
        (("root/services/*",), True),
        (("root/links/*", "exited"), True),
        (("root/links/*",), False),
    ],
)
def test_what_a_topic_is(topics: tuple[str, ...], wanted: bool) -> None:
    assert is_wanted(event(1), topics) is wanted


def test_an_event_that_is_none_is_refused() -> None:
    with pytest.raises(BadAnswer, match="this is no event"):
        Event.from_body({"seq": 1}, "e")


def test_a_publisher_that_listens_everywhere_is_where_the_link_is() -> None:
    assert _reachable("tcp://0.0.0.0:7", "10.1.2.3") == "tcp://10.1.2.3:7"
    assert _reachable("tcp://127.0.0.1:7", "10.1.2.3") == "tcp://127.0.0.1:7"
    assert _reachable(None, "10.1.2.3") is None


@given(
    text=st.text(st.characters(), max_size=5000),
    evidence=st.dictionaries(
        st.text(st.characters(), max_size=50),
        st.one_of(
            st.text(st.characters(), max_size=2000), st.integers(), st.floats(), st.none(), st.lists(st.integers())
        ),
        max_size=40,
    ),
)
def test_any_event_fits_into_a_message(text: str, evidence: dict[str, Any]) -> None:
    row = {"seq": 1, "at": 1.5, "path": text, "event": text, "text": text, "evidence": evidence}
    body = shown(row)
    encode(as_message("0123456789", body))
    assert fitting([body, body]) in ([body], [body, body])


def test_an_answer_is_as_long_as_fits() -> None:
    rows = [
        shown({"seq": n, "at": 1.0, "path": "p", "event": "e", "text": "ü" * 90, "evidence": {}}) for n in range(1, 500)
    ]
    taken_ = fitting(rows)
    assert [one["seq"] for one in taken_] == list(range(1, len(taken_) + 1))
    assert MOST_BYTES * 0.97 < len(json.dumps(taken_)) < MOST_BYTES * 1.03
