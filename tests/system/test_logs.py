"""Logs under the real daemon: trouble stands on the log keeper's node, a deleted log is back, long lines are cut."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.system.running import Running, daemon, write_config

pytestmark = pytest.mark.timeout(120)

TALKER = """
from time import sleep
print("y" * 10_000_000, flush=True)
while True:
    print("tick", flush=True)
    sleep(0.02)
"""


def log_keeper(selfheal: Running) -> dict[str, Any]:
    (runtimes,) = [one for one in selfheal.get("/v1/tree")["root"]["children"] if one["name"] == "runtimes"]
    (found,) = [one for one in runtimes["children"] if one["name"] == "log-keeper"]
    node: dict[str, Any] = found
    return node


def test_the_trouble_of_a_log_is_shown_and_goes_and_a_deleted_log_is_back(tmp_path: Path) -> None:
    state = tmp_path / "state"
    services = {"talker": {"command": [sys.executable, "-c", TALKER], "log": {"max_size": "64KiB", "backups": 2}}}
    log = state / "logs" / "talker.log"
    blocked = log.with_name("talker.log.rotating")
    blocked.mkdir(parents=True)
    with daemon(write_config(tmp_path, services), state) as selfheal:
        selfheal.until_ready("talker")

        def shown() -> bool:
            node = log_keeper(selfheal)
            assert (node["state"], node.get("detail")) == ("degraded", f"cannot rotate log {log}: Is a directory")
            return True

        eventually(shown, within_s=30)
        lines = selfheal.json("logs", "talker")["lines"]
        assert lines[-1] == "tick"
        assert all(len(line) < 10_000 for line in lines)
        blocked.rmdir()
        eventually(lambda: log_keeper(selfheal)["state"] == "ready", within_s=30)
        eventually(log.with_name("talker.log.1").exists, within_s=30)
        log.unlink()
        eventually(lambda: log.exists() and log.read_text().endswith("tick\n"), within_s=30)
        assert selfheal.json("logs", "talker")["lines"][-1] == "tick"
