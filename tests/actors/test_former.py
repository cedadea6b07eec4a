"""Whether a run is of before an edit of the file, and that nothing is started while that cannot be ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.former import EARLIER_FILE, end_former, is_former
from actors.ledger import Ledger, Phase, ServiceRecord
from actors.runtimes.base import LaunchSpec, StopFailed, TruthUnknown
from actors.runtimes.launch_hash import launch_hash
from actors.runtimes.memory import MemoryRuntime, MemoryWorld
from supervisors.leftovers import Leftover, leftovers

SPEC = LaunchSpec("a", command=("sleep", "1"))
OTHER = LaunchSpec("a", command=("sleep", "2"))


class Engine(MemoryRuntime):
    """It has nothing of ours; somebody else's container may run. ``trouble`` is why it cannot be stopped."""

    trouble: Exception | None = None

    def __init__(self, *running: str) -> None:
        super().__init__(MemoryWorld())
        self.running = list(running)

    def halt(self, service: str, container_id: str, grace_s: float) -> bool:
        assert (service, grace_s) == ("a", 3.0)
        if self.trouble is not None:
            raise self.trouble
        is_running = container_id in self.running
        self.running = [one for one in self.running if one != container_id]
        return is_running


@pytest.mark.parametrize("phase", Phase)
def test_only_what_may_live_and_differs_is_of_before_the_edit(phase: Phase) -> None:
    may_live = phase in (Phase.INTENT, Phase.LAUNCHED)
    same = ServiceRecord("a", phase=phase, runtime="process", spec_hash=launch_hash(SPEC))
    unknown = ServiceRecord("a", phase=phase, runtime="process")
    assert [is_former(one, "process", SPEC) for one in (same, unknown)] == [False, False]
    assert [is_former(one, "docker", SPEC) for one in (same, unknown)] == [may_live, may_live]
    assert [is_former(one, "process", OTHER) for one in (same, unknown)] == [may_live, False]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


@pytest.mark.parametrize("is_recorded", [True, False], ids=["launched", "only meant to be"])
def test_somebody_elses_container_is_stopped(ledger: Ledger, *, is_recorded: bool) -> None:
    engine = Engine("x1", "x2")
    ledger.intent("a", 1, "docker", "x1", "h")
    if is_recorded:
        ledger.launched("a", 1, {"container_id": "x1", "started_at": "then"}, 5.0)
    assert end_former(ledger, ledger.record("a"), {"docker": engine}, 3.0)
    assert engine.running == ["x2"]
    if is_recorded:
        last = ledger.record("a").last_exit or {}
        assert (ledger.record("a").phase, last["cause"], last["asked"]) == (Phase.EXITED, EARLIER_FILE, True)
    assert not end_former(ledger, ledger.record("a"), {"docker": engine}, 3.0)


@pytest.mark.parametrize("trouble", [TruthUnknown("away"), StopFailed("it will not")])
def test_what_cannot_be_ended_may_live(ledger: Ledger, trouble: Exception) -> None:
    engine = Engine("x1")
    engine.trouble = trouble
    ledger.intent("a", 1, "docker", "x1", "h")
    ledger.launched("a", 1, {"container_id": "x1", "started_at": "then"}, 5.0)
    with pytest.raises(TruthUnknown, match=str(trouble)):
        end_former(ledger, ledger.record("a"), {"docker": engine}, 3.0)
    assert ledger.record("a").phase is Phase.LAUNCHED
    with pytest.raises(TruthUnknown, match="docker, which is not there"):
        end_former(ledger, ledger.record("a"), {}, 3.0)


def test_what_is_not_wanted_is_left_over_whatever_runtime_it_was_of(ledger: Ledger) -> None:
    ledger.intent("a", 1, "process", "t", "h")
    assert leftovers(ledger.records(), {"a": 3.0}, frozenset()) == ()
    assert leftovers(ledger.records(), {"a": 3.0}, {"a"}) == (Leftover("a", "process", 3.0, is_configured=True),)
    assert leftovers(ledger.records(), {}, frozenset()) == (Leftover("a", "process", 10.0, is_configured=False),)
