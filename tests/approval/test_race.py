"""A few of the 10,000 races that ``python -m tests.approval`` runs."""

from __future__ import annotations

import os
from pathlib import Path

from tests.approval.races import race

ROUNDS = int(os.environ.get("SELFHEAL_RACES", "60"))


def test_one_outcome_and_never_after_the_time(tmp_path: Path) -> None:
    outcomes = race(tmp_path, ROUNDS)
    print(f"{ROUNDS} races: {dict(outcomes)}")
    assert set(outcomes) == {"queued", "rejected", "expired"}, "the races were none"
