"""The daemon's state in one line, for ``systemctl status``. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from actors.board import NodeKind, NodeState, NodeStatus

WORST_FIRST: Final = (
    NodeState.CRASH_LOOP,
    NodeState.FAILED,
    NodeState.UNKNOWN,
    NodeState.DEGRADED,
    NodeState.STOPPING,
    NodeState.WAITING,
    NodeState.STARTING,
    NodeState.UP,
    NodeState.PAUSED,
)
MOST_NAMES: Final = 5


def status_line(nodes: Iterable[NodeStatus]) -> str:
    """``12 of 13 ready; crash_loop: x``. Services that a person stopped, or whose work is done, do not count."""
    services = (node for node in nodes if node.kind is NodeKind.SERVICE)
    wanted = [node for node in services if node.wanted and node.state is not NodeState.STOPPED]
    by_state: dict[NodeState, list[str]] = defaultdict(list)
    for node in wanted:
        by_state[node.state].append(node.name or node.path.rsplit("/", 1)[-1])
    ready = len(by_state[NodeState.READY])
    rest = [f"{state.value}: {_names(by_state[state])}" for state in WORST_FIRST if by_state[state]]
    return "; ".join([f"{ready} of {len(wanted)} ready", *rest])


def _names(names: list[str]) -> str:
    shown = sorted(names)[:MOST_NAMES]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
