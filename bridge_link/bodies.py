"""Message bodies: msgpack and JSON to the same plain data, under the same limits. Pure; safe on any bytes.

Both encodings are walked after decoding: what one library lets through (NaN, duplicate keys, lone surrogates, NUL,
numbers beyond 64 bits, deep nesting) the other side would choke on later, in a thread that cannot refuse it any more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgpack

from bridge_link.errors import WireError

MAX_BODY_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 16
MAX_NODES: Final = 4096
MAX_TEXT_BYTES: Final = 16 * 1024
_INT64: Final = range(-(2**63), 2**63)
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


def _no_duplicates(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {key!r} stands twice")
        made[key] = value
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _checked(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise WireError("malformed", "the body is no map")
    nodes = 0
    stack: list[tuple[Any, int]] = [(body, 1)]
    while stack:
        value, depth = stack.pop()
        nodes += 1
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            limit = f"{MAX_DEPTH} levels" if depth > MAX_DEPTH else f"{MAX_NODES} values"
            raise WireError("malformed", f"the body has more than {limit}")
        if isinstance(value, dict):
            for key in value:
                _check_text(key)
            stack.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, list):
            stack.extend((inner, depth + 1) for inner in value)
        else:
            _check_scalar(value)
    return body


def _check_scalar(value: Any) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif value is None or isinstance(value, bool):
        return
    elif isinstance(value, int):
        if value not in _INT64:
            raise WireError("malformed", "a whole number does not fit into 64 bits")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise WireError("malformed", "a number is not finite")
    else:
        raise WireError("malformed", f"a {type(value).__name__} has no place in a body")


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise WireError("malformed", "a key is no text")
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
