"""What an earlier daemon left alive is cleared until a person wants it again."""

from __future__ import annotations

import pytest

from actors.runtimes.base import LaunchSpec, TruthUnknown
from actors.runtimes.memory import MemoryRuntime, MemoryWorld
from supervisors.leftovers import Cleaner, Leftover
from tests.support.eventually import eventually, holds_for

LONG_S = 30.0


class Away(MemoryRuntime):
    """Nobody can tell, until ``is_away`` is taken back."""

    is_away = True
    asked = 0

    def clear(self, service: str, grace_s: float) -> bool:
        self.asked += 1
        if self.is_away:
            raise TruthUnknown("the engine is away")
        return super().clear(service, grace_s)


@pytest.mark.parametrize("is_stopped", [True, False])
def test_one_that_is_started_meanwhile_is_left_alone(monkeypatch: pytest.MonkeyPatch, *, is_stopped: bool) -> None:
    monkeypatch.setattr("supervisors.leftovers.RETRY_S", 0.05)
    world, wishes = MemoryWorld(), {"a": True}
    runtime = Away(world)
    runtime.launch(LaunchSpec("a", ("run",)), 1, lambda _status: True)
    cleaner = Cleaner(
        (Leftover("a", "memory", 1.0, is_configured=True),), {"memory": runtime}, lambda _name: None, wishes.__getitem__
    )
    cleaner.start()
    eventually(lambda: runtime.asked >= 2, within_s=LONG_S)
    wishes["a"] = is_stopped
    runtime.is_away = False
    if is_stopped:
        eventually(lambda: world.living("a") is None, within_s=LONG_S)
    else:
        holds_for(lambda: world.living("a") is not None, 0.5)
    cleaner.close()
    runtime.close()


def test_one_that_is_configured_again_is_spared_until_it_is_taken_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisors.leftovers.RETRY_S", 0.05)
    world, forgotten = MemoryWorld(), list[str]()
    runtime = Away(world)
    runtime.launch(LaunchSpec("a", ("run",)), 1, lambda _status: True)
    left = Leftover("a", "memory", 1.0, is_configured=False)
    cleaner = Cleaner((left,), {"memory": runtime}, forgotten.append, lambda _name: True)
    cleaner.start()
    eventually(lambda: runtime.asked >= 2, within_s=LONG_S)
    cleaner.spare("a")
    runtime.is_away = False
    holds_for(lambda: world.living("a") is not None and not forgotten, 0.5)
    cleaner.add(left)
    eventually(lambda: world.living("a") is None and forgotten == ["a"], within_s=LONG_S)
    cleaner.close()
    runtime.close()
