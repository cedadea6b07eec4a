"""A service that floods its log: its own speed beside a file nobody looks after, and what others feel of it.

    python benchmarks/log_flood.py [--mib 1000] [--max-size 10MiB] [--backups 3]

Prints the writer's throughput without and with the log keeper, the largest the log was, and how long another service's
crash -> restart took meanwhile.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import yaml
from stamps import Births, percentile, stamp_command

WRITER = """
import os, sys, time
block, left = (b"x" * 99 + b"\\n") * 10_000, int(sys.argv[1]) << 20
began = time.monotonic()
while left > 0:
    left -= os.write(1, block)
open(sys.argv[2], "w").write(f"{time.monotonic() - began}\\n")
time.sleep(1000)
"""
TIMEOUT_S = 300.0


def writer(work: Path, mib: int, name: str) -> tuple[list[str], Path]:
    result = work / f"{name}.seconds"
    return [sys.executable, "-c", WRITER, str(mib), str(result)], result


def seconds(result: Path) -> float:
    deadline = time.monotonic() + TIMEOUT_S
    while not (result.exists() and result.read_text().endswith("\n")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{result} was not written within {TIMEOUT_S} s")
        time.sleep(0.01)
    return float(result.read_text())


def alone(work: Path, mib: int) -> float:
    """MiB/s into a file that nobody looks after."""
    command, result = writer(work, mib, "alone")
    log = work / "alone.log"
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output)
    try:
        return mib / seconds(result)
    finally:
        child.kill()
        child.wait()
        log.unlink()


class Sizes(threading.Thread):
    """The largest a file was."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.biggest = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.005):
            if self.path.exists():
                self.biggest = max(self.biggest, self.path.stat().st_size)


def kill_meanwhile(births: Births, result: Path) -> list[float]:
    """Crash the quiet service again and again until the flood is over; milliseconds to each new ``main()``."""
    found = []
    live = births.next(TIMEOUT_S)
    while not result.exists():
        time.sleep(0.3)
        at_ns = time.monotonic_ns()
        os.kill(live.pid, signal.SIGKILL)
        live = births.next(TIMEOUT_S)
        found.append((live.at_ns - at_ns) / 1e6)
    return found


def under_selfheal(work: Path, options: argparse.Namespace) -> tuple[float, int, list[float]]:
    command, result = writer(work, options.mib, "kept")
    births = Births(work / "births.fifo")
    quiet = [*stamp_command(work), str(births.path), "quiet"]
    services = {
        "flood": {"command": command, "log": {"max_size": options.max_size, "backups": options.backups}},
        "quiet": {"command": quiet, "max_restarts": 10000, "within": "500d", "backoff": {"reset_after": "1ms"}},
    }
    links = {"guardian": {"address": None}, "bridge": {"address": None}, "operator": {"address": "127.0.0.1:0"}}
    config, state = work / "selfheal.yaml", work / "state"
    config.write_text(yaml.safe_dump({"version": 1, "links": links, "services": services}), encoding="utf-8")
    sizes = Sizes(state / "logs" / "flood.log")
    sizes.start()
    argv = [sys.executable, "-m", "supervisors.cli", "run", "--config", str(config), "--state", str(state)]
    with (work / "selfheal.log").open("wb") as output:
        daemon = subprocess.Popen(argv, stdout=output, stderr=output)
    try:
        latencies_ms = kill_meanwhile(births, result)
        return options.mib / seconds(result), sizes.biggest, latencies_ms
    finally:
        sizes.done.set()
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        births.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1000)
    parser.add_argument("--max-size", default="10MiB")
    parser.add_argument("--backups", type=int, default=3)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="log-flood-"))
    try:
        without = alone(work, options.mib)
        kept, biggest, latencies_ms = under_selfheal(work, options)
        left = sum(path.stat().st_size for path in (work / "state" / "logs").glob("flood.log*"))
    finally:
        shutil.rmtree(work)
    print(f"a writer of {options.mib} MiB, max_size {options.max_size}, {options.backups} backups")
    print(f"without us    {without:7.0f} MiB/s")
    print(f"with us       {kept:7.0f} MiB/s ({kept / without:.2f} of it)")
    print(f"log at most   {biggest / 2**20:7.1f} MiB, all files at the end {left / 2**20:.1f} MiB")
    if latencies_ms:
        p50, p99 = percentile(latencies_ms, 0.5), percentile(latencies_ms, 0.99)
        print(f"another service killed {len(latencies_ms)} times meanwhile: back after p50 {p50:.1f}, p99 {p99:.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
