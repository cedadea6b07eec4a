"""The crash matrix of runbooks in CI: every place once. The whole of it is ``make runbook-crash-matrix``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runbooks.model import CallType, Mode, Runbook
from runbooks.parse import SHIPPED, load_library
from tests.crash_runbooks.matrix import run_all
from tests.crash_runbooks.rows import NOT_REACHED, Row
from tests.crash_runbooks.stages import all_stages
from tests.support.tables import TABLE

Record = Callable[[str, object], None]
JOBS = 2
"""Other tests run beside it."""
WITHOUT = {
    "block_new_orders",
    "database_connection_failure",
    "database_lock_left",
    "disk_space_low",
    "drawdown_exceeded_recovery",
    "high_cpu_usage",
    "margin_call_recovery",
    "memory_exhaustion",
    "network_connectivity",
    "position_limit_exceeded",
}
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


def _acts(runbook: Runbook) -> bool:
    return runbook.mode is not Mode.OBSERVE and any(
        one.call is not None and one.call.type is not CallType.NOTIFY for one in runbook.actions
    )


def test_every_shipped_runbook_that_acts_has_its_stages() -> None:
    """Those that are still without are named here, so that none is forgotten."""
    variants: dict[str, set[str]] = {}
    for stage in all_stages().values():
        variants.setdefault(stage.runbook, set()).add(stage.variant)
    unplayed = {one.id for one in load_library([SHIPPED]).runbooks if _acts(one)} - variants.keys()
    assert unplayed == WITHOUT
    assert all({"success", "rollback"} <= found for found in variants.values())


@pytest.mark.timeout(600)
def test_what_is_wrong_is_found() -> None:
    """In processes of their own: a daemon is only forked by one without other threads."""
    words = {
        Row("own_words/done-twice", None): "effects ['do first', 'do first'",
        Row("own_words/left-standing", None): "other.applied",
        Row("own_words/other-end", "runbook.called"): "succeeded, not rolled_back",
        Row("own_words/success", "runbook.undoing"): NOT_REACHED,
    }
    for outcome in run_all([*words], JOBS, lambda _: None):
        assert not outcome.is_right, outcome.row
        assert words[outcome.row] in outcome.result, (outcome.result, outcome.detail)
