"""Probes against real servers and processes that behave badly; nothing may be left behind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.probes import ExecProbe, HttpProbe, ProbeVerdict, TcpProbe, run_probe
from actors.runtimes.procfs import read_line
from tests.support.eventually import eventually
from tests.system.running import free_port

PASS, DEGRADED, FAIL = ProbeVerdict.PASS, ProbeVerdict.DEGRADED, ProbeVerdict.FAIL
LONG_S = 20.0
Talk = Callable[[socket.socket, threading.Event], None]


class Server:
    """A TCP server that says what it is told, one connection at a time."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._over = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.05)
        self.port = self._listening.getsockname()[1]
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def url(self, path: str = "/healthz") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listening.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(5)
                try:
                    self.requests.append(connection.recv(65536))
                    self._talk(connection, self._over)
                except OSError:
                    continue  # the probe hung up


@pytest.fixture
def serve() -> Iterator[Callable[[Talk], Server]]:
    servers: list[Server] = []

    def start(talk: Talk) -> Server:
        servers.append(Server(talk))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def says(status: str, body: bytes = b"", *headers: str) -> Talk:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    answer = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    return lambda connection, _over: connection.sendall(answer)


def drips(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while not over.wait(0.05):
        connection.sendall(b"x")


def is_silent(_connection: socket.socket, over: threading.Event) -> None:
    over.wait(LONG_S)


@pytest.mark.parametrize(
    ("talk", "verdict", "detail"),
    [
        (says("200 OK"), PASS, "http /healthz: 200"),
        (says("204 No Content"), PASS, "http /healthz: 204"),
        (says("200 OK", b'{"status": "healthy"}'), PASS, "http /healthz: 200 healthy"),
        (says("200 OK", b'{"status": "Degraded"}'), DEGRADED, "http /healthz: 200 degraded"),
        (says("200 OK", b'{"status": "unhealthy"}'), FAIL, "http /healthz: 200 unhealthy"),
        (says("503 Busy", b'{"status": "healthy"}'), FAIL, "http /healthz: 503 healthy"),
        (says("503 Busy"), FAIL, "http /healthz: 503"),
        (says("404 Not Found"), FAIL, "http /healthz: 404"),
        (says("302 Found", b"", "Location: http://127.0.0.1:1/"), FAIL, "http /healthz: 302"),
        (says("200 OK", b"not json"), PASS, "http /healthz: 200"),
        (says("200 OK", b'["unhealthy"]'), PASS, "http /healthz: 200"),
        (says("200 OK", b"[" * 60_000), PASS, "http /healthz: 200"),
        (says("200 OK", b"x" * 5_000_000), PASS, "http /healthz: 200"),
        (lambda connection, _: connection.sendall(b"\0\1\2 junk\r\n\r\n"), FAIL, "http /healthz: no HTTP answer"),
        (lambda connection, _: None, FAIL, "http /healthz: "),
        (is_silent, FAIL, "http /healthz: no answer within 0.5 s"),
        (drips, FAIL, "http /healthz: no answer within 0.5 s"),
    ],
)
def test_http(serve: Callable[[Talk], Server], talk: Talk, verdict: ProbeVerdict, detail: str) -> None:
    timeout_s = 0.5 if talk in (is_silent, drips) else LONG_S
    result = run_probe(HttpProbe(serve(talk).url()), timeout_s)
    assert result.verdict is verdict, result
    assert result.detail.startswith(detail)


def test_http_asks_the_service_itself_once(serve: Callable[[Talk], Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server = serve(says("200 OK"))
    assert run_probe(HttpProbe(server.url("/a?b=c")), LONG_S).verdict is PASS
    assert len(server.requests) == 1
    assert server.requests[0].startswith(b"GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "http://127.0.0.1:notaport/", "http://no.invalid/"])
def test_an_address_that_is_none_fails_in_words(url: str) -> None:
    result = run_probe(HttpProbe(url), LONG_S)
    assert result.verdict is FAIL
    assert result.detail


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_closed_port_is_refused() -> None:
    port = free_port()
    assert run_probe(TcpProbe("127.0.0.1", port), LONG_S).detail == f"tcp 127.0.0.1:{port}: connection refused"
    assert run_probe(HttpProbe(f"http://127.0.0.1:{port}/"), LONG_S).detail == "http /: connection refused"


def test_an_open_port_passes(serve: Callable[[Talk], Server]) -> None:
    server = serve(is_silent)
    assert run_probe(TcpProbe("127.0.0.1", server.port), LONG_S).verdict is PASS


def test_a_full_backlog_times_out() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting = []
        for _ in range(8):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(address)
            waiting.append(client)
        result = run_probe(TcpProbe(*address), 0.3)
        for client in waiting:
            client.close()
    assert result.detail.endswith("no answer within 0.3 s")


# -- exec -------------------------------------------------------------------------------------------------------------


def test_exec_by_its_exit_code() -> None:
    assert run_probe(ExecProbe(("true",)), LONG_S).verdict is PASS
    failed = run_probe(ExecProbe(("sh", "-c", "echo first; echo not yet >&2; exit 2")), LONG_S)
    assert (failed.verdict, failed.detail) == (FAIL, "exec sh: exit 2: not yet")
    assert run_probe(ExecProbe(("sh", "-c", "kill -9 $$")), LONG_S).detail == "exec sh: signal 9"


def test_exec_gets_its_folder_and_environment(tmp_path: Path) -> None:
    check = ExecProbe(("sh", "-c", 'test "$PWD $WORD" = "$EXPECTED"'), tmp_path)
    environment = {"WORD": "w", "EXPECTED": f"{tmp_path} w"}
    assert run_probe(ExecProbe(check.command, tmp_path, environment), LONG_S).verdict is PASS
    assert run_probe(check, LONG_S).verdict is FAIL


@pytest.mark.parametrize("command", [("no-such-program",), ()])
def test_exec_that_cannot_start(command: tuple[str, ...]) -> None:
    result = run_probe(ExecProbe(command), LONG_S)
    assert result.verdict is FAIL
    assert "cannot start" in result.detail


def test_exec_that_hangs_is_killed_with_all_its_descendants(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    text = f"trap '' TERM; setsid sh -c 'echo $$ >> {pids}; exec sleep 1000' & echo $$ >> {pids}; wait; sleep 1000"
    result = run_probe(ExecProbe(("sh", "-c", text)), 1.0)
    assert result.detail == "exec sh: no end within 1 s"
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == 2
    for pid in started:
        assert (line := read_line(pid)) is None or line.is_dead


def test_exec_does_not_wait_for_a_grandchild_that_holds_the_output(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    text = f"sh -c 'echo $$ > {pid_file}; exec sleep 1000' & while [ ! -s {pid_file} ]; do sleep 0.01; done; exit 0"
    assert run_probe(ExecProbe(("sh", "-c", text)), LONG_S).verdict is PASS
    pid = int(pid_file.read_text())
    eventually(lambda: (line := read_line(pid)) is None or line.is_dead)


def test_no_probe_leaves_anything_behind(serve: Callable[[Talk], Server]) -> None:
    silent, well = serve(is_silent), serve(says("200 OK"))
    port = free_port()

    def all_kinds() -> None:
        run_probe(HttpProbe(silent.url()), 0.02)
        run_probe(HttpProbe(well.url()), LONG_S)
        run_probe(HttpProbe(f"http://127.0.0.1:{port}/"), LONG_S)
        run_probe(TcpProbe("127.0.0.1", port), LONG_S)
        run_probe(ExecProbe(("sleep", "1000")), 0.02)
        run_probe(ExecProbe(("no-such-program",)), LONG_S)

    all_kinds()
    files, threads = open_files(), threading.active_count()
    for _ in range(10):
        all_kinds()
    assert threading.active_count() == threads
    eventually(lambda: open_files() <= files + 1)  # the server may be holding one connection
