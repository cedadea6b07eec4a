"""The fast reading of plain alerts: never another answer than ``wire.decode`` and ``facts_of`` give."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, Final

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.alert_frames import PlainAlerts, decode
from actors.journal.alert_batches import new_alert, store_alerts
from actors.journal.rows import AlertConflict, StoredAlert
from actors.journal.schema import open_writer
from bridge_link import wire
from bridge_link.batch import MOST_ALERTS, batch_of
from bridge_link.bodies import MAX_NODES
from bridge_link.errors import WireError
from bridge_link.wire import Kind, Message, encode, frames_of
from guardian_link.messages import MOST_NAMES_CHARS, BadAlert, facts_of, have_known_names

ID: Final = "alert-0001"
PLAIN: Final = {
    "type": "latency_warning",
    "severity": "medium",
    "source": "guardian-1",
    "service": "risk-manager",
    "message": "zu spät: 412 ms, das Limit ist 250 ms",
    "dedup_key": "k",
    "labels": {"account": "U1", "limit": 250.0, "many": 1e16, "few": -5, "is_late": True, "none": None, "é": ""},
}


def packed(value: Any) -> Any:
    """msgpack of what no dict can hold: a list of pairs is a map with these keys in this order, twice if so."""
    if isinstance(value, bytes):
        return value
    packer: Any = msgpack.Packer(unicode_errors="surrogatepass")
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list) and all(isinstance(one, tuple) for one in value) and value:
        return packer.pack_map_header(len(value)) + b"".join(packed(key) + packed(one) for key, one in value)
    return packer.pack(value)


def said(read: Any, frames: list[bytes]) -> tuple[Any, ...]:
    try:
        message = read(frames)
    except WireError as error:
        return (error.code, error.text, error.message_id)
    return (message.kind, message.id, json.dumps(message.body, sort_keys=True), message.content_type)


def facts_or_field(body: Any) -> tuple[Any, str | None]:
    """The facts, or the field at fault."""
    try:
        return facts_of(body), None
    except BadAlert as bad:
        return None, bad.field


def compared(frames: list[bytes]) -> bool:
    """Both ways of reading say the same. Whether it was read as plain."""
    assert said(decode, frames) == said(wire.decode, frames)
    try:
        message = decode(frames)
    except WireError:
        return False
    if not isinstance(message, PlainAlerts):
        return False
    alerts = message.body["alerts"] if message.kind is Kind.ALERTS else {message.id: message.body}
    assert message.texts.keys() == alerts.keys()
    for msg_id, body in alerts.items():
        assert wire.is_id(msg_id)
        text = message.texts[msg_id]
        assert json.dumps(json.loads(text)) == json.dumps(body, sort_keys=True), "the same values, the keys in order"
        facts, refused = facts_or_field(body)
        names = [body.get(name) or "" for name in ("type", "service", "severity", "source")]
        assert have_known_names([body]) == (facts is not None and len("".join(names)) <= MOST_NAMES_CHARS)
        assert facts == body or refused in {"type", "service"}, "the rest is good, and stays as it is"
    return True


NAMES = st.sampled_from(["type", "severity", "source", "service", "message", "dedup_key", "labels", "other", "", 7])
TEXTS = st.one_of(
    st.sampled_from(["a", "latency_warning", "SYSTEM_DOWN", "", "low", "Ü", "a\0b", "\\u0000", "\ud800", "x" * 4097]),
    st.text(max_size=20),
)
FLOATS: Final = [b"\xca" + struct.pack(">f", 1.5), b"\xcb" + struct.pack(">d", math.nan), 1e16, 1e-7, -0.0, math.inf]
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), b"\xcf" + b"\0" * 7 + b"\x05", *FLOATS]),
    st.integers(-(2**63), 2**64 - 1),
)
SCALARS = st.one_of(TEXTS, NUMBERS, st.booleans(), st.none(), st.just(b"\xc4\x01x"), st.just(b"\xd9\x01x"))
LABELS = st.lists(st.tuples(st.one_of(TEXTS, st.just(3)), SCALARS), max_size=4)
GOOD = st.fixed_dictionaries(
    {"type": st.sampled_from(["a", "b.c", "-bad"]), "severity": st.just("low"), "source": TEXTS},
    optional={"service": st.sampled_from(["s", "", " s"]), "message": TEXTS, "dedup_key": TEXTS, "labels": LABELS},
)
ANY = st.lists(st.tuples(NAMES, st.one_of(SCALARS, LABELS, GOOD)), max_size=9)
ALERT = st.one_of(GOOD, GOOD.map(lambda it: list(it.items())).flatmap(lambda it: ANY.map(lambda more: it + more)), ANY)
IDS = st.sampled_from(["alert-0001", "alert-0002", "alert-0003\nalert-0004", "short", "not an id", "x" * 65, 12345678])


@given(ALERT)
@example(PLAIN)
@example([*PLAIN.items(), ("severity", "high")])
@example([*PLAIN.items(), ("labels", {"a": b"\xca" + struct.pack(">f", 1.5)}), ("source", "abc")])
@example({**PLAIN, "labels": {str(number): number for number in range(200)}})
@example({**PLAIN, "source": None})
@example({**PLAIN, "type": "COMPONENT_FAILURE", "labels": {"component": "database"}})
@example({**PLAIN, "message": "\x7f\x1f\u2028"})
@example({**PLAIN, "message": "x" * 4096})
@example({**PLAIN, "message": "x" * 8193})
@example({**PLAIN, "message": "\0"})
@example({**PLAIN, "labels": {"a": {"b": "c"}}})
def test_one_alert_is_read_as_the_wire_reads_it(alert: Any) -> None:
    compared([wire.MAGIC, b"ALERT", b"m", ID.encode(), packed(alert)])


@given(st.lists(st.tuples(IDS, ALERT), max_size=3), st.booleans())
@example([(f"alert-{n:04}", PLAIN) for n in range(MOST_ALERTS)], False)
@example([(f"alert-{n:04}", PLAIN) for n in range(MOST_ALERTS + 1)], False)
@example([("alert-0001", PLAIN), ("alert-0001", PLAIN)], False)
@example([("alert-0001\nalert-0002", PLAIN)], False)
@example([("alert-0001", {**PLAIN, "type": "COMPONENT_FAILURE"})], False)
@example([("alert-0001", PLAIN)], True)
def test_many_are_read_as_the_wire_reads_them(alerts: Any, is_odd: bool) -> None:
    body = [("alerts", alerts), *([("alerts", alerts)] if is_odd else [])]
    compared([wire.MAGIC, b"ALERTS", b"m", b"batch-0001", packed(body)])


@given(st.binary(max_size=60), st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_any_bytes_are_read_as_the_wire_reads_them(raw: bytes, at: int, other: bytes) -> None:
    whole = packed({"alerts": {ID: PLAIN, "alert-0002": {"type": "b", "severity": "low", "source": "s"}}})
    for body in (raw, whole[:at], whole[:at] + other + whole[at + len(other) :], whole + raw):
        for kind in (b"ALERTS", b"ALERT"):
            compared([wire.MAGIC, kind, b"m", b"batch-0001", body])


def test_plain_alerts_are_read_fast_and_others_are_not() -> None:
    assert compared(encode(Message(Kind.ALERT, ID, PLAIN)))
    assert compared(encode(batch_of({f"alert-{n:04}": PLAIN for n in range(MOST_ALERTS)})))
    assert not compared(encode(Message(Kind.ALERT, ID, {**PLAIN, "error_type": 4051})))
    assert not compared(encode(Message(Kind.ALERT, ID, PLAIN, wire.ContentType.JSON)))
    assert not compared(encode(Message(Kind.QUERY, ID, {"ask": "statistics"})))


def test_no_more_values_are_read_fast_than_a_body_may_have() -> None:
    few = {str(number): 1 for number in range(MAX_NODES // MOST_ALERTS - 10)}
    alerts = {f"alert-{n:04}": {**PLAIN, "labels": few} for n in range(MOST_ALERTS)}
    assert compared(frames_of(Kind.ALERTS, "batch-0001", packed({"alerts": alerts})))
    for body in alerts.values():
        body["labels"] = {**few, "a": 1, "b": 2}
    assert not compared(frames_of(Kind.ALERTS, "batch-0001", packed({"alerts": alerts})))


@pytest.mark.parametrize("frames", [[], [b"SH1"], [b"SH1", b"ALERT", b"m", b"bad id", b"\x80"], [b"x"] * 5])
def test_what_is_no_message_is_refused_as_the_wire_refuses_it(frames: list[bytes]) -> None:
    assert not compared(frames)


@pytest.mark.parametrize("is_fast_first", [True, False])
@pytest.mark.parametrize("is_forgotten", [True, False])
def test_the_same_facts_are_the_same_alert_however_they_were_read(
    tmp_path: Path, is_fast_first: bool, is_forgotten: bool
) -> None:
    plain = decode(encode(Message(Kind.ALERT, ID, PLAIN)))
    assert isinstance(plain, PlainAlerts)
    fast, slow = new_alert("ann", ID, PLAIN, 1.0, None, plain.texts[ID]), new_alert("ann", ID, PLAIN, 1.0)
    assert fast.sha256 != slow.sha256, "they are written differently"
    first, again = (fast, slow) if is_fast_first else (slow, fast)
    other = {**PLAIN, "message": "something else"}
    database = open_writer(tmp_path / "journal.db")
    try:
        assert store_alerts(database, [first]) == [StoredAlert(1, is_new=True)]
        if is_forgotten:
            database.execute("UPDATE alerts SET body = ''")
        assert store_alerts(database, [again]) == [StoredAlert(1, is_new=False)]
        (refused,) = store_alerts(database, [new_alert("ann", ID, other, 2.0)])
        assert isinstance(refused, AlertConflict)
    finally:
        database.close()
