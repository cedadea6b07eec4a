"""Every example of docs/actions.md, run by the real daemon: once well, and once with a step after it that fails."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from guardian_link import Alert, GuardianClient
from tests.actions.web import Web, web
from tests.runbooks.files import GOOD
from tests.support.eventually import eventually
from tests.system.running import Running, daemon, write_config

DOCS = Path(__file__).resolve().parents[2] / "docs" / "actions.md"
CANARY = "canary-token-9d1c"
UNIT = "[Service]\nExecStart=/usr/bin/shop\nCPUQuota=50%  \n"
LONG_S = 60.0
pytestmark = pytest.mark.timeout(240)


BURNS = """
import os
kept = bytearray(os.urandom(40 * 2**20))
if os.fork() == 0:
    more = bytearray(os.urandom(40 * 2**20))
    while True:
        more[0] ^= 1
os.waitpid(-1, 0)
"""
"""A main process that waits; its child uses the CPU; both use memory."""
NOTHING = {"name": "Nothing", "action_type": "command", "effect": "idempotent", "command": ["true"]}
CHECKS: list[tuple[str, dict[str, Any]]] = [
    ("succeeded", {"type": "service_usage_below", "with": {"service": "worker", "cpu_percent": 20, "memory_mb": 40}}),
    (
        "does not hold: burner: cpu_percent",
        {"type": "service_usage_below", "with": {"service": "burner", "cpu_percent": 5}},
    ),
    (
        "does not hold: burner: memory_mb",
        {"type": "service_usage_below", "with": {"service": "burner", "memory_mb": 70}},
    ),
    ("succeeded", {"type": "service_usage_below", "with": {"service": "burner", "memory_mb": 200}}),
    ("succeeded", {"type": "service_scaled", "with": {"service": "burner", "replicas": 1}}),
    ("burner has 1 replicas, 2 wanted", {"type": "service_scaled", "with": {"service": "burner", "replicas": 2}}),
    ("service 'nobody' is not configured", {"type": "service_scaled", "with": {"service": "nobody", "replicas": 1}}),
    ("service 'nobody' does not run", {"type": "service_usage_below", "with": {"service": "nobody", "memory_mb": 1}}),
]
"""What is said, and what is asked while the burner burns."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def examples() -> list[dict[str, Any]]:
    return [json.loads(block) for block in blocks("json")]


def placed(text: str, folder: Path, base: str) -> str:
    return text.replace("/srv/", f"{folder}/srv/").replace("http://127.0.0.1:8000", base)


def runbook(number: int, action: dict[str, Any], *, fails: bool) -> dict[str, Any]:
    name = f"{'failing' if fails else 'well'}_{number}"
    last = {"id": "last", "name": "Fails", "action_type": "command", "effect": "idempotent", "command": ["false"]}
    return {
        **GOOD,
        "id": name,
        "match": {"field": "/type", "op": "eq", "value": name},
        "target": f"example:{name}",
        "actions": [action, *([last] if fails else ())],
        "success_criteria": [{"call": {"type": "service_exists", "with": {"service": "{service}"}}}],
    }


