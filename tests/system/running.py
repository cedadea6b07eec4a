"""The real daemon as a subprocess, and the real command line beside it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx
import psutil
import yaml

from actors.runtimes.cgroups import open_cgroups
from supervisors.wellness import is_well
from tests.support.eventually import eventually

SELFHEAL = (sys.executable, "-m", "supervisors.cli")
LINKS = {
    "guardian": {"address": "tcp://127.0.0.1:0"},
    "bridge": {"address": "tcp://127.0.0.1:0"},
    "operator": {"address": "127.0.0.1:0"},
}
SLEEPER = {"command": ["sleep", "1000"]}


LISTENING_PORTS: Final = range(20_000, 32_000)
"""Below those the kernel gives to outgoing connections: one of them could take a port before it is listened on."""
_given: set[int] = set()


def free_port() -> int:
    """One that nobody listens on, and none that this process was given before."""
    while True:
        port = secrets.choice(LISTENING_PORTS)  # no seed: other workers draw too
        if port in _given:
            continue
        _given.add(port)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def web_service(port: int, name: str = "web", **more: Any) -> dict[str, Any]:
    """A demo service with a health check."""
    return {
        "command": [sys.executable, "-m", "supervisors.demo.service", "--name", name, "--port", str(port)],
        "health_check": {"http": f"http://127.0.0.1:{port}/healthz", "interval": "300ms", "retries": 2},
        "graceful_shutdown_timeout": "5s",
    } | more


@dataclass
class Running:
    """One daemon. ``call`` is the command line against it."""

    state: Path
    process: subprocess.Popen[str]
    log: Path
    ready_line: str = ""
    environ: dict[str, str] = field(default_factory=dict)

    def call(self, *words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*SELFHEAL, *words, "--state", str(self.state)],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.environ,
        )

    def get(self, path: str) -> Any:
        """What the daemon answers over HTTP, in the shape of ``--json``: no new interpreter for each question. No TLS
        is spoken: ``verify=False`` saves the reading of all certificates, 30 ms of CPU for each question.
        """
        socket_file, address_file = self.state / "operator.sock", self.state / "operator.address"
        ways = [(httpx.HTTPTransport(uds=str(socket_file), verify=False), "http://127.0.0.1")]
        if address_file.exists():  # a read-only state directory has a stale socket
            ways.append((httpx.HTTPTransport(verify=False), address_file.read_text().strip()))
        ways += [(httpx.HTTPTransport(verify=False), word) for word in self.ready_line.split()[1:2]]  # cannot write any
        for transport, base in ways:
            with httpx.Client(transport=transport, base_url=base, timeout=60) as client:
                try:
                    answer = client.get(path)
                except httpx.TransportError:
                    continue
                assert answer.status_code == 200, (path, answer.status_code, answer.text)
                return answer.json()
        raise AssertionError(f"no answer to {path}")

    def json(self, *words: str) -> Any:
        done = self.call(*words, "--json")
        assert done.stdout, (words, done.returncode, done.stderr)
        return json.loads(done.stdout)

    def services(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.get("/v1/services")["services"]}

    def pid(self, name: str) -> int:
        pid = self.services()[name].get("pid")
        assert isinstance(pid, int), self.services()[name]
        return pid

    def pids(self) -> dict[str, int | None]:
        return {name: one.get("pid") for name, one in self.services().items()}

    def until_ready(self, *names: str, within_s: float = 20) -> dict[str, dict[str, Any]]:
        def look() -> dict[str, dict[str, Any]] | None:
            services = self.services()
            wanted = names or tuple(services)
            assert all(services[name]["state"] == "ready" for name in wanted), {
                name: services[name]["state"] for name in wanted
            }
            return services

        return eventually(look, within_s=within_s, every_s=0.03)

    def until_well(self, within_s: float = 30) -> None:
        """Every wanted node is ready: ``selfheal tree`` would exit with 0. Also of a daemon that is not there yet."""
        eventually(lambda: is_well(self.get("/v1/tree")), within_s=within_s, every_s=0.05, what="all is well")

    def stop(self, number: int = signal.SIGTERM, within_s: float = 30) -> int:
        self.process.send_signal(number)
        return self.process.wait(within_s)


def write_config(folder: Path, services: Mapping[str, Any], **more: Any) -> Path:
    path = folder / "selfheal.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "links": LINKS, "services": dict(services)} | more), encoding="utf-8")
    return path


@contextmanager
def daemon(
    config: Path,
    state: Path,
    *,
    wait: bool = True,
    program: Sequence[str] = SELFHEAL,
    words: Sequence[str] = (),
    terminal: int | None = None,
    before: Sequence[str] = (),
    environment: Mapping[str, str] = MappingProxyType({}),
    in_order: bool = True,
) -> Iterator[Running]:
    """Start the daemon on ``config``; ended and swept when the block is left.

    Args:
        program: what stands for the command line; ``words`` are more arguments of ``run``.
        terminal: a descriptor of the terminal it reads from; it has none without.
        before: what runs it (another user's, in another namespace).
        environment: more of it.
        in_order: it is stopped in order at the end; else killed with all that it started, which takes no time: where
            the test has shown before how it ends, or nothing is to be seen of it. Not for containers.
    """
    log = state.parent / f"{state.name}.log"
    environ = {**os.environ, "SELFHEAL_STATE": str(state), "PYTHONUNBUFFERED": "1"} | dict(environment)
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [*before, *program, "run", "--config", str(config), "--state", str(state), *words],
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environ,
        )
    running = Running(state, process, log, environ=environ)
    try:
        if wait:
            assert process.stdout is not None
            running.ready_line = process.stdout.readline()
            assert running.ready_line.startswith("ready"), (running.ready_line, log.read_text()[-3000:])
        yield running
    finally:
        if process.poll() is None and not in_order:
            _end_at_once(psutil.Process(process.pid), state)
            process.wait()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()
        for left in (*keepers_of(state), *of_state(state)):  # a keeper would start an armed service again
            left.kill()
        _clear_groups(state)


def _end_at_once(process: psutil.Process, state: Path) -> None:
    """Frozen first: neither shall start the other anew."""
    process.suspend()
    for one in (*keepers_of(state), *process.children(recursive=True), process):
        with suppress(psutil.NoSuchProcess):
            one.kill()


def _clear_groups(state: Path) -> None:
    """A daemon that was killed leaves its control groups to the next one: here, there is none."""
    cgroups = open_cgroups(state) if state.exists() else None
    if cgroups is not None:
        cgroups.clear_leftovers([])
        cgroups.close()


def keepers_of(state: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["name", "cmdline"])
    return [one for one in found if one.info["name"] == "selfheal-keeper" and str(state) in (one.info["cmdline"] or ())]


def of_state(state: Path) -> list[psutil.Process]:
    """The processes that a daemon of this state directory started and that still live."""
    found = []
    for one in psutil.process_iter():
        try:
            environ = one.environ()
            if (
                environ.get("SELFHEAL_STATE") == str(state)
                and "SELFHEAL_TOKEN" in environ
                and one.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(one)
        except psutil.Error:
            continue
    return found
