"""The runbooks for databases with the real daemon, real PostgreSQL and Redis, and real faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.cases_database import CASES
from tests.faults.registry import Case, Kind


def possible(case: Case) -> None:
    if (trouble := case.trouble()) is not None:
        pytest.skip(trouble)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_becomes_of_a_database(case: Case, tmp_path: Path) -> None:
    possible(case)
    ended = case.run(tmp_path, acts=True)
    assert ended.status in case.wanted, ended


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", [case for case in CASES if case.kind is Kind.SUCCESS], ids=lambda case: case.id)
def test_a_runbook_whose_acts_do_nothing_recovers_nothing(case: Case, tmp_path: Path) -> None:
    possible(case)
    ended = case.run(tmp_path, acts=False)
    assert ended.status not in case.wanted, ended