@dataclass
class Place:
    folder: Path
    running: Running
    guardian: GuardianClient
    web: Web

    def run(self, name: str) -> str:
        ack = self.guardian.send(Alert(type=name, service="worker"), timeout_s=LONG_S)
        assert ack.execution_id, ack
        outcome = self.guardian.wait(ack.execution_id, timeout_s=LONG_S)
        return f"{outcome.status}: {outcome.detail}"

    def world(self) -> dict[str, Any]:
        """What a rollback has to bring back."""
        files = {
            str(path): (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns if "log" in str(path) else 0)
            for path in (self.folder / "srv" / "shop").rglob("*")
            if path.is_file()
        }
        return {"files": files, "services": sorted(self.running.services())}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("documented")
    shop = folder / "srv" / "shop"
    (shop / "etc").mkdir(parents=True)
    (shop / "log").mkdir()
    (shop / "etc" / "shop.service").write_text(UNIT)
    (shop / "etc" / "token").write_text(CANARY)
    (shop / "etc" / "token").chmod(0o600)
    for number in range(3):
        file = shop / "log" / f"{number}.log"
        file.write_text(f"{number}\n" * 1000)
        os.utime(file, (time.time() - (9 - number) * 86400,) * 2)
    info = folder / "site" / "shop-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[selfheal.functions]\nreprice = tests.actions.functions:double\n")
    books = folder / "books"
    books.mkdir()
    with web() as it:
        it.answer = json.dumps({"drained": 3, "echo": CANARY}).encode()
        (said,) = (yaml.safe_load(placed(block, folder, it.base)) for block in blocks("yaml"))
        for number, action in enumerate(json.loads(placed(block, folder, it.base)) for block in blocks("json")):
            for fails in (False, True):
                made = runbook(number, action, fails=fails)
                (books / f"{made['id']}.json").write_text(json.dumps(made))
        said["runbooks"]["directories"] = [str(books)]
        services = {
            "worker": {"command": ["sleep", "1000"], "replicas": 1},
            "burner": {"command": [sys.executable, "-c", BURNS], "replicas": 0},
        }
        for number, (_, check) in enumerate(CHECKS):
            made = runbook(number, {**NOTHING, "id": "nothing"}, fails=False)
            made |= {"id": f"check_{number}", "preconditions": [{"call": check}]}
            made["match"] = {"field": "/type", "op": "eq", "value": made["id"]}
            (books / f"check_{number}.json").write_text(json.dumps(made))
        root = str(Path(__file__).resolve().parents[2])
        environment = {"PYTHONPATH": os.pathsep.join([str(folder / "site"), root]), "CANARY_OF_DAEMON": "1"}
        config = write_config(folder, services, **said)
        with (
            daemon(config, folder / "state", environment=environment) as running,
            GuardianClient(state_dir=folder / "state") as guardian,
        ):
            eventually(lambda: running.services()["worker"]["state"] == "ready", within_s=60)
            yield Place(folder, running, guardian, it)


def number_of(action_type: str) -> int:
    return next(number for number, one in enumerate(examples()) if one["action_type"] == action_type)


@pytest.mark.xdist_group("documented")
@pytest.mark.parametrize("action_type", [one["action_type"] for one in examples() if "rollback" in one])
def test_undone_when_a_later_step_fails(place: Place, action_type: str) -> None:
    before = place.world()
    said = place.run(f"failing_{number_of(action_type)}")
    assert said.startswith("rolled_back:"), said
    assert f"rolled back: {examples()[number_of(action_type)]['id']}" in said
    eventually(lambda: place.world() == before, within_s=30)


@pytest.mark.xdist_group("documented")
@pytest.mark.parametrize("action_type", [one["action_type"] for one in examples()])
def test_done(place: Place, action_type: str) -> None:
    before, seen, shop = place.world(), len(place.web.seen), place.folder / "srv" / "shop"
    said = place.run(f"well_{number_of(action_type)}")
    assert said.startswith("succeeded"), said
    after = place.world()
    match action_type:
        case "configuration_change":
            assert (shop / "etc" / "shop.service").read_text() == UNIT.replace("50%  ", "80%")
        case "resource_cleanup":
            assert [one.name for one in (shop / "log").iterdir()] == ["2.log"]
            assert len(list((place.folder / "srv" / "spare" / "quarantine").glob("*/*/0000?*"))) == 2
        case "service_scale":
            assert after["services"] == ["burner", "worker", "worker.2"]
        case "http_request" | "notify":
            (request,) = place.web.seen[seen:]
            assert request.headers["Authorization"] == CANARY
            assert re.fullmatch(r"[^.]+\.(drain|tell)", request.headers["Idempotency-Key"])
        case _:
            assert after == before


@pytest.mark.xdist_group("documented")
def test_what_services_use_and_how_many_they_are(place: Place) -> None:
    assert place.running.call("services", "scale", "burner", "1").returncode == 0
    try:
        for number, (wanted, _) in enumerate(CHECKS):
            said = place.run(f"check_{number}")
            assert wanted in said, (number, said)
    finally:
        assert place.running.call("services", "scale", "burner", "0").returncode == 0


@pytest.mark.xdist_group("documented")
def test_the_secret_is_nowhere_in_state_log_and_answers(place: Place) -> None:
    """Its own file, and what was sent to the web server, are the only places that have it."""
    assert place.run(f"well_{number_of('http_request')}").startswith("succeeded")
    assert place.run(f"well_{number_of('command')}").startswith("succeeded")
    assert any(CANARY in str(request.headers) for request in place.web.seen)
    raw = place.running.log.read_bytes()
    state = place.folder / "state"
    for file in state.rglob("*"):
        if file.is_file():
            raw += file.read_bytes()
    said = json.dumps(place.running.get("/v1/executions")) + json.dumps(place.running.get("/v1/alerts"))
    assert b"journal_opened" in raw
    assert CANARY.encode() not in raw
    assert CANARY not in said
