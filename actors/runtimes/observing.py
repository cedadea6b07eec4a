"""What can be seen of a living run beyond its being alive: paused, its own word on its health, drift. Pure.

A runtime that can see it (today: containers) offers ``observe``; the others have nothing to add.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from actors.runtimes.base import Handle


class OwnHealth(enum.Enum):
    """What a run that checks itself (a container's HEALTHCHECK) says."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Observed:
    """Facts of one living run, in words for people where they are text.

    Args:
        paused: by whom it was frozen; None when it runs.
        health: its own word; None when it does not check itself.
        drift: what somebody else changed in a way that fights with us.
        unknown: why nobody can tell now whether it still runs.
        origin: who began this run, when it was somebody else.
    """

    paused: str | None = None
    health: OwnHealth | None = None
    health_detail: str = ""
    drift: str | None = None
    unknown: str | None = None
    origin: str | None = None


NOTHING_SEEN = Observed()
OnObserved = Callable[[Observed], object]
"""Called with every change, on a watcher's or a pool thread, one call at a time: it must only put a message."""


@runtime_checkable
class Observing(Protocol):
    """A runtime that sees more of its runs than their ends."""

    def observe(self, handle: Handle, on_observed: OnObserved) -> None:
        """Tell ``on_observed`` what is seen of this run: now, before this returns, and whenever it changes."""
