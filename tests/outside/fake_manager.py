"""A manager in memory. It passes the same contract tests as the remote one, which talks to it over real sockets."""

from __future__ import annotations

import difflib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from actors.board import LastExit, NodeKind, NodeState, NodeStatus
from supervisors import tree_json
from supervisors.manager import (
    DEFAULT_TIMEOUT_S,
    Applied,
    BadConfig,
    CommandFailed,
    DaemonInfo,
    ManagerError,
    Node,
    NodeEdit,
    PlanShown,
    Record,
    RecoveryStatus,
    Result,
    TimedOut,
    Transition,
    Tree,
    UnknownNode,
)

NOW = 1_700_000_000.0
GROUP = "root/services/pipeline"


def snapshot(now: float = NOW) -> dict[str, NodeStatus]:
    """A small tree in which all is well."""
    extra = {"intensity": 5, "period_s": 60.0}
    upper = [
        NodeStatus("root", NodeKind.SUPERVISOR, NodeState.READY, strategy="rest_for_one", runtime="actor",
                   ready_since=now - 7200, since=now - 7200, children=("journal", "services", "links"), extra=extra),
        NodeStatus("root/journal", NodeKind.JOURNAL, NodeState.READY, runtime="actor", ready_since=now - 7200),
        NodeStatus("root/services", NodeKind.SUPERVISOR, NodeState.READY, strategy="one_for_one",
                   children=("pipeline", "web"), extra=extra),
        NodeStatus(GROUP, NodeKind.SUPERVISOR, NodeState.READY, strategy="rest_for_one",
                   children=("ingest", "engine"), extra={"intensity": 3, "period_s": 30.0}),
        NodeStatus("root/links", NodeKind.SUPERVISOR, NodeState.READY, strategy="one_for_one", children=("guardian",)),
        NodeStatus("root/links/guardian", NodeKind.LINK, NodeState.READY, runtime="actor",
                   endpoint="tcp://127.0.0.1:5570"),
    ]  # fmt: skip
    services = [
        _running(f"{GROUP}/ingest", 101, now),
        replace(_running(f"{GROUP}/engine", 102, now), restarts=1, last_exit=LastExit("signal SIGKILL", now - 40)),
        _running("root/services/web", 103, now),
    ]
    return {status.path: status for status in (*upper, *services)}


def _running(path: str, pid: int, now: float) -> NodeStatus:
    return NodeStatus(
        path, NodeKind.SERVICE, NodeState.READY, runtime="process", pid=pid, incarnation=1, since=now - 720,
        ready_since=now - 720, health="healthy", cpu_percent=0.8, memory_bytes=120 << 20,
    )  # fmt: skip


