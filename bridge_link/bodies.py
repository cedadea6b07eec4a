"""Message bodies: msgpack and JSON to the same plain data, under the same limits. Pure; safe on any bytes.

Both encodings are walked after decoding: what one library lets through (NaN, duplicate keys, lone surrogates, NUL,
numbers beyond 64 bits, deep nesting) the other side would choke on later, in a thread that cannot refuse it any more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import msgpack

from bridge_link.errors import WireError

MAX_BODY_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 16
MAX_NODES: Final = 4096
MAX_TEXT_BYTES: Final = 16 * 1024
LEAST_INT: Final = -(2**63)
MOST_INT: Final = 2**63 - 1
_BOM: Final = b"\xef\xbb\xbf"
_BAD: Final = (ValueError, TypeError, RecursionError, OverflowError, MemoryError)


def pack_msgpack(body: Mapping[str, Any]) -> bytes:
    return _bounded(msgpack.packb(dict(body), use_bin_type=True))


def pack_json(body: Mapping[str, Any]) -> bytes:
    return _bounded(json.dumps(dict(body), ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode())


def unpack_msgpack(raw: bytes) -> dict[str, Any]:
    """Raises WireError: malformed, too_large."""
    _bounded(raw)
    try:
        body = msgpack.unpackb(
            raw,
            raw=False,
            strict_map_key=True,
            use_list=True,
            max_str_len=MAX_TEXT_BYTES,
            max_bin_len=0,
            max_ext_len=0,
            max_array_len=MAX_NODES,
            max_map_len=MAX_NODES,
            object_pairs_hook=_no_duplicates,
        )
    except _BAD as error:
        raise WireError("malformed", f"the body is no msgpack map: {_short(error)}") from None
    return _checked(body)


def unpack_json(raw: bytes) -> dict[str, Any]:
    """Raises WireError: malformed, too_large."""
    _bounded(raw)
    try:
        text = raw.removeprefix(_BOM).decode("utf-8")  # PowerShell 5.1 writes one
        body = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except _BAD as error:
        raise WireError("malformed", f"the body is no JSON object: {_short(error)}") from None
    return _checked(body)


def check(body: Mapping[str, Any]) -> None:
    """Refuse a body that could not be read back. Raises WireError: malformed."""
    _checked(dict(body))


def _bounded(raw: bytes) -> bytes:
    if len(raw) > MAX_BODY_BYTES:
        raise WireError("too_large", f"the body has {len(raw)} bytes; at most {MAX_BODY_BYTES} are taken")
    return raw


def _no_duplicates(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _checked(body: Any) -> dict[str, Any]:
    """One walk, a level at a time; all texts are looked at together, and one by one only when something is odd."""
    if not isinstance(body, dict):
        raise WireError("malformed", "the body is no map")
    texts: list[Any] = []
    level: list[Any] = [body]
    depth = nodes = 0
    while level:
        depth += 1
        nodes += len(level)
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            limit = f"{MAX_DEPTH} levels" if depth > MAX_DEPTH else f"{MAX_NODES} values"
            raise WireError("malformed", f"the body has more than {limit}")
        level = _checked_level(level, texts)
    _check_texts(texts)
    return body


def _checked_level(level: list[Any], texts: list[Any]) -> list[Any]:
    """What is inside the values of a level; their texts, keys too, go to ``texts``."""
    inside: list[Any] = []
    for value in level:
        kind = type(value)
        if kind is str:
            texts.append(value)
        elif kind is dict:
            texts.extend(value)
            inside.extend(value.values())
        elif kind is list:
            inside.extend(value)
        elif value is not None and kind is not bool:
            _check_other(value, texts, inside)
    return inside


def _check_other(value: Any, texts: list[Any], inside: list[Any]) -> None:
    """Numbers, and what a caller's own classes are."""
    if isinstance(value, int):
        if not LEAST_INT <= value <= MOST_INT:  # a range would be walked for an IntEnum
            raise WireError("malformed", "a whole number does not fit into 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise WireError("malformed", "a number is not finite")
    elif isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        texts.extend(value)
        inside.extend(value.values())
    elif isinstance(value, list):
        inside.extend(value)
    else:
        raise WireError("malformed", f"a {type(value).__name__} has no place in a body")


def _check_texts(texts: list[Any]) -> None:
    try:
        together = "".join(texts)
    except TypeError:
        raise WireError("malformed", "a key is no text") from None
    if together.isascii() and "\0" not in together and (len(together) <= MAX_TEXT_BYTES or _all_short(texts)):
        return
    for text in texts:
        _check_text(text)


def _all_short(texts: list[Any]) -> bool:
    return max(map(len, texts)) <= MAX_TEXT_BYTES


def _check_text(text: str) -> None:
    if "\0" in text:
        raise WireError("malformed", "a text holds NUL")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise WireError("malformed", "a text holds half a surrogate pair") from None
    if size > MAX_TEXT_BYTES:
        raise WireError("too_large", f"a text has {size} bytes; at most {MAX_TEXT_BYTES} are taken")


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:120]
