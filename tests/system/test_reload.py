"""The file is edited under the real daemon: plan, apply, SIGHUP, scale; what is not named is not touched."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.support.eventually import eventually
from tests.system.running import SLEEPER, Running, daemon, free_port, of_state, web_service, write_config

LONG_S = 30.0


def actions(shown: dict[str, Any]) -> dict[str, str]:
    return {one["node"]: one["action"] for one in shown["nodes"] if one["action"] != "unchanged"}


def facts(selfheal: Running, *names: str) -> dict[str, tuple[Any, ...]]:
    """What an edit that does not name a service must not change of it."""
    services = selfheal.services()
    return {name: tuple(services[name].get(key) for key in ("pid", "incarnation", "ready_since")) for name in names}


def test_each_edit_does_what_its_plan_says_and_no_more(tmp_path: Path) -> None:
    state, port = tmp_path / "state", free_port()
    services = {"a": SLEEPER, "web": web_service(port), "gone": SLEEPER}
    config = write_config(tmp_path, services)
    with daemon(config, state) as selfheal:
        before = selfheal.until_ready(within_s=LONG_S)
        kept = facts(selfheal, "a", "web")

        policy = {"a": SLEEPER | {"max_restarts": 2}, "web": web_service(port, restart_policy="on_failure")}
        write_config(tmp_path, policy | {"gone": SLEEPER})
        assert actions(selfheal.json("plan")) == {"a": "update_in_place", "web": "update_in_place"}
        assert "max_restarts: 5 -> 2" in selfheal.call("plan").stdout
        assert selfheal.call("apply").returncode == 0
        assert facts(selfheal, "a", "web") == kept, "an edit of policy restarts nothing and proves nothing anew"

        changed = {"command": ["sleep", "1001"]}
        write_config(tmp_path, policy | {"a": changed, "new": SLEEPER, "other": SLEEPER})
        applied = selfheal.json("apply")
        assert actions(applied) == {"a": "restart", "new": "create", "other": "create", "gone": "remove"}
        assert applied["ok"]
        after = selfheal.until_ready("a", "web", "new", "other", within_s=LONG_S)
        assert after["a"]["pid"] != before["a"]["pid"]
        assert facts(selfheal, "web") == {"web": kept["web"]}
        assert "gone" not in after
        assert sorted(one.pid for one in of_state(state)) == sorted(one["pid"] for one in after.values())

        (tmp_path / "selfheal.yaml").write_text("services:\n  a: {command: 5}\n  b: {restart_policy: x}\n")
        for command in ("plan", "apply"):
            refused = selfheal.call(command)
            assert refused.returncode == 2
            assert "selfheal.yaml:2: services.a.command" in refused.stderr
            assert "selfheal.yaml:3: services.b.restart_policy" in refused.stderr
        assert selfheal.pids() == {name: one["pid"] for name, one in after.items()}
        write_config(tmp_path, policy | {"a": changed, "new": SLEEPER, "other": SLEEPER})
        assert selfheal.json("plan")["empty"]


def test_an_edited_policy_rules_the_next_crash(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER})
    with daemon(config, tmp_path / "state") as selfheal:
        selfheal.until_ready(within_s=LONG_S)
        write_config(tmp_path, {"a": SLEEPER | {"restart_policy": "never"}, "b": SLEEPER})
        assert selfheal.call("apply").returncode == 0
        pids = selfheal.pids()
        for name in ("a", "b"):
            os.kill(pids[name] or 0, signal.SIGKILL)
        selfheal.until_ready("b", within_s=LONG_S)
        eventually(lambda: selfheal.services()["a"]["state"] == "failed", within_s=LONG_S)
        assert selfheal.services()["a"].get("pid") is None


def test_a_health_check_added_live_is_obeyed(tmp_path: Path) -> None:
    port = free_port()
    config = write_config(tmp_path, {"a": SLEEPER})
    with daemon(config, tmp_path / "state") as selfheal:
        pid = selfheal.until_ready(within_s=LONG_S)["a"]["pid"]
        check = {"tcp": f"127.0.0.1:{port}", "interval": "200ms", "retries": 2, "start_period": "0s"}
        write_config(tmp_path, {"a": SLEEPER | {"health_check": check}})
        assert actions(selfheal.json("apply")) == {"a": "update_in_place"}
        eventually(lambda: selfheal.services()["a"].get("pid") not in (None, pid), within_s=LONG_S)
        assert "unhealthy" in json.dumps(selfheal.json("why", "a"))


def test_sighup_without_a_terminal_reads_the_file_again(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER})
    with daemon(config, tmp_path / "state") as selfheal:
        pid = selfheal.until_ready(within_s=LONG_S)["a"]["pid"]
        (tmp_path / "selfheal.yaml").write_text("services: {a: {command: 5}}\n")
        selfheal.process.send_signal(signal.SIGHUP)
        eventually(lambda: "services.a.command" in selfheal.log.read_text(), within_s=LONG_S)
        assert selfheal.pid("a") == pid
        write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER})
        selfheal.process.send_signal(signal.SIGHUP)
        eventually(lambda: selfheal.services().get("b", {}).get("state") == "ready", within_s=LONG_S)
        assert selfheal.pid("a") == pid
        assert selfheal.process.poll() is None


def test_a_scale_is_remembered_over_a_killed_daemon(tmp_path: Path) -> None:
    state = tmp_path / "state"
    script = "import os, time; print(os.environ['SELFHEAL_REPLICA'], flush=True); time.sleep(1000)"
    config = write_config(tmp_path, {"a": SLEEPER, "w": {"command": [sys.executable, "-c", script]}})
    with daemon(config, state) as selfheal:
        one = selfheal.until_ready(within_s=LONG_S)["w"]["pid"]
        done = selfheal.call("services", "scale", "w", "3", "--why", "load")
        assert done.returncode == 0, done.stderr
        before = selfheal.until_ready("w", "w.2", "w.3", within_s=LONG_S)
        assert before["w"]["pid"] == one
        assert before["w"]["replicas"] == 3
        assert before["w"]["scaled"]["why"] == "load"
        eventually(lambda: selfheal.call("logs", "w.3").stdout.strip() == "3", within_s=LONG_S)
        assert "scaled to 3 by cli:" in selfheal.call("tree").stdout
        selfheal.process.kill()
        selfheal.process.wait()
        with daemon(config, state) as second:
            second.until_ready("a", "w", "w.2", "w.3", within_s=LONG_S)
            assert second.pids() == {name: service["pid"] for name, service in before.items()}
            stopped = second.json("services", "stop", "w")
            assert stopped["services"][0]["name"] == "w"
            assert {name for name, pid in second.pids().items() if pid is None} == {"w", "w.2", "w.3"}
            second.call("services", "start", "w.2")
            assert {name for name, pid in second.pids().items() if pid is None} == {"w", "w.3"}
            assert second.call("services", "scale", "w", "0").returncode == 0
            assert second.pids() == {"a": before["a"]["pid"], "w": None}
            assert second.call("tree").returncode == 0, "scaled to nothing is not bad"
            refused = second.call("services", "start", "w")
            assert (refused.returncode, "scaled to 0" in refused.stderr) == (1, True)


def test_a_file_of_somebody_else_is_not_applied(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER})
    other = tmp_path / "other"
    other.mkdir()
    with daemon(config, tmp_path / "state") as selfheal:
        selfheal.until_ready(within_s=LONG_S)
        theirs = write_config(other, {"a": SLEEPER, "b": SLEEPER})
        theirs.chmod(0o666)
        refused = selfheal.call("apply", "--config", str(theirs))
        assert (refused.returncode, "writable by nobody else" in refused.stderr) == (1, True)
        theirs.chmod(0o644)
        assert selfheal.call("apply", "--config", str(theirs)).returncode == 0
        assert set(selfheal.services()) == {"a", "b"}
