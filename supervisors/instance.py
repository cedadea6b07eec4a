"""The state directory's own name: only containers that carry it are ours. Read at the start, main thread."""

from __future__ import annotations

import contextlib
import re
import uuid
from pathlib import Path
from typing import Final

from actors.failpoints import reached, register

INSTANCE_WRITTEN: Final = register("daemon.instance.written", "the instance's new name is written, not in its place")
_WRITTEN: Final = re.compile(r"[0-9a-f]{32}")


def instance_of(state_dir: Path) -> str:
    """The name in the file ``instance``; a new one if there is none.

    A new one is made from the machine and the place, not by chance: where it cannot be written (a full or read-only
    disk) the next daemon must find the same, or it would start a twin of every container.
    """
    file = state_dir / "instance"
    with contextlib.suppress(OSError):
        written = file.read_text(encoding="ascii", errors="replace").strip()
        if _WRITTEN.fullmatch(written):
            return written
    name = _made(state_dir)
    fresh = file.with_suffix(".new")
    try:
        fresh.write_text(name + "\n", encoding="ascii")
        reached(INSTANCE_WRITTEN)
        fresh.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
    return name


def _made(state_dir: Path) -> str:
    place = state_dir.resolve().stat()
    machine = ""
    with contextlib.suppress(OSError):
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    words = f"{machine}/{state_dir.resolve()}/{place.st_dev:x}.{place.st_ino:x}"
    return uuid.uuid5(uuid.NAMESPACE_URL, f"selfheal:{words}").hex
