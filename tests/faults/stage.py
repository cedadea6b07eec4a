"""What cases share: a real daemon whose watch is quick, its executions, and the wait for one to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.faults.registry import Ended
from tests.support.eventually import eventually
from tests.system.running import SELFHEAL, Running, daemon, write_config

TOOTHLESS: Final = (sys.executable, "-m", "tests.faults.toothless")
QUICK: Final = {"every": "200ms", "for": "1s", "clear_for": "1s"}
OFF: Final = {
    "box": {"cpu_percent": None, "memory_percent": None, "disk_percent": None},
    "daemon": {"cpu_percent": None, "memory_mb": None},
}
LONG_S: Final = 60.0
TERMINAL: Final = frozenset({"succeeded", "failed", "rolled_back", "rollback_failed", "unknown", "rejected", "expired"})


def is_root() -> str | None:
    return None if os.geteuid() == 0 else "needs root"


@contextmanager
def staged(
    folder: Path,
    services: Mapping[str, Any],
    *,
    acts: bool = True,
    watch: Mapping[str, Any] | None = None,
    before: Sequence[str] = (),
    **more: Any,
) -> Iterator[Running]:
    """A daemon in ``folder``, all its services ready. ``acts=False``: its runbooks do nothing."""
    config = write_config(folder, services, watch=QUICK | OFF | dict(watch or {}), **more)
    with daemon(config, folder / "state", program=SELFHEAL if acts else TOOTHLESS, before=before) as selfheal:
        selfheal.until_ready(within_s=LONG_S)
        yield selfheal


def send(selfheal: Running, alert: Mapping[str, Any], before: Sequence[str] = ()) -> dict[str, Any]:
    """An alert from outside, over the guardian link; what was decided. ``before``: who runs the sender."""
    file = selfheal.state.parent / "alert.json"
    file.write_text(json.dumps({"severity": "high", **alert}), encoding="utf-8")
    words = ("alert", "send", "--file", str(file), "--json", "--state", str(selfheal.state))
    argv = [*before, *SELFHEAL, *words]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=LONG_S, env=selfheal.environ)
    assert done.stdout, (done.returncode, done.stderr)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def alerts(selfheal: Running, kind: str) -> list[dict[str, Any]]:
    return [one for one in selfheal.get("/v1/alerts")["alerts"] if one["type"] == kind]


def executions(selfheal: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = selfheal.get("/v1/executions")["executions"]
    return found


def ended(selfheal: Running, runbook: str, began: float, within_s: float = LONG_S) -> Ended:
    """The first execution of ``runbook``, once it is over. ``began``: monotonic seconds of the fault."""

    def look() -> Ended | None:
        mine = [one for one in executions(selfheal) if one["runbook"] == runbook]
        if mine and mine[-1]["status"] in TERMINAL:
            return Ended(mine[-1]["status"], time.monotonic() - began, json.dumps(mine[-1])[:2000])
        return None

    return eventually(look, within_s=within_s, every_s=0.05, what=f"an execution of {runbook} that is over")


def decided(selfheal: Running, kind: str, within_s: float = LONG_S) -> dict[str, Any]:
    """The newest alert of this type, once it is decided."""

    def look() -> dict[str, Any] | None:
        found = alerts(selfheal, kind)
        return found[0] if found and found[0].get("outcome") else None

    return eventually(look, within_s=within_s, every_s=0.05, what=f"a decision about {kind}")


def run_of(selfheal: Running, service: str) -> int:
    incarnation = selfheal.services()[service]["incarnation"]
    assert isinstance(incarnation, int)
    return incarnation
