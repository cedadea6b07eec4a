"""An answer as frames in its asker's encoding, with fewer rows when all of them do not fit into one. Pure.

The same rows are larger in JSON than in msgpack; what is only logged and never sent has its asker wait in vain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bridge_link.errors import WireError
from bridge_link.wire import Kind, Message, encode, nack


def fitted(message: Message) -> list[bytes]:
    """The frames of a message. Of an ``ANSWER`` that is too large the longest list is shortened from its end, and
    ``is_cut`` says so; one that has none becomes a refusal.

    Raises:
        WireError: it is no ANSWER and cannot be sent.
    """
    fits = message
    while True:
        try:
            return encode(fits)
        except WireError as error:
            if message.kind is not Kind.ANSWER:
                raise
            fewer = _fewer(fits.body.get("result"))
            if fewer is None:
                text = f"the answer cannot be sent in {message.content_type.name.lower()}: {error.text}"
                refusal = nack(message.id, "too_large", text, permanent=True)
                return encode(replace(refusal, content_type=message.content_type))
            fits = replace(fits, body={**fits.body, "result": fewer, "is_cut": True})


def _fewer(result: Any) -> Any:
    """Three quarters of its rows, or of the longest list in it; None when there is nothing to leave out."""
    if isinstance(result, list | tuple):
        return list(result[: len(result) * 3 // 4]) if len(result) > 1 else None
    if not isinstance(result, Mapping):
        return None
    rows = {key: value for key, value in result.items() if isinstance(value, list | tuple) and len(value) > 1}
    if not rows:
        return None
    longest = max(rows, key=lambda key: len(rows[key]))
    return {**result, longest: _fewer(rows[longest])}
