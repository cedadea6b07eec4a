"""CPU and memory of the live services, sampled when somebody looks and kept for a moment, so that idling costs nothing.

Called from HTTP threads; one lock, so that two readers do not halve each other's measuring interval.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import structlog

from actors.board import NodeKind, NodeStatus
from actors.live_runs import LiveRuns
from actors.runtimes.base import Usage

FRESH_S: Final = 1.0


class UsageBook:
    def __init__(self, live: LiveRuns) -> None:
        self._live = live
        self._lock = threading.Lock()
        self._at = float("-inf")
        self._figures: dict[str, Usage] = {}

    def laid_over(self, snapshot: Mapping[str, NodeStatus]) -> dict[str, NodeStatus]:
        """The snapshot with fresh figures in its services."""
        figures = self.figures()
        return {path: _with(status, figures) for path, status in snapshot.items()}

    def figures(self) -> Mapping[str, Usage]:
        """By service; one that runs and is missing could not be measured. A moment old at most."""
        with self._lock:
            if time.monotonic() - self._at >= FRESH_S:
                self._figures = self._measure()
                self._at = time.monotonic()
            return self._figures

    def _measure(self) -> dict[str, Usage]:
        figures = {}
        for name, (runtime, handle) in tuple(self._live.by_service.items()):
            try:
                usage = runtime.usage(handle)
            except Exception as error:  # it ended while we looked: a figure less, no failed command
                structlog.get_logger().debug("no usage", service=name, error=str(error))
                continue
            if usage is not None:
                figures[name] = usage
        return figures


def _with(status: NodeStatus, figures: Mapping[str, Usage]) -> NodeStatus:
    usage = figures.get(status.path.rsplit("/", 1)[-1]) if status.kind is NodeKind.SERVICE else None
    if usage is None:
        return status
    return replace(status, cpu_percent=round(usage.cpu_percent, 1), memory_bytes=usage.memory_bytes)
