"""A supervisor that is started anew goes by what people want now, not by what they wanted at boot."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from actors.context import ActorSystem
from actors.kernel import SupervisedActor
from actors.spec import ChildPast, ChildSpec
from supervisors.decisions.model import Child, Flags, Mode, Strategy, SupervisorState
from supervisors.library import Supervisor
from supervisors.supervisor import _concerns_all


class Idle(SupervisedActor):
    pass


@dataclass
class Memory:
    held: frozenset[str]

    def recall(self, path: str) -> ChildPast | None:
        return None

    def keep(self, path: str, past: ChildPast) -> None:
        pass

    def is_held(self, path: str) -> bool | None:
        name = path.rsplit("/", 1)[-1]
        return None if name == "ours" else name in self.held


def test_who_was_stopped_since_boot_is_not_started_and_who_was_started_is(request: pytest.FixtureRequest) -> None:
    system = ActorSystem(memory=Memory(frozenset({"stopped"})))
    request.addfinalizer(system.close)
    children = [ChildSpec(name, Idle) for name in ("stopped", "started", "ours")]
    spec = Supervisor.spec("root", children=children, held=frozenset({"started", "ours"}))
    root = Supervisor.start_spec(spec, system=system)
    states = {one.id: one.state for one in root.which_children()}
    root.stop()
    assert states == {"stopped": "stopped", "started": "running", "ours": "stopped"}


def test_permits_are_judged_anew_when_flags_or_order_change() -> None:
    children = {name: Child(ChildSpec(name, Idle)) for name in ("a", "b")}
    state = SupervisorState(Flags(), children, Mode.RUNNING)
    assert not _concerns_all(state, replace(state, turn=1))
    assert _concerns_all(state, replace(state, flags=Flags(Strategy.REST_FOR_ONE)))
    assert _concerns_all(state, replace(state, children=dict(reversed(children.items()))))
    assert _concerns_all(state, replace(state, mode=Mode.HALTING))
