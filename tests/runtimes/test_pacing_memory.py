"""What the ledger says of a service's failures is believed only as far as it can be so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors.ledger import Ledger
from actors.runtimes.procfs import boot_id
from actors.spec import ChildPast
from runbooks.deciding.timing import Moment
from supervisors.pacing_memory import MOST_FAILURES, LedgerMemory

PATH = "root/services/a"
GOOD: dict[str, Any] = {"failures": 2, "is_exhausted": False, "paced_at": [90.0, 95.0], "not_before": 120.0}


@dataclass
class At100:
    """A clock that stands at second 100 since boot."""

    wall_s: float = field(default=1_000_000.0)

    def now(self) -> float:
        return 100.0

    def wall(self) -> float:
        return self.wall_s

    def moment(self) -> Moment:
        return Moment(self.wall_s, boot_id(), 100.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.jsonl")
    made.intent("a", 1, "process", "t")
    made.exited("a", 1, {"code": 1})
    yield made
    made.close()


def recalled(ledger: Ledger, pacing: str) -> ChildPast | None:
    """What is made of such an entry in the file."""
    ledger.close()
    with ledger.path.open("a") as file:
        file.write(f'{{"is":"paced","service":"a","pacing":{pacing}}}\n')
    again = Ledger(ledger.path)
    assert again.corrupt_lines == 0
    again.close()
    return LedgerMemory(again, At100(), {"a": PATH}.get).recall(PATH)


def written(**changes: Any) -> str:
    return json.dumps({**GOOD, "is_stale": False, "boot_id": boot_id(), **changes})


def test_a_good_entry_is_believed(ledger: Ledger) -> None:
    assert recalled(ledger, written()) == ChildPast(2, False, (90.0, 95.0), 120.0)


def test_what_is_kept_is_recalled(ledger: Ledger) -> None:
    memory = LedgerMemory(ledger, At100(), {"a": PATH}.get)
    past = ChildPast(3, True, (99.0, 100.0), 150.0, is_stale=True)
    memory.keep(PATH, past)
    assert memory.recall(PATH) == past


@pytest.mark.parametrize("paced_at", [float("nan"), float("inf"), float("-inf"), 100.1, 1e300])
def test_a_restart_that_was_never_or_is_still_to_come_does_not_count(ledger: Ledger, paced_at: float) -> None:
    assert recalled(ledger, written(paced_at=[90.0, paced_at, 100.0])) == ChildPast(2, False, (90.0, 100.0), 120.0)


@pytest.mark.parametrize("not_before", [float("nan"), float("inf"), float("-inf")])
def test_nobody_waits_for_a_time_that_is_none(ledger: Ledger, not_before: float) -> None:
    assert recalled(ledger, written(not_before=not_before)) == ChildPast(2, False, (90.0, 95.0), None)


@pytest.mark.parametrize(
    "changes",
    [
        {"failures": -1},
        {"failures": MOST_FAILURES + 1},
        {"failures": float("nan")},
        {"failures": float("inf")},
        {"failures": "many"},
        {"paced_at": 5},
        {"paced_at": [None]},
        {"paced_at": [10**400]},
        {"not_before": 10**400},
        {"not_before": []},
        {"boot_id": "another"},
    ],
)
def test_what_makes_no_sense_is_no_past(ledger: Ledger, changes: dict[str, Any]) -> None:
    assert recalled(ledger, written(**changes)) is None


def test_an_entry_that_is_no_past_at_all(ledger: Ledger) -> None:
    assert recalled(ledger, json.dumps({"boot_id": boot_id()})) is None
