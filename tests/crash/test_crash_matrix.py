"""The crash matrix in CI: every place once in its quickest scenario, who dies is dealt, and a sample of second deaths.

The whole of it is ``make crash-matrix``; a longer storm ``benchmarks/kill_storm.py``.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash import witness
from tests.crash.matrix import BadChoice, check_routes, single_rows
from tests.crash.scenarios import ROUTES
from tests.crash.storm import Storm, table
from tests.crash.world import World
from tests.support.docker_engine import engine_client, require_engine
from tests.support.eventually import eventually
from tests.support.tables import TABLE

Record = Callable[[str, object], None]
PAIRS = 8
JOBS = 4
"""Other tests run beside it, and some of them look at the clock."""
SEED = int(os.environ.get("SELFHEAL_CRASH_SEED", "1"))


def test_every_place_is_on_a_route() -> None:
    check_routes()


def test_a_place_without_a_route_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ROUTES, "keeper.told")
    with pytest.raises(BadChoice, match=r"keeper\.told"):
        single_rows("*", is_quick=True, has_docker=True)


@pytest.mark.docker
@pytest.mark.xdist_group("the first port")
@pytest.mark.parametrize("count", [1, 2])
def test_a_container_bears_witness_of_a_twin_and_of_no_stranger(tmp_path: Path, count: int) -> None:
    """A stranger may have any port that the kernel gives out, and the very same at another address."""
    require_engine()
    first_given_out = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0]
    assert int(first_given_out) > witness.FIRST_PORT + 1000
    seen, box = witness.Witnesses(tmp_path), witness.container(tmp_path, "box")
    facts = {"command": box["command"], "network_mode": box["network"], "volumes": box["volumes"], "init": True}
    with ExitStack() as stack:
        stranger = stack.enter_context(socket.socket())
        stranger.bind(("127.0.0.1", witness.FIRST_PORT))
        stranger.listen()
        engine = engine_client()
        stack.callback(engine.close)
        for _ in range(count):
            container = engine.containers.run(box["image"], name=f"twin-{uuid.uuid4().hex[:8]}", detach=True, **facts)
            stack.callback(container.remove, force=True)
            eventually(lambda: _listens(witness.own_address(), witness.FIRST_PORT), within_s=30)
        eventually(lambda: seen.births("box") == count, within_s=30)
        if count == 1:
            container.reload()
            assert (container.status, seen.twins()) == ("running", {})
        else:
            assert eventually(seen.twins, within_s=30) == {"box": 1}


def _listens(address: str, port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex((address, port)) == 0


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
