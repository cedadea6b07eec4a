"""A secret of a service under the real daemon is in that service's environment and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

from tests.support.docker_engine import IMAGE, engine_client, require_engine
from tests.support.eventually import eventually
from tests.system.running import Running, daemon, write_config

pytestmark = pytest.mark.timeout(180)


class Canary:
    """A value that stands nowhere by chance; ``places`` looks for it."""

    def __init__(self) -> None:
        self.text = f"canary{uuid.uuid4().hex}"

    def in_files(self, folder: Path) -> list[str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) > 3, files
        return [str(path) for path in files if self.text.encode() in path.read_bytes()]

    def in_command_lines(self) -> list[str]:
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    line = (process / "cmdline").read_bytes()
                except OSError:
                    continue
                found += [line.decode()] if self.text.encode() in line else []
        return found


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def answers(selfheal: Running, names: list[str]) -> dict[str, str]:
    """What every GET route there is answers, for every service."""
    found = {}
    transport = httpx.HTTPTransport(uds=str(selfheal.state / "operator.sock"))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=20) as client:
        paths = client.get("/openapi.json").json()["paths"]
        routes = [path for path, methods in paths.items() if "get" in methods]
        assert {"/v1/tree", "/v1/services", "/services/status"} <= set(routes)
        for route in routes:
            for name in names if "{" in route else [""]:
                start, _, rest = route.partition("{")
                found[f"{route} {name}"] = client.get(
                    start + name + rest.partition("}")[2], params={"timeout_s": 0.1} if "wait" in route else {}
                ).text
    return found


def outputs(selfheal: Running, names: list[str]) -> dict[str, str]:
    """What the commands that look print, as text and as JSON."""
    commands = [["tree"], ["tree", "--json"], ["services", "status"], ["services", "status", "--json"], ["alerts"]]
    commands += [["executions"], *(["why", name] for name in names)]
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda words: selfheal.call(*words), commands))
    return {" ".join(words): one.stdout + one.stderr for words, one in zip(commands, done, strict=True)}


def sources(folder: Path, secret: Path, canary: Canary) -> dict[str, Any]:
    file = private(folder / "env", f"FROM_FILE={canary.text}\n")
    return {"environment_files": [str(file)], "secrets": {"DB_PASSWORD": {"file": str(secret)}}}


def assert_nowhere(canary: Canary, selfheal: Running, names: list[str]) -> None:
    """The API of all ``names``, the commands of the first three."""
    told = answers(selfheal, names) | outputs(selfheal, names[:3])
    assert all(told.values())
    assert [place for place, text in told.items() if canary.text in text] == []
    assert canary.in_files(selfheal.state) == []
    assert canary.text not in selfheal.log.read_text()
    assert canary.in_command_lines() == []


def test_a_secret_is_in_the_environment_of_its_service_and_nowhere_else(tmp_path: Path) -> None:
    canary, folder = Canary(), tmp_path / "etc"
    folder.mkdir()
    secret = private(folder / "secret", canary.text + "\n")
    from_files = sources(folder, secret, canary)
    bad = private(folder / "bad", f"{canary.text} stands on a bad line\n")
    services = {
        "unwritten": {"command": ["sleep", "1000"], "environment_files": [str(bad)]},
        "crashing": {"command": ["sh", "-c", "exit 3"], "max_restarts": 2, "within": "1h", **from_files},
        "holder": {"command": ["sleep", "1000"], **from_files},
        "limited": {"command": ["sleep", "1000"], "nice": 3, "limits": {"nofile": 256}, **from_files},
        "absent": {"command": ["no-such-program"], **from_files},
    }
    with daemon(write_config(folder, services), tmp_path / "state", wait=False) as selfheal:
        eventually((selfheal.state / "operator.sock").exists, within_s=30)
        ready = selfheal.until_ready("holder", "limited", within_s=30)

        def parked() -> bool:
            found = selfheal.services()
            assert "is no NAME=VALUE" in str(found["unwritten"]), found["unwritten"]
            assert found["crashing"]["state"] == "crash_loop", found["crashing"]
            return True

        eventually(parked, within_s=30)
        for name in ("holder", "limited"):
            environ = Path(f"/proc/{ready[name]['pid']}/environ").read_text().split("\0")
            assert {f"DB_PASSWORD={canary.text}", f"FROM_FILE={canary.text}"} <= set(environ)
        os.kill(ready["holder"]["pid"], 9)
        eventually(lambda: selfheal.pid("holder") != ready["holder"]["pid"], within_s=20)
        assert_nowhere(canary, selfheal, list(services))
        selfheal.process.kill()  # what a killed daemon leaves, and what the next one says of it
        selfheal.process.wait()
        assert canary.in_files(selfheal.state) == []
    assert canary.in_files(tmp_path / "state") == []


TRACEBACK = """
import sys
import structlog
from supervisors.logging_setup import configure_logging
class Terminal:
    write, flush = sys.stdout.write, sys.stdout.flush
    def isatty(self): return True
def launch(secret):
    raise ValueError("broken")
configure_logging(Terminal())
try:
    launch("".join(("can", "ary")))
except ValueError as error:
    structlog.get_logger().error("it broke", exc_info=error)
"""


def test_a_traceback_on_a_terminal_shows_no_local_variables() -> None:
    """The tracebacks that structlog would choose by itself print the values of all variables on the way."""
    done = subprocess.run([sys.executable, "-c", TRACEBACK], capture_output=True, text=True, check=True, timeout=30)
    assert "ValueError" in done.stdout
    assert "canary" not in done.stdout


@pytest.fixture
def tag() -> Iterator[str]:
    """A word in the names of this test's containers; they are removed at the end."""
    require_engine()
    client = engine_client()
    word = f"t{uuid.uuid4().hex[:8]}"
    yield word
    for container in client.containers.list(all=True, ignore_removed=True):
        if word in (container.name or ""):
            container.remove(force=True)
    client.close()


@pytest.mark.docker
def test_a_container_s_secret_is_told_by_the_engine_and_never_by_us(tmp_path: Path, tag: str) -> None:
    canary, folder, name = Canary(), tmp_path / "etc", f"{tag}-a"
    folder.mkdir()
    secret = private(folder / "secret", canary.text + "\n")
    container = {"runtime": "docker", "image": IMAGE, "command": ["sleep", "1000"], "graceful_shutdown_timeout": "1s"}
    with daemon(
        write_config(folder, {name: container | sources(folder, secret, canary)}), tmp_path / "state"
    ) as selfheal:
        first = selfheal.until_ready(name, within_s=40)[name]["container_id"]
        assert {f"DB_PASSWORD={canary.text}", f"FROM_FILE={canary.text}"} <= set(environment_of(first))
        assert_nowhere(canary, selfheal, [name])
        selfheal.call("services", "stop", name)
        changed = Canary()
        private(secret, changed.text)
        assert selfheal.call("services", "start", name).returncode == 0
        second = selfheal.until_ready(name, within_s=40)[name]["container_id"]
        assert f"DB_PASSWORD={changed.text}" in environment_of(second)


def environment_of(container_id: str) -> list[str]:
    client = docker.from_env()
    try:
        found: list[str] = client.api.inspect_container(container_id)["Config"]["Env"]
        return found
    finally:
        client.close()
