"""A short storm in CI; the long one is ``benchmarks/alert_storm.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.links.alert_storm import AlertStorm
from tests.support.tables import TABLE


@pytest.fixture(autouse=True)
def key_file() -> None:
    """The daemon is a real one: its clients find the local key."""


@pytest.mark.timeout(600)
def test_trap_1_and_2_no_alert_is_lost_or_decided_twice_whoever_dies(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    outcome = AlertStorm(tmp_path, alerts=4000, senders=4, kills=8, seed=3).run()
    record_property(TABLE, str(outcome))
    assert outcome.is_right, str(outcome)
    assert outcome.daemon_deaths == 4
    assert outcome.sender_deaths >= 1
    assert outcome.executions >= 1
