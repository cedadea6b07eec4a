"""The manager inside the daemon: what the HTTP routes and runbooks call. Any ordinary thread; never an actor's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from actors.board import NodeKind, NodeState, NodeStatus
from actors.context import ActorSystem
from actors.ledger import ManualStop, ServiceRecord
from actors.service_logs import follow, tail
from supervisors import tree_json
from supervisors.catalog import Catalog
from supervisors.manager import (
    DEFAULT_TIMEOUT_S,
    Applied,
    CommandFailed,
    DaemonInfo,
    Desired,
    ManagerError,
    Node,
    PlanShown,
    Record,
    RecoveryStatus,
    Result,
    TimedOut,
    Transition,
    Tree,
    UnknownNode,
)
from supervisors.phrases import age
from supervisors.reload import Reloader
from supervisors.steering import Steering
from supervisors.usage import UsageBook


class Records(Protocol):
    """What the journal answers for people (``supervisors.records`` puts it into the JSON shapes)."""

    def alerts(self, limit: int) -> Sequence[Record]: ...
    def executions(self, limit: int) -> Sequence[Record]: ...
    def execution(self, execution_id: str) -> Record | None: ...
    def transitions(self, path: str, limit: int) -> Sequence[Transition]: ...


class Held(Protocol):
    """Silences and latches (``supervisors.held``)."""

    def silences(self) -> Sequence[Record]: ...
    def add_silence(self, matchers: Sequence[str], for_s: float, *, by: str, why: str = "") -> Record: ...
    def end_silence(self, silence_id: str, *, by: str, why: str = "") -> Record: ...
    def latches(self) -> Sequence[Record]: ...
    def release(self, target: str, *, by: str, why: str) -> Record: ...


class Recovery(Protocol):
    """The recovery switch, its figures, and the end of what it has begun."""

    @property
    def held(self) -> Held: ...

    def status(self) -> RecoveryStatus: ...
    def switch(self, *, enabled: bool, by: str, why: str = "") -> RecoveryStatus: ...
    def commanded(self, path: str, command: str, by: str, why: str) -> None: ...
    def cancel(self, execution_id: str, *, by: str, why: str) -> None: ...
    def runbooks(self) -> Mapping[str, Any]: ...
    def run_runbook(self, runbook_id: str, values: Mapping[str, str], *, by: str, why: str) -> Record: ...
    def statistics(self) -> Mapping[str, Any]: ...
    def waiting_approvals(self) -> Sequence[Record]: ...
    def approve(self, execution_id: str, *, by: str, plan: str | None, why: str) -> Record: ...
    def reject(self, execution_id: str, *, by: str, plan: str | None, why: str) -> Record: ...


@dataclass(frozen=True)
class LocalManager:
    """Fulfils ``supervisors.manager.Manager``. ``catalog`` knows the services as they run now."""

    system: ActorSystem
    steering: Steering
    usage: UsageBook
    records: Records
    recovery: Recovery
    logs: Callable[[str], Path]
    catalog: Catalog
    reloader: Reloader
    info_: DaemonInfo
    end: Callable[[bool, str], None]

    # -- looking ----------------------------------------------------------------------------------------------------

    def info(self) -> DaemonInfo:
        return self.info_

    def tree(self) -> Tree:
        return tree_json.tree_json(self._snapshot(), self.system.clock.wall())

    def services(self) -> list[Node]:
        return tree_json.services_json(self._snapshot())

    def alerts(self, limit: int = 50) -> Sequence[Record]:
        return self.records.alerts(limit)

    def executions(self, limit: int = 50) -> Sequence[Record]:
        return self.records.executions(limit)

    def execution(self, execution_id: str) -> Record:
        found = self.records.execution(execution_id)
        if found is None:
            raise UnknownNode(execution_id, what="execution")
        return found

    def approvals(self) -> Sequence[Record]:
        return self.recovery.waiting_approvals()

    def approve(self, execution_id: str, *, by: str, plan: str | None = None, why: str = "") -> Record:
        return self.recovery.approve(execution_id, by=by, plan=plan, why=why)

    def reject(self, execution_id: str, *, by: str, plan: str | None = None, why: str = "") -> Record:
        return self.recovery.reject(execution_id, by=by, plan=plan, why=why)

    def runbooks(self) -> Mapping[str, Any]:
        return self.recovery.runbooks()

    def run_runbook(self, runbook_id: str, values: Mapping[str, str], *, by: str, why: str = "") -> Record:
        return self.recovery.run_runbook(runbook_id, values, by=by, why=why)

    def cancel(self, execution_id: str, *, by: str, why: str = "") -> Record:
        self.recovery.cancel(execution_id, by=by, why=why)
        return self.execution(execution_id)

    def recovery_status(self) -> RecoveryStatus:
        return self.recovery.status()

    def set_recovery(self, enabled: bool, *, by: str, why: str = "") -> RecoveryStatus:
        return self.recovery.switch(enabled=enabled, by=by, why=why)

    def silences(self) -> Sequence[Record]:
        return self.recovery.held.silences()

    def add_silence(self, matchers: Sequence[str], for_s: float, *, by: str, why: str = "") -> Record:
        return self.recovery.held.add_silence(matchers, for_s, by=by, why=why)

    def end_silence(self, silence_id: str, *, by: str, why: str = "") -> Record:
        return self.recovery.held.end_silence(silence_id, by=by, why=why)

    def latches(self) -> Sequence[Record]:
        return self.recovery.held.latches()

    def release(self, target: str, *, by: str, why: str) -> Record:
        return self.recovery.held.release(target, by=by, why=why)

    def statistics(self) -> Mapping[str, Any]:
        return self.recovery.statistics()

    def log_tail(self, service: str, lines: int = 50) -> list[str]:
        return list(tail(self._log_path(service), lines))

    def log_follow(self, service: str, lines: int = 50, *, closed: threading.Event) -> Iterator[str]:
        return follow(self._log_path(service), closed, lines=lines)

    def why(self, node: str, limit: int = 20) -> Sequence[Transition]:
        return self.records.transitions(self._find(node)["path"], limit)

    def wait_for(self, node: str, state: str, *, timeout_s: float) -> Node:
        path = self._find(node)["path"]
        seen = threading.Event()

        def is_there(status: NodeStatus) -> bool:
            return status.path == path and status.state.value == state

        def look(status: NodeStatus) -> None:
            if is_there(status):
                seen.set()

        stop_listening = self.system.board.listen(look)
        try:
            now = self.system.board.get(path)
            if not (now is not None and is_there(now)) and not seen.wait(timeout_s):
                last = self.system.board.get(path)
                was = last.state.value if last is not None else "gone"
                raise TimedOut(f"{node}: not {state} within {timeout_s:g} s; it is {was}")
        finally:
            stop_listening()
        return tree_json.without_children(self._find(node))

    # -- steering ---------------------------------------------------------------------------------------------------

    def start(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        first, *others = [self._start(one, by=by, wait=wait, timeout_s=timeout_s) for one in self._nodes(name)]
        del others  # they were started too; the answer is the first
        return first

    def stop(
        self, name: str, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Node:
        nodes = reversed(self._nodes(name))
        return [self._stop(one, by=by, why=why, wait=wait, timeout_s=timeout_s) for one in nodes][-1]

    def restart(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        """Replicas one after the other, newest first."""
        nodes = reversed(self._nodes(name))
        return [self._restart(one, by=by, wait=wait, timeout_s=timeout_s) for one in nodes][-1]

    def _start(self, name: str, *, by: str, wait: bool, timeout_s: float) -> Node:
        if self.catalog.is_idle(name):
            raise CommandFailed(f"{name} is scaled to 0: 'selfheal services scale {name} N' starts it")
        self._note(name, "start", by)
        return self._node(self.steering.start(name, timeout_s=timeout_s if wait else None))

    def _stop(self, name: str, *, by: str, why: str, wait: bool, timeout_s: float) -> Node:
        self._note(name, "stop", by, why)
        return self._node(self.steering.stop(name, by=by, why=why, wait=wait, timeout_s=timeout_s))

    def _restart(self, name: str, *, by: str, wait: bool, timeout_s: float) -> Node:
        if self.catalog.is_idle(name):
            raise CommandFailed(f"{name} is scaled to 0: 'selfheal services scale {name} N' starts it")
        self._note(name, "restart", by)
        return self._node(self.steering.restart(name, timeout_s=timeout_s if wait else None))

    def pause(
        self, name: str, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Node:
        nodes = reversed(self._nodes(name))
        return [self._pause(one, by=by, why=why, wait=wait, timeout_s=timeout_s) for one in nodes][-1]

    def resume(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        resumed = [self._resume(one, by=by, wait=wait, timeout_s=timeout_s) for one in self._nodes(name)]
        return resumed[0]

    def _pause(self, name: str, *, by: str, why: str, wait: bool, timeout_s: float) -> Node:
        self._note(name, "pause", by, why)
        return self._node(self.steering.pause(name, by=by, why=why, wait=wait, timeout_s=timeout_s))

    def _resume(self, name: str, *, by: str, wait: bool, timeout_s: float) -> Node:
        self._note(name, "resume", by)
        return self._node(self.steering.resume(name, timeout_s=timeout_s if wait else None))

    def start_all(self, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[Result]:
        """All are asked at once, in start order: each waits for its own dependencies."""
        asked = [
            self._try(name, lambda one: self._start(one, by=by, wait=False, timeout_s=timeout_s))
            for name in self._awake()
        ]
        if not wait:
            return asked
        with ThreadPoolExecutor(max_workers=max(1, len(asked)), thread_name_prefix="start-all") as pool:
            return list(pool.map(lambda one: self._settled(one, timeout_s), asked))

    def stop_all(
        self, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[Result]:
        return [
            self._try(name, lambda one: self._stop(one, by=by, why=why, wait=wait, timeout_s=timeout_s))
            for name in reversed(self._awake())
        ]

    def restart_all(self, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[Result]:
        stopped = [self._try(name, self._put_down) for name in reversed(self._awake())]
        failed = [one for one in stopped if not one["ok"]]
        return [*self.start_all(by=by, wait=wait, timeout_s=timeout_s), *failed]

    def shutdown(self, *, keep_services: bool = False, by: str) -> None:
        self.recovery.commanded("root", "stop keeping services" if keep_services else "stop", by, "")
        self.end(keep_services, by)

    # -- the file, and how many -------------------------------------------------------------------------------------

    def plan(self, config: str | None = None) -> PlanShown:
        return self.reloader.plan(config)

    def apply(
        self, config: str | None = None, *, by: str, plan: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Applied:
        return self.reloader.apply(config, by=by, plan=plan, timeout_s=timeout_s)

    def scale(
        self, name: str, replicas: int | None, *, by: str, why: str = "", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Applied:
        return self.reloader.scale(name, replicas, by=by, why=why, timeout_s=timeout_s)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _snapshot(self) -> dict[str, NodeStatus]:
        snapshot = self.usage.laid_over(self.system.board.snapshot())
        records = self.steering.ledger.records()
        now = self.system.clock.wall()
        replicas = self.catalog.replicas()
        return {
            path: with_scale(with_desired(status, records), records, now, replicas) for path, status in snapshot.items()
        }

    def _find(self, name: str) -> Node:
        return tree_json.find(tree_json.tree_json(self.system.board.snapshot(), self.system.clock.wall())["root"], name)

    def _service(self, name: str) -> str:
        """A service's name from its name or path. Raises UnknownNode."""
        short = name.rsplit("/", 1)[-1]
        self.steering.status(short if name in (short, self.steering.path_or_none(short)) else name)
        return short

    def _nodes(self, name: str) -> tuple[str, ...]:
        """The services a command is about, first to last: a name means all replicas. Raises UnknownNode."""
        if "/" in name:
            return (self._service(name),)
        nodes = self.catalog.family(name)
        return tuple(self._service(one) for one in nodes) or (self._service(name),)

    def _awake(self) -> tuple[str, ...]:
        """All services in start order but those scaled to 0."""
        return tuple(name for name in self.catalog.order if not self.catalog.is_idle(name))

    def _node(self, status: NodeStatus) -> Node:
        return tree_json.node_json(with_desired(status, self.steering.ledger.records()))

    def _try(self, name: str, command: Callable[[str], Node]) -> Result:
        try:
            return Result(name=name, ok=True, service=command(name))
        except ManagerError as error:
            return Result(name=name, ok=False, error=str(error))

    def _put_down(self, name: str) -> Node:
        """Stop it without remembering that as somebody's wish."""
        self.steering.put_down(name)
        return self._node(self.steering.status(name))

    def _settled(self, asked: Result, timeout_s: float) -> Result:
        if not asked["ok"]:
            return asked
        return self._try(asked["name"], lambda one: self._node(self.steering.await_ready(one, timeout_s)))

    def _log_path(self, service: str) -> Path:
        return self.logs(self._service(service))

    def _note(self, name: str, command: str, by: str, why: str = "") -> None:
        self.steering.note(name, command, by, why)


