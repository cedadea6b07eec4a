"""``selfheal runbook replay`` over a million recorded alerts: how long it takes, and whether it says the same twice.

``python benchmarks/replay.py [--alerts N]`` makes the alerts (seeded: the same ones everywhere), a directory of changed
runbooks, and runs the real command two times. Exit code 1 when the outputs differ or a run takes longer than
``LIMIT_S``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runbooks.parse import SHIPPED

LIMIT_S = 60.0
TYPES = (
    "service_failure", "service_down", "high_cpu_usage", "memory_exhaustion", "disk_space_low", "network_connectivity",
    "database_connection_failure", "bridge_mql4_failure", "high_latency", "trading_halted",
)  # fmt: skip
SERVICES = tuple(f"service-{number}" for number in range(40))


def make_alerts(path: Path, count: int) -> None:
    """Two weeks of alerts, as JSON lines."""
    rng = random.Random(20261127)
    at, step_s = 1_790_000_000.0, 14 * 86400 / count
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            at += rng.random() * 2 * step_s
            alert = {
                "received_at": round(at, 3),
                "type": rng.choice(TYPES),
                "service": rng.choice(SERVICES),
                "severity": rng.choice(("low", "medium", "high", "critical")),
                "message": f"number {number}: connection refused",
                "source": "bench",
            }
            file.write(json.dumps(alert) + "\n")


def make_changed(directory: Path) -> None:
    """The shipped service_failure with a longer cooldown, and a new runbook that asks by a pattern."""
    shipped = json.loads((SHIPPED / "service_failure.json").read_text())
    changed = {**shipped, "limits": {"cooldown": "10m"}}
    (directory / "service_failure.json").write_text(json.dumps(changed))
    pattern = {
        "all": [
            {"field": "/type", "op": "eq", "value": "high_latency"},
            {"field": "/message", "op": "matches", "value": r"connection\s+refused"},
        ]
    }
    (directory / "latency.json").write_text(json.dumps({**shipped, "id": "latency", "match": pattern}))


def replay(alerts: Path, directory: Path) -> tuple[float, bytes]:
    command = [sys.executable, "-m", "supervisors.cli", "runbook", "replay", str(alerts), "--runbooks", str(directory)]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return time.perf_counter() - began, done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alerts", type=int, default=1_000_000)
    count = parser.parse_args().alerts
    with tempfile.TemporaryDirectory() as made:
        alerts, directory = Path(made) / "alerts.jsonl", Path(made) / "runbooks"
        directory.mkdir()
        make_alerts(alerts, count)
        make_changed(directory)
        runs = [replay(alerts, directory) for _ in range(2)]
    for took_s, output in runs:
        print(f"{count} alerts in {took_s:.1f} s, {count / took_s:.0f}/s, sha256 {hashlib.sha256(output).hexdigest()}")
    print(runs[0][1].decode().splitlines()[-1])
    same, quick = runs[0][1] == runs[1][1], max(took_s for took_s, _ in runs) < LIMIT_S
    print(f"the same bytes twice: {'yes' if same else 'NO'}; each under {LIMIT_S:g} s: {'yes' if quick else 'NO'}")
    return 0 if same and quick else 1


if __name__ == "__main__":
    sys.exit(main())
