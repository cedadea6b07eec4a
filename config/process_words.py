"""Limits (`1024`, `1024:4096`, `64MiB`, `unlimited`), umasks and accounts as people write them. Pure."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from config.units import size_bytes

UNLIMITED: Final = -1
BIGGEST_ID: Final = 2**32 - 2
"""Of a user or group: the next number means "no change" to the kernel."""
_NAME_BYTES: Final = 255
_PATH_BYTES: Final = 4095
_BIGGEST: Final = 2**63 - 1
_OF_BYTES: Final = re.compile(r"[0-9.]+\s*[a-zA-Z]+")
_UMASK: Final = re.compile(r"0?[0-7]{3}")

_ACCOUNT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\$?")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

LimitName = Literal[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "memlock",
    "msgqueue",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
]
"""The names of getrlimit(2), small and without RLIMIT_; `nice` is a key of its own."""


def limit(value: Any) -> tuple[int, int]:
    """Soft and hard limit. Raises ValueError for what is no limit."""
    if isinstance(value, tuple | list) and len(value) == 2:
        soft, hard = value
    elif isinstance(value, str) and ":" in value:
        soft, _, hard = value.partition(":")
    else:
        soft = hard = value
    numbers = _number(soft), _number(hard)
    if numbers[1] != UNLIMITED and (numbers[0] == UNLIMITED or numbers[0] > numbers[1]):
        raise ValueError("has a soft limit above its hard one")
    return numbers


def _number(value: Any) -> int:
    if isinstance(value, str):
        text = value.strip().lower()
        if text == "unlimited":
            return UNLIMITED
        if text.isascii() and text.isdigit():
            value = int(text)
        elif _OF_BYTES.fullmatch(text):
            value = size_bytes(text)
    if isinstance(value, bool) or not isinstance(value, int) or not UNLIMITED <= value <= _BIGGEST:
        raise ValueError("is no limit; write it as 1024, 1024:4096, 64MiB or unlimited")
    return value


def umask(value: Any) -> int:
    """Raises ValueError for what is no umask. A bare number is refused: YAML reads 027 as 23."""
    if not isinstance(value, str) or not _UMASK.fullmatch(value):
        raise ValueError('is no umask; write it in quotes: "027"')
    return int(value, 8)


def account(value: Any) -> str:
    """A user or group. Raises ValueError for what can be neither a name nor a number."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _ACCOUNT.fullmatch(text):
        raise ValueError("is no name or number of a user or group")
    if text.isdigit() and (len(text.lstrip("0")) > len(str(BIGGEST_ID)) or int(text) > BIGGEST_ID):
        raise ValueError(f"is no number of a user or group: the biggest is {BIGGEST_ID}")
    return text


def path_text(text: str) -> str:
    """A path that a file can have. Raises ValueError: the system takes no such name, wherever it is."""
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError("is no name of a file: it holds what is no text") from None
    if b"\0" in raw:
        raise ValueError("is no name of a file: it holds a zero byte")
    longest = max(map(len, raw.split(b"/")))
    if longest > _NAME_BYTES or len(raw) > _PATH_BYTES:
        raise ValueError(f"is too long for a path: at most {_NAME_BYTES} bytes a name and {_PATH_BYTES} in all")
    return text


def _path(path: Path) -> Path:
    path_text(str(path))
    return path


def variable(name: str) -> str:
    """A name for an environment variable. Raises ValueError."""
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a variable: letters, digits and _, no digit first")
    if name.startswith("SELFHEAL_"):
        raise ValueError(f"{name!r} is a variable of the daemon itself; choose another")
    return name


LimitValue = Annotated[
    tuple[int, int],
    BeforeValidator(limit),
    WithJsonSchema({"type": ["integer", "string"], "description": "1024, 1024:4096, 64MiB or unlimited"}),
]
Umask = Annotated[int, BeforeValidator(umask), WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{3}$"})]
Account = Annotated[str, BeforeValidator(account)]
"""A user or group: a name or a number."""
PossiblePath = Annotated[Path, AfterValidator(_path)]
VariableName = Annotated[str, AfterValidator(variable)]
