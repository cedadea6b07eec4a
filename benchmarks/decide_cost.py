"""What one alert costs to decide, in microseconds of one thread, with a library of fifteen runbooks.

Most alerts match nothing: that is the figure that counts. The others: a run, an alert folded into one under way, and
each of these with ten thousand past runs on record.

    python benchmarks/decide_cost.py [--rounds 7] [--alerts 20000] [--code DIR]

``--code`` measures another checkout's ``runbooks`` in the same way, taking turns: before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
KINDS = (
    "service_failure", "database_down", "high_cpu", "memory_high", "disk_low", "network_down", "mql4_error",
    "powershell_error", "python_error", "config_drift", "position_limit", "margin_call", "drawdown", "latency",
    "errors",
)  # fmt: skip


def _book(kind: str) -> dict[str, Any]:
    ready = {"call": {"type": "service_ready", "with": {"service": "{service}"}}, "within": "5s"}
    return {
        "schema_version": 2,
        "id": kind,
        "version": "1.0.0",
        "name": kind,
        "description": "For measuring",
        "match": {
            "all": [
                {"field": "/type", "op": "eq", "value": kind},
                {"any": [{"field": "/severity", "op": "in", "value": ["high", "critical"]},
                         {"field": "/labels/cpu", "op": "ge", "value": 90}]},
            ]
        },
        "parameters": {"service": {"type": "service", "from": "/service", "required": True}},
        "target": "service:{service}",
        "dedup": {"window": "10s"},
        "limits": {"cooldown": "5s"},
        "actions": [
            {"id": "look", "name": "Look", "action_type": "command", "effect": "idempotent", "command": ["true"]}
        ],
        "success_criteria": [ready],
    }  # fmt: skip


def measure(alerts: int) -> dict[str, float]:
    """Microseconds an alert, by case. Runs with the ``runbooks`` package that is first on the path."""
    from runbooks import matching  # noqa: PLC0415
    from runbooks.model import Status  # noqa: PLC0415
    from runbooks.parse import Library, parse  # noqa: PLC0415

    library = Library(tuple(parse(json.dumps(_book(kind)).encode()) for kind in KINDS))
    hit = {"type": "service_failure", "service": "a", "severity": "high", "message": "down", "labels": {"n": 1}}
    miss = {**hit, "type": "nothing_known"}
    now = 100_000.0

    def runs(count: int) -> list[Any]:
        past = matching.PastRun("x", "disk_low", "service:x", "f", Status.SUCCEEDED, now - 900, now - 800)
        return [
            matching.PastRun(f"x-{n}", past.runbook_id, f"service:s{n}", f"f{n}", past.status, now - 900, now - 800)
            for n in range(count)
        ]

    book = library.runbooks[0]
    twin = matching.PastRun(
        "x-1", book.id, "service:a", matching.fingerprint(book, hit), Status.RUNNING, now - 1, None, "high"
    )
    empty, many = matching.History(tuple(runs(0))), matching.History(tuple(runs(10_000)))
    folding = matching.History((*runs(10_000), twin))
    cases: dict[str, Callable[[], Any]] = {
        "matches nothing": lambda: matching.decide(miss, library, empty, now),
        "matches nothing, 10,000 past runs": lambda: matching.decide(miss, library, many, now),
        "a run": lambda: matching.decide(hit, library, empty, now),
        "a run, 10,000 past runs": lambda: matching.decide(hit, library, many, now),
        "folded, 10,000 past runs": lambda: matching.decide(hit, library, folding, now),
    }
    return {name: _cost_us(case, alerts) for name, case in cases.items()}


def _cost_us(case: Callable[[], Any], alerts: int) -> float:
    """As many calls as fit into about a tenth of a second, at most ``alerts``."""
    began = time.perf_counter()
    case()
    once_s = max(1e-7, time.perf_counter() - began)
    count = max(5, min(alerts, int(0.1 / once_s)))
    began = time.perf_counter()
    for _ in range(count):
        case()
    return (time.perf_counter() - began) / count * 1e6


def _of(code: Path, alerts: int) -> dict[str, float]:
    words = [sys.executable, str(Path(__file__).resolve()), "--inner", "--alerts", str(alerts)]
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(code)}, cwd=code
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--alerts", type=int, default=20_000)
    asked.add_argument("--code", type=Path, default=None)
    asked.add_argument("--inner", action="store_true")
    given = asked.parse_args()
    if given.inner:
        print(json.dumps(measure(given.alerts)))
        return
    places = {"here": HERE} | ({"there": given.code.resolve()} if given.code is not None else {})
    found: dict[str, list[dict[str, float]]] = {name: [] for name in places}
    for _ in range(given.rounds):
        for name, code in places.items():
            found[name].append(_of(code, given.alerts))
    print(f"microseconds to decide one alert, the best of {given.rounds} (median)")
    for case in found["here"][0]:
        best = {name: min(one[case] for one in rounds) for name, rounds in found.items()}
        middle = {name: statistics.median(one[case] for one in rounds) for name, rounds in found.items()}
        said = "   ".join(f"{name} {best[name]:9.2f} ({middle[name]:9.2f})" for name in places)
        ratio = f"   here/there {best['here'] / best['there']:.2f}" if "there" in best else ""
        print(f"  {case:36} {said}{ratio}")


if __name__ == "__main__":
    main()
