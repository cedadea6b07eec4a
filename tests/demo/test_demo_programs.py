"""The demo's programs as real processes: they serve, they misbehave on request, they end when asked."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.links.scripted_daemon import daemon
from tests.support.eventually import eventually
from tests.system.running import free_port


@contextmanager
def program(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def ask(port: int, path: str, *, post: bool = False) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data=b"" if post else None, timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@contextmanager
def service(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    with program("supervisors.demo.service", "--name", "web", "--port", str(port), *arguments) as process:
        assert process.stdout is not None
        assert f"listening on 127.0.0.1:{port}" in process.stdout.readline()
        yield process, port


def test_it_serves_and_ends_when_asked() -> None:
    with service() as (process, port):
        assert ask(port, "/healthz") == (200, {"status": "healthy", "service": "web"})
        assert ask(port, "/")[1]["pid"] == process.pid
        assert ask(port, "/metrics")[0] == 200
        assert ask(port, "/nothing")[0] == 404
        process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize("status", ["unhealthy", "degraded"])
def test_it_says_how_it_feels(status: str) -> None:
    with service() as (_, port):
        assert ask(port, f"/fault/{status}", post=True)[0] == 200
        assert ask(port, "/healthz")[1]["status"] == status
        ask(port, "/fault/healthy", post=True)
        assert ask(port, "/healthz")[1]["status"] == "healthy"


@pytest.mark.parametrize(("fault", "code"), [("exit?code=7", 7), ("crash", -signal.SIGSEGV)])
def test_it_dies_on_request(fault: str, code: int) -> None:
    with service() as (process, port):
        ask(port, f"/fault/{fault}", post=True)
        assert process.wait(10) == code


def test_it_hangs_and_refuses_what_it_does_not_know() -> None:
    with service() as (_, port):
        assert ask(port, "/fault/nonsense", post=True)[0] == 404
        assert ask(port, "/fault/slow?ms=x", post=True)[0] == 400
        ask(port, "/fault/hang", post=True)
        with pytest.raises(TimeoutError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=0.3)


def test_a_taken_port_is_said() -> None:
    with service() as (_, port), program("supervisors.demo.service", "--name", "b", "--port", str(port)) as second:
        assert second.wait(10) == 1
        assert second.stdout is not None
        assert f"127.0.0.1:{port}" in second.stdout.read()


def test_the_tcp_peer_greets_beats_and_falls_silent() -> None:
    port = free_port()
    with program("supervisors.demo.peer", "--kind", "tcp", "--port", str(port)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, connection.makefile() as lines:
            assert json.loads(lines.readline())["kind"] == "hello"
            assert json.loads(lines.readline())["kind"] == "heartbeat"
            os.kill(process.pid, signal.SIGUSR1)
            assert "silent" in process.stdout.readline()
            process.terminate()
            assert process.wait(10) == 0


def test_the_tcp_peer_has_an_error_until_it_is_reset() -> None:
    port = free_port()
    with program("supervisors.demo.peer", "--kind", "tcp", "--port", str(port)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, connection.makefile() as lines:

            def heard(kind: str) -> dict[str, Any]:
                found: dict[str, Any] = next(body for line in lines if (body := json.loads(line))["kind"] == kind)
                return found

            def told(number: int, **asked: Any) -> Any:
                connection.sendall(json.dumps({"kind": "command", "id": f"command-{number}", **asked}).encode() + b"\n")
                reply = heard("reply")
                return reply["state"], reply.get("result")

            assert heard("hello")["commands"] == ["health", "reconnect", "reset"]
            os.kill(process.pid, signal.SIGUSR2)
            assert heard("error")["error_code"] == 4051
            unwell = ("done", {"status": "unhealthy", "error": "a demo error"})
            assert told(1, command="health") == unwell
            assert told(2, command="reconnect") == ("done", "nothing to do")
            assert told(3, command="health") == unwell
            assert told(4, command="reset") == ("done", "well again")
            assert told(5, command="health") == ("done", {"status": "healthy"})
            assert told(1, command="health") == unwell, "a command is done once"
            assert told(6, command="play")[0] == "refused"
            assert (told(7, ask=True)[0], told(8, ask=True, asked_before=True)[0]) == ("never", "unknown")
        process.terminate()
        assert process.wait(10) == 0


def test_the_zeromq_peer_beats_under_its_name() -> None:
    with (
        daemon() as (scripted, address),
        program("supervisors.demo.peer", "--kind", "zeromq", "--name", "powershell", "--address", address) as process,
    ):
        eventually(lambda: any(one.body.get("name") == "powershell" for one in scripted.seen), within_s=20)
        process.terminate()
        assert process.wait(10) == 0


def test_the_spool_peer_writes_fresh_files(tmp_path: Path) -> None:
    with program("supervisors.demo.peer", "--kind", "spool", "--directory", str(tmp_path)) as process:
        first = eventually(lambda: [path.stat().st_mtime_ns for path in tmp_path.glob("*.csv")], within_s=20)
        eventually(lambda: [path.stat().st_mtime_ns for path in tmp_path.glob("*.csv")] > first)
        process.terminate()
        assert process.wait(10) == 0
