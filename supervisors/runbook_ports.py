"""What runbooks may do to services: the ports about services, fulfilled by the steering of the tree."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Final

from actors.board import NodeState, NodeStatus
from actors.ledger import Ledger, Wishes, wishes_of
from actors.live_runs import LiveRuns
from actors.runtimes.base import Usage
from runbooks.ports import PortError, RunInfo, ServiceView, Untouched, UsageView
from supervisors.catalog import Catalog
from supervisors.manager import CommandFailed, ManagerError, UnknownNode
from supervisors.reload import Reloader
from supervisors.steering import BY_RUNBOOK, Steering
from supervisors.tree_json import rfc3339

MEASURED_S: Final = 1.0
"""CPU is what was used over so long."""


@dataclass(frozen=True)
class SteeredServices:
    """Fulfils ``runbooks.ports.Services``. Blocks; called on the I/O pool."""

    steering: Steering

    def status(self, name: str) -> ServiceView | None:
        if name not in self.steering.homes:
            return None
        status = self.steering.status(name)
        is_ready = status.state is NodeState.READY
        return ServiceView(
            name, is_ready, status.incarnation, status.state.value, status.wanted, self.steering.decided(name)
        )

    def restart(self, name: str, timeout_s: float) -> RunInfo:
        began = time.monotonic()
        try:
            old_run = self.steering.status(name).incarnation
            known = self._wishes(name, "", "restarted")
            self.steering.note(name, "restart", BY_RUNBOOK)
            self.steering.put_down(name, timeout_s=timeout_s)
            self.steering.start(name, timeout_s=None, known=known)
            left_s = timeout_s - (time.monotonic() - began)
            return self._launched(name, old_run, left_s)
        except ManagerError as error:
            raise PortError(str(error)) from error

    def start(self, name: str, timeout_s: float, decided: str | None = None) -> RunInfo:
        known = None if decided is None else self._wishes(name, decided, "started")
        try:
            self.steering.note(name, "start", BY_RUNBOOK)
            self.steering.start(name, timeout_s=None, known=known)
            return self._launched(name, 0, timeout_s)
        except ManagerError as error:
            raise PortError(str(error)) from error

    def stop(self, name: str, timeout_s: float) -> None:
        try:
            self.steering.note(name, "stop", BY_RUNBOOK)
            self.steering.stop(name, by=BY_RUNBOOK, timeout_s=timeout_s)
        except ManagerError as error:
            raise PortError(str(error)) from error

    def _wishes(self, name: str, decided: str, what: str) -> Wishes:
        """What is wished, read before it is looked at. Raises PortError: a person has decided something else."""
        known, now = wishes_of(self.steering.ledger.record(name)), self.steering.decided(name)
        if now != decided:
            raise PortError(f"{name}: is not {what}: {now or 'its wish has changed'}")
        return known

    def _launched(self, name: str, old_run: int, timeout_s: float) -> RunInfo:
        def is_new(status: NodeStatus) -> bool:
            return status.incarnation > old_run and (status.pid is not None or status.container_id is not None)

        status = self.steering.await_status(name, is_new, max(0.1, timeout_s), "running anew")
        return RunInfo(status.incarnation, status.pid, status.container_id)


@dataclass
class LiveScaling:
    """Fulfils ``runbooks.ports.Scaling``, as ``selfheal services scale`` does. ``reloader``: set when it is built."""

    catalog: Catalog
    ledger: Ledger
    reloader: Reloader | None = None

    def replicas(self, name: str) -> int | None:
        return self.catalog.replicas().get(name)

    def decided(self, name: str) -> str:
        chosen = self.ledger.record(name).scaled
        if chosen is None or chosen.by == BY_RUNBOOK:
            return ""
        return f"scaled to {chosen.replicas} by {chosen.by} at {rfc3339(chosen.at)}"

    def scale(self, name: str, replicas: int, timeout_s: float) -> None:
        if self.reloader is None:
            raise PortError(f"{name}: cannot scale: the tree is not up yet")
        try:
            applied = self.reloader.scale(name, replicas, by=BY_RUNBOOK, timeout_s=timeout_s)
        except (CommandFailed, UnknownNode) as error:
            raise Untouched(str(error)) from error
        except ManagerError as error:
            raise PortError(str(error)) from error
        failed = [f"{node['node']}: {node['error']}" for node in applied["nodes"] if node.get("error")]
        if failed:
            raise PortError(f"{name}: not all could be scaled: {'; '.join(failed)}")


@dataclass(frozen=True)
class MeasuredServices:
    """Fulfils ``runbooks.ports.Usages``: all processes of a run (of a container too), of all replicas."""

    catalog: Catalog
    live: LiveRuns
    _never: threading.Event = field(default_factory=threading.Event)

    def usage(self, name: str, timeout_s: float) -> UsageView | None:
        if not self._usages(name):
            return None
        self._never.wait(min(MEASURED_S, timeout_s))  # CPU is told between two looks
        found = self._usages(name)
        if not found:
            return None
        return UsageView(sum(one.cpu_percent for one in found), sum(one.memory_bytes for one in found))

    def _usages(self, name: str) -> list[Usage]:
        found = []
        for node in self.catalog.family(name):
            runtime, handle = self.live.by_service.get(node, (None, None))
            if runtime is None or handle is None:
                continue
            try:
                usage = runtime.usage(handle)
            except Exception as error:  # it ended while we looked, or its engine is away
                raise PortError(f"{node}: cannot be measured now: {error}") from error
            if usage is not None:
                found.append(usage)
        return found
