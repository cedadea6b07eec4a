"""Every case of every shipped runbook against its real fault, once; and that it shows something: the same case with
acting calls that do nothing is never told as a success.

All are played when the first of them is asked for, beside each other in one daemon.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runbooks.model import CallType, Mode, Runbook
from runbooks.parse import SHIPPED, load_library
from tests.faults.database_stage import holds_no_password
from tests.faults.registry import Case, Kind, all_cases, play_all
from tests.faults.ward import Outcome

CASES = all_cases()
CURED = [case for case in CASES if case.kind is Kind.SUCCESS]
Wards = Callable[[Case, bool], Outcome]


def params(cases: list[Case], *, acts: bool) -> list[object]:
    """Those that share a daemon go to one worker."""
    together = pytest.mark.xdist_group(f"faults-{acts}")
    return [pytest.param(case, id=case.id, marks=together) for case in cases]


def possible(case: Case) -> None:
    """Skip what cannot be tried here; fail it where everything must be tried."""
    trouble = case.trouble()
    if trouble is None:
        return
    if os.environ.get("SELFHEAL_REQUIRE_ALL") == "1":
        pytest.fail(f"SELFHEAL_REQUIRE_ALL=1, but {trouble}", pytrace=False)
    pytest.skip(trouble)


@pytest.fixture(scope="module")
def wards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wards]:
    """How a case went in the daemon it shares."""
    known: dict[bool, dict[str, Outcome]] = {}
    folders: list[Path] = []

    def ask(case: Case, acts: bool) -> Outcome:
        if acts not in known:
            folder = tmp_path_factory.mktemp("wards")
            folders.append(folder)
            mine = [one for one in (CASES if acts else CURED) if one.trouble() is None]
            known[acts] = play_all(mine, folder, acts=acts)
            holds_no_password(folder / "ward-")
        return known[acts][case.id]

    yield ask
    for folder in folders:
        shutil.rmtree(folder)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", params([*CASES], acts=True))
def test_a_real_fault_ends_as_it_must(case: Case, wards: Wards) -> None:
    possible(case)
    end = wards(case, True).result()
    assert end.status in case.wanted, end
    if case.kind is Kind.SUCCESS:
        assert end.took_s is not None


@pytest.mark.timeout(400)
@pytest.mark.parametrize("case", params(CURED, acts=False))
def test_a_runbook_that_does_nothing_is_never_told_as_a_success(case: Case, wards: Wards) -> None:
    possible(case)
    end = wards(case, False).result()
    assert end.status != "succeeded", end


def _acts(runbook: Runbook) -> bool:
    return runbook.mode is not Mode.OBSERVE and any(
        one.call is not None and one.call.type is not CallType.NOTIFY for one in runbook.actions
    )


def test_every_shipped_runbook_that_acts_has_its_cases() -> None:
    """A cure, what follows where it does not help, and an alert much like it that starts nothing."""
    kinds = {(case.runbook, case.kind) for case in CASES}
    wanted = (Kind.SUCCESS, Kind.ROLLBACK, Kind.NO_MATCH)
    missing = [
        f"{one.id}: {kind.value}"
        for one in load_library([SHIPPED]).runbooks
        for kind in wanted
        if _acts(one) and (one.id, kind) not in kinds
    ]
    assert missing == []


def test_no_sick_service_blocks_its_own_cure() -> None:
    """``min_healthy`` counts the service that is to be mended too: alone, or one of two, it would never be."""
    assert [one.id for one in load_library([SHIPPED]).runbooks if one.limits.min_healthy is not None] == []
