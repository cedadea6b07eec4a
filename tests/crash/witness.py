"""Services that bear witness of themselves: each notes its birth, then holds something only one can hold.

A process holds a file lock, a container a port of the host. Whoever finds it taken notes a twin, however short the
other one lives: so two live instances are seen even when nobody looks at that moment. No stranger may
come by what is held: one on a port that the kernel gives out would look like a twin.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.docker_engine import IMAGE

_LIVES = "1000000"
FIRST_PORT: Final = 20_147
"""From here upwards; below those that the kernel gives out (32768 and above)."""


def process(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    """The configuration of a witness as a process."""
    script = (
        f"echo 1 >>{folder}/{name}.births; exec 9>>{folder}/{name}.alive; "
        f"flock -n 9 || echo 1 >>{folder}/{name}.twins; exec sleep {_LIVES}"
    )
    return {"command": ["sh", "-c", script], "graceful_shutdown_timeout": "5s"} | more


def own_address() -> str:
    """An address of the loopback device for each process that plays worlds, by its pid (at most 22 bits)."""
    pid = os.getpid()
    return f"127.{64 + (pid >> 16)}.{pid >> 8 & 255}.{pid & 255}"


def container(folder: Path, name: str, number: int = 0, **more: Any) -> dict[str, Any]:
    """The configuration of a witness as a container. Its witness folder is mounted at the same place.

    ``number``: of this container in its world.
    """
    script = (
        f"trap 'exit 0' TERM; echo 1 >>{folder}/{name}.births; "
        f"{{ httpd -f -p {own_address()}:{FIRST_PORT + number} || echo 1 >>{folder}/{name}.twins; }} & wait"
    )
    return {
        "runtime": "docker",
        "image": IMAGE,
        "command": ["sh", "-c", script],
        "network": "host",
        "volumes": [f"{folder}:{folder}"],
        "graceful_shutdown_timeout": "3s",
    } | more


@dataclass(frozen=True)
class Witnesses:
    """What the services of one world have noted."""

    folder: Path

    def births(self, name: str) -> int:
        return self._lines(f"{name}.births")

    def twins(self) -> dict[str, int]:
        """For each service that ever had two live instances, how often."""
        return {path.stem: self._lines(path.name) for path in sorted(self.folder.glob("*.twins"))}

    def _lines(self, file: str) -> int:
        try:
            return len((self.folder / file).read_text(encoding="ascii").split())
        except FileNotFoundError:
            return 0
