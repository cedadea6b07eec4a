"""Endpoints that are heard over the bridge link: the link's pump hears the beats, the endpoint's actor is told."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

from actors.bridge_fsm import Heard
from actors.endpoints.transport import Tell

MOST_STRANGERS: Final = 1000


class BeatBoard:
    """Heartbeats by endpoint name. Any thread. ``unknown`` counts those of names nobody waits for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tells: dict[str, Tell] = {}
        self.unknown: dict[str, int] = {}

    def beat(self, name: str, facts: Mapping[str, Any] | None = None) -> bool:
        """An endpoint was heard, with what it says of itself. False when nobody waits for one of that name."""
        with self._lock:
            tell = self._tells.get(name)
            if tell is None:
                if name in self.unknown or len(self.unknown) < MOST_STRANGERS:
                    self.unknown[name] = self.unknown.get(name, 0) + 1
                return False
        tell(Heard(facts=facts))
        return True

    def is_awaited(self, name: str) -> bool:
        with self._lock:
            return name in self._tells

    def subscribe(self, name: str, tell: Tell) -> None:
        with self._lock:
            self._tells[name] = tell

    def unsubscribe(self, name: str, tell: Tell) -> None:
        """Only its own subscription: a newer incarnation's stays."""
        with self._lock:
            if self._tells.get(name) is tell:
                del self._tells[name]


class BeatTransport:
    """No thread of its own."""

    def __init__(self, name: str, beats: BeatBoard) -> None:
        self._name = name
        self._beats = beats
        self._tell: Tell | None = None

    def start(self, tell: Tell) -> None:
        self._tell = tell
        self._beats.subscribe(self._name, tell)

    def close(self) -> None:
        if self._tell is not None:
            self._beats.unsubscribe(self._name, self._tell)
