"""A process that has used up its file descriptors: the links say so, and work as soon as there are some again."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from bridge_link import BridgeClient
from bridge_link.channel import Beat, DealerChannel
from bridge_link.courier import Courier
from bridge_link.errors import LinkUnusable, WireError
from bridge_link.store import BridgeStore
from bridge_link.wire import Kind, Message
from guardian_link import Alert, GuardianClient
from guardian_link.reach import Reach
from tests.links.scripted_daemon import daemon
from tests.support.eventually import eventually

POOR = """
import os, resource, sys, threading
from bridge_link import BridgeClient
from bridge_link.errors import LinkTimeout
from guardian_link import Alert, DaemonUnreachable, GuardianClient

kind, address = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    for _ in range(3):
        os.close(taken.pop())
if kind == "guardian":
    client = GuardianClient(address)
    send = lambda timeout_s: client.send(Alert(type="x"), timeout_s).execution_id
else:
    client = BridgeClient(address, name="mt4", folder=None)
    send = lambda timeout_s: client.send_error({"system": "mt4", "error_message": "x"}, timeout_s)
try:
    send(2.0)
except (DaemonUnreachable, LinkTimeout) as error:
    print("refused:", error)
print("trouble:", client.trouble)
for one in taken:
    os.close(one)
print("answered:", send(20.0))
print("trouble:", client.trouble)
client.close()
"""


@pytest.mark.parametrize("kind", ["guardian", "bridge"])
def test_a_client_made_without_descriptors_works_when_there_are_some(kind: str) -> None:
    with daemon() as (_, address):
        words = (sys.executable, "-c", POOR, kind, address)
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "no connection can be made: LinkUnusable: Too many open files" in lines[0]
    assert "Too many open files" in lines[1]
    assert lines[2:] == ["answered: x-1", "trouble: None"]


def test_a_channel_that_cannot_be_made_at_all_is_trouble_of_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("bridge_link.channel.WakeUp", none_left)
    with pytest.raises(LinkUnusable, match="no connection can be made: Too many open files"):
        GuardianClient("tcp://127.0.0.1:1")


def test_whatever_fails_on_the_thread_what_waits_is_sent_and_answered() -> None:
    is_bad = threading.Event()
    is_bad.set()

    def body() -> Mapping[str, Any]:
        return {"text": "\0"} if is_bad.is_set() else {"text": "well"}

    with daemon() as (scripted, address):
        channel = DealerChannel(address, beat=Beat(0.05, body))
        try:
            eventually(lambda: channel.trouble is not None and "NUL" in channel.trouble)
            exchange = channel.begin(Message(Kind.ALERT, "alert-0001", {"type": "x"}), (Kind.STORED,))
            is_bad.clear()
            assert exchange.answers[Kind.STORED].result(20) == {"status": "stored"}
            eventually(lambda: any(one.kind is Kind.HEARTBEAT for one in scripted.seen))
            assert channel.trouble is None
        finally:
            channel.close()


def test_a_channel_whose_thread_has_ended_is_replaced_by_a_guardian() -> None:
    with daemon() as (_, address):
        reach = Reach(lambda: address, lambda: None, lambda _message: None, is_strict=False)
        first = reach.channel()
        assert reach.channel() is first
        first.close()
        assert reach.channel() is not first
        reach.close()
        with GuardianClient(address) as guardian:
            guardian._reach.channel().close()
            assert guardian.send(Alert(type="x")).execution_id == "x-1"


def test_a_channel_whose_thread_has_ended_is_replaced_by_a_bridge() -> None:
    made: list[DealerChannel] = []

    def make(where: tuple[str, Any]) -> DealerChannel:
        made.append(DealerChannel(where[0]))
        return made[-1]

    with daemon() as (_, address):
        courier = Courier(BridgeStore(None, "mt4"), make, lambda: (address, None), {"name": "mt4"}, {})
        try:
            eventually(lambda: len(made) == 1)
            made[0].close()
            letter = courier.put({"type": "x"})
            assert letter.decision.result(20)["execution_id"] == "x-1"
        finally:
            courier.close()


def test_what_cannot_be_said_of_an_endpoint_is_refused_at_once() -> None:
    with pytest.raises(WireError, match="NUL"):
        BridgeClient("tcp://127.0.0.1:1", name="mt4", version="1.2\0")
