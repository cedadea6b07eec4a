"""Alerts off the wire, the plain ones fast: decoded and checked by a compiled library, a message at a time.

``decode`` says what ``bridge_link.wire.decode`` says, of any frames. Most alerts are plain: our own fields and no
others, each of its type, labels that are texts, numbers and truth values. A msgpack message of such alerts only is read
here in one go; anything else ``wire.decode`` reads from the beginning, with its refusals.

That a message is plain is proven by writing it again: what is longer than what was read from it held a key twice, or a
field that is not ours. A float of 32 bits, which would be written longer, is left to ``wire.decode``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

import msgspec

from bridge_link import wire
from bridge_link.batch import MOST_ALERTS
from bridge_link.bodies import LEAST_INT, MAX_BODY_BYTES, MAX_NODES, MAX_TEXT_BYTES, MOST_INT
from bridge_link.wire import MAGIC, ContentType, Kind, Message, are_ids, is_id
from guardian_link.messages import MAX_MESSAGE_CHARS

_LONGEST: Final = MAX_TEXT_BYTES // 4
"""Characters of a text: as UTF-8 it is within the limit whatever they are."""
_FIELDS: Final = 7
_MOST_LABELS: Final = (MAX_NODES - 2) // MOST_ALERTS - 1 - _FIELDS
"""So that a full message has no more values than it may."""
_LARGEST: Final = 1.7976931348623157e308
_Text = Annotated[str, msgspec.Meta(max_length=_LONGEST)]
_Words = Annotated[str, msgspec.Meta(min_length=1, max_length=min(_LONGEST, MAX_MESSAGE_CHARS))]
_Whole = Annotated[int, msgspec.Meta(ge=LEAST_INT, le=MOST_INT)]
_Finite = Annotated[float, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]


class _Plain(TypedDict):
    """What ``guardian_link.messages.facts_of`` gives back as it is when its names are good, and the type is no word of
    Guardian's own (in capitals).
    """

    type: _Words
    severity: Literal["low", "medium", "high", "critical"]
    source: _Text
    service: NotRequired[_Words]
    message: NotRequired[_Words]
    dedup_key: NotRequired[_Words]
    labels: NotRequired[
        Annotated[
            dict[_Text, _Text | _Whole | _Finite | bool | None], msgspec.Meta(min_length=1, max_length=_MOST_LABELS)
        ]
    ]


class _Batch(TypedDict):
    alerts: Annotated[dict[str, _Plain], msgspec.Meta(min_length=1, max_length=MOST_ALERTS)]


_one: Final = msgspec.msgpack.Decoder(_Plain)
_many: Final = msgspec.msgpack.Decoder(_Batch)
_again: Final = msgspec.msgpack.Encoder()
_json: Final = msgspec.json.Encoder(order="sorted")
_FLOAT_32: Final = b"\xca"
_NUL: Final = "\\u0000"


class PlainAlerts(Message):
    """A message of plain alerts: ``facts_of`` gives each back as it is, or refuses its names. ``texts``: each as JSON
    with its keys in order, by its id.
    """

    __slots__ = ("texts",)
    texts: Mapping[str, str]


def decode(frames: Sequence[bytes]) -> Message:
    """As ``bridge_link.wire.decode``; a message of plain alerts comes as PlainAlerts. Raises WireError."""
    if len(frames) == wire.FRAMES and frames[0] == MAGIC and frames[2] == b"m" and len(frames[4]) <= MAX_BODY_BYTES:
        kind, message_id = frames[1], frames[3].decode("ascii", "replace")
        if kind in (b"ALERTS", b"ALERT") and is_id(message_id):
            plain = _plain(frames[4], message_id, is_batch=kind == b"ALERTS")
            if plain is not None:
                return plain
    return wire.decode(frames)


def json_of(facts: Mapping[str, Any]) -> str | None:
    """As the texts of PlainAlerts; None: it holds what has no such form."""
    try:
        return _json.encode(facts).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def _plain(raw: bytes, message_id: str, *, is_batch: bool) -> PlainAlerts | None:
    if _FLOAT_32 in raw:
        return None
    body: Mapping[str, Any]
    alerts: Mapping[str, Any]
    try:
        if is_batch:
            batch = _many.decode(raw)
            body, alerts = batch, batch["alerts"]
        else:
            body = _one.decode(raw)
            alerts = {message_id: body}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if len(_again.encode(body)) != len(raw) or (is_batch and not are_ids(alerts)):
        return None
    if any(facts["type"].isupper() for facts in alerts.values()):  # Guardian's own words: they are mapped to ours
        return None
    encode = _json.encode
    texts = {msg_id: encode(facts).decode() for msg_id, facts in alerts.items()}
    if any(_NUL in text for text in texts.values()):
        return None
    made = PlainAlerts(Kind.ALERTS if is_batch else Kind.ALERT, message_id, body, ContentType.MSGPACK)
    object.__setattr__(made, "texts", texts)
    return made
