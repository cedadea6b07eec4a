"""What people and other programs touch, against the real daemon: alerts, the HTTP routes, the seed's own class."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.eventually import eventually
from tests.system.running import LINKS, SLEEPER, Running, daemon, free_port, web_service, write_config


def http(selfheal: Running, method: str, path: str) -> tuple[int, Any]:
    address = selfheal.ready_line.split()[1]
    request = urllib.request.Request(address + path, method=method, data=b"" if method == "POST" else None)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_an_alert_is_on_disk_matched_and_really_restarts_its_service(tmp_path: Path) -> None:
    with daemon(write_config(tmp_path, {"risk-manager": web_service(free_port())}), tmp_path / "state") as selfheal:
        before = selfheal.until_ready()["risk-manager"]
        sent = selfheal.call(
            "alert", "send", "--type", "service_failure", "--service", "risk-manager", "--message", "silent", "--wait"
        )
        assert sent.returncode == 0, sent.stderr
        accepted, recovered = sent.stdout.splitlines()
        word, alert_id, also, execution_id = accepted.split()
        assert (word, also) == ("accepted", "execution")
        assert recovered == f"recovered {execution_id}"
        after = selfheal.until_ready()["risk-manager"]
        assert after["pid"] != before["pid"]
        (execution,) = selfheal.json("executions")["executions"]
        assert (execution["id"], execution["alert_id"], execution["status"]) == (execution_id, alert_id, "succeeded")
        assert [step["status"] for step in execution["steps"]] == ["succeeded"]
        (alert,) = selfheal.json("alerts")["alerts"]
        assert (alert["id"], alert["outcome"], alert["message"]) == (alert_id, "run", "silent")
        assert "restart by runbook" in selfheal.call("why", "risk-manager").stdout


def test_nothing_recovered_is_exit_3_and_a_failed_recovery_exit_1(tmp_path: Path) -> None:
    with daemon(write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state") as selfheal:
        no_match = selfheal.call("alert", "send", "--type", "margin_call_recovery", "--wait")
        assert (no_match.returncode, no_match.stdout.split()[0]) == (3, "no_match")
        assert selfheal.call("recovery", "off").returncode == 0
        off = selfheal.call("alert", "send", "--type", "service_failure", "--service", "a", "--wait")
        assert (off.returncode, off.stdout.split()[0]) == (3, "recovery_off")
        assert selfheal.call("recovery", "on").returncode == 0
        unknown = selfheal.call("alert", "send", "--type", "service_failure", "--service", "nobody", "--wait")
        assert unknown.returncode == 1


AGENT = """
import asyncio, json, sys
from guardian_link import AutomatedRecoverySystem

class RiskAgent:
    def __init__(self):
        self.recovery_system = AutomatedRecoverySystem()

    async def handle_alert(self, alert):
        return await self.recovery_system.execute_recovery(alert["error_id"], alert)

agent = RiskAgent()
known = {"error_id": "risk_silent", "error_message": "silent", "system": "service", "service_name": "a"}
execution_id = asyncio.run(agent.handle_alert(known))
other = asyncio.run(agent.handle_alert({"error_id": "x", "system": "python", "error_message": "?"}))
status = agent.recovery_system.get_execution_status(execution_id)
print(json.dumps([execution_id, other, status, agent.recovery_system.get_recovery_statistics()]))
"""


def test_the_seeds_own_class_from_another_process_without_an_address(tmp_path: Path) -> None:
    """It finds the daemon by $SELFHEAL_STATE."""
    with daemon(write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state") as selfheal:
        selfheal.until_ready()
        done = subprocess.run(
            [sys.executable, "-c", AGENT], check=True, capture_output=True, text=True, env=selfheal.environ, timeout=60
        )
        execution_id, other, status, statistics = json.loads(done.stdout)
        assert execution_id.startswith("x-")
        assert other is None
        assert status["id"] == execution_id
        assert set(statistics) >= {
            "total_runbooks",
            "total_executions",
            "success_rate",
            "active_executions",
            "auto_execution_enabled",
        }
        eventually(lambda: selfheal.json("executions")["executions"][0]["status"] == "succeeded", within_s=20)


def test_the_plans_routes(tmp_path: Path) -> None:
    with daemon(write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER}), tmp_path / "state") as selfheal:
        before = selfheal.until_ready()
        assert http(selfheal, "GET", "/healthz")[1]["status"] == "healthy"
        code, status = http(selfheal, "GET", "/services/status")
        assert (code, [one["name"] for one in status["services"]]) == (200, ["a", "b"])
        assert http(selfheal, "POST", "/services/a/restart")[0] == 200
        assert selfheal.pid("a") != before["a"]["pid"]
        assert selfheal.pid("b") == before["b"]["pid"]
        assert http(selfheal, "POST", "/services/a/stop")[1]["service"]["state"] == "stopped"
        assert http(selfheal, "GET", "/services/status")[1]["services"][0]["wanted"] is False
        assert http(selfheal, "POST", "/services/start-all")[0] == 200
        assert {one["state"] for one in selfheal.services().values()} == {"ready"}
        assert http(selfheal, "POST", "/services/c/start")[0] == 404
        assert "/services/{name}/restart" in http(selfheal, "GET", "/openapi.json")[1]["paths"]


def test_a_bridge_endpoints_error_becomes_an_alert(tmp_path: Path) -> None:
    peer_port = free_port()
    script = (
        "import json,signal,socket\n"
        f"s=socket.create_server(('127.0.0.1',{peer_port}))\n"
        "c,_=s.accept()\n"
        'c.sendall(b\'{"kind":"heartbeat"}\\n\')\n'
        "e={'kind':'error','error_type':'MQL4Error','error_code':4051,'error_message':'Invalid parameter'}\n"
        "c.sendall(json.dumps(e).encode()+b'\\n')\n"
        "signal.pause()\n"
    )
    bridges = {"mql4": {"kind": "tcp", "address": f"127.0.0.1:{peer_port}", "silence": "20s"}}
    services = {"peer": {"command": [sys.executable, "-c", script]}}
    with daemon(write_config(tmp_path, services, bridges=bridges), tmp_path / "state") as selfheal:

        def decided() -> dict[str, Any] | None:
            return next((one for one in selfheal.json("alerts")["alerts"] if one.get("outcome")), None)

        alert = eventually(decided, within_s=20)
        assert (alert["type"], alert["outcome"], alert["source"]) == ("bridge_mql4_failure", "run", "bridge:mql4")
        assert selfheal.call("wait", "mql4", "--for", "ready", "--timeout", "20s").returncode == 0


def test_alerts_and_their_executions_outlive_the_daemon(tmp_path: Path) -> None:
    config, state = write_config(tmp_path, {"a": SLEEPER}), tmp_path / "state"
    with daemon(config, state) as selfheal:
        selfheal.until_ready()
        selfheal.call("alert", "send", "--type", "service_failure", "--service", "a", "--wait")
        before = selfheal.json("executions")
        selfheal.process.kill()
        selfheal.process.wait()
        with daemon(config, state) as next_one:
            assert next_one.json("executions") == before


def test_one_bad_runbook_disables_only_itself(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "bad.json").write_text('{"schema_version": 2, "id": "bad", "matsch": {}}')
    config = write_config(tmp_path, {"a": SLEEPER}, runbooks={"directories": ["mine"]}, links=LINKS)
    with daemon(config, tmp_path / "state") as selfheal:
        selfheal.until_ready()
        assert "matsch" in selfheal.log.read_text()
        sent = selfheal.call("alert", "send", "--type", "service_failure", "--service", "a", "--wait")
        assert sent.returncode == 0
