"""A permit to restart at once is given exactly when the judgement of the crash would come to that end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.messages import ChildExited
from actors.spec import ExitReason, Origin
from supervisors.decisions import permits
from supervisors.decisions.model import Child, Phase, StopActor, SupervisorState
from supervisors.decisions.permits import restarts_at_once_from
from supervisors.decisions.step import step
from tests.properties.simulator import simulate

CRASH = ExitReason.crashed("world", origin=Origin.WORLD)
LATER_S = 1000.0


def restarts_alone_and_at_once(state: SupervisorState, child: Child, now: float) -> bool:
    """What the judgement really says to a crash at ``now``: its turn may come after others that start already."""
    after, effects = step(state, ChildExited(child.spec.id, child.incarnation, CRASH), now, 0.5)
    if child.spec.id not in after.children or any(isinstance(effect, StopActor) for effect in effects):
        return False
    judged = after.children[child.spec.id]
    is_next = judged.phase is Phase.STARTING or (
        judged.phase is Phase.RESTARTING and judged.not_before is not None and judged.not_before <= now
    )
    others = [(one, state.children[name]) for name, one in after.children.items() if name != child.spec.id]
    return is_next and all(one.recycle == before.recycle and one.wanted == before.wanted for one, before in others)


class Seen:
    """Compares the two in every state the simulator comes through."""

    def __init__(self) -> None:
        self.given = self.later = self.refused = 0

    def look(self, state: SupervisorState, now: float) -> None:
        for child in state.children.values():
            if child.phase is Phase.UP and child.spec.pacing is not None:
                self._compare(state, child, now)

    def _compare(self, state: SupervisorState, child: Child, now: float) -> None:
        at = restarts_at_once_from(state, child, now)
        if at is not None:
            assert restarts_alone_and_at_once(state, child, at), (child, now, at)
            assert restarts_alone_and_at_once(state, child, at + LATER_S), (child, now, at)
        self.given += at == now
        self.later += at is not None and at > now
        self.refused += at is None


def storms(how_many: int) -> Seen:
    seen = Seen()
    for seed in range(how_many):
        simulate(seed, seen.look)
    return seen


@given(seed=st.integers(0, 2**40))
@settings(max_examples=300, deadline=None)
def test_whoever_has_a_permit_would_have_been_restarted_at_once(seed: int) -> None:
    simulate(seed, Seen().look)


def test_all_answers_are_visited() -> None:
    seen = storms(300)
    assert min(seen.given, seen.later, seen.refused) > 5, vars(seen)


def ignores_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(permits, "affected", lambda *_: ())


def ignores_the_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(permits, "within_window", lambda *_: ())


def ignores_the_row(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(permits, "_stable_from", lambda child: 0.0)


@pytest.mark.parametrize("fault", [ignores_others, ignores_the_window, ignores_the_row])
def test_a_permit_given_too_soon_is_seen(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        storms(300)
