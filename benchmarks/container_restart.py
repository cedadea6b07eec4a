"""Container killed -> running again: SIGKILL of a container's main process until its successor's ``main()``.

Our daemon beside a bare event loop on the Docker SDK (the floor), in the same run, on the same engine, with equal
containers, kills taking turns. Needs root, an engine, busybox and a C compiler (the child is linked statically).

    python benchmarks/container_restart.py [--kids 4] [--kills 60] [--min-up-s 1]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import docker
import yaml
from stamps import HERE, Birth, Births, percentile, summary

sys.path.insert(0, str(HERE.parent))
from tests.support.docker_engine import IMAGE, make_image

TIMEOUT_S = 60.0
ALLOWED = 1.05
"""The goal: our median is at most the bare loop's and a twentieth."""


def static_stamp(work: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("needs a C compiler: the child runs in a container without libraries")
    program = work / "stamp"
    subprocess.run([compiler, "-O2", "-static", "-o", str(program), str(HERE / "stamp.c")], check=True)
    return program


class Peer:
    """One supervisor under test; its containers, and their births through a FIFO of its own."""

    def __init__(self, label: str, client: docker.DockerClient, work: Path, names: list[str]) -> None:
        self.label = label
        self.client = client
        self.work = work
        self.names = names
        self.births = Births(work / f"{label}.fifo")
        self.containers: dict[str, str] = {}
        self.born: dict[str, Birth] = {}
        self.latencies_ms: list[float] = []
        self.process: subprocess.Popen[str] | None = None

    def command(self, name: str) -> list[str]:
        return ["/w/stamp", f"/w/{self.births.path.name}", name]

    def run(self, argv: list[str]) -> None:
        with (self.work / f"{self.label}.log").open("w") as errors:
            self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True)
        if self.process.stdout is None or not self.process.stdout.readline().startswith("ready"):
            raise SystemExit(f"{self.label} did not start:\n{(self.work / f'{self.label}.log').read_text()}")

    def await_births(self) -> None:
        while len(self.born) < len(self.names):
            birth = self.births.next(TIMEOUT_S)
            self.born[birth.name] = birth

    def kill_one(self, number: int, min_up_s: float) -> None:
        name = self.names[number % len(self.names)]
        up_s = (time.monotonic_ns() - self.born[name].at_ns) / 1e9
        time.sleep(max(0.0, min_up_s - up_s) + random.uniform(0.05, 0.2))
        pid = self.client.api.inspect_container(self.containers[name])["State"]["Pid"]
        at_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        while (birth := self.births.next(TIMEOUT_S)).name != name:
            self.born[birth.name] = birth
        self.born[name] = birth
        self.latencies_ms.append((birth.at_ns - at_ns) / 1e6)

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(TIMEOUT_S)
        for container in self.containers.values():
            self.client.api.remove_container(container, force=True)
        self.births.close()


def begin_bare(peer: Peer, label: str) -> None:
    """Containers as ours are made: an init, no network, the same log and the same mount."""
    peer.run([sys.executable, str(HERE / "bare_container_loop.py"), label])
    for name in peer.names:
        made = peer.client.containers.create(
            IMAGE,
            peer.command(name),
            name=name,
            labels={label: ""},
            init=True,
            network="none",
            volumes=[f"{peer.work}:/w"],
            log_config=docker.types.LogConfig(type="json-file", config={"max-size": "10485760", "max-file": "4"}),
        )
        peer.containers[name] = str(made.id)
        made.start()
    peer.await_births()


def begin_ours(peer: Peer) -> None:
    common = {"runtime": "docker", "image": IMAGE, "network": "none", "volumes": [f"{peer.work}:/w"]}
    pacing = {"max_restarts": 10000, "within": "500d", "backoff": {"reset_after": "1ms"}}
    links = {"guardian": {"address": "tcp://127.0.0.1:0"}, "bridge": {"address": "tcp://127.0.0.1:0"}}
    config: dict[str, Any] = {
        "version": 1,
        "links": links | {"operator": {"address": "127.0.0.1:0"}},
        "services": {name: {**common, **pacing, "command": peer.command(name)} for name in peer.names},
    }
    path, state = peer.work / "selfheal.yaml", peer.work / "state"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    peer.run([sys.executable, "-m", "supervisors.cli", "run", "--config", str(path), "--state", str(state)])
    peer.await_births()
    for name in peer.names:
        peer.containers[name] = peer.client.api.inspect_container(f"selfheal-{name}")["Id"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kids", type=int, default=4)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--min-up-s", type=float, default=1.0)
    options = parser.parse_args()
    client = docker.from_env(timeout=60)
    if (trouble := make_image(client)) is not None:
        raise SystemExit(trouble)
    work = Path(tempfile.mkdtemp(prefix="container-restart-"))
    static_stamp(work)
    tag = f"bench{uuid.uuid4().hex[:8]}"
    bare, ours = (
        Peer(label, client, work, [f"{tag}-{label}-{number}" for number in range(options.kids)])
        for label in ("bare", "selfheal")
    )
    try:
        begin_bare(bare, tag)
        begin_ours(ours)
        for number in range(options.kills):
            for peer in (bare, ours) if number % 2 else (ours, bare):
                peer.kill_one(number, options.min_up_s)
    finally:
        ours.close()
        bare.close()
    print(f"{options.kids} containers each, kills in turn, up >= {options.min_up_s:g} s")
    for peer in (bare, ours):
        print(f"{peer.label:9} {summary(peer.latencies_ms)}")
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        ratio = percentile(ours.latencies_ms, share) / percentile(bare.latencies_ms, share)
        goal = f" (goal: at most {ALLOWED})" if name == "p50" else ""
        print(f"ratio selfheal/bare {name}: {ratio:.3f}{goal}")
    shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
