"""CPU and memory of whole families of processes. Called on I/O pool threads; one lock.

The process table is read once for all services asked about within half a second, not once for each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from actors.clock import Clock
from actors.runtimes.base import Usage
from actors.runtimes.family import members_of
from actors.runtimes.procfs import ProcessIdentity, ProcessTable, read_table

_FRESH_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class _Sample:
    """``percent``: what it said beside the one before it."""

    at: float
    cpu_s: dict[ProcessIdentity, float]
    percent: float = 0.0


class ProcessMeter:
    """CPU percent needs two looks: the first ``measure`` of a process says 0."""

    def __init__(self, clock: Clock, read: Callable[[], ProcessTable] = read_table) -> None:
        self._clock = clock
        self._read = read
        self._lock = threading.Lock()
        self._table: ProcessTable = {}
        self._read_at = float("-inf")
        self._samples: dict[ProcessIdentity, _Sample] = {}

    def measure(self, main: ProcessIdentity) -> Usage | None:
        """The usage of ``main`` with its descendants and session; None when it is gone."""
        with self._lock:
            self._refresh()
            members = members_of(self._table, main)
            if main not in members:
                self._samples.pop(main, None)
                return None
            return self._usage(main, members)

    def forget(self, main: ProcessIdentity) -> None:
        """Drop what was kept for a process that has ended."""
        with self._lock:
            self._samples.pop(main, None)

    def _refresh(self) -> None:
        now = self._clock.now()
        if now - self._read_at > _FRESH_S:
            self._table, self._read_at = self._read(), now

    def _usage(self, main: ProcessIdentity, members: tuple[ProcessIdentity, ...]) -> Usage:
        memory_bytes = sum(self._table[member.pid].resident_bytes for member in members)
        before = self._samples.get(main)
        if before is not None and before.at >= self._read_at:  # somebody asked of this very table
            return Usage(before.percent, memory_bytes)
        sample = _Sample(self._read_at, {member: self._table[member.pid].cpu_s for member in members})
        sample = replace(sample, percent=_cpu_percent(before, sample))
        self._samples[main] = sample
        return Usage(sample.percent, memory_bytes)


def _cpu_percent(before: _Sample | None, now: _Sample) -> float:
    """Percent of one core. A member that is new used all its time since; one that ended takes its time along."""
    if before is None:
        return 0.0
    used_s = sum(max(0.0, cpu_s - before.cpu_s.get(member, 0.0)) for member, cpu_s in now.cpu_s.items())
    return round(100 * used_s / (now.at - before.at), 1)
