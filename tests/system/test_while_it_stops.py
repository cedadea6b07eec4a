"""The real daemon and the command line while something of it is not there: its guardian link, or all of it soon."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from supervisors.cli.alerting import GUARDIAN_PATH
from supervisors.cli.app import run
from supervisors.tree_json import find
from tests.support.eventually import eventually
from tests.system.running import LINKS, daemon, write_config
from tests.system.test_notify import slow_to_stop

pytestmark = pytest.mark.timeout(180)


def test_every_command_knows_of_a_daemon_that_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    may_end, state = tmp_path / "may-end", tmp_path / "state"
    with daemon(write_config(tmp_path, {"slow": slow_to_stop(may_end)}, links=LINKS), state) as selfheal:
        late = selfheal.call("stop", "--timeout", "2s")
        assert late.returncode == 5, late
        for words in (("tree",), ("services", "status"), ("alert", "send", "--type", "x", "--timeout", "1s")):
            seen = selfheal.call(*words)
            assert seen.returncode == 4
            assert f"the daemon (pid {selfheal.process.pid})" in seen.stderr
            assert "is stopping" in seen.stderr
        ending = threading.Timer(1.0, may_end.touch)
        ending.start()
        assert run(["stop", "--state", str(state)]) == 0, "a second one waits"
        assert capsys.readouterr().out == "stopped\n"
        ending.join()
        assert selfheal.process.wait(0) == 0


def test_a_link_that_is_down_is_not_blamed_on_the_daemon(tmp_path: Path) -> None:
    state, config = tmp_path / "state", write_config(tmp_path, {"web": {"command": ["sleep", "1000"]}}, links=LINKS)
    with daemon(config, state) as first:
        first.stop()
    (state / "keys" / "clients.json").write_text("{broken")
    with daemon(config, state) as selfheal:
        eventually(lambda: "clients.json" in str(find(selfheal.get("/v1/tree")["root"], GUARDIAN_PATH)), within_s=30)
        for words in (("alert", "send", "--type", "x", "--timeout", "4s"), ("events",)):
            seen = selfheal.call(*words)
            assert seen.returncode == 4, seen
            assert "its guardian link is not well" in seen.stderr
            assert "clients.json" in seen.stderr


def test_ready_is_json_when_that_is_asked_for(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"late": slow_to_be_ready()}, links=LINKS)
    with daemon(config, tmp_path / "state", wait=False, words=["--json"]) as selfheal:
        assert selfheal.process.stdout is not None
        told = json.loads(selfheal.process.stdout.readline())
        address = selfheal.get("/v1/tree") and (tmp_path / "state" / "operator.address").read_text().strip()
        assert told == {"schema": 1, "ready": True, "address": address, "not_yet_ready": ["late"]}
        nowhere = selfheal.call("plan", "--config", str(tmp_path / "nope.yaml"))
        assert (nowhere.returncode, nowhere.stderr) == (2, f"selfheal: {tmp_path}/nope.yaml: there is no such file\n")
        assert selfheal.call("apply", "--config", str(tmp_path / "nope.yaml")).returncode == 2


def slow_to_be_ready() -> dict[str, object]:
    return {"command": ["sleep", "1000"], "health_check": {"exec": ["false"], "start_period": "60s"}}