def with_desired(status: NodeStatus, records: Mapping[str, ServiceRecord]) -> NodeStatus:
    """The status with what a person wants of the service: who, when and why. Pure."""
    record = records.get(status.path.rsplit("/", 1)[-1])
    if status.kind is not NodeKind.SERVICE or record is None:
        return status
    if record.stopped is not None and not status.wanted:
        return replace(_told(status, "stopped", record.stopped), since=record.stopped.at)
    if record.paused is not None:
        is_down = status.state in (NodeState.STOPPED, NodeState.WAITING)
        state = NodeState.PAUSED if is_down else status.state
        return replace(_told(status, "paused", record.paused), state=state, wanted=False)
    return status


def _told(status: NodeStatus, state: str, wish: ManualStop) -> NodeStatus:
    desired = Desired(state=state, by=wish.by, at=tree_json.rfc3339(wish.at), why=wish.why)
    return replace(status, extra={**status.extra, "desired": desired})


def with_scale(
    status: NodeStatus, records: Mapping[str, ServiceRecord], now: float, replicas: Mapping[str, int]
) -> NodeStatus:
    """The status of a service with how many replicas it has, and who chose that, when and why. Pure."""
    name = status.path.rsplit("/", 1)[-1]
    if status.kind is not NodeKind.SERVICE or name not in replicas:
        return status
    if replicas[name] != 1:
        status = replace(status, extra={**status.extra, "replicas": replicas[name]})
    record = records.get(name)
    scaled = record.scaled if record is not None else None
    if scaled is None:
        return replace(status, detail="scaled to 0 by the file") if replicas[name] == 0 else status
    why = f": {scaled.why}" if scaled.why else ""
    text = f"scaled to {scaled.replicas} by {scaled.by} {age(now - scaled.at)} ago{why}"
    facts = {"replicas": scaled.replicas, "by": scaled.by, "at": tree_json.rfc3339(scaled.at), "why": scaled.why}
    detail = text if status.detail is None or scaled.replicas == 0 else f"{status.detail}; {text}"
    return replace(status, detail=detail, extra={**status.extra, "scaled": facts})


def daemon_info(state_dir: Path, version: str, started_at: float) -> DaemonInfo:
    return DaemonInfo(
        pid=os.getpid(), version=version, started_at=tree_json.rfc3339(started_at), state_dir=str(state_dir)
    )
