"""The judgement holds in any weather; and the simulator sees it when it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from actors.messages import ChildExited
from supervisors.decisions import exits, intensity, reconcile, step
from supervisors.decisions.model import Answer, Mode, Phase, StopActor, WakeAt, Woke
from tests.properties.simulator import Violated, simulate


@given(seed=st.integers(0, 2**40))
@settings(max_examples=600, deadline=None)
@example(seed=31165342)  # killed in a group restart after it had ended by itself, its notice still waiting
def test_in_any_weather(seed: int) -> None:
    simulate(seed)


def test_the_weather_is_bad_enough() -> None:
    """All modes of ending, parking, killing and refusing are really visited by the seeds."""
    worlds = [simulate(seed) for seed in range(300)]
    modes = {world.state.mode for world in worlds}
    phases = {child.phase for world in worlds for child in world.state.children.values()}
    assert modes >= {Mode.RUNNING, Mode.DONE}
    assert phases >= {Phase.UP, Phase.DOWN}
    assert any(world.state.restarts for world in worlds)


Break = Callable[[pytest.MonkeyPatch], None]


def oldest_first(patch: pytest.MonkeyPatch) -> None:
    real = reconcile._newest_alive

    def oldest(work: Any) -> Any:
        alive = [child for child in work.children.values() if child.phase in (Phase.UP, Phase.STARTING, Phase.STOPPING)]
        return alive[0] if alive else real(work)

    patch.setattr(reconcile, "_newest_alive", oldest)


def one_too_many(patch: pytest.MonkeyPatch) -> None:
    real = intensity.charge
    patch.setattr(intensity, "charge", lambda times, limit, period_s, now: real(times, limit + 1, period_s, now))


def no_incarnation_check(patch: pytest.MonkeyPatch) -> None:
    real = step._child_event

    def unchecked(work: Any, event: Any) -> None:
        child = work.children.get(event.id)
        real(work, replace(event, incarnation=child.incarnation) if child is not None else event)

    patch.setattr(step, "_child_event", unchecked)


def no_wake_up(patch: pytest.MonkeyPatch) -> None:
    drop_effects(patch, WakeAt)


def no_kill_after_the_deadline(patch: pytest.MonkeyPatch) -> None:
    real = step._handle
    patch.setattr(step, "_handle", lambda work, event: None if isinstance(event, Woke) else real(work, event))


def no_answers(patch: pytest.MonkeyPatch) -> None:
    drop_effects(patch, Answer)


def no_stops(patch: pytest.MonkeyPatch) -> None:
    drop_effects(patch, StopActor)


def held_is_ignored(patch: pytest.MonkeyPatch) -> None:
    real = exits._take_along

    def all_along(work: Any, child: Any, mode: Any) -> None:
        for other in tuple(work.children.values()):
            if other.held:
                work.put(other, wanted=True, phase=Phase.DOWN)
        real(work, child, mode)

    patch.setattr(exits, "_take_along", all_along)


def gates_are_open(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "_next_in_line", reconcile._next_free)


def exits_are_doubled(patch: pytest.MonkeyPatch) -> None:
    """A group restart that does not wait for the stops."""
    real = step._handle

    def hasty(work: Any, event: Any) -> None:
        real(work, event)
        if isinstance(event, ChildExited):
            for child in tuple(work.children.values()):
                if child.recycle:
                    work.put(child, recycle=False, phase=Phase.DOWN)

    patch.setattr(step, "_handle", hasty)


def drop_effects(patch: pytest.MonkeyPatch, kind: type) -> None:
    real = step.step

    def dropping(*args: Any) -> Any:
        state, effects = real(*args)
        return state, tuple(effect for effect in effects if not isinstance(effect, kind))

    patch.setattr(step, "step", dropping)


@pytest.mark.parametrize(
    "fault",
    [
        oldest_first,
        one_too_many,
        no_incarnation_check,
        no_wake_up,
        no_kill_after_the_deadline,
        no_answers,
        no_stops,
        held_is_ignored,
        gates_are_open,
        exits_are_doubled,
    ],
)
def test_a_seeded_fault_is_found(fault: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(Violated):
        many(3000)


def many(seeds: int) -> None:
    for seed in range(seeds):
        simulate(seed)
