"""One action of a runbook by hand: its snapshot, its call, its looks, as the engine makes them, through real ports."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.clock import SystemClock
from runbooks.calls.family import CallOutcome, CheckOutcome
from runbooks.engine_words import Answer, Try
from runbooks.model import NEEDS_SNAPSHOT, Call, CallType
from runbooks.ports import Ports, RunInfo, ServiceView
from runbooks.steps import make_call, make_check, take_snapshot
from supervisors.action_ports import ActionsPlan, Outside, action_ports

TOKEN = f"x-{os.getpid()}"
"""What is left of a run is found by it, on the whole machine."""


class NoServices:
    """There are none; nobody asks for any here."""

    def status(self, name: str) -> ServiceView | None:
        return None

    def restart(self, name: str, timeout_s: float) -> RunInfo:
        raise NotImplementedError

    def start(self, name: str, timeout_s: float, decided: str | None = None) -> RunInfo:
        raise NotImplementedError

    def stop(self, name: str, timeout_s: float) -> None:
        raise NotImplementedError


class NoBridges:
    def is_ready(self, endpoint: str) -> bool | None:
        return None

    def command(self, *_: Any) -> Any:
        raise NotImplementedError

    def asked(self, *_: Any) -> Any:
        raise NotImplementedError

    def view(self, *_: Any) -> Any:
        raise NotImplementedError

    def offered(self, *_: Any) -> Any:
        raise NotImplementedError


def ports_of(state: Path, outside: Outside | None = None, **plan: Any) -> Ports:
    return action_ports(
        ActionsPlan(**plan), state, NoServices(), NoBridges(), outside or Outside(), SystemClock().moment
    )[0]


@dataclass
class Step:
    """An action with its probe, rollback and the check of that, made one by one."""

    ports: Ports
    act: Call
    probe: Call
    undo: Call
    undone: Call
    snapshot: Mapping[str, Any] = field(default_factory=dict)

    def take(self) -> None:
        """The snapshot, as it comes back from the journal."""
        calls = (self.act, self.probe, self.undo, self.undone)
        taken = take_snapshot((call for call in calls if call.type in NEEDS_SNAPSHOT), self.ports, TOKEN)
        self.snapshot = json.loads(json.dumps(taken))

    def do(self) -> CallOutcome:
        return make_call(self.act, self.snapshot, self.ports, TOKEN, Try("step", 1))

    def roll_back(self) -> CallOutcome:
        return make_call(self.undo, self.snapshot, self.ports, TOKEN, Try("step.undo", 1))

    def is_done(self) -> CheckOutcome:
        return make_check(self.probe, self.snapshot, self.ports, TOKEN, Try("step", 1))

    def is_undone(self) -> CheckOutcome:
        return make_check(self.undone, self.snapshot, self.ports, TOKEN, Try("step.undo", 1))


def do(ports: Ports, kind: CallType, timeout_s: float = 30.0, **arguments: Any) -> CallOutcome:
    return make_call(Call(kind, arguments, timeout_s), None, ports, TOKEN, Try("step", 1))


def look(ports: Ports, kind: CallType, timeout_s: float = 30.0, **arguments: Any) -> CheckOutcome:
    return make_check(Call(kind, arguments, timeout_s), None, ports, TOKEN, Try("step", 1))


def answer(ports: Ports, kind: CallType, **arguments: Any) -> Answer:
    return look(ports, kind, **arguments).answer
