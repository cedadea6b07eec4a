"""From the board to the JSON of ``selfheal tree --json``, and finding one's way in it. Pure: no thread, no I/O.

A node without a status of its own (its supervisor names it, the board does not know it yet) is shown as ``unknown``
rather than left out; a node the board knows and its supervisor does not name (just added, just leaving) is shown too.
"""

from __future__ import annotations

import difflib
import math
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from actors.board import LastExit, NodeKind, NodeState, NodeStatus
from supervisors.manager import SCHEMA, Exit, Node, Tree, UnknownNode

ROOT: Final = "root"
_FIRST_S: Final = -62_135_510_400.0
_LAST_S: Final = 253_402_128_000.0
"""From 0001-01-02 to 9999-12-30: a day less than can be written, so that it can be shown in every time zone."""
Snapshot = Mapping[str, NodeStatus]


def tree_json(snapshot: Snapshot, at: float) -> Tree:
    """The tree as of ``at`` (Unix seconds)."""
    return Tree(schema=SCHEMA, at=rfc3339(at), root=_subtree(ROOT, snapshot, _unnamed_children(snapshot)))


def services_json(snapshot: Snapshot) -> list[Node]:
    """All services without children, in the order of the tree."""
    root = _subtree(ROOT, snapshot, _unnamed_children(snapshot))
    return [without_children(node) for node in walk(root) if node["kind"] == NodeKind.SERVICE.value]


def node_json(status: NodeStatus) -> Node:
    """One node without its children."""
    node: dict[str, Any] = {
        "name": status.name or _last(status.path),
        "path": status.path,
        "kind": status.kind.value,
        "state": status.state.value,
        "incarnation": status.incarnation,
        "restarts": status.restarts,
        "restarts_in_window": status.restarts_in_window,
        "wanted": status.wanted,
    }
    node |= {key: value for key, value in _optional(status).items() if value is not None}
    node |= {key: value for key, value in status.extra.items() if key not in node}
    return cast("Node", node)


def without_children(node: Node) -> Node:
    return cast("Node", {key: value for key, value in node.items() if key != "children"})


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, parents first, children in order."""
    yield node
    for child in node.get("children", []):
        yield from walk(child)


def find(root: Node, name: str) -> Node:
    """The node with that path or name (the one nearest to the root). Raises UnknownNode."""
    queue = deque([root])
    names: dict[str, Node] = {}
    paths: list[str] = []
    while queue:
        node = queue.popleft()
        paths.append(node["path"])
        if node["path"] == name:
            return node
        names.setdefault(node["name"], node)
        queue.extend(node.get("children", []))
    if name in names:
        return names[name]
    close = difflib.get_close_matches(name, paths if "/" in name else names, n=1)
    raise UnknownNode(name, close[0] if close else None)


def rfc3339(at: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the millisecond. Never raises: a time that is none (it comes from a file or
    another program) is shown as the nearest that can be written, NaN as 0; else one node would hide the whole tree.
    """
    near_s = min(max(at, _FIRST_S), _LAST_S)
    shown = datetime.fromtimestamp(0.0 if math.isnan(near_s) else near_s, UTC)
    return shown.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix_seconds(text: str) -> float:
    """The opposite of ``rfc3339``. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()


def _unnamed_children(snapshot: Snapshot) -> dict[str, list[str]]:
    """For each parent path the paths below it that it does not name among its children."""
    unnamed: dict[str, list[str]] = {}
    for path in sorted(snapshot):
        parent, _, name = path.rpartition("/")
        if parent in snapshot and name not in snapshot[parent].children:
            unnamed.setdefault(parent, []).append(path)
    return unnamed


def _subtree(path: str, snapshot: Snapshot, unnamed: Mapping[str, list[str]]) -> Node:
    status = snapshot.get(path)
    if status is None:
        kind = NodeKind.SUPERVISOR if path == ROOT else NodeKind.ACTOR
        status = NodeStatus(path, kind, NodeState.UNKNOWN, detail="has not said anything yet")
    node = node_json(status)
    below = [f"{path}/{name}" for name in status.children] + unnamed.get(path, [])
    node["children"] = [_subtree(child, snapshot, unnamed) for child in below]
    return node


def _optional(status: NodeStatus) -> dict[str, Any]:
    return {
        "strategy": status.strategy,
        "runtime": status.runtime,
        "pid": status.pid,
        "container_id": status.container_id,
        "endpoint": status.endpoint,
        "since": _time(status.since or None),
        "ready_since": _time(status.ready_since),
        "health": status.health,
        "last_exit": _exit(status.last_exit),
        "cpu_percent": status.cpu_percent,
        "memory_bytes": status.memory_bytes,
        "detail": status.detail,
        "next_try_at": _time(status.next_try_at),
    }


def _exit(last: LastExit | None) -> Exit | None:
    if last is None:
        return None
    shown = Exit(cause=last.cause, at=rfc3339(last.at))
    if last.code is not None:
        shown["code"] = last.code
    if last.signal is not None:
        shown["signal"] = last.signal
    if last.log_tail:
        shown["log_tail"] = list(last.log_tail)
    return shown


def _time(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]
