"""The crash matrix of runbooks in CI: every place once. The whole of it is ``make runbook-crash-matrix``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from guardian_link import Alert
from runbooks.parse import SHIPPED
from tests.crash_runbooks import rows
from tests.crash_runbooks.rows import NOT_REACHED, Row, run_row
from tests.crash_runbooks.stages import all_stages
from tests.crash_runbooks.word_stages import Words, WordsBack
from tests.support.tables import TABLE

Record = Callable[[str, object], None]
JOBS = 2
"""Other tests run beside it."""
WITHOUT = {"database_connection_failure", "database_lock_left"}
"""Shipped runbooks without a stage yet."""


@pytest.mark.timeout(900)
def test_the_daemon_may_die_at_every_place_of_a_runbook(record_property: Record) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash_runbooks", "--quick", "--jobs", str(JOBS)],
        cwd=Path(__file__).resolve().parents[2],
        check=False,
        capture_output=True,
        text=True,
    )
    record_property(TABLE, done.stdout + done.stderr)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


# -- the matrix finds what it is there for ----------------------------------------------------------------------------


def test_every_shipped_runbook_that_acts_has_its_stages() -> None:
    """Those that are still without are named here, so that none is forgotten."""
    variants: dict[str, set[str]] = {}
    for stage in all_stages().values():
        variants.setdefault(stage.runbook, set()).add(stage.variant)
    unplayed = {path.stem for path in SHIPPED.glob("*.json")} - variants.keys()
    assert unplayed == WITHOUT
    assert all({"success", "rollback"} <= found for found in variants.values())


class _DoneTwice(Words):
    """Somebody does a step once more."""

    def alert(self) -> Alert:
        with (self.folder / "effects").open("a", encoding="ascii") as file:
            file.write("do first\n")
        return super().alert()


class _LeftStanding(WordsBack):
    """Somebody keeps what should be undone."""

    def meanwhile(self) -> None:
        (self.folder / "other.applied").mkdir(exist_ok=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("stage", "said"), [(_DoneTwice, "effects"), (_LeftStanding, "other.applied")])
def test_a_wrong_world_is_found(stage: type[Words], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "all_stages", lambda: {stage.id(): stage})
    found = run_row(Row(stage.id(), None))
    assert not found.is_right
    assert said in found.result, found.detail


@pytest.mark.timeout(300)
def test_a_wrong_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Words, "wanted", "rolled_back")
    found = run_row(Row(Words.id(), "runbook.called"))
    assert found.result.startswith("succeeded, not rolled_back"), found.detail


@pytest.mark.timeout(300)
def test_a_place_that_is_not_passed_is_said() -> None:
    assert run_row(Row(Words.id(), "runbook.undoing")).result == NOT_REACHED
