"""The crash matrix of runbooks in CI: every place and every way once. The whole of it is ``make runbook-crash``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runbooks.model import Mode, Runbook
from runbooks.parse import SHIPPED, load_library
from tests.crash_runbooks.matrix import run_all
from tests.crash_runbooks.rows import NOT_REACHED, Row
from tests.crash_runbooks.stages import all_stages
from tests.support.tables import TABLE

Record = Callable[[str, object], None]
JOBS = 2
"""Other tests run beside it."""


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


def test_every_shipped_runbook_that_runs_has_its_ways() -> None:
    """One to success, and one that fails: back, where there is a way back."""
    ways: dict[str, set[str]] = {}
    for stage in all_stages().values():
        ways.setdefault(stage.runbook, set()).add(stage.variant)
    run = [one for one in load_library([SHIPPED]).runbooks if one.mode is not Mode.OBSERVE]
    wanted = {one.id: {"success", "rollback" if _has_way_back(one) else "failure"} for one in run}
    assert len(wanted) > 10
    assert {name for name, needed in wanted.items() if needed - ways.get(name, set())} == set()


def _has_way_back(runbook: Runbook) -> bool:
    return any(one.rollback is not None for one in runbook.actions)


@pytest.mark.timeout(600)
def test_what_is_wrong_is_found() -> None:
    """In processes of their own: a daemon is only forked by one without other threads."""
    words = {
        Row("own_words/done-twice", None): "effects ['do first', 'do first'",
        Row("own_words/left-standing", None): "['other'] stand",
        Row("own_words/other-end", "runbook.called"): "succeeded, not rolled_back",
        Row("own_words/success", "runbook.undoing"): NOT_REACHED,
    }
    for outcome in run_all([*words], JOBS, lambda _: None):
        assert not outcome.is_right, outcome.row
        assert words[outcome.row] in outcome.result, (outcome.result, outcome.detail)
