"""What runbooks may do to services: the service port, fulfilled by the steering of the tree."""

from __future__ import annotations

import time
from dataclasses import dataclass

from actors.board import NodeState, NodeStatus
from runbooks.ports import PortError, RunInfo, ServiceView
from supervisors.manager import ManagerError
from supervisors.steering import Steering

BY = "runbook"


@dataclass(frozen=True)
class SteeredServices:
    """Fulfils ``runbooks.ports.Services``. Blocks; called on the I/O pool."""

    steering: Steering

    def status(self, name: str) -> ServiceView | None:
        if name not in self.steering.homes:
            return None
        status = self.steering.status(name)
        is_ready = status.state is NodeState.READY
        return ServiceView(name, is_ready, status.incarnation, status.state.value, status.wanted)

    def restart(self, name: str, timeout_s: float) -> RunInfo:
        began = time.monotonic()
        try:
            old_run = self.steering.status(name).incarnation
            self.steering.note(name, "restart", BY)
            self.steering.put_down(name, timeout_s=timeout_s)
            self.steering.start(name, timeout_s=None)
            left_s = timeout_s - (time.monotonic() - began)
            return self._launched(name, old_run, left_s)
        except ManagerError as error:
            raise PortError(str(error)) from error

    def start(self, name: str, timeout_s: float) -> RunInfo:
        try:
            self.steering.note(name, "start", BY)
            self.steering.start(name, timeout_s=None)
            return self._launched(name, 0, timeout_s)
        except ManagerError as error:
            raise PortError(str(error)) from error

    def stop(self, name: str, timeout_s: float) -> None:
        try:
            self.steering.note(name, "stop", BY)
            self.steering.stop(name, by=BY, timeout_s=timeout_s)
        except ManagerError as error:
            raise PortError(str(error)) from error

    def _launched(self, name: str, old_run: int, timeout_s: float) -> RunInfo:
        def is_new(status: NodeStatus) -> bool:
            return status.incarnation > old_run and (status.pid is not None or status.container_id is not None)

        status = self.steering.await_status(name, is_new, max(0.1, timeout_s), "running anew")
        return RunInfo(status.incarnation, status.pid, status.container_id)
