"""The wire's golden vectors (``golden.json``): what any implementation of docs/wire.md can be held against.

The bytes are fixed: a change that makes one of these fail changes the wire. Other languages may write a body in other
bytes (spaces, order, shorter numbers); what they must agree on is what is read. A new vector's frames are what
``encode`` makes of it now; those that stand here already are never made anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge_link.errors import WireError
from bridge_link.wire import ContentType, Kind, Message, decode, encode

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(Path(__file__).with_name("golden.json").read_text())


def frames_of(vector: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(one) for one in vector["frames_hex"]]


def named(vectors: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "vector", vectors, ids=[f"{one['name']} {one.get('content_type', '')}" for one in vectors]
    )


@named(GOLDEN["messages"])
def test_a_golden_message_is_read_and_written(vector: dict[str, Any]) -> None:
    kind, content_type = Kind(vector["kind"].encode()), ContentType(vector["content_type"].encode())
    message = Message(kind, vector["id"], vector["body"], content_type)
    assert decode(frames_of(vector)) == message
    assert encode(message) == frames_of(vector)


def test_both_encodings_say_the_same() -> None:
    by_name: dict[str, dict[str, Any]] = {}
    for vector in GOLDEN["messages"]:
        by_name.setdefault(vector["name"], {})[vector["content_type"]] = decode(frames_of(vector)).body
    assert all(bodies["m"] == bodies["j"] for bodies in by_name.values())
    kinds = {vector["kind"].encode() for vector in GOLDEN["messages"]}
    assert kinds == {kind.value for kind in Kind}


@named(GOLDEN["refused"])
def test_a_golden_refusal(vector: dict[str, Any]) -> None:
    with pytest.raises(WireError) as refused:
        decode(frames_of(vector))
    assert (refused.value.code, refused.value.message_id) == (vector["code"], vector["id"])
