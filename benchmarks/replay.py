"""``selfheal runbook replay`` over a million recorded alerts: how long it takes, and whether it says the same twice.

``python benchmarks/replay.py [--alerts N] [--mix usual|busy]`` makes the alerts (seeded: the same ones everywhere), a
directory of changed runbooks, and runs the real command two times, with the whole shipped library on both sides. Then
one library's part alone, on one core. Exit code 1 when the outputs differ or a run takes longer than ``LIMIT_S``.

Two weeks of alerts for 40 services. *usual*: two thirds match nothing, a sixth come in storms of the same alert, the
others are one of each. *busy*: every alert is about something a runbook answers, far more than five runs at once can
work off, so dozens of runs wait in the queue all the time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runbooks.parse import SHIPPED
from supervisors.cli.replaying import one_side
from supervisors.cli.spool import spooled

LIMIT_S = 60.0
WEEKS_S = 14 * 86400.0
SERVICES = tuple(f"service-{number}" for number in range(40))
SEVERITIES = ("low", "medium", "high", "critical")
UNANSWERED = (
    "config_drift", "login_failed", "certificate_expires", "backup_late", "queue_length", "job_slow", "gc_pause",
    "deploy_begun", "deploy_ended", "heartbeat_late", "retry_count", "cache_miss", "clock_skew", "session_closed",
)  # fmt: skip
ANSWERED = (
    "service_failure", "service_down", "high_cpu_usage", "memory_exhaustion", "disk_space_low", "network_connectivity",
    "database_connection_failure", "database_locked", "high_latency", "high_error_rate", "price_data_stale",
    "trading_halted", "position_limit_exceeded", "mode_change",
)  # fmt: skip


def usual(rng: random.Random) -> Iterator[dict[str, Any]]:
    while True:
        if rng.random() < 0.002:
            storm = answered(rng)
            for number in range(rng.randrange(50, 350)):
                yield {**storm, "message": f"{storm['message']}, again {number}"} if rng.random() < 0.2 else storm
        yield unanswered(rng) if rng.random() < 0.85 else answered(rng)


def busy(rng: random.Random) -> Iterator[dict[str, Any]]:
    while True:
        yield answered(rng)


def unanswered(rng: random.Random) -> dict[str, Any]:
    labels = {"host": f"host-{rng.randrange(8)}", "state": "firing", "value": round(rng.random() * 100, 2)}
    return alert(rng, rng.choice(UNANSWERED), labels)


def answered(rng: random.Random) -> dict[str, Any]:
    """As its sender labels it: what the runbook asks for is nearly always there."""
    kind = rng.choice(ANSWERED)
    labels: dict[str, Any] = {"host": f"host-{rng.randrange(8)}", "state": rng.choice(("firing", "pending"))}
    match kind:
        case "high_cpu_usage" | "memory_exhaustion":
            scope = rng.choice(("service", "service", "box"))
            labels |= {"scope": scope, "limit_cpu_percent": 80, "value": round(rng.uniform(80, 100), 1)}
        case "disk_space_low":
            labels |= {"path": f"/data/{rng.randrange(4)}", "cleanup_root": "/data/cache"}
        case "network_connectivity":
            labels |= {"port": rng.choice((5432, 6379, 8080))}
        case "database_connection_failure" | "database_locked":
            labels |= {"lock_keys": "selfheal"} if rng.random() < 0.5 else {}
        case "position_limit_exceeded":
            labels |= {"endpoint": "mql4", "symbol": rng.choice(("EURUSD", "GBPUSD")), "account": "1"}
    return alert(rng, kind, labels)


def alert(rng: random.Random, kind: str, labels: dict[str, Any]) -> dict[str, Any]:
    service = rng.choice(SERVICES)
    return {
        "type": kind,
        "service": service,
        "severity": rng.choice(SEVERITIES),
        "message": f"{kind} on {service}: connection refused",
        "source": "bench",
        "labels": labels,
    }


MIXES = {"usual": usual, "busy": busy}


def make_alerts(path: Path, count: int, mix: str) -> None:
    """Two weeks of alerts, as JSON lines."""
    rng = random.Random(20261127)
    at, step_s = 1_790_000_000.0, WEEKS_S / count
    alerts = MIXES[mix](rng)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            at += rng.random() * 2 * step_s
            file.write(json.dumps({"received_at": round(at, 3), **next(alerts)}) + "\n")


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


def replay(alerts: Path, directory: Path) -> tuple[float, float, bytes]:
    """Seconds that passed, seconds of processors, and what was printed."""
    command = [sys.executable, "-m", "supervisors.cli", "runbook", "replay", str(alerts), "--runbooks", str(directory)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    took_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def on_one_core(alerts: Path) -> str:
    """One library's part, in this process."""
    began = time.process_time()
    with spooled(alerts) as spool:
        side = one_side(spool, (SHIPPED,))
    used_s, count = time.process_time() - began, len(side.codes)
    outcomes = Counter(side.answers[code].outcome for code in side.codes)
    most = ", ".join(f"{number / count:.0%} {outcome}" for outcome, number in outcomes.most_common(6))
    return f"one library on one core: {used_s:.1f} s, {used_s / count * 1e6:.1f} us an alert ({most})"


def measure(mix: str, count: int) -> bool:
    with tempfile.TemporaryDirectory() as made:
        alerts, directory = Path(made) / "alerts.jsonl", Path(made) / "runbooks"
        directory.mkdir()
        make_alerts(alerts, count, mix)
        make_changed(directory)
        print(f"{mix}: {count} alerts, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
        runs = [replay(alerts, directory) for _ in range(2)]
        for took_s, used_s, output in runs:
            each = f"{used_s / 2:.1f} s of each core, {used_s / count * 1e6:.1f} us an alert for both libraries"
            digest = hashlib.sha256(output).hexdigest()[:16]
            print(f"  {took_s:.1f} s, {count / took_s:.0f} alerts/s; {each}; sha256 {digest}")
        print(f"  {on_one_core(alerts)}")
    print(f"  {runs[0][2].decode().splitlines()[-1]}")
    same, quick = runs[0][2] == runs[1][2], max(took_s for took_s, _, _ in runs) < LIMIT_S
    print(f"  the same bytes twice: {'yes' if same else 'NO'}; each under {LIMIT_S:g} s: {'yes' if quick else 'NO'}")
    return same and quick


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alerts", type=int, default=1_000_000)
    parser.add_argument("--mix", choices=sorted(MIXES), default=None, help="one of them; both when left out")
    given = parser.parse_args()
    held = [measure(mix, given.alerts) for mix in ([given.mix] if given.mix else MIXES)]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
