"""Hostile bytes against the real daemon: it goes on supervising and answering, and its memory stays bounded."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import msgpack
import psutil
import pytest

from bridge_link.keys import find_key
from bridge_link.wire import Kind, decode, new_id
from guardian_link import Alert, GuardianClient
from tests.links.guarded import heard, raw_client
from tests.support.eventually import eventually
from tests.support.tables import TABLE
from tests.system.running import SLEEPER, Running, daemon, write_config

MAX_GROWTH_MB = 40
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
NULL_GREETING = GREETING.replace(b"CURVE", b"NULL\0")
HUGE_COMMAND = b"\x06" + struct.pack(">Q", 2**30) + b"\x05HELLO"
ENDLESS = b"\x06" + struct.pack(">Q", 2**63 - 1)
OVERFLOWING = b"\x06" + struct.pack(">Q", 2**63)
ATTACKS = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    "zeros": bytes(65536),
    "ones": b"\xff" * 65536,
    "half a greeting": GREETING[:11],
    "null mechanism": NULL_GREETING + b"\x04\x19\x05READY" + bytes(18),
    "1 GiB hello": GREETING + HUGE_COMMAND + bytes(2**20),
    "2^63-1": GREETING + ENDLESS + bytes(2**16),
    "2^63": GREETING + OVERFLOWING + bytes(2**16),
    "1 GiB frame": GREETING + b"\x02" + struct.pack(">Q", 2**30) + bytes(2**20),
    "garbage hello": GREETING + b"\x04\xc8\x05HELLO" + os.urandom(194),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("hostile")
    with daemon(write_config(folder, {"a": SLEEPER}), folder / "state") as selfheal:
        selfheal.until_ready("a")
        yield selfheal


def rss_mb(running: Running) -> float:
    return float(psutil.Process(running.process.pid).memory_info().rss) / 2**20


def endpoint(running: Running) -> tuple[str, int]:
    parts = urlsplit((running.state / "guardian.address").read_text().strip())
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def goes_on(running: Running) -> None:
    """A killed service comes back, an alert is stored."""
    pid = running.pid("a")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: running.services()["a"].get("pid") not in (None, pid), within_s=20)
    running.until_ready("a")
    with GuardianClient(state_dir=running.state, timeout_s=20) as guardian:
        assert guardian.send(Alert(type="noise"), timeout_s=20).status == "stored"


def test_trap_19_junk_from_strangers(running: Running, record_property: Callable[[str, object], None]) -> None:
    before, rows, held = rss_mb(running), [], []
    try:
        for name, junk in ATTACKS.items():
            for _ in range(10):
                one = socket.create_connection(endpoint(running), timeout=5)
                held.append(one)
                with contextlib.suppress(OSError):
                    one.sendall(junk)
            rows.append(f"{name}: RSS {rss_mb(running):.1f} MB")
        goes_on(running)
    finally:
        for one in held:
            one.close()
    grown = rss_mb(running) - before
    record_property(TABLE, f"RSS before {before:.1f} MB, grown by {grown:.1f} MB\n" + "\n".join(rows))
    assert grown < MAX_GROWTH_MB


def test_trap_19_a_half_handshake_is_ended(running: Running) -> None:
    """Ten who say nothing more are gone after HANDSHAKE_IVL: descriptors are not held for ever."""
    process = psutil.Process(running.process.pid)
    with contextlib.ExitStack() as stack:
        before = process.num_fds()
        held = [stack.enter_context(socket.create_connection(endpoint(running), timeout=20)) for _ in range(10)]
        eventually(lambda: process.num_fds() >= before + 8)  # the kernel connects before the daemon accepts
        for one in held:
            one.sendall(GREETING[:11])
        for one in held:
            with contextlib.suppress(ConnectionResetError):
                while one.recv(4096):
                    continue
        eventually(lambda: process.num_fds() <= before + 2)


def bombs() -> dict[str, tuple[bytes, bytes]]:
    """(content type, body) of an authenticated client."""
    deep: object = 1
    for _ in range(60):
        deep = [deep]
    return {
        "msgpack 60,000 deep": (b"m", b"\x91" * 60_000 + b"\xc0"),
        "msgpack 60 deep": (b"m", msgpack.packb({"a": deep})),
        "msgpack small arrays": (b"m", b"\x81\xa1a\xdc\xff\x00" + b"\x90" * 0xFF00),
        "msgpack huge map": (b"m", msgpack.packb({str(n): n for n in range(6000)})),
        "msgpack lying length": (b"m", b"\xdd\xff\xff\xff\xff"),
        "json 30,000 deep": (b"j", b"[" * 30_000),
        "json 60 deep": (b"j", json.dumps({"a": deep}).encode()),
        "json small arrays": (b"j", b'{"a":[' + b"[]," * 20_000 + b"[]]}"),
        "json huge map": (b"j", json.dumps({str(n): n for n in range(5000)}).encode()),
        "json long number": (b"j", b'{"a":' + b"9" * 60_000 + b"}"),
        "too large": (b"m", b"\xda" + bytes(70_000)),
    }


def test_trap_24_message_bombs_in_both_encodings(
    running: Running, record_property: Callable[[str, object], None]
) -> None:
    before = rss_mb(running)
    address, key = (running.state / "guardian.address").read_text().strip(), find_key(None, running.state, {})
    with raw_client(address, key) as dealer:
        for name, (content_type, body) in bombs().items():
            for _ in range(10):
                message_id = new_id()
                dealer.send_multipart([b"SH1", Kind.ALERT.value, content_type, message_id.encode(), body])
                refusal = heard(dealer, 20_000)
                assert refusal is not None, name
                assert (refusal.kind, refusal.id, refusal.body["permanent"]) == (Kind.NACK, message_id, True), name
        dealer.send_multipart([b"x"] * 5000)
        dealer.send_multipart([b"SH1", b"QUERY", b"j", b"after-all", b'{"ask":"statistics"}'])
        assert dealer.poll(20_000)
        assert decode(dealer.recv_multipart()).kind is Kind.ANSWER
    goes_on(running)
    grown = rss_mb(running) - before
    record_property(TABLE, f"RSS before {before:.1f} MB, grown by {grown:.1f} MB by {10 * len(bombs())} bombs")
    assert grown < MAX_GROWTH_MB


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit (util-linux)")
def test_trap_20_a_flood_of_connections(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Strangers without end never have the last open file: services come back during it, and it says what is on."""
    limit, runs = 220, tmp_path / "runs"
    service = {"command": ["sh", "-c", f"echo $$$$ >> {runs}; exec sleep 1000"]}
    config, state = write_config(tmp_path, {"a": service}), tmp_path / "state"
    with (
        daemon(config, state, before=["prlimit", f"--nofile={limit}:{limit}"]) as running,
        contextlib.ExitStack() as opened,
    ):
        running.until_ready("a")
        guardian = opened.enter_context(GuardianClient(state_dir=state, timeout_s=20))
        assert guardian.send(Alert(type="noise"), timeout_s=20).status == "stored"
        files, most = psutil.Process(running.process.pid), 0

        def pids() -> list[int]:
            return [int(one) for one in runs.read_text().split()]

        def in_flood(is_so: Callable[[], bool]) -> bool:
            nonlocal most
            with contextlib.suppress(OSError):
                flood.append(socket.create_connection(address, timeout=1))
            most = max(most, files.num_fds())
            return is_so()

        address = endpoint(running)
        flood: list[socket.socket] = []
        try:
            for count in (1, 2):
                eventually(lambda: in_flood(lambda: files.num_fds() >= limit * 0.6), within_s=20, every_s=0.001)
                os.kill(pids()[-1], signal.SIGKILL)
                has_run = partial(lambda wanted: len(pids()) == wanted, count + 1)
                eventually(partial(in_flood, has_run), within_s=20, every_s=0.001)
            eventually(lambda: in_flood(lambda: "files are open" in running.log.read_text()), within_s=20)
            assert most < limit, "its own files were taken"
        finally:
            for one in flood:
                one.close()
        eventually(lambda: files.num_fds() < limit / 2, within_s=20)
        assert running.until_ready("a")["a"]["restarts"] == 2, "nothing but the two kills"
        assert running.services()["a"]["pid"] == pids()[-1]
        with GuardianClient(state_dir=state, timeout_s=20) as guardian:
            assert guardian.send(Alert(type="noise"), timeout_s=20).status == "stored"
        record_property(
            TABLE, f"{len(flood)} connections, at most {most} of {limit} files, {files.num_fds()} afterwards"
        )
