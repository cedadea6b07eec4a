"""Every example runs as its first lines say."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message
from tests.links.scripted_daemon import daemon, obliging
from tests.support.eventually import eventually
from tests.system.running import free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], check=False, capture_output=True, text=True, timeout=60
    )


def test_supervised_actors() -> None:
    done = run("supervised_actors.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "prices running, signals running, report running",
        "signals counted 2",
        "prices running, signals running",
        "ended: shutdown",
    ]


def test_guardian_agent() -> None:
    with daemon() as (scripted, address):
        done = run("guardian_agent.py", address)
    assert done.returncode == 0, done.stderr
    assert "Recovery started: x-1" in done.stdout
    assert scripted.seen[0].body["service"] == "risk-manager"
    assert "HIGH: run" in done.stdout
    assert "people were told: network_connectivity of transport-router, low" in done.stdout
    assert scripted.seen[-1].body["type"] == "network_connectivity"


def test_bridge_simulator(tmp_path: Path) -> None:
    with daemon() as (scripted, address):
        words = ("--simulate-errors", "--accept-only", "--count", "60", "--folder", str(tmp_path), "--address", address)
        done = run("bridge_simulator.py", *words)
    assert done.returncode == 0, done.stderr
    assert "60 accepted, 0 lost" in done.stdout
    assert [line.split()[:4] for line in done.stdout.splitlines()[1:5]] == [
        [system, number, number, number]
        for system, number in (("config_sync", "10"), ("mql4", "20"), ("powershell", "10"), ("python", "20"))
    ]
    sent = [message.body for message in scripted.seen if "system" in message.body]
    assert sorted(body["number"] for body in sent) == list(range(60))


def test_bridge_simulator_says_what_was_not_accepted_and_what_is_not_on_disk() -> None:
    def forgetful(incoming: Incoming, times: int) -> list[Message]:
        if incoming.message.body.get("ask") == "alert":
            return [Message(Kind.ANSWER, incoming.message.id, {"ok": True, "result": None})]
        return obliging(incoming, times)

    for script, reason in ((lambda *_: [], "no decision"), (forgetful, "6 lost: the daemon has no alert of its id")):
        with daemon(script) as (_, address):
            words = ("--simulate-errors", "--accept-only", "--timeout-s", "0.5", "--address", address)
            done = run("bridge_simulator.py", *words)
        assert done.returncode == 1
        assert "0 accepted, 6 lost" in done.stdout
        assert reason in done.stderr


def test_healthz_service() -> None:
    port = free_port()
    service = subprocess.Popen([sys.executable, str(EXAMPLES / "healthz_service.py"), "--port", str(port)])

    def healthz() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                return answer.status, json.load(answer)["status"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)["status"]
        except OSError:
            return 0, ""

    def break_it(name: str) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/break/{name}", data=b"", timeout=5).close()

    try:
        eventually(lambda: healthz() == (200, "healthy"), within_s=30)
        break_it("queue")
        assert healthz() == (200, "degraded")
        break_it("database")
        assert healthz() == (503, "unhealthy")
    finally:
        service.terminate()
        service.wait(20)
