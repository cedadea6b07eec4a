"""What a service's node says of it while its runtime cannot tell and is asked again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from actors.board import NodeState, NodeStatus
from actors.context import ActorSystem
from actors.ledger import Ledger
from actors.messages import StopMode
from actors.runtimes.base import LaunchSpec, OnExit, TruthUnknown
from actors.runtimes.memory import MemoryHandle, MemoryRuntime
from actors.service import ServiceActor, ServiceParts, ServicePlan
from actors.service_fsm import (
    Adopted,
    Begun,
    Cleared,
    Event,
    LaunchRefused,
    NoneLives,
    PauseAsked,
    RetryDue,
    Rules,
    StopAsked,
    begin,
    step,
)
from actors.service_shown import shown
from actors.spec import SHUTDOWN, ChildSpec
from supervisors import Supervisor
from tests.support.eventually import eventually

AWAY = "the engine is away"
LONG_S = 30.0


class Hanging(MemoryRuntime):
    """Nobody can tell. The second time it is asked, ``answers`` must be set first."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.hangs, self.answers = threading.Event(), threading.Event()

    def adopt(self, spec: LaunchSpec, on_exit: OnExit) -> MemoryHandle | None:
        self.asked += 1
        if self.asked == 1:
            raise TruthUnknown(AWAY)
        self.hangs.set()
        assert self.answers.wait(LONG_S)
        return super().adopt(spec, on_exit)


def test_it_stays_unknown_until_there_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.service.RETRY_S", 0.01)
    runtime, ledger, system = Hanging(), Ledger(tmp_path / "ledger.jsonl"), ActorSystem()
    seen: list[tuple[NodeState, str | None]] = []

    def note(status: NodeStatus) -> None:
        if status.path == "root/a":
            seen.append((status.state, status.detail))

    system.board.listen(note)
    plan = ServicePlan("a", "memory", LaunchSpec("a", ("run",)), Rules())
    spec = ChildSpec("a", ServiceActor, (plan, ServiceParts({"memory": runtime}, ledger)))
    root = Supervisor.start(children=[spec], system=system)
    try:
        assert runtime.hangs.wait(LONG_S)
        assert seen[-1] == (NodeState.UNKNOWN, AWAY)
        runtime.answers.set()
        eventually(lambda: seen[-1][0] is NodeState.READY, within_s=LONG_S)
        assert runtime.asked == 2
        states = [state for state, _detail in seen]
        said = list(dict.fromkeys(states[states.index(NodeState.UNKNOWN) :]))
        assert said == [NodeState.UNKNOWN, NodeState.STARTING, NodeState.READY]
    finally:
        runtime.answers.set()
        root.stop(LONG_S)
        system.close()
        runtime.close()


@pytest.mark.parametrize(
    ("is_paused", "is_fresh", "events", "wanted"),
    [
        (False, False, (LaunchRefused(AWAY, is_unknown=True), RetryDue()), (NodeState.UNKNOWN, AWAY)),
        (True, False, (Adopted(None, AWAY), RetryDue()), (NodeState.UNKNOWN, AWAY)),
        (False, True, (Cleared(AWAY), RetryDue()), (NodeState.UNKNOWN, AWAY)),
        (False, False, (LaunchRefused(AWAY, is_unknown=True), RetryDue(), NoneLives()), (NodeState.STARTING, None)),
        (False, True, (Cleared(AWAY), RetryDue(), Cleared()), (NodeState.STARTING, None)),
        (
            False,
            False,
            (LaunchRefused(AWAY, is_unknown=True), RetryDue(), StopAsked(SHUTDOWN, StopMode.TERMINATE)),
            (NodeState.UNKNOWN, AWAY),
        ),
        (
            False,
            False,
            (LaunchRefused(AWAY, is_unknown=True), RetryDue(), PauseAsked()),
            (NodeState.UNKNOWN, AWAY),
        ),
    ],
    ids=["launched", "paused", "fresh", "answered", "cleared", "stopped", "paused meanwhile"],
)
def test_whatever_is_asked_again(
    is_paused: bool, is_fresh: bool, events: tuple[Event, ...], wanted: tuple[NodeState, str | None]
) -> None:
    run = step(begin(Rules(), is_paused=is_paused, is_fresh=is_fresh), Begun())[0]
    for event in events:
        run = step(run, event)[0]
    assert shown(run) == wanted
