"""What an actor is given at birth: its place in the tree and the services of its actor system."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from actors.board import Board
from actors.clock import Clock, SystemClock
from actors.iopool import IoPool
from actors.refs import Ref
from actors.spec import Begin, ChildPast
from actors.timers import Timers


class PacingMemory(Protocol):
    """Where supervisors keep what their pacing must not forget. Called on supervisors' threads: it must not wait."""

    def recall(self, path: str) -> ChildPast | None:
        """What was kept of the child at ``path``."""

    def keep(self, path: str, past: ChildPast) -> None:
        """Replace it."""

    def is_held(self, path: str) -> bool | None:
        """Whether a person stopped the child at ``path``; None: that is not for persons to say."""


LifecycleObserver = Callable[[str, object], None]
"""Called with (path, lifecycle message) on the actor's own thread, just before its supervisor is told."""

Reporter = Callable[[str, object], None]
"""Called with (path of the child, supervisor report) on the supervisor's thread: it must only hand the report on."""


@dataclass(frozen=True)
class ActorSystem:
    """The threads and the board that all actors of one tree share."""

    clock: Clock = field(default_factory=SystemClock)
    timers: Timers = field(default_factory=Timers)
    io: IoPool = field(default_factory=IoPool)
    """Short jobs: launches, probes, questions."""
    waits: IoPool = field(default_factory=lambda: IoPool(256, "wait"))
    """Jobs that may wait long (stops with their grace, runbook calls): they never stand in a launch's way."""
    board: Board = field(default_factory=Board)
    names: dict[str, Ref] = field(default_factory=dict)
    """The present reference of every started node, by path (Erlang's ``whereis``); written by its supervisor."""
    observer: LifecycleObserver | None = None
    reporter: Reporter | None = None
    memory: PacingMemory | None = None

    def whereis(self, path: str) -> Ref | None:
        """The node's reference now. It changes with every restart: look it up, do not keep it."""
        return self.names.get(path)

    def close(self) -> None:
        self.timers.close()
        self.io.close()
        self.waits.close()


@dataclass(slots=True)
class Life:
    """The supervisor's grip on one run of an actor, for when the actor does not answer any more."""

    thread: threading.Thread | None = None
    kill_owned: Callable[[], None] | None = None


@dataclass(frozen=True)
class ActorContext:
    """An actor's place: ``id`` among its siblings, ``path`` from the root, ``incarnation`` of this run."""

    id: str
    path: str
    incarnation: int
    parent: Ref | None
    system: ActorSystem
    life: Life = field(default_factory=Life)
    begin: Begin = Begin.NEW

    @property
    def log(self) -> Any:
        return structlog.get_logger().bind(node=self.path, incarnation=self.incarnation)
