"""Who is certain that nothing was changed, and who only says no: half a step is undone, one never begun is not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from actors.runbook_calls import CallsInFlight
from actors.runbook_hands import Hands
from runbooks import engine
from runbooks.engine_words import (
    Answer,
    CallDone,
    CheckDone,
    Event,
    Finish,
    Recorded,
    RunCall,
    RunCheck,
    SnapshotTaken,
    TakeSnapshot,
    Try,
    WakeAt,
    Woke,
    WriteRecord,
)
from runbooks.model import Call, CallType, Status
from runbooks.plan import bind
from runbooks.ports import BridgeAnswer, BridgeState, PortError, Ports, Untouched
from runbooks.steps import make_call, make_check, take_snapshot
from supervisors.manager import CommandFailed, TimedOut
from supervisors.runbook_ports import LiveScaling
from tests.actions.place import ports_of
from tests.runbooks.files import changed, runbook
from tests.runbooks.test_steps import Table

OF = Try("step", 1)


@dataclass
class Endpoint:
    state: BridgeState

    def asked(self, *_: Any) -> BridgeAnswer:
        return BridgeAnswer(self.state)


@pytest.mark.parametrize(
    ("state", "answer", "is_untouched"),
    [
        (BridgeState.DONE, Answer.YES, False),
        (BridgeState.FAILED, Answer.NO, False),
        (BridgeState.NEVER, Answer.NO, True),
        (BridgeState.REFUSED, Answer.NO, True),
        (BridgeState.BEGUN, Answer.UNKNOWN, False),
    ],
)
def test_a_command_that_failed_may_be_half_done(
    tmp_path: Path, state: BridgeState, answer: Answer, is_untouched: bool
) -> None:
    ports = replace(ports_of(tmp_path), bridges=cast("Any", Endpoint(state)))
    found = make_check(Call(CallType.BRIDGE_DONE, {"endpoint": "e"}), None, ports, "x-1", OF)
    assert (found.answer, found.is_untouched) == (answer, is_untouched)


@dataclass
class Scaled:
    """A service of one replica. Of more that are asked for only the second comes up."""

    error: Exception | None = None
    now: int = 1
    asked: list[int] = field(default_factory=list)

    def replicas(self, name: str) -> int:
        return self.now

    def decided(self, name: str) -> str:
        return ""

    def scale(self, name: str, replicas: int, timeout_s: float) -> None:
        self.asked.append(replicas)
        if self.error is not None:
            raise self.error
        self.now = min(replicas, 2)
        if replicas > self.now:
            raise PortError(f"{name}: not all could be scaled")


@pytest.mark.parametrize(
    ("error", "is_untouched"), [(PortError("no"), False), (Untouched("no"), True), (KeyError("no"), False)]
)
def test_what_a_port_says_is_handed_on(tmp_path: Path, error: Exception, is_untouched: bool) -> None:
    ports = replace(ports_of(tmp_path), scaling=Scaled(error))
    made = make_call(Call(CallType.SERVICE_SCALE, {"service": "a", "replicas": 3}), None, ports, "x-1", OF)
    assert (made.ok, made.is_untouched) == (False, is_untouched)


@dataclass
class Reloads:
    said: Exception | dict[str, Any]

    def scale(self, *_: Any, **__: Any) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.mark.parametrize(
    ("said", "is_untouched"),
    [
        (CommandFailed("a: cannot scale"), True),
        (TimedOut("a: not in time"), False),
        ({"nodes": [{"node": "a.1"}, {"node": "a.2", "error": "no such file"}]}, False),
    ],
)
def test_a_scaling_that_was_refused_changed_nothing(said: Any, is_untouched: bool) -> None:
    scaling = LiveScaling(cast("Any", None), cast("Any", None), cast("Any", Reloads(said)))
    with pytest.raises(PortError) as refused:
        scaling.scale("a", 3, 1.0)
    assert isinstance(refused.value, Untouched) is is_untouched


SCALE = {
    "id": "three",
    "name": "Three of them",
    "action_type": "service_scale",
    "effect": "mutating",
    "parameters": {"service": "{service}", "replicas": 3},
    "probe": {"call": {"type": "service_scaled", "with": {"service": "{service}", "replicas": 3}}},
    "verify": {"call": {"type": "service_scaled", "with": {"service": "{service}", "replicas": 3}}},
    "rollback": {
        "call": {"type": "service_restore", "with": {"service": "{service}"}},
        "verify": {"call": {"type": "service_restored", "with": {"service": "{service}"}}},
    },
}


def carried_out(ports: Ports) -> Finish:
    """A run of the real calls, without a journal."""
    step = engine.start(bind(runbook(changed("/actions", [SCALE])), {"service": "a"}), 0.0)
    now = 0.0
    while True:
        state, (effect,) = step
        event: Event
        match effect:
            case Finish():
                return effect
            case WriteRecord(ticket):
                event = Recorded(ticket)
            case TakeSnapshot(ticket, calls):
                event = SnapshotTaken(ticket, take_snapshot(calls, ports, "x-1"))
            case RunCall(ticket, call, snapshot, of):
                made = make_call(call, snapshot, ports, "x-1", of)
                event = CallDone(ticket, made.ok, made.output, made.error, is_untouched=made.is_untouched)
            case RunCheck(ticket, call, snapshot, of):
                found = make_check(call, snapshot, ports, "x-1", of)
                event = CheckDone(ticket, found.answer, found.detail, found.is_untouched)
            case WakeAt(ticket, now):
                event = Woke(ticket)
            case _:
                raise AssertionError(effect)
        step = engine.step(state, event, now)


def test_a_service_that_was_scaled_in_part_is_scaled_back(tmp_path: Path) -> None:
    scaled = Scaled()
    end = carried_out(replace(ports_of(tmp_path), services=Table(), scaling=scaled))
    assert (end.status, scaled.now, scaled.asked) == (Status.ROLLED_BACK, 1, [3, 1])


def test_a_scaling_that_was_refused_is_not_remembered_as_another(tmp_path: Path) -> None:
    scaled = Scaled(Untouched("a: cannot scale"))
    end = carried_out(replace(ports_of(tmp_path), services=Table(), scaling=scaled))
    assert (end.status, scaled.asked) == (Status.FAILED, [3])


def test_a_call_that_was_not_begun_in_its_time_changed_nothing(tmp_path: Path) -> None:
    calls = CallsInFlight()
    hands = Hands(cast("Any", None), cast("Any", None), calls, ports_of(tmp_path), "x-1")
    hands._flight = calls.begin("x-1", 1.0)
    given_up = hands.given_up(RunCall(7, Call(CallType.COMMAND, {"argv": ("true",)}), None))
    assert isinstance(given_up, CallDone)
    assert (given_up.is_lost, given_up.is_untouched) == (False, True)
