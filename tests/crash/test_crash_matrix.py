"""The crash matrix in CI: every place in its quickest scenario, alone and both at once, and a sample of second deaths.

The whole of it is ``make crash-matrix``; a longer storm ``benchmarks/kill_storm.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.matrix import BadChoice, check_routes, single_rows
from tests.crash.scenarios import ROUTES
from tests.crash.storm import Storm, table
from tests.crash.world import World
from tests.support.docker_engine import require_engine
from tests.support.tables import TABLE

Record = Callable[[str, object], None]
PAIRS = 24
JOBS = 2
"""Other tests run beside it, and some of them look at the clock."""
SEED = int(os.environ.get("SELFHEAL_CRASH_SEED", "1"))


def test_every_place_is_on_a_route() -> None:
    check_routes()


def test_a_place_without_a_route_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ROUTES, "keeper.told")
    with pytest.raises(BadChoice, match=r"keeper\.told"):
        single_rows("*", is_quick=True, has_docker=True)


@pytest.mark.timeout(1800)
def test_the_daemon_and_its_keeper_may_die_at_every_place(record_property: Record) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.crash",
            "--quick",
            "--pairs",
            str(PAIRS),
            "--seed",
            str(SEED),
            "--jobs",
            str(JOBS),
        ],
        cwd=Path(__file__).resolve().parents[2],
        check=False,
        capture_output=True,
        text=True,
    )
    record_property(TABLE, done.stdout + done.stderr)
    assert done.returncode == 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("processes", "containers"), [(6, 0), pytest.param(6, 2, marks=pytest.mark.docker)], ids=["plain", "mixed"]
)
def test_a_storm_of_kills_leaves_one_of_each(processes: int, containers: int, record_property: Record) -> None:
    if containers:
        require_engine()
    with World(is_warm=False) as world:
        waves = Storm(world, processes, containers, SEED).run(6 if containers else 3)
        twins = world.witnesses.twins()
    record_property(TABLE, "\n".join(table(waves)))
    assert twins == {}
    assert [wave for wave in waves if not wave.is_right] == []
