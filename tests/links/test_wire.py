"""The wire: both encodings are equal, every limit refuses, and no bytes bring anything but a WireError."""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_link import bodies
from bridge_link.errors import WireError
from bridge_link.wire import MAGIC, ContentType, Kind, Message, decode, encode, is_id, nack, new_id

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), TEXT
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5))
BODIES = st.dictionaries(TEXT, VALUES, max_size=6)


@given(body=BODIES, kind=st.sampled_from(Kind), content_type=st.sampled_from(ContentType))
@settings(max_examples=150, deadline=None)
def test_what_is_encoded_is_decoded_in_both_encodings(body: dict[str, Any], kind: Kind, content_type: Any) -> None:
    message = Message(kind, new_id(), body, content_type)
    assert decode(encode(message)) == message


@given(frames=st.lists(st.binary(max_size=200), max_size=7))
@settings(max_examples=300, deadline=None)
def test_garbage_frames_bring_a_wire_error_and_nothing_else(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(frames)


@given(raw=st.binary(max_size=400), content_type=st.sampled_from([b"m", b"j"]))
@settings(max_examples=500, deadline=None)
def test_garbage_bodies_bring_a_message_or_a_wire_error(raw: bytes, content_type: bytes) -> None:
    try:
        message = decode([MAGIC, Kind.ALERT.value, content_type, b"0123456789abcdef", raw])
    except WireError as error:
        named = error.message_id
    else:
        named = decode(encode(message)).id
    assert named == "0123456789abcdef"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


BAD_JSON = {
    "not a map": b"[1]",
    "truncated": b'{"a": 1',
    "duplicate key": b'{"a": 1, "a": 2}',
    "NaN": b'{"a": NaN}',
    "infinite": b'{"a": 1e999}',
    "beyond 64 bits": b'{"a": 18446744073709551615}',
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "NUL": b'{"a": "\\u0000"}',
    "trailing bytes": b'{"a": 1} x',
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "not UTF-8": b'{"a": "\xff"}',
    "too deep": json.dumps(nested(17)).encode(),
    "absurdly deep": b'{"a":' + b"[" * 30000,
    "too many values": json.dumps({"a": [1] * 5000}).encode(),
}
BAD_MSGPACK = {
    "not a map": msgpack.packb([1]),
    "truncated": msgpack.packb({"a": "bcd"})[:-1],
    "duplicate key": b"\x82\xa1a\x01\xa1a\x02",
    "NaN": msgpack.packb({"a": math.nan}),
    "infinite": msgpack.packb({"a": math.inf}),
    "beyond 64 bits": msgpack.packb({"a": 2**64 - 1}),
    "half a surrogate pair": b"\x81\xa1a\xa3\xed\xa0\x80",
    "NUL": msgpack.packb({"a": "\0"}),
    "trailing bytes": msgpack.packb({"a": 1}) + b"\x01",
    "a lying length": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "an extension type": msgpack.packb({"a": msgpack.ExtType(5, b"x")}),
    "a timestamp": msgpack.packb({"a": msgpack.Timestamp(1)}),
    "a binary key": msgpack.packb({b"a": 1}),
    "a binary value": msgpack.packb({"a": b"x"}),
    "an array as key": b"\x81\x91\x01\x01",
    "too deep": msgpack.packb(nested(17)),
    "absurdly deep": b"\x81\xa1a" + b"\x91" * 60000 + b"\x01",
    "too many values": msgpack.packb({"a": [1] * 5000}),
}


@pytest.mark.parametrize("what", BAD_JSON)
def test_trap_24_bad_json_is_refused(what: str) -> None:
    with pytest.raises(WireError, match=r".") as caught:
        bodies.unpack_json(BAD_JSON[what])
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("what", BAD_MSGPACK)
def test_trap_24_bad_msgpack_is_refused(what: str) -> None:
    with pytest.raises(WireError, match=r".") as caught:
        bodies.unpack_msgpack(BAD_MSGPACK[what])
    assert caught.value.code == "malformed"


def test_one_byte_order_mark_is_taken_off() -> None:
    assert bodies.unpack_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.parametrize("pack", [bodies.pack_json, bodies.pack_msgpack])
def test_trap_8_an_oversized_body_is_refused_before_it_is_sent(pack: Any) -> None:
    with pytest.raises(WireError) as caught:
        pack({"a": ["x" * 1000] * 70})
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([b"SH1", b"ALERT", b"m", b"0123456789abcdef"], "4 frames instead of 5"),
        ([b"SH2", b"ALERT", b"m", b"0123456789abcdef", b"\x80"], "not SH1"),
        ([b"SH1", b"NO", b"m", b"0123456789abcdef", b"\x80"], "unknown kind"),
        ([b"SH1", b"ALERT", b"x", b"0123456789abcdef", b"\x80"], "unknown kind or content type"),
        ([b"SH1", b"ALERT", b"m", b"short", b"\x80"], "message id"),
        ([b"SH1", b"ALERT", b"m", b"0123456789abcde\xff", b"\x80"], "message id"),
    ],
)
def test_each_frame_is_checked(frames: list[bytes], text: str) -> None:
    with pytest.raises(WireError, match=text):
        decode(frames)


@pytest.mark.parametrize(("text", "good"), [("a" * 8, True), ("a" * 7, False), ("a" * 65, False), ("a b c d e", False)])
def test_ids(text: str, good: bool) -> None:
    assert is_id(text) is good


def test_a_nack_says_whether_to_try_again() -> None:
    body = nack("0123456789abcdef", "busy", "later", permanent=False, retry_after_ms=500).body
    assert body == {"code": "busy", "text": "later", "permanent": False, "retry_after_ms": 500}
