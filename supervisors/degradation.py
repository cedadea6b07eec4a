"""A service or an endpoint that goes on running but not well, and is well again, as events. Under the board's lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from actors.board import NodeKind, NodeState, NodeStatus

WATCHED: Final = frozenset({NodeKind.SERVICE, NodeKind.BRIDGE})
"""The other nodes tell their troubles themselves."""


@dataclass
class Degradation:
    """``tell`` is given the node's path, what happened (``degraded``, ``well``) and a text; it must only hand on."""

    tell: Callable[[str, str, str], object]
    _degraded: set[str] = field(default_factory=set)

    def look(self, status: NodeStatus) -> None:
        """What a node says of itself now. One that ends while it is degraded is told by its supervisor."""
        if status.kind not in WATCHED:
            return
        was_degraded = status.path in self._degraded
        if status.state is NodeState.DEGRADED:
            self._degraded.add(status.path)
            if not was_degraded:
                self.tell(status.path, "degraded", status.detail or "degraded")
        elif was_degraded:
            self._degraded.discard(status.path)
            if status.state is NodeState.READY:
                self.tell(status.path, "well", "well again")
