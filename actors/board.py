"""The board: every node publishes its own frozen status; anyone reads. A hung node cannot hang the reader.

Any thread may publish and read; one lock, held for moments only; listeners are called under it, in order.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from actors.messages import DependencyChanged
from actors.refs import Ref


class NodeKind(enum.Enum):
    SUPERVISOR = "supervisor"
    SERVICE = "service"
    BRIDGE = "bridge"
    RUNBOOK = "runbook"
    LINK = "link"
    JOURNAL = "journal"
    RUNTIME = "runtime"
    ACTOR = "actor"


class NodeState(enum.Enum):
    """The one word of a node's line in the tree."""

    WAITING = "waiting"
    STARTING = "starting"
    UP = "up"
    READY = "ready"
    DEGRADED = "degraded"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CRASH_LOOP = "crash_loop"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class LastExit:
    """How the run before this one ended. ``at`` is wall time (Unix seconds)."""

    cause: str
    at: float
    code: int | None = None
    signal: int | None = None
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a node says of itself. Times are wall time (Unix seconds).

    ``wanted`` is False for what a person stopped: then not being ready is not bad. ``children`` are the names of a
    supervisor's children in start order.
    """

    path: str
    kind: NodeKind
    state: NodeState
    name: str = ""
    strategy: str | None = None
    runtime: str | None = None
    pid: int | None = None
    container_id: str | None = None
    endpoint: str | None = None
    incarnation: int = 0
    restarts: int = 0
    restarts_in_window: int = 0
    since: float = 0.0
    ready_since: float | None = None
    health: str | None = None
    last_exit: LastExit | None = None
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    detail: str | None = None
    next_try_at: float | None = None
    wanted: bool = True
    children: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[NodeStatus], None]


class Board:
    """The statuses of all nodes, by path; and who waits for which service to be ready.

    A node publishes what it knows of itself; its supervisor annotates what only the supervisor knows (that it is
    parked, restarted so often, stopped by hand). Readers see both as one status.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._own: dict[str, NodeStatus] = {}
        self._notes: dict[str, dict[str, Any]] = {}
        self._nodes: dict[str, NodeStatus] = {}
        self._listeners: list[Listener] = []
        self._waiting: dict[str, dict[int, Ref]] = {}

    def publish(self, status: NodeStatus) -> None:
        """Replace what the node says of itself."""
        with self._lock:
            self._own[status.path] = status
            self._refresh(status.path)

    def annotate(self, path: str, kind: NodeKind, **notes: Any) -> None:
        """Replace what the supervisor says of a child; ``kind`` is for a child that never published itself."""
        with self._lock:
            self._own.setdefault(path, NodeStatus(path, kind, NodeState.WAITING))
            if self._notes.get(path) != notes:
                self._notes[path] = notes
                self._refresh(path)

    def _refresh(self, path: str) -> None:
        """Make the status readers see; tell listeners, and those who wait for this node's readiness."""
        before = self._nodes.get(path)
        status = replace(self._own[path], **self._notes.get(path, {}))
        self._nodes[path] = status
        if is_ready(before) != is_ready(status):
            for ref in self._waiting.get(_name(status), {}).values():
                ref.tell(DependencyChanged(_name(status), is_ready(status)))
        for listener in self._listeners:
            listener(status)

    def remove(self, path: str) -> None:
        """Forget the node and everything below it."""
        with self._lock:
            for gone in [known for known in self._nodes if known == path or known.startswith(path + "/")]:
                del self._nodes[gone]
                self._own.pop(gone, None)
                self._notes.pop(gone, None)

    def get(self, path: str) -> NodeStatus | None:
        with self._lock:
            return self._nodes.get(path)

    def snapshot(self) -> dict[str, NodeStatus]:
        """All statuses by path, as of one moment."""
        with self._lock:
            return dict(self._nodes)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` on every publication, on the publisher's thread: be quick. Returns the way to stop it."""
        with self._lock:
            self._listeners.append(listener)

        def stop() -> None:
            with self._lock:
                self._listeners.remove(listener)

        return stop

    def wait_for(self, names: tuple[str, ...], ref: Ref) -> dict[str, bool]:
        """Tell ``ref`` (``DependencyChanged``) when one of the named services changes; returns who is ready now."""
        with self._lock:
            for name in names:
                self._waiting.setdefault(name, {})[id(ref)] = ref
            ready = {_name(node) for node in self._nodes.values() if is_ready(node)}
        return {name: name in ready for name in names}

    def forget(self, names: tuple[str, ...], ref: Ref) -> None:
        """The opposite of ``wait_for``."""
        with self._lock:
            for name in names:
                self._waiting.get(name, {}).pop(id(ref), None)


def _name(status: NodeStatus) -> str:
    return status.name or status.path.rsplit("/", 1)[-1]


def is_ready(status: NodeStatus | None) -> bool:
    """Whether dependents may go on: ready, or up and degraded (it serves)."""
    return status is not None and status.state in (NodeState.READY, NodeState.DEGRADED)
