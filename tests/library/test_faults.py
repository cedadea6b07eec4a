"""Every case of every shipped runbook against its real fault, once; and that it shows something: the same case with
acting calls that do nothing is never told as a success.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.registry import Case, Kind, all_cases

CASES = all_cases()
CURED = [case for case in CASES if case.kind is Kind.SUCCESS]


def possible(case: Case) -> None:
    """Skip what cannot be tried here; fail it where everything must be tried."""
    trouble = case.trouble()
    if trouble is None:
        return
    if os.environ.get("SELFHEAL_REQUIRE_ALL") == "1":
        pytest.fail(f"SELFHEAL_REQUIRE_ALL=1, but {trouble}", pytrace=False)
    pytest.skip(trouble)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_real_fault_ends_as_it_must(case: Case, tmp_path: Path) -> None:
    possible(case)
    end = case.run(tmp_path, acts=True)
    assert end.status in case.wanted, end
    if case.kind is Kind.SUCCESS:
        assert end.took_s is not None


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", CURED, ids=lambda case: case.id)
def test_a_runbook_that_does_nothing_is_never_told_as_a_success(case: Case, tmp_path: Path) -> None:
    possible(case)
    end = case.run(tmp_path, acts=False)
    assert end.status != "succeeded", end
