"""The real Alertmanager, configured as the shipped example says (with shorter times), and the real daemon.

Alertmanager runs first and is told of the platform's nine alerts while no daemon is there. Then the daemon is started.
"""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.alertmanager.test_words import NINE
from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, Running, daemon, free_port, write_config

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "alertmanager" / "alertmanager.yml"
TOKEN = "a-token-of-this-test"
ELSEWHERE = {"HighCPUUsage": "busy", "HighMemoryUsage": "big"}
"""Services of their own: only one run at a time works on a service, and waits there until its alert has ended."""


def labels_of(name: str) -> dict[str, str]:
    return {"alertname": name, "service": ELSEWHERE.get(name, "web"), "severity": "critical"}


@dataclass
class Alertmanager:
    api: httpx.Client

    def fire(self, **labels: str) -> None:
        self._post([{"labels": labels, "annotations": {"summary": f"{labels['alertname']} fires"}}])

    def resolve(self, **labels: str) -> None:
        self._post([{"labels": labels, "endsAt": datetime.now(UTC).isoformat()}])

    def failures(self) -> float:
        """Attempts to notify that failed."""
        lines = self.api.get("/metrics").text.splitlines()
        name = 'alertmanager_notification_requests_failed_total{integration="webhook"}'
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)

    def _post(self, alerts: list[dict[str, Any]]) -> None:
        assert self.api.post("/api/v2/alerts", json=alerts).status_code == 200


@dataclass
class Both:
    alertmanager: Alertmanager
    daemon: Running

    def alerts(self, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.daemon.get("/v1/alerts?limit=1000")["alerts"]
        return [one for one in found if wanted(one)]

    def until(
        self, wanted: Callable[[dict[str, Any]], bool], holds: Callable[[dict[str, Any]], bool], count: int = 1
    ) -> list[dict[str, Any]]:
        """The alerts wanted, once there are so many and each is as it should be."""

        def look() -> list[dict[str, Any]] | None:
            found = self.alerts(wanted)
            return found if len(found) >= count and all(holds(one) for one in found) else None

        return eventually(look, within_s=40)

    def until_succeeded(self, execution_id: str) -> None:
        def status() -> bool:
            (execution,) = self.daemon.get(f"/v1/executions/{execution_id}")["executions"]
            return bool(execution["status"] == "succeeded")

        eventually(status, within_s=40)


def is_decided(alert: dict[str, Any]) -> bool:
    return bool(alert["outcome"] != "undecided")


def is_closed(alert: dict[str, Any]) -> bool:
    return "resolved_at" in alert


def configuration(operator_port: int) -> dict[str, Any]:
    """The example, at another address and with shorter times. Equal repeats come every second."""
    made: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    made["route"] |= {"group_wait": "100ms", "group_interval": "500ms", "repeat_interval": "1s"}
    (webhook,) = made["receivers"][0]["webhook_configs"]
    webhook["url"] = webhook["url"].replace(":8090", f":{operator_port}")
    return made


@contextmanager
def alertmanager(folder: Path, operator_port: int) -> Iterator[Alertmanager]:
    port = free_port()
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(configuration(operator_port)), encoding="utf-8")
    (folder / "selfheal.token").write_text(TOKEN, encoding="ascii")
    words = [
        f"--config.file={file}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    log = folder / "alertmanager.log"
    with log.open("wb") as out:
        process = subprocess.Popen(["prometheus-alertmanager", *words], stdout=out, stderr=out)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as api:

            def is_ready() -> bool:
                assert process.poll() is None, log.read_text()[-2000:]
                try:
                    return api.get("/-/ready").status_code == 200
                except httpx.TransportError:
                    return False

            eventually(is_ready, within_s=30)
            yield Alertmanager(api)
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    if shutil.which("prometheus-alertmanager") is None:
        pytest.skip("needs Alertmanager: apt-get install prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("alertmanager")
    port = free_port()
    token = folder / "daemon.token"
    token.write_text(f"{TOKEN}\n", encoding="ascii")
    token.chmod(0o600)
    links = {
        "guardian": {"address": None},
        "bridge": {"address": None},
        "operator": {"address": f"127.0.0.1:{port}"},
        "alertmanager": {"token_file": "daemon.token", "types": {"QueueFull": "queue_is_full"}},
    }
    config = write_config(folder, dict.fromkeys(("web", "risk-manager", *ELSEWHERE.values()), SLEEPER), links=links)
    with alertmanager(folder, port) as one:
        for name in NINE:
            one.fire(**labels_of(name))
        eventually(lambda: one.failures() >= len(NINE), within_s=30)
        with daemon(config, folder / "state") as running:
            yield Both(one, running)


def test_nothing_that_fired_while_no_daemon_was_there_is_lost(both: Both) -> None:
    """All nine of the platform's names, each with its type and service."""
    found = both.until(lambda one: one["message"].removesuffix(" fires") in NINE, is_decided, count=len(NINE))
    by_name = {one["message"].removesuffix(" fires"): one for one in found}
    expected = {name: (kind, ELSEWHERE.get(name, service)) for name, (kind, service) in NINE.items()}
    assert {name: (one["type"], one["service"]) for name, one in by_name.items()} == expected
    assert {(one["severity"], one["source"]) for one in found} == {("critical", "alertmanager")}
    outcomes = {one["type"]: one["outcome"] for one in found if one["type"] in ("service_down", "service_failure")}
    assert set(outcomes.values()) <= {"run", "queued"}, outcomes
    for name in ("ServiceDown", "RiskManagerUnresponsive"):  # a restart alone is no success: the alert must end
        both.alertmanager.resolve(**labels_of(name))
        both.until_succeeded(by_name[name]["execution_id"])
    assert both.daemon.services()["risk-manager"]["incarnation"] == 2


def test_its_repeats_are_one_alert_and_its_end_closes_the_loop(both: Both) -> None:
    labels = {"alertname": "QueueFull", "queue": uuid.uuid4().hex, "instance": "web:9100"}

    def is_mine(alert: dict[str, Any]) -> bool:
        return bool(alert["type"] == "queue_is_full")

    both.alertmanager.fire(**labels)
    (first,) = both.until(is_mine, is_decided)
    assert (first["service"], first["outcome"]) == ("web", "no_match")
    holds_for(lambda: len(both.alerts(is_mine)) == 1, 2.5, every_s=0.1)  # it was told again twice by now
    both.alertmanager.resolve(**labels)
    (closed,) = both.until(is_mine, is_closed)
    assert closed["id"] == first["id"]
    assert closed in both.daemon.json("alerts", "--limit", "1000")["alerts"]
    assert "no_match, resolved" in both.daemon.call("alerts").stdout
    both.alertmanager.fire(**labels)
    both.until(is_mine, is_decided, count=2)


@pytest.mark.skipif(shutil.which("amtool") is None, reason="needs amtool: apt-get install prometheus-alertmanager")
def test_the_shipped_example_is_sound() -> None:
    done = subprocess.run(["amtool", "check-config", str(EXAMPLE)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
