"""What to do about what others did to our containers: take on what they started, carry out a stop that never arrived,
and put down what happened for ``selfheal why``.

Called on the Docker watcher's threads, which must not wait: each decision is carried out on a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from actors.board import NodeState
from actors.runtimes.base import LaunchError, LaunchSpec, Runtime, StopFailed
from supervisors.manager import ManagerError
from supervisors.steering import Steering

_DOWN: Final = frozenset({NodeState.STOPPED, NodeState.FAILED, NodeState.CRASH_LOOP})


@dataclass(frozen=True, slots=True)
class Plan:
    """What is needed to end a service's run."""

    launch: LaunchSpec
    grace_s: float


@dataclass(frozen=True)
class OutsideActs:
    """Fulfils ``actors.runtimes.docker_outside.OutsideListener``.

    Args:
        plan_of: how a service is run now; None: it is not configured any more.
        record: (path, event, text), for the journal.
    """

    steering: Steering
    runtime: Runtime
    plan_of: Callable[[str], Plan | None]
    record: Callable[[str, str, str], None]

    def runs_again(self, service: str, started_at: float) -> None:
        stopped = self.steering.ledger.record(service).stopped
        if stopped is None:
            self.happened(service, "started", "started from outside: taken on")
            self._aside(service, self._take_on)
        elif started_at <= stopped.at:
            self._aside(service, self._stop)
        else:
            self.happened(service, "drift", f"runs, started from outside, although {stopped.by} stopped it: left alone")

    def was_no_wish(self, service: str) -> None:
        is_down = self.steering.status(service).state in _DOWN
        if is_down and self.steering.ledger.record(service).stopped is None:
            self.happened(service, "stopped", "stopped with its engine, by nobody's wish: started again")
            self._aside(service, self._take_on)

    def happened(self, service: str, event: str, text: str) -> None:
        path = self.steering.path_or_none(service)
        if path is not None:
            self.record(path, event, text)

    def _take_on(self, service: str) -> None:
        """A start finds the running container, or starts it. What is being started anyway is left to that."""
        state = self.steering.status(service).state
        if state in _DOWN:
            self.steering.ledger.restarted(service)
        if state in _DOWN or state is NodeState.WAITING:
            self.steering.start(service, timeout_s=None)

    def _stop(self, service: str) -> None:
        plan = self.plan_of(service)
        if plan is None:
            return
        handle = self.runtime.adopt(plan.launch, lambda _status: True)
        if handle is not None:
            self.runtime.stop(handle, plan.grace_s)
            self.happened(service, "stopped", "was still running although stopped by hand: stopped now")

    def _aside(self, service: str, act: Callable[[str], None]) -> None:
        threading.Thread(target=self._try, args=(service, act), name=f"outside:{service}", daemon=True).start()

    def _try(self, service: str, act: Callable[[str], None]) -> None:
        try:
            act(service)
        except (ManagerError, LaunchError, StopFailed) as error:
            structlog.get_logger().warning("not carried out", service=service, error=str(error))