@dataclass
class FakeManager:
    """Fulfils ``supervisors.manager.Manager``. ``broken`` services crash when they are started; ``calls`` is what was
    asked, in order.
    """

    nodes: dict[str, NodeStatus] = field(default_factory=snapshot)
    broken: set[str] = field(default_factory=set)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    lines: list[str] = field(default_factory=lambda: ["one", "two", "three ü"])
    enabled: bool = True
    silenced: list[dict[str, Any]] = field(default_factory=list)
    latched: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {
                "target": "service:web",
                "execution_id": "e-0",
                "since": tree_json.rfc3339(NOW),
                "why": "e-0 ended unknown",
            }
        ]
    )
    refused: list[str] = field(default_factory=lambda: ["p"])
    on_shutdown: Callable[[], None] | None = None
    followers: int = 0
    asked: int = 0
    """How often for the tree."""
    pid: int = field(default_factory=os.getpid)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()

    # -- for tests --------------------------------------------------------------------------------------------------

    def put(self, path: str, **fields: Any) -> None:
        with self._changed:
            self.nodes = {**self.nodes, path: replace(self.nodes[path], **fields)}
            self._changed.notify_all()

    def log(self, *lines: str) -> None:
        with self._changed:
            self.lines.extend(lines)
            self._changed.notify_all()

    # -- the contract -----------------------------------------------------------------------------------------------

    def info(self) -> DaemonInfo:
        return DaemonInfo(pid=self.pid, version="0.0", started_at=tree_json.rfc3339(NOW), state_dir="state")

    def tree(self) -> Tree:
        self.asked += 1
        return tree_json.tree_json(self.nodes, NOW)

    def services(self) -> list[Node]:
        return tree_json.services_json(self.nodes)

    def start(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        path = self._service(name)
        self.calls.append(("start", name, by, wait, timeout_s))
        if name in self.broken:
            self.put(path, state=NodeState.CRASH_LOOP, pid=None, last_exit=LastExit("exit 3", NOW, code=3))
            raise CommandFailed(f"{name}: crash_loop: exit 3")
        self.put(path, state=NodeState.READY, wanted=True, pid=200)
        return self._node(path)

    def stop(
        self, name: str, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Node:
        path = self._service(name)
        self.calls.append(("stop", name, by, why, wait, timeout_s))
        self.put(path, state=NodeState.STOPPED, wanted=False, pid=None)
        return self._node(path)

    def restart(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        path = self._service(name)
        self.calls.append(("restart", name, by, wait, timeout_s))
        if name in self.broken:
            raise TimedOut(f"{name}: not ready within {timeout_s:g} s; it is starting")
        self.put(path, state=NodeState.READY, pid=300, incarnation=self.nodes[path].incarnation + 1)
        return self._node(path)

    def pause(
        self, name: str, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Node:
        path = self._service(name)
        self.calls.append(("pause", name, by, why, wait, timeout_s))
        desired = {"state": "paused", "by": by, "at": tree_json.rfc3339(NOW), "why": why}
        self.put(path, state=NodeState.PAUSED, wanted=False, extra={"desired": desired})
        return self._node(path)

    def resume(self, name: str, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> Node:
        path = self._service(name)
        self.calls.append(("resume", name, by, wait, timeout_s))
        self.put(path, state=NodeState.READY, wanted=True, extra={})
        return self._node(path)

    def start_all(self, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[Result]:
        return [self._try(one, lambda name: self.start(name, by=by, wait=wait, timeout_s=timeout_s)) for one in _ALL]

    def stop_all(
        self, *, by: str, why: str = "", wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[Result]:
        def stop(name: str) -> Node:
            return self.stop(name, by=by, why=why, wait=wait, timeout_s=timeout_s)

        return [self._try(one, stop) for one in reversed(_ALL)]

    def restart_all(self, *, by: str, wait: bool = True, timeout_s: float = DEFAULT_TIMEOUT_S) -> list[Result]:
        return [self._try(one, lambda name: self.restart(name, by=by, wait=wait, timeout_s=timeout_s)) for one in _ALL]

    def plan(self, config: str | None = None) -> PlanShown:
        self._read(config)
        return PlanShown(
            schema=1,
            plan="p1",
            file=config or "own.yaml",
            empty=False,
            nodes=[self._edit()],
            daemon=[],
            notes=["a note"],
        )

    def apply(
        self, config: str | None = None, *, by: str, plan: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Applied:
        self._read(config)
        if plan not in (None, "p1"):
            raise CommandFailed(f"the plan is another by now (p1, not {plan})")
        self.calls.append(("apply", config, by, plan, timeout_s))
        return self._applied("web")

    def scale(
        self, name: str, replicas: int | None, *, by: str, why: str = "", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> Applied:
        self._service(name)
        self.calls.append(("scale", name, replicas, by, why, timeout_s))
        return self._applied(name)

    def _read(self, config: str | None) -> None:
        if config is not None and "bad" in config:
            problems = [{"file": config, "line": line, "text": f"k{line}: m"} for line in (1, 2)]
            raise BadConfig("k1: m\nk2: m", problems)

    def _edit(self) -> NodeEdit:
        change = {"key": "max_restarts", "old": 5, "new": 9}
        return NodeEdit(node="web", kind="service", action="update_in_place", changes=[change])

    def _applied(self, name: str) -> Applied:
        is_ok = name not in self.broken
        edit = self._edit()
        edit["ok"] = is_ok
        if not is_ok:
            edit["error"] = "boom"
        return Applied(schema=1, plan="p1", file="own.yaml", ok=is_ok, nodes=[edit], daemon=[], notes=[])

    def alerts(self, limit: int = 50) -> Sequence[Record]:
        alert = {
            "type": "service_failure", "service": "web", "severity": "high", "message": "no heartbeat",
            "source": "test", "received_at": tree_json.rfc3339(NOW),
        }  # fmt: skip
        second = {**alert, "id": "alert-2", "outcome": "run", "execution_id": "e-1"}
        return [second, {**alert, "id": "alert-1", "outcome": "recovery_off"}][:limit]

    def executions(self, limit: int = 50) -> Sequence[Record]:
        step = {
            "id": "restart", "status": "done", "attempts": 1, "started_at": tree_json.rfc3339(NOW),
            "ended_at": tree_json.rfc3339(NOW + 1.5),
        }  # fmt: skip
        execution = {
            "id": "e-1", "runbook": "service_failure", "alert_id": "alert-2", "target": "service:web",
            "status": "succeeded", "started_at": tree_json.rfc3339(NOW), "ended_at": tree_json.rfc3339(NOW + 2),
            "steps": [step], "detail": "ready for 5 s",
        }  # fmt: skip
        return [execution][:limit]

    def execution(self, execution_id: str) -> Record:
        for one in self.executions():
            if one["id"] == execution_id:
                return one
        raise UnknownNode(execution_id, what="execution")

    def approvals(self) -> Sequence[Record]:
        return [
            {
                "execution_id": "e-2", "runbook": "margin_call_recovery", "name": "Margin call", "plan": "ab" * 32,
                "target": "account:1", "steps": ["1. Reduce: http_request"], "approvers": ["desk"], "quorum": 1,
                "four_eyes": True, "expires_at": tree_json.rfc3339(NOW + 60), "votes": [],
            }
        ]  # fmt: skip

    def approve(self, execution_id: str, *, by: str, plan: str | None = None, why: str = "") -> Record:
        return self._vote("approve", execution_id, by, plan, why)

    def reject(self, execution_id: str, *, by: str, plan: str | None = None, why: str = "") -> Record:
        return self._vote("reject", execution_id, by, plan, why)

    def _vote(self, says: str, execution_id: str, by: str, plan: str | None, why: str) -> Record:
        if execution_id != "e-2":
            raise CommandFailed(f"{execution_id} awaits no approval: it is succeeded")
        self.calls.append((says, execution_id, by, plan, why))
        outcome = "granted" if says == "approve" else "rejected"
        return {"execution_id": "e-2", "outcome": outcome, "plan": "ab" * 32, "votes": 1, "quorum": 1, "detail": ""}

    def runbooks(self) -> Mapping[str, Any]:
        one = {
            "id": "r", "version": "1.0.0", "name": "R", "enabled": True, "mode": "observe", "sha256": "ab" * 32,
            "file": "r.json",
        }  # fmt: skip
        return {"runbooks": [one, {**one, "id": "s", "enabled": False, "mode": "auto"}], "problems": self.refused}

    def run_runbook(self, runbook_id: str, values: Mapping[str, str], *, by: str, why: str = "") -> Record:
        self.calls.append(("run_runbook", runbook_id, dict(values), by, why))
        return {"alert_id": "alert-1", "outcome": "run", "execution_id": "x-1", "reason": "matched"}

    def cancel(self, execution_id: str, *, by: str, why: str = "") -> Record:
        self.calls.append(("cancel", execution_id, by, why))
        return self.execution(execution_id)

    def recovery_status(self) -> RecoveryStatus:
        return RecoveryStatus(enabled=self.enabled, active=1, queued=0)

    def set_recovery(self, enabled: bool, *, by: str, why: str = "") -> RecoveryStatus:
        self.enabled = enabled
        self.calls.append(("set_recovery", enabled, by, why))
        return RecoveryStatus(enabled=enabled, active=1, queued=0, by=by, since=tree_json.rfc3339(NOW), why=why)

    def silences(self) -> Sequence[Record]:
        return list(self.silenced)

    def add_silence(self, matchers: Sequence[str], for_s: float, *, by: str, why: str = "") -> Record:
        if "nonsense" in matchers:
            raise CommandFailed("'nonsense' is no matcher")
        made = {
            "id": f"s-{len(self.silenced)}", "state": "active", "matchers": list(matchers), "by": by, "why": why,
            "created_at": tree_json.rfc3339(NOW), "for_s": for_s, "ends_at": tree_json.rfc3339(NOW + for_s),
        }  # fmt: skip
        self.silenced.insert(0, made)
        return made

    def end_silence(self, silence_id: str, *, by: str, why: str = "") -> Record:
        self.calls.append(("end_silence", silence_id, by, why))
        for one in self.silenced:
            if one["id"] == silence_id:
                one |= {"state": "ended", "ended_at": tree_json.rfc3339(NOW), "ended_by": by}
                return one
        raise UnknownNode(silence_id, what="silence")

    def latches(self) -> Sequence[Record]:
        return list(self.latched)

    def release(self, target: str, *, by: str, why: str) -> Record:
        for one in self.latched:
            if one["target"] == target:
                self.latched.remove(one)
                return one | {"released_by": by, "released_why": why}
        raise UnknownNode(target, what="latched target")

    def statistics(self) -> Mapping[str, Any]:
        return {"total_runbooks": 1, "total_executions": 1, "success_rate": 1.0, "active_executions": 0}

    def log_tail(self, service: str, lines: int = 50) -> list[str]:
        self._service(service)
        return self.lines[-lines:] if lines else []

    def log_follow(self, service: str, lines: int = 50, *, closed: threading.Event) -> Iterator[str]:
        self._service(service)
        return self._following(max(0, len(self.lines) - lines), closed)

    def _following(self, at: int, closed: threading.Event) -> Iterator[str]:
        self.followers += 1
        try:
            while not closed.is_set():
                with self._changed:
                    if at >= len(self.lines):
                        self._changed.wait(0.05)
                        continue
                at += 1
                yield self.lines[at - 1]
        finally:
            self.followers -= 1

    def why(self, node: str, limit: int = 20) -> Sequence[Transition]:
        path = tree_json.find(self.tree()["root"], node)["path"]
        exited = Transition(
            at=tree_json.rfc3339(NOW), path=path, event="exited", text="signal SIGKILL", evidence={"signal": 9}
        )
        return [exited, Transition(at=tree_json.rfc3339(NOW - 60), path=path, event="ready", text="ready")][:limit]

    def wait_for(self, node: str, state: str, *, timeout_s: float) -> Node:
        path = tree_json.find(self.tree()["root"], node)["path"]
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self.nodes[path].state.value != state:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    was = self.nodes[path].state.value
                    raise TimedOut(f"{node}: not {state} within {timeout_s:g} s; it is {was}")
                self._changed.wait(left_s)
        return self._node(path)

    def shutdown(self, *, keep_services: bool = False, by: str) -> None:
        self.calls.append(("shutdown", keep_services, by))
        if self.on_shutdown is not None:
            self.on_shutdown()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _service(self, name: str) -> str:
        for status in self.nodes.values():
            if status.kind is NodeKind.SERVICE and name in (status.path, status.path.rsplit("/", 1)[-1]):
                return status.path
        close = difflib.get_close_matches(name, _ALL, n=1)
        raise UnknownNode(name, close[0] if close else None, "service")

    def _node(self, path: str) -> Node:
        return tree_json.node_json(self.nodes[path])

    def _try(self, name: str, command: Callable[[str], Node]) -> Result:
        try:
            return Result(name=name, ok=True, service=command(name))
        except ManagerError as error:
            return Result(name=name, ok=False, error=str(error))


_ALL = ("ingest", "engine", "web")
