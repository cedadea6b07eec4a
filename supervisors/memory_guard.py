"""When memory that grows is taken for messages of peers that never end, and what follows. Pure: no clock, no sockets.

ZeroMQ keeps the frames of a message until its last one came; neither a limit of frames nor of messages bounds that, and
nobody but the memory itself tells of it. Whoever is cut off wrongly connects and sends again, so that being wrong is
cheap; a level that is reached without peers is taken as the new one, so that it is not wrong for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

MIB: Final = 2**20
BOUND: Final = 128 * MIB
"""Bytes above the level that are too many."""
LARGE: Final = BOUND // 64
"""Whoever sent less cannot hold much: a frame takes 64 bytes here, and at least two on the wire."""


@dataclass(frozen=True, slots=True)
class Level:
    """Bytes of resident memory: the lowest seen, or what was reached without peers. None: not measured yet."""

    rss: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """``freed``: bytes that went with the peers cut off; 0: it was not theirs."""

    level: Level
    freed: int


def step(level: Level, rss: int, explained: int = 0) -> tuple[Level, bool]:
    """One look. ``explained``: bytes in buffers of our own. Returns the level, and whether too much is in use."""
    if level.rss is None or rss < level.rss:
        return replace(level, rss=rss), False
    return level, rss - explained > level.rss + BOUND


def to_cut(received: Mapping[str, int]) -> frozenset[str]:
    """Which of the connections may be holding much, by the bytes each has sent: the large ones, else all together."""
    large = frozenset(name for name, count in received.items() if count >= LARGE)
    return large or (frozenset(received) if sum(received.values()) >= LARGE else frozenset())


def judged(level: Level, before: int, after: int, explained: int = 0) -> Judged:
    """What cutting off has shown. Most of the growth went: it was theirs. It stayed: it is our own."""
    lowest = before if level.rss is None else level.rss
    freed = before - after
    if freed * 2 >= before - lowest > 0:
        return Judged(level, freed)
    return Judged(Level(after) if after - explained > lowest + BOUND else level, 0)
