"""The wire: a message as ZeroMQ frames, in any language. Pure: bytes in, dataclass out; specified in docs/wire.md.

``[b"SH1"] [kind] [content type] [message id] [body]`` (a ROUTER sees the peer's routing id in front of it).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bridge_link import bodies
from bridge_link.errors import WireError
from bridge_link.ids import new_id

__all__ = [
    "FRAMES",
    "KEY_REFUSED",
    "KEY_REFUSED_MS",
    "MAGIC",
    "ContentType",
    "Kind",
    "Message",
    "are_ids",
    "decode",
    "encode",
    "frames_of",
    "is_id",
    "nack",
    "new_id",
]

MAGIC: Final = b"SH1"
KEY_REFUSED: Final = "key_refused"
"""The NACK code of a key that is not known, or not any more: another key may do, so nothing is refused for good."""
KEY_REFUSED_MS: Final = 5_000
FRAMES: Final = 5
_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{8,64}")
_ID_TEXT: Final = re.compile(r"[A-Za-z0-9._:-]{8,64}")
_ID_LINES: Final = re.compile(rf"(?:{_ID_TEXT.pattern}\n)*")


class Kind(enum.Enum):
    """What a message is. Clients send the first group, the daemon the second."""

    ALERT = b"ALERT"
    ALERTS = b"ALERTS"
    HEARTBEAT = b"HB"
    QUERY = b"QUERY"
    HELLO = b"HELLO"
    REPLY = b"REPLY"

    STORED = b"STORED"
    DECIDED = b"DECIDED"
    OUTCOME = b"OUTCOME"
    NACK = b"NACK"
    ANSWER = b"ANSWER"
    COMMAND = b"CMD"
    EVENT = b"EVENT"


class ContentType(enum.Enum):
    MSGPACK = b"m"
    JSON = b"j"


@dataclass(frozen=True, slots=True)
class Message:
    """One message. Answers carry the id of what they answer."""

    kind: Kind
    id: str
    body: Mapping[str, Any] = field(default_factory=dict)
    content_type: ContentType = ContentType.MSGPACK


def is_id(text: str) -> bool:
    """Whether a text may be a message id: 8 to 64 ASCII letters, digits, '.', '_', ':' and '-'."""
    return _ID_TEXT.fullmatch(text) is not None


def are_ids(texts: Collection[str]) -> bool:
    """``is_id`` of each, with one look at all of them."""
    together = "".join(f"{text}\n" for text in texts)
    return _ID_LINES.fullmatch(together) is not None and together.count("\n") == len(texts)


def encode(message: Message) -> list[bytes]:
    """Raises WireError: too_large, malformed."""
    if not is_id(message.id):
        raise WireError("malformed", f"{message.id!r} is no message id: 8 to 64 of A-Z a-z 0-9 . _ : -")
    bodies.check(message.body)
    pack = bodies.pack_msgpack if message.content_type is ContentType.MSGPACK else bodies.pack_json
    return [MAGIC, message.kind.value, message.content_type.value, message.id.encode(), pack(message.body)]


def frames_of(kind: Kind, message_id: str, packed: bytes, encoding: ContentType = ContentType.MSGPACK) -> list[bytes]:
    """An answer whose body is packed and known to be good."""
    return [MAGIC, kind.value, encoding.value, message_id.encode(), packed]


def decode(frames: Sequence[bytes]) -> Message:
    """Raises WireError, and nothing else, whatever the bytes are; with the message id where it could be read."""
    if len(frames) != FRAMES:
        raise WireError("malformed", f"{len(frames)} frames instead of {FRAMES}")
    magic, kind, content_type, raw_id, body = frames
    if magic != MAGIC:
        raise WireError("malformed", "the first frame is not SH1")
    if not _ID.fullmatch(raw_id):
        raise WireError("malformed", "the message id is not 8 to 64 of A-Z a-z 0-9 . _ : -")
    message_id = raw_id.decode("ascii")
    try:
        unpack = bodies.unpack_msgpack if ContentType(content_type) is ContentType.MSGPACK else bodies.unpack_json
        return Message(Kind(kind), message_id, unpack(body), ContentType(content_type))
    except WireError as error:
        raise WireError(error.code, error.text, message_id) from None
    except ValueError:
        raise WireError("malformed", "unknown kind or content type", message_id) from None


def encoding_of(frames: Sequence[bytes]) -> ContentType:
    """The encoding to answer these frames in, readable or not: the asker's own, msgpack when in doubt."""
    asks_for_json = len(frames) == FRAMES and frames[2] == ContentType.JSON.value
    return ContentType.JSON if asks_for_json else ContentType.MSGPACK


def nack(message_id: str, code: str, text: str, *, permanent: bool, retry_after_ms: int = 0) -> Message:
    """A refusal. A permanent one must not be sent again; else after ``retry_after_ms`` milliseconds."""
    body = {"code": code, "text": text[:500], "permanent": permanent, "retry_after_ms": retry_after_ms}
    return Message(Kind.NACK, message_id, body)
