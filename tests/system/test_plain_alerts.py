"""The real daemon tells every alert within a second: who decides hung, disk full, journal garbage, recovery off."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from bridge_link.keys import find_key
from bridge_link.sockets import make_dealer
from bridge_link.wire import Kind, Message, encode
from tests.plain_alerts.listener import Listener, listening
from tests.support.eventually import eventually
from tests.system.running import SELFHEAL, SLEEPER, Running, daemon, write_config
from tests.system.small_disk import fill, needs_root, small_disk

pytestmark = pytest.mark.timeout(180)
LIMIT_S = 1.0
TRIES = 5
DECIDES = "root/links/alerts"


@contextmanager
def sender(running: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], tuple[str, float]]]:
    monkeypatch.setenv("SELFHEAL_STATE", str(running.state))
    with zmq.Context() as context, make_dealer(context, find_key()) as raw:
        raw.connect((running.state / "guardian.address").read_text().strip())
        assert raw.poll(20_000, zmq.POLLOUT)

        def send(number: int) -> tuple[str, float]:
            name = f"alert-no-{number:04}"
            body = {"type": "service_failure", "service": "a", "message": "no heartbeat"}
            raw.send_multipart(encode(Message(Kind.ALERT, name, body)))
            return name, time.monotonic()

        yield send


@contextmanager
def telling(
    folder: Path, state: Path, program: Sequence[str] = SELFHEAL, **more: Any
) -> Iterator[tuple[Running, Listener]]:
    out = folder / "commanded"
    with listening() as listener:
        sinks: list[dict[str, Any]] = [{"log": {}}, {"webhook": listener.url}]
        sinks.append({"command": ["tee", "-a", str(out)]})
        config = write_config(folder, {"a": SLEEPER}, alerting={"sinks": sinks}, **more)
        environment = {"SELFHEAL_TEST_HANG": DECIDES, "SELFHEAL_TEST_HUNG": str(folder / "hung")}
        with daemon(config, state, program=program, environment=environment) as running:
            yield running, listener


def check(running: Running, listener: Listener, patch: pytest.MonkeyPatch, wrong: Callable[[], Any]) -> str:
    """Send some, spoil something, send more: how long the webhook waited for those at most."""
    with sender(running, patch) as send:
        listener.took_s(*send(0))
        wrong()
        took = [listener.took_s(*send(number)) for number in range(1, TRIES + 1)]
    assert max(took) < LIMIT_S
    return f"{TRIES} alerts told by webhook after {max(took) * 1000:.0f} ms at most"


def commanded(folder: Path) -> None:
    told = folder / "commanded"
    eventually(lambda: told.exists() and told.read_text().count("alert-no-") > TRIES, within_s=30)


@needs_root
def test_with_the_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's log is on that disk too, and has no room either."""
    with small_disk(tmp_path / "disk", "24m") as disk:
        small = {"ballast": "1MB", "min_free": "1MB"}
        with telling(tmp_path, disk / "state", journal=small) as (running, listener):
            print("disk full:", check(running, listener, monkeypatch, lambda: fill(disk)))
            commanded(tmp_path)


def test_with_the_journal_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil() -> None:
        for file in (tmp_path / "state").glob("journal.db*"):
            size = file.stat().st_size
            with file.open("r+b") as raw:
                raw.write(os.urandom(min(size, 1 << 20)))

    with telling(tmp_path, tmp_path / "state") as (running, listener):
        print("journal corrupt:", check(running, listener, monkeypatch, spoil))
        commanded(tmp_path)


def test_with_who_decides_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And recovery can be switched off then: the answer does not wait for it."""
    hanging = (sys.executable, "-m", "tests.system.hanging")

    def outcomes(running: Running) -> dict[str, str]:
        return {one["id"]: one["outcome"] for one in running.get("/v1/alerts")["alerts"]}

    with telling(tmp_path, tmp_path / "state", hanging) as (running, listener):

        def spoil() -> None:
            running.process.send_signal(signal.SIGUSR2)
            eventually((tmp_path / "hung").exists)

        print("who decides hung:", check(running, listener, monkeypatch, spoil))
        commanded(tmp_path)
        assert running.call("recovery", "off").stdout.startswith("recovery off")
        decided = outcomes(running)
        assert decided["alert-no-0000"] == "run"
        assert decided[f"alert-no-{TRIES:04}"] == "undecided", "it is not hung"


def test_with_recovery_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with telling(tmp_path, tmp_path / "state", recovery={"enabled": False}) as (running, listener):
        print("recovery off:", check(running, listener, monkeypatch, lambda: None))
        commanded(tmp_path)
        eventually(lambda: running.log.read_text().count('"event": "plain alert"') > TRIES, within_s=30)
