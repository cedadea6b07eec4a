"""Keeps the memory of messages that never end bounded: looks at the daemon's own, cuts off who may be holding it.

``look`` runs on the link nodes' threads and is quick; what takes longer runs on the I/O pool, one at a time.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from supervisors.link_peers import cut_off, received
from supervisors.memory_guard import MIB, Judged, Level, judged, step, to_cut

SHOWN_S: Final = 30.0
"""A peer that was cut off is shown at the node for so long."""
_SETTLE_S, _LOOKS = 0.05, 6
_MEMORY: Final = Path("/proc/self/statm")


def resident() -> int | None:
    """Bytes of memory this process has; None: the system does not tell so."""
    try:
        return int(_MEMORY.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def give_back() -> None:
    """What was freed goes back to the system: the C library keeps it otherwise, and nobody could tell it from used."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


@dataclass
class MemoryWatch:
    """One for all links.

    Args:
        ports: the links' ports, by link.
        run: on the I/O pool.
        now: clock seconds.
        explained: bytes in buffers of our own.
    """

    ports: Callable[[], Mapping[str, int]]
    run: Callable[[Callable[[], None]], object]
    now: Callable[[], float]
    explained: Callable[[], int] = lambda: 0
    _level: Level = field(default_factory=Level)
    _shown: dict[str, tuple[float, str]] = field(default_factory=dict)
    _acting: threading.Lock = field(default_factory=threading.Lock)
    _pause: threading.Event = field(default_factory=threading.Event)

    def look(self, link: str) -> str | None:
        """About once a second. Returns the link's trouble."""
        rss = resident()
        if rss is not None and self._acting.acquire(blocking=False):
            self._level, is_much = step(self._level, rss, self.explained())
            if is_much:
                self._begin()
            else:
                self._acting.release()
        at_s, text = self._shown.get(link, (0.0, ""))
        return text if text and self.now() - at_s < SHOWN_S else None

    def _begin(self) -> None:
        try:
            self.run(self._act)  # it lets go of the lock
        except RuntimeError:  # the daemon ends
            self._acting.release()

    def _act(self) -> None:
        try:
            give_back()
            self._level, is_much = step(self._level, resident() or 0, self.explained())
            if is_much:
                self._cut()
        finally:
            self._acting.release()

    def _cut(self) -> None:
        before = resident() or 0
        by_link = {link: received([port]) for link, port in self.ports().items()}
        counts = {peer: count for one in by_link.values() for peer, count in one.items()}
        peers = to_cut(counts)
        cut_off(tuple(self.ports().values()), peers)
        found = self._judged(before) if peers else judged(self._level, before, before, self.explained())
        self._level = found.level
        if not found.freed:
            structlog.get_logger().warning("memory has grown, not by peers", mib=before // MIB, cut_off=len(peers))
            return
        for link, ours in by_link.items():
            if mine := {peer: ours[peer] for peer in peers & ours.keys()}:
                self._shown[link] = (self.now(), said(found.freed, mine))

    def _judged(self, before: int) -> Judged:
        """ZeroMQ lets go of it on a thread of its own."""
        for _ in range(_LOOKS):
            self._pause.wait(_SETTLE_S)
            give_back()
            found = judged(self._level, before, resident() or before, self.explained())
            if found.freed:
                return found
        return found


def said(freed: int, peers: Mapping[str, int]) -> str:
    """What was done, and to whom. ``peers``: bytes each had sent. Pure."""
    first = sorted(peers, key=lambda peer: -peers[peer])[:3]
    names = ", ".join(f"{peer} ({peers[peer] // MIB} MiB sent)" for peer in first)
    more = f" and {len(peers) - len(first)} more" if len(peers) > len(first) else ""
    return f"messages without an end took {freed // MIB} MiB; cut off: {names}{more}; revoke the key of who goes on"
