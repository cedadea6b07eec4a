"""A trouble is told once, also when it flickers."""

from __future__ import annotations

from supervisors.telling import QUIET_LOOKS, Telling


def test_a_trouble_is_told_when_it_begins_and_again_only_after_it_was_over() -> None:
    now: list[str | None] = [None]
    told: list[tuple[str, str]] = []
    telling = Telling("journal", lambda: now[0], lambda what, trouble: told.append((what, trouble)))
    assert telling.look() is None
    now[0] = "disk full"
    assert [telling.look(), telling.look()] == ["disk full", "disk full"]
    now[0] = None
    telling.look()
    now[0] = "disk full"
    telling.look()
    assert told == [("journal", "disk full")]
    now[0] = None
    for _ in range(QUIET_LOOKS):
        telling.look()
    now[0] = "gone"
    telling.look()
    assert told == [("journal", "disk full"), ("journal", "gone")]
