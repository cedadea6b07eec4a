"""Refusals, told once and then seldom: whoever is refused a thousand times a second fills no disk.

Called on link pumps; ``tell`` must only hand over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from actors.access.rules import Denied
from actors.clock import Clock
from bridge_link.wire import Kind

QUIET_S: Final = 10.0
MAX_KNOWN: Final = 1000
"""Different refusals remembered; beyond so many within ``QUIET_S`` no more are told."""

Tell = Callable[[str, str, Mapping[str, Any]], object]
"""(event, text, evidence)"""


@dataclass(slots=True)
class _Told:
    at: float
    unsaid: int = 0


@dataclass
class Audit:
    """Each different refusal is told at once, and again after ``QUIET_S`` with how many there were in between."""

    clock: Clock
    tell: Tell
    _told: dict[str, _Told] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def denied(self, client: str, kind: Kind, denied: Denied) -> None:
        """A client known by name may not do this."""
        evidence = {"client": client, "kind": kind.name, "code": denied.code}
        self._say(f"{denied.code}: {denied.text}", evidence)

    def refused(self, who: str, address: str, public: str) -> None:
        """A handshake."""
        self._say(f"refused {who} from {address}", {"address": address, "public": public})

    def _say(self, text: str, evidence: Mapping[str, Any]) -> None:
        unsaid = self._due(text)
        if unsaid is None:
            return
        more = f" ({unsaid} more times since)" if unsaid else ""
        structlog.get_logger().warning("refused on a link", what=text + more, **evidence)
        self.tell("denied", text + more, evidence)

    def _due(self, text: str) -> int | None:
        """How often it was not told since, if it is to be told now."""
        now = self.clock.now()
        with self._lock:
            told = self._told.get(text)
            if told is not None and now - told.at < QUIET_S:
                told.unsaid += 1
                return None
            if told is None and len(self._told) >= MAX_KNOWN:
                self._told = {key: one for key, one in self._told.items() if now - one.at < QUIET_S}
                if len(self._told) >= MAX_KNOWN:
                    return None
            self._told[text] = _Told(now)
            return 0 if told is None else told.unsaid
