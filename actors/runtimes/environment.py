"""The variables of a launch: environment files and secrets are read here, each time anew, and kept by nobody.

Runs on the I/O pool. No value ever gets into an error's text: it may be a secret.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from actors.keeper.words import FileStamp, stamp_of
from actors.runtimes.base import LaunchError, LaunchSpec
from actors.runtimes.settings import SecretFile

MAX_FILE_BYTES: Final = 1024 * 1024
"""More than a program's whole environment may be."""
_NAME: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Variables:
    """What a launch puts into the environment; ``stamps`` are the files it came from, as they were."""

    values: dict[str, str] = field(repr=False)
    stamps: tuple[FileStamp, ...] = ()


def read_variables(spec: LaunchSpec) -> Variables:
    """The service's own variables with those of its files and secrets.

    Raises:
        LaunchError: a file is missing, unreadable, badly written or open to everybody; which one and where.
    """
    values: dict[str, str] = {}
    stamps: list[FileStamp] = []
    for file in spec.sources.files:
        stamps.append(stamp_of(str(file.path)))  # before it is read: a change in between counts as one
        raw = _read(spec, file.path, "environment file", may_miss=file.is_optional)
        if raw is not None:  # else its appearance will be a change
            values |= _parse(spec, file.path, raw)
    values |= spec.environment
    for name, secret in spec.sources.secrets.items():
        if not secret.is_path_passed:
            stamps.append(stamp_of(str(secret.path)))
        values[name] = _secret(spec, name, secret)
    for name, value in values.items():
        if not name or "=" in name or not (is_possible(name) and is_possible(value)):
            raise _error(spec, f"the value of {name!r} cannot be in an environment: it holds a zero byte or no text")
    return Variables(values, tuple(stamps))


def is_possible(text: str) -> bool:
    """Whether the system can take it: as an argument, a path, a variable."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # its own words would show the value
        return False


def _error(spec: LaunchSpec, text: str) -> LaunchError:
    return LaunchError(f"service {spec.service!r}: {text}", permanent=True)


def _read(spec: LaunchSpec, path: Path, what: str, *, may_miss: bool = False) -> bytes | None:
    """The file's content; None when it is missing and may be."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _error(spec, f"{what} {path} is no regular file")
        with open(path, "rb", buffering=0, opener=_at_once) as file:
            raw = file.read(MAX_FILE_BYTES + 1) or b""
    except (FileNotFoundError, NotADirectoryError):
        if may_miss:
            return None
        raise _error(spec, f"{what} {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise _error(spec, f"{what} {path} cannot be read: {_reason(error)}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise _error(spec, f"{what} {path} is longer than {MAX_FILE_BYTES} bytes")
    return raw


def _at_once(path: str, flags: int) -> int:
    """Whatever has taken the file's place meanwhile (a pipe without a writer): nobody is waited for."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _reason(error: OSError | ValueError) -> str:
    """A ValueError is of a path that no file can have."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "no name of a file"


# -- KEY=VALUE files --------------------------------------------------------------------------------------------------


def _parse(spec: LaunchSpec, path: Path, raw: bytes) -> dict[str, str]:
    values: dict[str, str] = {}
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith((b"#", b";")):
            continue
        name, equals, value = _without_export(text).partition(b"=")
        fault = _fault(name.rstrip(), equals, value.strip())
        if fault is not None:
            raise _error(spec, f"environment file {path}, line {number}: {fault}")
        values[name.rstrip().decode("ascii")] = os.fsdecode(_unquoted(value.strip()))
    return values


def _without_export(text: bytes) -> bytes:
    word, _, rest = text.partition(b" ")
    return rest.lstrip() if word == b"export" else text


def _fault(name: bytes, equals: bytes, value: bytes) -> str | None:
    if not equals:
        return "is no NAME=VALUE"
    if not _NAME.fullmatch(name):
        return "the name before = may hold letters, digits and _ only, and no digit first"
    quote = value[:1]
    if quote in (b"'", b'"') and (len(value) < 2 or not value.endswith(quote)):
        return f"the quote {quote.decode()} is not closed on this line"
    return None


def _unquoted(value: bytes) -> bytes:
    """Without its quotes; inside double ones a backslash frees a quote or a backslash. Nothing is expanded."""
    quote = value[:1]
    if quote not in (b"'", b'"'):
        return value
    inner = value[1:-1]
    return re.sub(rb'\\(["\\])', rb"\1", inner) if quote == b'"' else inner


# -- secrets ----------------------------------------------------------------------------------------------------------


def _secret(spec: LaunchSpec, name: str, secret: SecretFile) -> str:
    what = f"the file of secret {name}"
    try:
        mode = secret.path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _error(spec, f"{what}, {secret.path}, does not exist") from None
    except (OSError, ValueError) as error:
        raise _error(spec, f"{what}, {secret.path}, cannot be read: {_reason(error)}") from None
    if not secret.may_be_world_readable and mode & stat.S_IROTH and _is_reachable(secret.path):
        raise _error(
            spec,
            f"{what}, {secret.path}, may be read by every user: chmod o-r it, "
            "or say `world_readable: true` if that is meant",
        )
    if secret.is_path_passed:
        return str(secret.path)
    return os.fsdecode(_without_newline(_read(spec, secret.path, what + ",") or b""))


def _without_newline(raw: bytes) -> bytes:
    """One line end at the end belongs to the editor, not to the secret."""
    return raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw


def _is_reachable(path: Path) -> bool:
    """Whether every folder above lets others through."""
    try:
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
    except OSError:
        return True
