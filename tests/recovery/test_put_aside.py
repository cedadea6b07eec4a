"""Runs that put files aside: what becomes of the run when what it put aside is lost, and who still wants it back."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from guardian_link import Alert, GuardianClient
from runbooks.model import Status
from supervisors.action_ports import ActionsPlan
from supervisors.recovery import RecoveryPlan
from tests.recovery.place import World, recovering
from tests.runbooks.files import GOOD
from tests.support.eventually import eventually


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    for number in range(3):
        file = tmp_path / "logs" / f"{number}.log"
        file.write_bytes(b"x" * 1000)
        os.utime(file, (1, 1))
    return tmp_path / "logs"


def plan_of(folder: Path, logs: Path, **actions: Any) -> RecoveryPlan:
    """With a runbook that puts the logs aside and fails after it."""
    root = str(logs)
    runbook = copy.deepcopy(GOOD) | {"id": "put_aside", "match": {**GOOD["match"], "value": "put_aside"}}
    runbook["actions"] = [
        {
            "id": "logs",
            "name": "Logs aside",
            "action_type": "resource_cleanup",
            "effect": "mutating",
            "parameters": {"root": root, "patterns": ["*.log"]},
            "probe": {"call": {"type": "cleanup_done", "with": {"root": root}}},
            "verify": {"call": {"type": "cleanup_done", "with": {"root": root}}},
            "rollback": {
                "call": {"type": "cleanup_restore", "with": {"root": root}},
                "verify": {"call": {"type": "cleanup_restored", "with": {"root": root}}},
            },
        },
        *runbook["actions"],
    ]
    (folder / "runbooks").mkdir()
    (folder / "runbooks" / "put_aside.json").write_text(json.dumps(runbook), encoding="utf-8")
    state, link = folder / "state", "tcp://127.0.0.1:0"
    allowed = ActionsPlan(cleanup_roots=(logs,), **actions)
    return RecoveryPlan(state, True, 5, (folder / "runbooks",), link, link, warm_up_s=0.0, actions=allowed)


def held_up() -> World:
    """The run's second step hangs there and fails when it is let go."""
    world = World(refused={"a"})
    world.gate.clear()
    return world


def test_a_run_whose_files_are_lost_is_not_rolled_back(tmp_path: Path, logs: Path) -> None:
    world = held_up()
    plan = plan_of(tmp_path, logs)
    with recovering(plan.state_dir, world, plan=plan) as place, GuardianClient(place.address) as guardian:
        run = guardian.send(Alert(type="put_aside", service="a", message="full")).execution_id
        assert run is not None
        eventually(lambda: "a" in world.restarts, within_s=20)
        shutil.rmtree(plan.state_dir / "quarantine" / run)
        world.gate.set()
        ended = guardian.wait(run, timeout_s=40)
        assert ended.status == Status.ROLLBACK_FAILED.value, ended
        assert "0.log is at neither place" in ended.detail
        assert [latch["target"] for latch in place.recovery.held.latches()] == ["service:a"]
        assert list(logs.iterdir()) == []


def test_what_a_run_under_way_put_aside_is_kept_and_comes_back(tmp_path: Path, logs: Path) -> None:
    """Another run's move throws away what is old, of runs that have ended."""
    world, plan = held_up(), plan_of(tmp_path, logs, keep_s=1.0)
    base = plan.state_dir / "quarantine"
    with recovering(plan.state_dir, world, plan=plan) as place, GuardianClient(place.address) as guardian:
        run = guardian.send(Alert(type="put_aside", service="a", message="full")).execution_id
        assert run is not None
        eventually(lambda: "a" in world.restarts, within_s=20)
        shutil.copytree(base / run, base / "x-ended")
        for kept in base.glob("*/*/kept.json"):
            kept.write_text(json.dumps({**json.loads(kept.read_bytes()), "kept_s": 1e9}), encoding="ascii")
        (logs / "new.log").write_bytes(b"new")
        guardian.send(Alert(type="put_aside", service="b", message="full"))
        eventually(lambda: "b" in world.restarts, within_s=20)
        assert not (base / "x-ended").exists()
        world.gate.set()
        ended = guardian.wait(run, timeout_s=40)
        assert ended.status == Status.ROLLED_BACK.value, ended
        assert {"0.log", "1.log", "2.log"} <= {one.name for one in logs.iterdir()}
