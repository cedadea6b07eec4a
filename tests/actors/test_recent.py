"""What was seen lately is known for so many things at least, and forgotten after twice as many."""

from __future__ import annotations

from actors.recent import Recent


def test_at_least_so_many_are_known_and_at_most_twice_as_many() -> None:
    recent = Recent(100)
    for number in range(1000):
        recent.add(number)
        assert all(one in recent for one in range(max(0, number - 99), number + 1))
        assert sum(one in recent for one in range(number + 1)) <= 200
