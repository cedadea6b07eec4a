"""How much disk a service's own files take: what lies in its working directory, and its logs. Blocking: I/O pool."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from actors.clock import Clock

EVERY_S: Final = 60.0
"""A folder is walked this often, whatever looks are made between: a walk of many files is no small thing."""
MOST_ENTRIES: Final = 200_000
"""Beyond these nothing is counted: the figure is then the least it can be."""
_BLOCK_BYTES: Final = 512


@dataclass
class DiskUse:
    """What was found last, by service. On one thread at a time."""

    clock: Clock
    every_s: float = EVERY_S
    _known: dict[str, tuple[float, int]] = field(default_factory=dict)

    def of(self, service: str, places: Iterable[Path]) -> int:
        """Bytes on disk below these places; each file counts once, symbolic links are not followed,
        other file systems not entered.
        """
        now = self.clock.now()
        looked_at, found = self._known.get(service, (float("-inf"), 0))
        if now - looked_at >= self.every_s:
            found = taken_bytes(places)
            self._known[service] = (now, found)
        return found

    def forget_all_but(self, services: Iterable[str]) -> None:
        self._known = {name: self._known[name] for name in services if name in self._known}


def taken_bytes(places: Iterable[Path]) -> int:
    """Of folders all that lies below them, of files themselves. What cannot be looked at counts as nothing."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for found in islice(_all(places), MOST_ENTRIES):
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            total += found.st_blocks * _BLOCK_BYTES
    return total


def _all(places: Iterable[Path]) -> Iterator[os.stat_result]:
    for place in places:
        with suppress(OSError):  # it is not there
            top = place.stat()
            yield top
            if stat.S_ISDIR(top.st_mode):
                yield from _below(place, top.st_dev)


def _below(folder: Path, device: int) -> Iterator[os.stat_result]:
    todo = [str(folder)]
    while todo:
        with suppress(OSError), os.scandir(todo.pop()) as entries:  # it went meanwhile, or is not ours to see
            for entry in entries:
                with suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if found.st_dev == device:
                        yield found
                        if stat.S_ISDIR(found.st_mode):
                            todo.append(entry.path)
