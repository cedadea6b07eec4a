"""What goes wrong in the launch, the adoption or the clearing of one service is the trouble of that service alone."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from actors.board import NodeState, NodeStatus, is_ready
from actors.context import ActorSystem
from actors.ledger import Ledger
from actors.runtimes.base import LaunchSpec, OnExit
from actors.runtimes.memory import MemoryHandle, MemoryRuntime
from actors.service import ServiceActor, ServiceParts, ServicePlan
from actors.service_fsm import Rules
from actors.spec import Backoff, ChildSpec, Pacing
from supervisors import Strategy, Supervisor
from tests.support.eventually import eventually

LONG_S = 30.0
FAULTS = (RuntimeError("a fault of ours"), OSError(errno.EMFILE, "Too many open files", "/proc"), SystemExit(3))


class Faulty(MemoryRuntime):
    """``bad`` meets an error that is no refusal; everybody else is served."""

    def __init__(self, error: BaseException, where: str) -> None:
        super().__init__()
        self.error, self.where = error, where
        self.met = 0

    def _meet(self, service: str, where: str) -> None:
        if service == "bad" and where == self.where:
            self.met += 1
            raise self.error

    def launch(self, spec: LaunchSpec, run: int, on_exit: OnExit) -> MemoryHandle:
        self._meet(spec.service, "launch")
        return super().launch(spec, run, on_exit)

    def adopt(self, spec: LaunchSpec, on_exit: OnExit) -> MemoryHandle | None:
        self._meet(spec.service, "adopt")
        return super().adopt(spec, on_exit)

    def clear(self, service: str, grace_s: float) -> bool:
        self._meet(service, "clear")
        return super().clear(service, grace_s)


def child(name: str, parts: ServiceParts) -> ChildSpec:
    plan = ServicePlan(name, "memory", LaunchSpec(name, ("run",)), Rules())
    return ChildSpec(name, ServiceActor, (plan, parts), pacing=Pacing(Backoff(0.01, 0.02), max_restarts=2))


def parked(status: NodeStatus | None) -> NodeStatus | None:
    return status if status is not None and status.state is NodeState.CRASH_LOOP else None


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["launch", "adopt"])
def test_it_is_a_failed_start_of_that_service_only(tmp_path: Path, where: str, error: BaseException) -> None:
    runtime, ledger, system = Faulty(error, where), Ledger(tmp_path / "ledger.jsonl"), ActorSystem()
    parts = ServiceParts({"memory": runtime}, ledger)
    root = Supervisor.start(intensity=0, children=[child("good", parts), child("bad", parts)], system=system)
    try:
        bad = eventually(lambda: parked(system.board.get("root/bad")), within_s=LONG_S)
        assert bad.detail is not None
        assert f"service 'bad': launch failed: {type(error).__name__}: {error}" in bad.detail
        good = system.board.get("root/good")
        assert good is not None
        assert (good.state, good.incarnation, good.restarts) == (NodeState.READY, 1, 0)
        assert runtime.met == 3, "paced and parked, not for ever"
    finally:
        root.stop(LONG_S)
        system.close()
        runtime.close()


def test_a_clearing_that_meets_a_fault_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.service.RETRY_S", 0.01)
    runtime, system = Faulty(RuntimeError("a fault of ours"), "clear"), ActorSystem()
    parts = ServiceParts({"memory": runtime}, Ledger(tmp_path / "ledger.jsonl"))
    specs = [child(name, parts) for name in ("bad", "good")]
    root = Supervisor.start(strategy=Strategy.ONE_FOR_ALL, intensity=0, children=specs, system=system)
    try:
        eventually(lambda: is_ready(system.board.get("root/good")), within_s=LONG_S)
        runtime.crash("good")
        eventually(lambda: runtime.met >= 2, within_s=LONG_S)
        bad = system.board.get("root/bad")
        assert bad is not None
        assert (bad.state, "RuntimeError: a fault of ours" in (bad.detail or "")) == (NodeState.UNKNOWN, True), bad
        runtime.where = "nowhere"
        eventually(lambda: is_ready(system.board.get("root/bad")), within_s=LONG_S)
    finally:
        root.stop(LONG_S)
        system.close()
        runtime.close()
