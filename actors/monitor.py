"""A node that stands for a thread or a server: it starts it, watches that it lives, and ends with it.

Runs in its own actor thread; starting and closing go to the I/O pool. When what it stands for dies, that is a fault of
ours: the actor crashes, and its supervisor starts both again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.board import NodeKind, NodeState, NodeStatus
from actors.context import ActorContext
from actors.kernel import PENDING, SupervisedActor
from actors.messages import IoDone, Wake
from actors.spec import ExitKind, ExitReason

CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class Watched:
    """How to start, look at and close the thing; ``begin`` raises with a text that says what, where and what to do.

    ``trouble`` tells what is wrong although it runs (None: nothing). Both are asked every ``every_s`` seconds.
    """

    begin: Callable[[], None]
    is_alive: Callable[[], bool]
    end: Callable[[], None]
    endpoint: Callable[[], str | None] = lambda: None
    trouble: Callable[[], str | None] = lambda: None
    every_s: float = CHECK_S


class MonitorActor(SupervisedActor):
    def __init__(self, context: ActorContext, kind: NodeKind, watched: Watched) -> None:
        super().__init__(context)
        self._kind = kind
        self._watched = watched
        self._since = context.system.clock.wall()
        self._shown: tuple[NodeState, str | None] | None = None

    def setup(self) -> object:
        self._show(NodeState.STARTING)
        self.context.system.io.run(self._watched.begin, self.ref, "begin")
        return PENDING

    def handle(self, message: Any) -> Any:
        match message:
            case IoDone(tag="begin", error=None):
                self.started()
                self.ready()
                self._check()
            case IoDone(tag="begin", error=error):
                self.start_failed(ExitReason(ExitKind.START_FAILED, str(error), evidence={"error": error}))
            case Wake(token="check"):
                self._check()
            case _:
                super().handle(message)
        return None

    def teardown(self, reason: ExitReason) -> None:
        self._show(NodeState.STOPPED if reason.is_clean else NodeState.FAILED, None if reason.is_clean else str(reason))
        self._watched.end()

    def _check(self) -> None:
        if not self._watched.is_alive():
            self.exit(ExitReason.crashed(f"{self.context.id} died"))
            return
        trouble = self._watched.trouble()
        self._show(NodeState.READY if trouble is None else NodeState.DEGRADED, trouble)
        self.context.system.timers.after(self._watched.every_s, self.ref, Wake("check"))

    def _show(self, state: NodeState, detail: str | None = None) -> None:
        if self._shown == (state, detail):
            return
        self._shown = (state, detail)
        self.context.system.board.publish(
            NodeStatus(
                self.context.path,
                self._kind,
                state,
                runtime="actor",
                endpoint=self._watched.endpoint() if state is not NodeState.STARTING else None,
                incarnation=self.context.incarnation,
                since=self._since,
                ready_since=self._since if state is NodeState.READY else None,
                detail=detail,
            )
        )
