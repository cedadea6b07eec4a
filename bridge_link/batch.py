"""Many alerts in one message: ``{"alerts": {ID: ALERT, ...}}``. Pure; specified in docs/wire.md.

Each alert keeps an id of its own: sent again in another message, or alone, it is the same alert.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgpack

from bridge_link.bodies import MAX_BODY_BYTES
from bridge_link.errors import WireError
from bridge_link.wire import Kind, Message, frames_of, is_id, new_id

MOST_ALERTS: Final = 64
_ROOM_BYTES: Final = MAX_BODY_BYTES * 3 // 4
"""What a batch is filled up to; larger alerts go alone."""


def alerts_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The alerts of a message, by id; what each of them is worth is judged one by one.

    Raises:
        WireError: malformed.
    """
    alerts = body.get("alerts")
    if not isinstance(alerts, dict) or not 0 < len(alerts) <= MOST_ALERTS:
        raise WireError("malformed", f"alerts is no map of 1 to {MOST_ALERTS} alerts by their ids")
    for message_id in alerts:
        if not is_id(message_id):
            raise WireError("malformed", f"{message_id[:80]!r} is no message id: 8 to 64 of A-Z a-z 0-9 . _ : -")
    return alerts


def batch_of(alerts: Mapping[str, Mapping[str, Any]]) -> Message:
    return Message(Kind.ALERTS, new_id(), {"alerts": alerts})


def grouped(alerts: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """(id, packed body) in groups that each go into one message; no id stands twice in one."""
    group: dict[str, bytes] = {}
    used = 0
    for message_id, packed in alerts:
        size = len(packed) + len(message_id)
        if group and (len(group) >= MOST_ALERTS or used + size > _ROOM_BYTES or message_id in group):
            yield list(group.items())
            group, used = {}, 0
        group[message_id] = packed
        used += size
    if group:
        yield list(group.items())


def frames_of_batch(batch_id: str, alerts: Sequence[tuple[str, bytes]]) -> list[bytes]:
    """As ``encode(batch_of(...))`` from bodies that are packed (msgpack) already."""
    packer = msgpack.Packer()
    pieces = [packer.pack_map_header(1), packer.pack("alerts"), packer.pack_map_header(len(alerts))]
    for message_id, packed in alerts:
        pieces += (packer.pack(message_id), packed)
    return frames_of(Kind.ALERTS, batch_id, b"".join(pieces))


def each_answer(message: Message) -> Iterator[Message]:
    """What an answer to a batch says about each of its alerts, as if it had come alone."""
    body = message.body
    if message.kind is Kind.STORED:
        for status in ("stored", "duplicate"):
            for message_id in _list(body.get(status)):
                yield Message(Kind.STORED, message_id, {"status": status})
        for message_id, told in _map(body.get("refused")).items():
            yield Message(Kind.NACK, message_id, _map(told))
    elif message.kind is Kind.DECIDED:
        for message_id, told in _map(body.get("decided")).items():
            yield Message(Kind.DECIDED, message_id, _map(told))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
