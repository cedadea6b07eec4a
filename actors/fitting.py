"""An answer as frames in its asker's encoding: what cannot be sent in it is made to fit, or left out. Pure.

The same rows are larger in JSON than in msgpack; what is only logged and never sent has its asker wait in vain. What
was stored by an earlier version, or came by another door, may hold what no message can: it keeps no other row from
going.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from bridge_link.bodies import LEAST_INT, MAX_DEPTH, MAX_TEXT_BYTES, MOST_INT
from bridge_link.errors import WireError
from bridge_link.wire import Kind, Message, encode, nack

_MARK: Final = "…"


def fitted(message: Message) -> list[bytes]:
    """The frames of a message. An ``ANSWER`` that cannot be sent is cleaned: texts lose NUL, halves of surrogate pairs
    and what is beyond their length; numbers that are none of ours become text; a mark stands for what is too deep. Then
    rows that do not fit by themselves are left out; then the longest list is shortened from its end. ``is_cut`` says
    that rows are missing; an answer that has none to leave out becomes a refusal.

    Raises:
        WireError: it is no ANSWER and cannot be sent.
    """
    try:
        return encode(message)
    except WireError:
        if message.kind is not Kind.ANSWER:
            raise
    fits = replace(message, body=_clean(message.body, 1))
    fits = fits if _fits(fits) else _without_misfits(fits)
    while True:
        try:
            return encode(fits)
        except WireError as error:
            fewer = _fewer(fits.body.get("result"))
            if fewer is None:
                text = f"the answer cannot be sent in {message.content_type.name.lower()}: {error.text}"
                refusal = nack(message.id, "too_large", text, permanent=True)
                return encode(replace(refusal, content_type=message.content_type))
            fits = replace(fits, body={**fits.body, "result": fewer, "is_cut": True})


def _fits(message: Message) -> bool:
    try:
        encode(message)
    except WireError:
        return False
    return True


def _without_misfits(message: Message) -> Message:
    """Without the rows that no answer could hold, unless it had no other."""
    result = message.body.get("result")
    if isinstance(result, list):
        kept: Any = _good_rows(message, result)
    elif isinstance(result, Mapping):
        lists = {key: _good_rows(message, rows) for key, rows in result.items() if isinstance(rows, list)}
        kept = {**result, **lists}
    else:
        return message
    return message if kept == result else replace(message, body={**message.body, "result": kept, "is_cut": True})


def _good_rows(message: Message, rows: list[Any]) -> list[Any]:
    good = [row for row in rows if _fits(replace(message, body={"ok": True, "result": {"rows": [row]}}))]
    return good or rows


def _clean(value: Any, depth: int) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return _text(value)
        case int() if LEAST_INT <= value <= MOST_INT:
            return value
        case float() if math.isfinite(value):
            return value
        case Mapping() | list() | tuple() if depth >= MAX_DEPTH:
            return _MARK
        case Mapping():
            return {_text(str(key)): _clean(inner, depth + 1) for key, inner in value.items()}
        case list() | tuple():
            return [_clean(inner, depth + 1) for inner in value]
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    raw = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")
    if len(raw) <= MAX_TEXT_BYTES:
        return raw.decode("utf-8")
    return raw[: MAX_TEXT_BYTES - len(_MARK.encode())].decode("utf-8", "ignore") + _MARK


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
