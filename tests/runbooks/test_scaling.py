"""Undoing a scaling: back to the number there was, unless a person has chosen one meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors.ledger import Ledger, Scaled
from runbooks.commands import LocalCommands
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType
from runbooks.network import LocalHttp, LocalTcp
from runbooks.ports import Ports
from runbooks.steps import make_call, make_check, take_snapshot
from supervisors.runbook_ports import LiveScaling
from tests.runbooks.test_steps import TOKEN, Table


@dataclass
class Counted(LiveScaling):
    """Scales by writing it down, as the reloader does."""

    counts: dict[str, int] = field(default_factory=lambda: {"a": 1})

    def replicas(self, name: str) -> int | None:
        return self.counts.get(name)

    def scale(self, name: str, replicas: int, timeout_s: float) -> None:
        self.choose(name, replicas, "runbook")

    def choose(self, name: str, replicas: int, by: str) -> None:
        self.ledger.scaled_by(name, Scaled(replicas, by, 0.0))
        self.counts[name] = replicas


@pytest.fixture
def scaling(tmp_path: Path) -> Any:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    yield Counted(None, ledger)  # type: ignore[arg-type]  # the counts are its own
    ledger.close()


UP = Call(CallType.SERVICE_SCALE, {"service": "a", "replicas": 3})
BACK = Call(CallType.SERVICE_RESTORE, {"service": "a"})
IS_BACK = Call(CallType.SERVICE_RESTORED, {"service": "a"})


@pytest.mark.parametrize(
    ("by", "replicas", "output", "seen"),
    [
        ("runbook", 1, "a has 1 replicas", "a has 1 replicas, 1 wanted"),
        ("ann", 4, "is left as it is: scaled to 4 by ann", "scaled to 4 by ann at 1970-01-01T00:00:00.000Z"),
    ],
)
def test_whoever_chose_last(scaling: Counted, by: str, replicas: int, output: str, seen: str) -> None:
    ports = Ports(Table(), LocalCommands(), LocalHttp(), LocalTcp(), scaling=scaling)
    before = take_snapshot([UP], ports, TOKEN)
    assert make_call(UP, before, ports, TOKEN).ok
    scaling.choose("a", 4, by)
    restored = make_call(BACK, before, ports, TOKEN)
    assert (restored.ok, restored.output[: len(output)]) == (True, output)
    looked = make_check(IS_BACK, before, ports, TOKEN)
    assert (looked.answer, looked.detail) == (Answer.YES, seen)
    assert scaling.counts == {"a": replicas}
