"""Crash -> running again: SIGKILL of a supervised process until its successor's ``main()``.

Our daemon beside the bare Python pidfd + Popen loop (the floor), in the same run, kills taking turns: of children that
have been up for a while, and of children that die young. Intent and identity of every launch are recorded, as always;
the kills come further apart than ``reset_after``, so each is answered as a first crash is.

    python benchmarks/restart_latency.py [--kids 10] [--kills 200] [--min-up-s 0.3] [--young-s 0.05]
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
from pathlib import Path

import yaml
from stamps import Birth, Births, percentile, stamp_command, summary

TIMEOUT_S = 30.0
GOAL_P50, GOAL_P99 = 1.6, 2.0


def write_config(work: Path, command: list[str], fifo: Path, names: list[str]) -> Path:
    services = {
        name: {
            "command": [*command, str(fifo), name],
            "max_restarts": 10000,
            "within": "500d",
            "backoff": {"reset_after": "1ms"},
        }
        for name in names
    }
    links = {"guardian": {"address": "tcp://127.0.0.1:0"}, "bridge": {"address": "tcp://127.0.0.1:0"}}
    config = {"version": 1, "links": links | {"operator": {"address": "127.0.0.1:0"}}, "services": services}
    path = work / "selfheal.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


class Peer:
    """One supervisor under test, its children and their births."""

    def __init__(self, label: str, work: Path, kids: int) -> None:
        self.label = label
        self.births = Births(work / f"{label}.fifo")
        self.names = [f"{label}-{number}" for number in range(kids)]
        self.live: dict[str, Birth] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, argv: list[str], log: Path) -> None:
        with log.open("wb") as output:
            self.process = subprocess.Popen(argv, stdout=output, stderr=output)
        while len(self.live) < len(self.names):
            birth = self.births.next(TIMEOUT_S)
            self.live[birth.name] = birth

    def kill_one(self, number: int, min_up_s: float, jitter_s: float) -> float:
        """Kill one that is old enough; returns the milliseconds until its successor's ``main()``."""
        name = self.names[number % len(self.names)]
        victim = self.live[name]
        up_s = (time.monotonic_ns() - victim.at_ns) / 1e9
        time.sleep(max(0.0, min_up_s - up_s) + random.uniform(0, jitter_s))
        at_ns = time.monotonic_ns()
        os.kill(victim.pid, signal.SIGKILL)
        while (birth := self.births.next(TIMEOUT_S)).name != name:
            self.live[birth.name] = birth
        self.live[name] = birth
        return (birth.at_ns - at_ns) / 1e6

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for birth in self.live.values():
            try:
                os.kill(birth.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.births.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kids", type=int, default=10)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--min-up-s", type=float, default=0.3)
    parser.add_argument("--young-s", type=float, default=0.05)
    parser.add_argument("--jitter-s", type=float, default=0.05)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="restart-latency-"))
    command = stamp_command(work)
    ours, bare = Peer("selfheal", work, options.kids), Peer("bare", work, options.kids)
    here = Path(__file__).resolve().parent
    config = write_config(work, command, ours.births.path, ours.names)
    selfheal = [sys.executable, "-m", "supervisors.cli", "run", "--config", str(config), "--state", str(work / "state")]
    try:
        bare.start(
            [sys.executable, str(here / "bare_loop.py"), *command, "--", str(bare.births.path), *bare.names],
            work / "bare.log",
        )
        ours.start(selfheal, work / "selfheal.log")
        print(f"child: {Path(command[0]).name}, {options.kids} children each, {options.kills} kills each in turn")
        for min_up_s in (options.min_up_s, options.young_s):
            kills: dict[str, list[float]] = {bare.label: [], ours.label: []}
            for number in range(options.kills):
                for peer in (bare, ours):
                    kills[peer.label].append(peer.kill_one(number, min_up_s, options.jitter_s))
            report(f"up for {min_up_s:g} s", kills[bare.label], kills[ours.label])
    finally:
        ours.stop()
        bare.stop()
    shutil.rmtree(work)
    return 0


def report(what: str, bare_ms: list[float], ours_ms: list[float]) -> None:
    print(f"{what}: bare      {summary(bare_ms)}")
    print(f"{what}: selfheal  {summary(ours_ms)}")
    for share, name, goal in ((0.5, "p50", GOAL_P50), (0.99, "p99", GOAL_P99)):
        ratio = percentile(ours_ms, share) / percentile(bare_ms, share)
        print(f"{what}: ratio {name} {ratio:.2f} (goal {goal:g}): {'met' if ratio <= goal else 'MISSED'}")


if __name__ == "__main__":
    sys.exit(main())
