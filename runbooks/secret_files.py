"""Secrets of runbooks: each in a file, read when it is needed, and nowhere in what is recorded or said. Blocking."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus, urlsplit

from runbooks.ports import PortError

MAX_SECRET_BYTES: Final = 65536
LEAST_PART: Final = 6
"""A part of a secret address that is shorter stands anywhere by chance."""


@dataclass(frozen=True, slots=True)
class SecretFile:
    path: Path
    may_be_world_readable: bool = False


class LocalSecrets:
    """Fulfils ``ports.Secrets``."""

    def __init__(self, files: Mapping[str, SecretFile]) -> None:
        self._files = dict(files)
        self._read: dict[str, str] = {}

    def value(self, name: str) -> str:
        secret = self._files.get(name)
        if secret is None:
            raise PortError(f"there is no secret {name!r} in the configuration's `secrets`")
        try:
            fd = os.open(secret.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(fd, "rb", buffering=0) as file:
                mode = os.fstat(fd).st_mode
                if not secret.may_be_world_readable and mode & stat.S_IROTH and _is_reachable(secret.path):
                    raise PortError(
                        f"secret {name}: {secret.path} may be read by every user: chmod o-r it, "
                        "or say `world_readable: true` if that is meant"
                    )
                raw = file.read(MAX_SECRET_BYTES + 1) or b""
        except OSError as error:
            raise PortError(f"secret {name}: {secret.path} cannot be read: {error.strerror}") from None
        text = self._read[name] = _as_text(name, secret.path, raw)
        return text

    def redact(self, text: str) -> str:
        """Without any secret that was read, whoever says it: a server may say what an earlier call sent."""
        said: str = redacted(text, dict(self._read))
        return said


def _as_text(name: str, path: Path, raw: bytes) -> str:
    """Without its last line end, which belongs to the editor."""
    if len(raw) > MAX_SECRET_BYTES:
        raise PortError(f"secret {name}: {path} is longer than {MAX_SECRET_BYTES} bytes")
    raw = raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise PortError(f"secret {name}: {path} is no UTF-8 text") from None
    if not text:
        raise PortError(f"secret {name}: {path} is empty")
    return text


def _is_reachable(path: Path) -> bool:
    """Whether every folder above lets others through."""
    try:
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
    except OSError:
        return True


# -- what is said of them ---------------------------------------------------------------------------------------------


def redacted(said: Any, secrets: Mapping[str, str]) -> Any:
    """A JSON value in which no text holds a secret's value, also not as it stands in a URL, in JSON or in Base64."""
    match said:
        case str():
            shapes = [(shape, name) for name, value in secrets.items() for shape in _shapes(value)]
            for shape, name in sorted(shapes, key=lambda one: -len(one[0])):  # so that no part of a longer one is left
                said = said.replace(shape, f"[secret {name}]")
            return said
        case Mapping():
            return {redacted(key, secrets): redacted(value, secrets) for key, value in said.items()}
        case list() | tuple():
            return [redacted(one, secrets) for one in said]
        case _:
            return said


def _shapes(value: str) -> Iterable[str]:
    yield from (part for part in _parts(value) if len(part) >= LEAST_PART)
    basic = base64.b64encode(value.encode()).decode("ascii")
    plain = {
        value,
        *(value.splitlines() if "\n" in value else ()),
        quote(value),
        quote(value, safe=""),
        quote_plus(value),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        basic,
        basic.rstrip("="),
        base64.urlsafe_b64encode(value.encode()).decode("ascii").rstrip("="),
    }
    yield from (shape for shape in plain if shape.strip())


def _parts(value: str) -> Iterable[str]:
    """Of an address: a server says the path it was asked for, a database the password it was given."""
    if "://" not in value:
        return ()
    try:
        parts = urlsplit(value)
    except ValueError:
        return ()
    query = f"?{parts.query}" if parts.query else ""
    return (f"{parts.path}{query}", parts.path, parts.password or "")
