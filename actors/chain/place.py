"""Where the audit chain's key and tip are: both outside the database. Files only; no thread of its own.

The key (``STATE/keys/audit.key``, mode 0600) is made at the daemon's first start. The tip goes to ``STATE/audit.tip``,
and to a second place where one is configured: best on another disk, or where another user's program takes it away.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import syslog
from pathlib import Path
from typing import Final

from actors.chain.macs import KEY_BYTES
from bridge_link.errors import KeyRefused
from bridge_link.keys import keys_directory
from bridge_link.private_files import make_private_directory, read_private, write_private

TIP_NAME: Final = "audit.tip"
KEY_NAME: Final = "audit.key"


def key_file(state_dir: Path) -> Path:
    return keys_directory(state_dir) / KEY_NAME


def own_tip(state_dir: Path) -> Path:
    return state_dir / TIP_NAME


def read_key(state_dir: Path) -> bytes:
    """Raises KeyMissing, KeyRefused: others may read it, or it is none."""
    path = key_file(state_dir)
    try:
        key = bytes.fromhex(read_private(path).strip())
    except ValueError:
        raise KeyRefused(f"{path} is no audit key") from None
    if len(key) != KEY_BYTES:
        raise KeyRefused(f"{path} is no audit key")
    return key


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


def write_key(state_dir: Path, key: bytes) -> None:
    """Raises FileExistsError, KeyRefused, OSError."""
    make_private_directory(keys_directory(state_dir))
    write_private(key_file(state_dir), key.hex() + "\n")


def read_tip_file(path: Path) -> str | None:
    """None: there is none. Raises OSError."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def write_tip_file(path: Path, text: str) -> None:
    """The whole tip or the one before, on the disk when this returns. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def say_to_syslog(text: str) -> None:
    """The tip, in a place where another machine may take it away. May block for a moment."""
    syslog.syslog(syslog.LOG_NOTICE | syslog.LOG_AUTHPRIV, f"selfheal audit tip {text.strip()}")
