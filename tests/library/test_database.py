"""The runbooks for databases with the real daemon, real PostgreSQL and Redis, and real faults."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.cases_database import CASES, waiting
from tests.faults.database_stage import SERVICE, postgres_stage, redis_stage
from tests.faults.registry import Case

LOOKED_INTO = ("postgresql_locked", "redis_lock_left")


def possible(case: Case) -> None:
    if (trouble := case.trouble()) is not None:
        pytest.skip(trouble)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("case", [one for one in CASES if one.name in LOOKED_INTO], ids=lambda case: case.id)
def test_no_password_is_left_behind(case: Case, tmp_path: Path) -> None:
    """All cases by their ends: ``test_faults``."""
    possible(case)
    ended = case.run(tmp_path, acts=True)
    assert ended.status in case.wanted, ended


@pytest.mark.timeout(120)
def test_what_a_person_stopped_stays_stopped(tmp_path: Path) -> None:
    with redis_stage(tmp_path) as stage:
        assert stage.running.call("services", "stop", SERVICE).returncode == 0
        ended = stage.alert()
        assert ended.status == "failed", ended
        assert "stopped_by_hand" in ended.detail
        assert stage.service()["state"] == "stopped"


@pytest.mark.timeout(120)
def test_one_that_runs_and_cannot_be_looked_into_is_not_restarted(tmp_path: Path) -> None:
    with redis_stage(tmp_path, seen=False) as stage:
        ended = stage.alert()
        assert ended.status == "failed", ended
        assert "runbooks.databases" in ended.detail
        assert stage.service()["incarnation"] == 1


@pytest.mark.timeout(120)
def test_one_that_is_down_is_restarted_without_being_looked_into(tmp_path: Path) -> None:
    with redis_stage(tmp_path, seen=False) as stage:
        os.kill(stage.running.pid(SERVICE), signal.SIGKILL)
        assert stage.alert().status == "succeeded"
        stage.rig.connect().close()


@pytest.mark.timeout(120)
def test_who_is_not_let_in_restarts_nothing(tmp_path: Path) -> None:
    with postgres_stage(tmp_path, user="nobody_of_this_name") as stage:
        ended = stage.alert()
        assert ended.status == "failed", ended
        assert "nobody_of_this_name" in ended.detail
        assert stage.service()["incarnation"] == 1


@pytest.mark.timeout(120)
def test_a_superuser_that_blocks_is_left_to_people(tmp_path: Path) -> None:
    ends: list[Exception | None] = []
    with postgres_stage(tmp_path) as stage, waiting(stage.rig, ends, holder="postgres"):
        ended = stage.alert("database_locked", blocked_s=1)
        assert ended.status == "failed", ended
        assert "unblock" in ended.detail
        assert ends == []
        assert stage.service()["incarnation"] == 1
