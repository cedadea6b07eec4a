"""The real daemon raises alerts about real processes, a real disk and itself, and takes them back."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests.faults.programs import command
from tests.support.eventually import eventually, holds_for
from tests.system.running import SLEEPER, Running, daemon, keepers_of, write_config
from tests.system.small_disk import fill, make_room, needs_root, small_disk

QUICK = {"every": "200ms", "for": "1s", "clear_for": "1s"}
NOBODY_ELSE = {"box": {"cpu_percent": None, "memory_percent": None, "disk_percent": None}}
OFF = {"recovery": {"enabled": False}}
"""Nothing is answered: what is tried here is the alert."""


def watching(**more: Any) -> dict[str, Any]:
    return {"watch": QUICK | NOBODY_ELSE | {"daemon": {"cpu_percent": None, "memory_mb": None}} | more, **OFF}


def alerts(selfheal: Running, kind: str) -> list[dict[str, Any]]:
    return [one for one in selfheal.get("/v1/alerts")["alerts"] if one["type"] == kind]


def is_resolved(selfheal: Running, alert: dict[str, Any]) -> bool:
    now = [one for one in selfheal.get("/v1/alerts")["alerts"] if one["id"] == alert["id"]]
    return bool(now) and "resolved_at" in now[0]


def test_a_service_that_burns_cpu_is_one_alert_until_it_is_well(tmp_path: Path) -> None:
    go = tmp_path / "go"
    burner = {"command": command("burn", go), "required_resources": {"cpu_percent": 15}}
    config = write_config(tmp_path, {"burner": burner, "quiet": SLEEPER}, **watching())
    with daemon(config, tmp_path / "state") as selfheal:
        holds_for(lambda: not selfheal.get("/v1/alerts")["alerts"], 3)
        go.touch()
        (alert,) = eventually(lambda: alerts(selfheal, "high_cpu_usage"), within_s=30)
        assert (alert["service"], alert["source"], alert["severity"]) == ("burner", "selfheal", "high")
        assert "the limit is 15 %" in alert["message"]
        holds_for(lambda: len(alerts(selfheal, "high_cpu_usage")) == 1, 2)
        assert not is_resolved(selfheal, alert)
        assert selfheal.call("services", "restart", "burner").returncode == 0
        eventually(lambda: is_resolved(selfheal, alert), within_s=30)
        assert len(alerts(selfheal, "high_cpu_usage")) == 1


def test_a_service_that_leaks_is_told_before_its_memory_is_gone(tmp_path: Path) -> None:
    go = tmp_path / "go"
    leaker = {"command": command("leak", go), "required_resources": {"memory_mb": 100}}
    with daemon(write_config(tmp_path, {"leaker": leaker}, **watching()), tmp_path / "state") as selfheal:
        go.touch()
        (alert,) = eventually(lambda: alerts(selfheal, "memory_exhaustion"), within_s=30)
        assert alert["service"] == "leaker"
        assert "the limit is 100 MiB" in alert["message"]
        assert selfheal.call("services", "stop", "leaker").returncode == 0  # what does not run uses nothing
        eventually(lambda: is_resolved(selfheal, alert), within_s=30)


@needs_root
def test_a_full_disk_is_told_once_and_taken_back(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", "16m") as disk:
        box = {"cpu_percent": None, "memory_percent": None, "disk_percent": 90}
        with daemon(
            write_config(tmp_path, {"quiet": SLEEPER}, **watching(box=box, paths=["data"])), tmp_path / "state"
        ) as selfheal:
            fill(disk)
            (alert,) = eventually(lambda: alerts(selfheal, "disk_space_low"), within_s=30)
            assert alert.get("service") is None
            assert f"disk {disk} 100 % full" in alert["message"]
            make_room(disk)
            eventually(lambda: is_resolved(selfheal, alert), within_s=30)


def test_the_daemon_watches_itself_and_the_box_the_same_way(tmp_path: Path) -> None:
    tiny = {"memory_percent": 0.1, "cpu_percent": None, "disk_percent": None}
    config = write_config(
        tmp_path, {"quiet": SLEEPER}, **watching(box=tiny, daemon={"cpu_percent": None, "memory_mb": 1})
    )
    with daemon(config, tmp_path / "state") as selfheal:

        def told() -> bool:
            return {one.get("service") for one in alerts(selfheal, "memory_exhaustion")} == {None, "selfheal"}

        eventually(told, within_s=30)


def test_a_firing_outlives_the_daemon_that_said_it(tmp_path: Path) -> None:
    go, state = tmp_path / "go", tmp_path / "state"
    burner = {"command": command("burn", go), "required_resources": {"cpu_percent": 15}}
    config = write_config(tmp_path, {"burner": burner}, **watching())
    with daemon(config, state) as selfheal:
        go.touch()
        (alert,) = eventually(lambda: alerts(selfheal, "high_cpu_usage"), within_s=30)
        keeper = keepers_of(state)
        selfheal.process.send_signal(signal.SIGKILL)
        selfheal.process.wait()
        assert keeper
        with daemon(config, state) as second:
            second.until_ready()
            # with recovery off it is told anew each time, under its own id with a number
            holds_for(lambda: all(one["id"].startswith(alert["id"]) for one in alerts(second, "high_cpu_usage")), 3)
            assert not is_resolved(second, alert)
            assert second.call("services", "restart", "burner").returncode == 0
            eventually(lambda: is_resolved(second, alert), within_s=30)


def test_a_crash_loop_is_over_when_the_service_has_been_ready_for_a_while(tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    code = (
        f"import os, time\nif not os.path.exists({str(mended)!r}): raise SystemExit(3)\nimport signal; signal.pause()"
    )
    bad = {
        "command": [sys.executable, "-c", code],
        "max_restarts": 2,
        "backoff": {"initial": "50ms", "max": "1s", "jitter": False},
    }
    with daemon(write_config(tmp_path, {"bad": bad}, **watching()), tmp_path / "state") as selfheal:
        (alert,) = eventually(lambda: alerts(selfheal, "crash_loop"), within_s=30)
        holds_for(lambda: len(alerts(selfheal, "crash_loop")) == 1, 3)  # it is parked again every second
        assert not is_resolved(selfheal, alert)
        mended.touch()
        eventually(lambda: is_resolved(selfheal, alert), within_s=30)


def test_watching_costs_next_to_nothing(tmp_path: Path) -> None:
    """Idle, with limits for each of ten services, at the shipped interval. Printed; the goal is under 1 %."""
    services = {f"s{n}": SLEEPER | {"required_resources": {"cpu_percent": 50, "memory_mb": 100}} for n in range(10)}
    with daemon(write_config(tmp_path, services), tmp_path / "state") as selfheal:
        selfheal.until_ready()
        process = psutil.Process(selfheal.process.pid)
        eventually(lambda: process.cpu_percent(2) < 5, within_s=30)
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        eventually(lambda: time.monotonic() - began > 10, within_s=20)
        used = 100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
        print(f"idle daemon with ten watched services: {used:.2f} % of one core")
        assert used < 5  # a shared machine; benchmarks measure it alone
