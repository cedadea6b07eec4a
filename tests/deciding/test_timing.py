"""Instants that no clock that is set can move."""

from __future__ import annotations

import pytest

from runbooks.deciding.timing import Moment, on_scale

HOUR = 3600.0
NOW = Moment(1_800_000_000.0, "boot-1", 50_000.0)
AGO = Moment(NOW.wall_s - 100, "boot-1", NOW.up_s - 100)


@pytest.mark.parametrize("jump_s", [0.0, HOUR, -HOUR, 10 * 365 * 86400.0])
def test_within_one_start_of_the_machine_the_wall_clock_is_not_asked(jump_s: float) -> None:
    now = Moment(NOW.wall_s + jump_s, NOW.boot, NOW.up_s)
    assert on_scale(AGO.wall_s, AGO.mark, now) == pytest.approx(NOW.up_s - 100)
    wrong_then = AGO.wall_s + jump_s
    assert on_scale(wrong_then, AGO.mark, NOW) == pytest.approx(NOW.up_s - 100)


def test_after_another_start_it_is_all_there_is_and_the_future_is_now() -> None:
    assert on_scale(NOW.wall_s - 70, "boot-0/99999.0", NOW) == pytest.approx(NOW.up_s - 70)
    assert on_scale(NOW.wall_s - 100_000, "boot-0/1.0", NOW) == pytest.approx(NOW.up_s - 100_000)
    assert on_scale(NOW.wall_s + HOUR, "boot-0/1.0", NOW) == NOW.up_s
    assert on_scale(NOW.wall_s + HOUR, None, NOW) == NOW.up_s
    assert on_scale(NOW.wall_s - 5, None, NOW) == pytest.approx(NOW.up_s - 5)


def test_a_mark_of_the_future_is_now() -> None:
    assert on_scale(NOW.wall_s, "boot-1/60000.0", NOW) == NOW.up_s
