"""More alerts than can be kept at once: bounded memory, a NACK instead of hidden loss, and one answer for each."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import zmq

from actors.intake import MAX_IN_FLIGHT
from bridge_link.batch import batch_of
from bridge_link.keys import find_key
from bridge_link.sockets import make_dealer
from bridge_link.wire import Kind, Message, decode, encode
from guardian_link import Alert, GuardianClient
from tests.recovery.place import Place, recovering
from tests.support.eventually import eventually
from tests.support.tables import TABLE

STORM = 10_000
MOST_MIB = 64


def held(place: Place, gate: threading.Event) -> None:
    """The journal does nothing more until the gate opens."""
    reached = threading.Event()

    def wait(_: object) -> bool:
        reached.set()
        return gate.wait(30)

    place.recovery._journal.submit(wait)
    assert reached.wait(10)


def test_trap_11_a_full_queue_is_said_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    gate = threading.Event()
    with recovering(tmp_path) as place, zmq.Context() as context, make_dealer(context, find_key()) as raw:
        raw.connect(place.address)
        held(place, gate)
        ids = [f"alert-{number:06}" for number in range(MAX_IN_FLIGHT + 500)]
        assert raw.poll(10_000, zmq.POLLOUT)
        for one in ids:
            raw.send_multipart(encode(Message(Kind.ALERT, one, {"type": "noise"})))
        refused: dict[str, Message] = {}
        while len(refused) < 500:
            figures = place.recovery._intake.counters
            assert raw.poll(5_000), f"each that is not kept is told so: {len(refused)} were, {figures}"
            message = decode(raw.recv_multipart())
            assert message.kind is Kind.NACK, "nothing is acknowledged before its commit"
            assert (message.body["code"], message.body["permanent"]) == ("busy", False)
            assert message.body["retry_after_ms"] > 0
            refused[message.id] = message
        assert not raw.poll(200), "the others wait for the disk"
        gate.set()
        eventually(lambda: place.recovery.statistics()["intake"]["stored"] == MAX_IN_FLIGHT, within_s=30)
        journal = place.recovery._journal
        found = journal.read(lambda db: {row[0] for row in db.execute("SELECT msg_id FROM alerts")})
        assert found == set(ids) - set(refused)
        figures = place.recovery.statistics()["intake"]
        assert (figures["received"], figures["stored"], figures["busy"]) == (len(ids), MAX_IN_FLIGHT, 500)
        for one in refused:
            raw.send_multipart(encode(Message(Kind.ALERT, one, {"type": "noise"})))
        eventually(lambda: place.recovery.statistics()["intake"]["stored"] == len(ids))


def test_trap_13_memory_is_bounded_in_a_storm(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """10,000 alerts sent as fast as they go, by one who does not wait for answers: each is answered once, for good."""
    process = psutil.Process()
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        guardian.send(Alert(type="warm-up"))
        before = process.memory_info().rss
        ids = guardian.post_all([Alert(type="noise", message=f"number {n}") for n in range(STORM)])
        eventually(lambda: place.recovery.statistics()["intake"]["stored"] == STORM + 1, within_s=50)
        eventually(lambda: place.recovery._intake._by_alert == {}, within_s=50, what="all are decided")
        grown = (process.memory_info().rss - before) / 1024**2
        journal = place.recovery._journal
        found = journal.read(lambda db: db.execute("SELECT msg_id, outcome FROM alerts").fetchall())
        seen = Counter(row["msg_id"] for row in found)
        assert set(ids) <= set(seen)
        assert max(seen.values()) == 1
        assert all(row["outcome"] == "no_match" for row in found)
        record_property(TABLE, f"{STORM} alerts: {grown:.0f} MiB more, sender and daemon together")
        assert grown < MOST_MIB


def test_a_batch_is_answered_for_each_of_its_alerts(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, zmq.Context() as context, make_dealer(context, find_key()) as raw:
        raw.connect(place.address)
        good = {f"alert-0{n}": {"type": "noise", "message": str(n)} for n in range(3)}
        bad = {"alert-bad": {"type": "noise", "severity": "worst"}, "alert-odd": 7}

        def ask(alerts: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
            raw.send_multipart(encode(batch_of(alerts)))  # type: ignore[arg-type]
            stored = next_message(raw)
            assert stored.kind is Kind.STORED
            kept = {*stored.body.get("stored", ()), *stored.body.get("duplicate", ())}
            decided: dict[str, object] = {}
            while decided.keys() != kept:
                more = next_message(raw)
                assert (more.kind, more.id) == (Kind.DECIDED, stored.id)
                decided |= more.body["decided"]
            return dict(stored.body), decided

        stored, decided = ask({**good, **bad})
        assert stored["stored"] == list(good)
        refused = stored["refused"]
        assert isinstance(refused, dict)
        assert {one: (told["code"], told["permanent"]) for one, told in refused.items()} == {
            "alert-bad": ("malformed", True),
            "alert-odd": ("malformed", True),
        }
        assert {one["outcome"] for one in decided.values()} == {"no_match"}  # type: ignore[index]
        changed = {"alert-00": {"type": "noise"}, "alert-01": good["alert-01"], "alert-09": {"type": "x"}}
        stored, decided = ask(changed)
        assert (stored["stored"], stored["duplicate"]) == (["alert-09"], ["alert-01"])
        assert stored["refused"]["alert-00"]["code"] == "conflict"  # type: ignore[index]
        assert set(decided) == {"alert-01", "alert-09"}


def next_message(raw: zmq.Socket[bytes]) -> Message:
    assert raw.poll(10_000)
    return decode(raw.recv_multipart())


def test_a_batch_that_is_none_is_refused_as_a_whole(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, zmq.Context() as context, make_dealer(context, find_key()) as raw:
        raw.connect(place.address)
        many = {f"alert-{n:03}": {"type": "noise"} for n in range(65)}
        bad: list[object] = [[], {}, {"short": {}}, many]
        for alerts in bad:
            raw.send_multipart(encode(Message(Kind.ALERTS, "a-batch-1", {"alerts": alerts})))
            refusal = next_message(raw)
            assert (refusal.kind, refusal.id, refusal.body["code"]) == (Kind.NACK, "a-batch-1", "malformed")
        assert place.recovery.records.alerts(10) == []
