"""Alerts of the daemon's own while somebody sets the clock: what counts is the order in the journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.journal.journal import Journal
from actors.own_alerts import OwnAlerts
from tests.approval.desks import HandClock

DAY_S = 86400.0
FACTS: Mapping[str, Any] = {"type": "disk_low", "service": "box"}


@contextmanager
def own_alerts(folder: Path) -> Iterator[tuple[OwnAlerts, HandClock, list[object]]]:
    journal, clock = Journal(folder / "journal.db"), HandClock()
    hints: list[object] = []
    journal.start()
    try:
        yield OwnAlerts(journal, clock, hints.append, lambda *_said: None), clock, hints
    finally:
        journal.close()


@pytest.mark.parametrize("set_s", [-DAY_S, 0.0, DAY_S])
def test_an_alert_ends_whatever_the_clock_says(tmp_path: Path, set_s: float) -> None:
    with own_alerts(tmp_path) as (own, clock, _):
        own.fires("disk", clock.wall(), FACTS)
        own.journal.submit(lambda _db: None).result(10)
        assert list(own.firing()) == ["disk"]
        clock.wall_s += set_s
        assert own.is_over("disk").result(10) is not None
        assert own.firing() == {}
        own.fires("disk", clock.wall(), FACTS)
        own.journal.submit(lambda _db: None).result(10)
        assert list(own.firing()) == ["disk"], "it begins anew"
        assert own.is_over("disk").result(10) is not None
        assert own.is_over("disk").result(10) is None


@pytest.mark.parametrize("set_s", [-DAY_S, DAY_S])
def test_what_goes_on_is_taken_anew_once_after_the_clock_was_set(tmp_path: Path, set_s: float) -> None:
    with own_alerts(tmp_path) as (own, clock, hints):
        began = clock.wall()
        for _ in range(3):
            own.fires("disk", began, FACTS)
        own.journal.submit(lambda _db: None).result(10)
        assert len(hints) == 1
        clock.wall_s += set_s
        for _ in range(3):
            own.fires("disk", began, FACTS)
        own.journal.submit(lambda _db: None).result(10)
        assert len(hints) == 2
