"""Who connects to the operator's interface and asks nothing: bounded, cut off, and said once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from supervisors.api import crowd as crowds
from supervisors.api.app import create_app
from supervisors.api.crowd import Crowd
from supervisors.api.server import ApiServer
from supervisors.open_files import are_too_many
from supervisors.remote import Base, RemoteManager
from tests.outside.conftest import serving
from tests.outside.fake_manager import FakeManager
from tests.support.eventually import eventually, holds_for

ASKED = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@contextlib.contextmanager
def connected(server: ApiServer, count: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    assert server.address is not None
    host, port = server.address.removeprefix("http://").rsplit(":", 1)
    with contextlib.ExitStack() as opened:
        made = []
        for _ in range(count):
            one = opened.enter_context(socket.create_connection((host, int(port)), timeout=20))
            with contextlib.suppress(OSError):  # cut off already
                one.sendall(said)
            made.append(one)
        yield made


def is_cut_off(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        while one.recv(65536):
            continue
        return True
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0",
        b"POST /v1/silences HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/json\r\nContent-Length: 9\r\n\r\n{",
    ],
)
def test_who_does_not_end_a_request_is_cut_off(server: ApiServer, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(crowds, "REQUEST_WITHIN_S", 0.3)
    with connected(server, 3, said) as many:
        eventually(lambda: all(map(is_cut_off, many)), within_s=4)


def test_who_waits_for_an_answer_is_not_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "REQUEST_WITHIN_S", 0.3)
    is_open = threading.Event()
    server = ApiServer(create_app(FakeManager(), is_open), "127.0.0.1:0", tmp_path / "operator.sock")
    server.start()
    try:
        with connected(server, 1, ASKED) as (one,):
            holds_for(lambda: not is_cut_off(one), 1.0)
            is_open.set()
            one.settimeout(20)
            assert one.recv(65536).startswith(b"HTTP/1.1 200 OK")
    finally:
        is_open.set()
        server.close()


def test_so_many_and_no_more_and_the_unix_socket_has_its_own(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowds, "MOST", 5)
    with capture_logs() as logs, connected(server, 40) as many:
        eventually(lambda: sum(map(is_cut_off, many)) == 35)
        assert not any(map(is_cut_off, many[-5:])), "those who wait for longest go"
        with RemoteManager(Base(state_dir=tmp_path)) as manager:
            assert manager.info()
        assert str(server.look()).startswith("35 connections were cut off")
        with connected(server, 1, ASKED) as (asks,):
            assert asks.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert [one["event"] for one in logs if one["log_level"] == "warning"] == ["connections of operators are cut off"]


def test_when_files_are_scarce_all_who_wait_go(
    fake: FakeManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowds, "YOUNG_S", -1.0)
    scarce = threading.Event()
    with serving(fake, tmp_path, "127.0.0.1:0") as server:
        server._crowd.are_scarce = lambda _descriptor: scarce.is_set()
        with connected(server, 10) as many:
            eventually(lambda: len(server._crowd._here["tcp"]) == 10)
            scarce.set()
            with connected(server, 1) as (late,):
                eventually(lambda: all(map(is_cut_off, [*many, late])))
        scarce.clear()
        with connected(server, 1, ASKED) as (asks,):
            assert asks.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_trouble_is_said_once_and_ends() -> None:
    now = [0.0]
    crowd = Crowd(now=lambda: now[0])
    loop = asyncio.new_event_loop()
    error: dict[str, Any] = {
        "message": "socket.accept() out of system resource",
        "exception": OSError(errno.EMFILE, "Too many open files"),
    }
    try:
        with capture_logs() as logs:
            for _ in range(2000):
                crowd.loop_says(loop, error)
            assert crowd.trouble() is not None
            now[0] = 11.0
            assert crowd.trouble() is None
            crowd.loop_says(loop, error)
        assert [one["log_level"] for one in logs] == ["warning", "info", "warning"]
    finally:
        loop.close()


def test_a_quarter_of_the_files_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (220, 220))
    assert [are_too_many(one) for one in (164, 165)] == [False, True]
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (65536, 65536))
    assert [are_too_many(one) for one in (65536 - 129, 65536 - 128)] == [False, True]
