"""What of a configuration is never shown: it may be a secret, or hold one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

HIDDEN: Final = "(not shown)"
PRIVATE_KEYS: Final = frozenset({"environment", "headers", "url", "webhook"})
"""Values of the environment and of headers, addresses of databases and webhooks, which may be all the protection."""
_PASSWORD: Final = re.compile(r"(://[^/\s@]*?:)[^/\s]*(?=@)")


def is_private(path: Iterable[object]) -> bool:
    """Whether what stands at these keys, one below the other, is never shown."""
    return any(part in PRIVATE_KEYS for part in path)


def veiled(value: Any) -> Any:
    """A JSON value as it may be shown: what stands under private keys is hidden, and so are passwords in addresses."""
    match value:
        case str():
            return _PASSWORD.sub(r"\1***", value)
        case Mapping():
            return {key: HIDDEN if is_private((key,)) and one else veiled(one) for key, one in value.items()}
        case list() | tuple():
            return [veiled(one) for one in value]
        case _:
            return value
