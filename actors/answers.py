"""What goes back to the senders of alerts, gathered: one wake-up of a pump for many answers, one message for a batch.

Pure but for ``Replies.send``, which hands frames to the pumps; from any thread.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from bridge_link import bodies
from bridge_link.wire import ContentType, Kind, Message, frames_of, nack

MOST_KEPT: Final = 256
MOST_BYTES: Final = 400
"""Of a text in an answer about many alerts, in JSON, where it is longest: all of them have to go into one message."""
MOST_CHARS: Final = 4000
"""Of a reason that goes alone: it fits in both encodings whatever its letters are."""
_MOST_BYTES_OF_A_LETTER: Final = 12
_log: Final = logging.getLogger("selfheal.answers")
Pack = Callable[[Mapping[str, Any]], bytes]
_packed: dict[tuple[Any, ...], bytes] = {}
"""Bodies of decisions that were told lately: in a storm most are the same."""
_PACK: Final = {ContentType.MSGPACK: bodies.pack_msgpack, ContentType.JSON: bodies.pack_json}
_STORED: Final = {
    (is_new, encoding): pack({"status": "stored" if is_new else "duplicate"})
    for is_new in (True, False)
    for encoding, pack in _PACK.items()
}


class Pump(Protocol):
    """Who sends answers (``bridge_link.pump.RouterPump``); from any thread."""

    def send(self, peer: bytes, message: Message) -> None: ...

    def send_frames(self, answers: Iterable[tuple[bytes, list[bytes]]]) -> None: ...


class Asker(NamedTuple):
    """Who waits for the answer about one alert, in the encoding it was sent in; ``batch_id`` when it came in a message
    with others.
    """

    pump: Pump
    peer: bytes
    msg_id: str
    batch_id: str | None = None
    encoding: ContentType = ContentType.MSGPACK

    def about(self, msg_id: str) -> Asker:
        """The same, about another alert of its message."""
        return Asker(self.pump, self.peer, msg_id, self.batch_id, self.encoding)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A NACK to be: ``permanent`` says never send it again, else it may come again after ``retry_after_ms``."""

    code: str
    text: str
    permanent: bool = False
    retry_after_ms: int = 0


@dataclass(slots=True)
class _Batch:
    """The answers for the alerts of one message so far."""

    stored: list[str] = field(default_factory=list)
    duplicate: list[str] = field(default_factory=list)
    refused: dict[str, dict[str, Any]] = field(default_factory=dict)
    decided: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def messages(self, batch_id: str) -> list[Message]:
        made = []
        if self.stored or self.duplicate or self.refused:
            told = {"stored": self.stored, "duplicate": self.duplicate, "refused": self.refused}
            made.append(Message(Kind.STORED, batch_id, {key: value for key, value in told.items() if value}))
        if self.decided:
            made.append(Message(Kind.DECIDED, batch_id, {"decided": self.decided}))
        return made


@dataclass(slots=True)
class Replies:
    """Filled for all alerts of one poll, then sent."""

    _frames: dict[Pump, list[tuple[bytes, list[bytes]]]] = field(default_factory=dict)
    _batches: dict[tuple[Pump, bytes, str, ContentType], _Batch] = field(default_factory=dict)

    def stored(self, asker: Asker, *, is_new: bool) -> None:
        self.all_stored(asker, [asker.msg_id], is_new=is_new)

    def all_stored(self, asker: Asker, ids: Sequence[str], *, is_new: bool) -> None:
        """Of one message's alerts, by their ids."""
        if asker.batch_id is None:
            for msg_id in ids:
                self._put(asker.about(msg_id), Kind.STORED, _STORED[is_new, asker.encoding])
        elif ids:
            batch = self._batch(asker, asker.batch_id)
            (batch.stored if is_new else batch.duplicate).extend(ids)

    def refused(self, asker: Asker, refusal: Refusal) -> None:
        message = nack(
            asker.msg_id,
            refusal.code,
            refusal.text,
            permanent=refusal.permanent,
            retry_after_ms=refusal.retry_after_ms,
        )
        if asker.batch_id is not None:
            told = {**message.body, "text": _short(refusal.text)}
            self._batch(asker, asker.batch_id).refused[asker.msg_id] = told
        else:
            self._try_put(asker, Kind.NACK, _PACK[asker.encoding], message.body)

    def decided(self, asker: Asker, body: Mapping[str, Any]) -> None:
        self.all_decided(asker, [asker.msg_id], body)

    def all_decided(self, asker: Asker, ids: Sequence[str], body: Mapping[str, Any]) -> None:
        """The same about some of one message's alerts, by their ids."""
        if asker.batch_id is None:
            for msg_id in ids:
                self._try_put(asker.about(msg_id), Kind.DECIDED, _PACK_DECISION[asker.encoding], body)
            return
        told = {key: value for key, value in body.items() if value is not None}
        if "reason" in told:
            told["reason"] = _short(told["reason"])
        self._batch(asker, asker.batch_id).decided.update(dict.fromkeys(ids, told))

    def send(self) -> None:
        """Never raises: an answer that cannot be written is said, and costs nobody else his own."""
        batches, self._batches = self._batches, {}
        for (pump, peer, batch_id, encoding), batch in batches.items():
            for message in batch.messages(batch_id):
                self._try_put(
                    Asker(pump, peer, message.id, None, encoding), message.kind, _PACK[encoding], message.body
                )
        self.send_singles()

    def send_singles(self) -> None:
        """What can be said already, also when the others of a batch must wait."""
        frames, self._frames = self._frames, {}
        for pump, answers in frames.items():
            try:
                pump.send_frames(answers)
            except Exception:
                _log.exception("%d answers could not be handed to their link", len(answers))

    def _try_put(self, asker: Asker, kind: Kind, pack: Pack, body: Mapping[str, Any]) -> None:
        """What cannot be written is said; its asker asks again."""
        try:
            self._put(asker, kind, pack(body))
        except Exception:
            _log.exception("the answer %s %s cannot be written", kind.name, asker.msg_id)

    def _put(self, asker: Asker, kind: Kind, packed: bytes) -> None:
        frames = frames_of(kind, asker.msg_id, packed, asker.encoding)
        self._frames.setdefault(asker.pump, []).append((asker.peer, frames))

    def _batch(self, asker: Asker, batch_id: str) -> _Batch:
        key = (asker.pump, asker.peer, batch_id, asker.encoding)
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = _Batch()
        return batch


def _short(text: str) -> str:
    text = text[:MOST_BYTES]
    while len(text) * _MOST_BYTES_OF_A_LETTER > MOST_BYTES and len(json.dumps(text)) > MOST_BYTES:
        text = text[: len(text) * 3 // 4]
    return text


def _pack_decision(encoding: ContentType, body: Mapping[str, Any]) -> bytes:
    key = (encoding, *body.items())
    packed = _packed.get(key)
    if packed is None:
        told = {name: value for name, value in body.items() if value is not None}
        if "reason" in told:
            told["reason"] = told["reason"][:MOST_CHARS]
        packed = _PACK[encoding](told)
        if len(_packed) >= MOST_KEPT:
            _packed.clear()
        _packed[key] = packed
    return packed


_PACK_DECISION: Final[Mapping[ContentType, Pack]] = {one: partial(_pack_decision, one) for one in ContentType}
