"""When a figure is too much, and when it is well again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from supervisors.decisions.thresholds import Change, Level, Limit, step

LIMIT = Limit(most=80, clear=60, for_s=10, clear_for_s=5)
GAP_S = 4.0


def changes(looks: Iterable[tuple[float, float | None]]) -> list[tuple[float, Change]]:
    """The changes of a level that is looked at, by the second of each."""
    level = Level()
    found: list[tuple[float, Change]] = []
    for now_s, value in looks:
        level, change = step(level, LIMIT, value, now_s, GAP_S)
        if change is not Change.NONE:
            found.append((now_s, change))
    return found


def every(values: Sequence[float | None], each_s: float = 1.0) -> list[tuple[float, float | None]]:
    return [(number * each_s, value) for number, value in enumerate(values)]


def test_too_much_must_last() -> None:
    assert changes(every([90] * 10)) == []
    assert changes(every([90] * 11)) == [(10, Change.BEGAN)]


def test_one_good_look_begins_the_count_anew() -> None:
    assert changes(every([90] * 9 + [80] + [90] * 10)) == []
    assert changes(every([90] * 9 + [80] + [90] * 11)) == [(20, Change.BEGAN)]


def test_a_figure_between_the_two_bounds_changes_nothing() -> None:
    assert changes(every([90] * 11 + [70] * 50)) == [(10, Change.BEGAN)]
    assert changes(every([90, 61] * 50)) == []


def test_it_is_over_when_it_was_well_for_long_enough() -> None:
    assert changes(every([90] * 11 + [60] * 5)) == [(10, Change.BEGAN)]
    assert changes(every([90] * 11 + [60] * 6)) == [(10, Change.BEGAN), (16, Change.ENDED)]
    assert changes(every([90] * 11 + [60] * 5 + [61] + [60] * 5)) == [(10, Change.BEGAN)]


def test_what_nobody_can_tell_speaks_for_nothing() -> None:
    assert changes(every([90] * 9 + [None] + [90] * 9)) == []
    assert changes(every([90] * 11 + [60] * 4 + [None] + [60] * 4)) == [(10, Change.BEGAN)]


def test_what_was_not_looked_at_is_not_known_to_have_lasted() -> None:
    assert changes([(0, 90), (100, 90), (101, 90)]) == []
    assert changes([(0, 90), (100, 90), *((100 + n, 90) for n in range(1, 11))]) == [(110, Change.BEGAN)]


@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=200))
def test_begins_and_ends_take_turns_and_each_was_earned(values: list[float | None]) -> None:
    looks = every(values)
    found = changes(looks)
    turns = [Change.BEGAN, Change.ENDED] * len(found)
    assert [change for _, change in found] == turns[: len(found)]
    for at_s, change in found:
        length_s = LIMIT.for_s if change is Change.BEGAN else LIMIT.clear_for_s
        window = [value for now_s, value in looks if at_s - length_s <= now_s <= at_s]
        assert all(value is not None for value in window)
        if change is Change.BEGAN:
            assert all(value is not None and value > LIMIT.most for value in window)
        else:
            assert all(value is not None and value <= LIMIT.clear for value in window)
