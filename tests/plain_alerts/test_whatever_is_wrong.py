"""A plain alert leaves within a second: recovery off, the guardian or the engine hung, pools full, journal held."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from actors.guardian import GuardianActor
from bridge_link.keys import find_key
from bridge_link.sockets import make_dealer
from bridge_link.wire import Kind, Message, encode
from supervisors.plain_sinks import WebhookSink
from supervisors.recovery import RecoveryPlan
from tests.plain_alerts.listener import Listener, listening
from tests.recovery.place import Place, World, recovering
from tests.recovery.test_storm import held
from tests.support.eventually import eventually

LINK = "tcp://127.0.0.1:0"
LIMIT_S = 1.0


@contextmanager
def telling(folder: Path, *, enabled: bool = True) -> Iterator[tuple[Place, Listener]]:
    with listening() as listener:
        plan = RecoveryPlan(folder, enabled, 5, (), LINK, LINK, sinks=(WebhookSink("hook", listener.url),))
        with recovering(folder, World(), plan=plan) as place:
            eventually(lambda: place.recovery.plain.is_alive, within_s=30)
            yield place, listener


@contextmanager
def sender(place: Place) -> Iterator[Any]:
    with zmq.Context() as context, make_dealer(context, find_key()) as raw:
        raw.connect(place.address)
        assert raw.poll(20_000, zmq.POLLOUT)
        raw.send_multipart(encode(Message(Kind.ALERT, "alert-first", {"type": "hello"})))
        yield raw


def send(raw: Any, number: int) -> tuple[str, float]:
    name = f"alert-no-{number}"
    raw.send_multipart(encode(Message(Kind.ALERT, name, {"type": "service_failure", "service": "a"})))
    return name, time.monotonic()


def check(place: Place, listener: Listener, what: str) -> None:
    with sender(place) as raw:
        listener.took_s("alert-first", 0.0)
        took = [listener.took_s(*send(raw, number)) for number in range(3)]
    print(f"{what}: told after {max(took) * 1000:.0f} ms at most")
    assert max(took) < LIMIT_S


def test_with_recovery_off(tmp_path: Path) -> None:
    with telling(tmp_path, enabled=False) as (place, listener):
        check(place, listener, "recovery off")


def test_with_the_guardian_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, real = threading.Event(), GuardianActor.handle

    def hang(self: GuardianActor, message: Any) -> Any:
        gate.wait(60)
        return real(self, message)

    monkeypatch.setattr(GuardianActor, "handle", hang)
    with telling(tmp_path) as (place, listener):
        try:
            check(place, listener, "guardian hung")
        finally:
            gate.set()


def test_with_the_engine_hung_and_both_pools_full(tmp_path: Path) -> None:
    gate = threading.Event()
    with telling(tmp_path) as (place, listener):
        try:
            place.world.gate.clear()
            for pool, size in ((place.system.io, 40), (place.system.waits, 300)):
                for _ in range(size):
                    pool.run(lambda: gate.wait(60))
            check(place, listener, "engine hung, pools full")
        finally:
            gate.set()


def test_with_the_journal_held(tmp_path: Path) -> None:
    gate = threading.Event()
    with telling(tmp_path) as (place, listener):
        try:
            held(place, gate)
            check(place, listener, "journal held")
        finally:
            gate.set()


def test_a_refusal_of_ours_is_told_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender is told to come again; people are told now."""
    monkeypatch.setattr("actors.intake.MAX_IN_FLIGHT", 0)
    with telling(tmp_path) as (place, listener):
        check(place, listener, "every alert refused")
        assert place.recovery.statistics()["intake"]["stored"] == 0


def test_it_is_told_before_it_is_stored(tmp_path: Path) -> None:
    gate = threading.Event()
    with telling(tmp_path) as (place, listener), sender(place) as raw:
        listener.took_s("alert-first", 0.0)
        held(place, gate)
        name, sent_s = send(raw, 1)
        listener.took_s(name, sent_s)
        assert place.recovery.records.alert(name) is None
        gate.set()
        eventually(lambda: place.recovery.records.alert(name), within_s=30)


def test_the_node_says_which_sink_is_in_trouble(tmp_path: Path) -> None:
    with telling(tmp_path) as (place, listener):
        listener.status = 500
        with sender(place):
            node = eventually(lambda: _degraded(place), within_s=30, what="the node of plain alerts")
        assert "hook: HTTP 500" in node


def _degraded(place: Place) -> str | None:
    status = place.system.board.get("root/links/plain-alerts")
    return status.detail if status is not None and status.state.value == "degraded" else None
