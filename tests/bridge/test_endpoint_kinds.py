"""What each endpoint kind bears: broken lines, replaced pipes, wrong clocks, full folders, programs that fail."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from actors.bridge_fsm import Heard, Lost
from actors.bridge_sessions import MOST_SESSIONS
from actors.context import ActorSystem
from actors.endpoints.beats import MOST_STRANGERS, BeatBoard
from actors.endpoints.executor import ExecutorTransport
from actors.endpoints.lines import (
    ERRORS_PER_S,
    MAX_LINE_BYTES,
    ErrorPace,
    LineReader,
    Replied,
    Unread,
    read_line,
    read_lines,
)
from actors.endpoints.spool import SpoolTransport
from actors.endpoints.transport import EndpointPlan, ErrorHeard
from actors.spec import Origin
from bridge_link.pump import Incoming
from bridge_link.wakeup import WakeUp
from bridge_link.wire import Kind, Message, encode
from guardian_link.messages import Alert
from runbooks.ports import BridgeRequest, BridgeState
from tests.bridge.test_bridge_endpoint import Endpoint, Peer, line, tcp
from tests.support.eventually import eventually, holds_for


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    made = ActorSystem()
    yield made
    made.close()


# -- lines ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=40) | st.just(line(kind="heartbeat")) | st.just(b"\n"), max_size=30), st.data())
def test_however_a_stream_is_cut_it_says_the_same(pieces: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = LineReader()
    apart = LineReader()
    told = [type(fact) for part in parts for fact in apart.feed(part)]
    assert told == [type(fact) for fact in whole.feed(stream)]
    assert told == [type(fact) for one in stream.split(b"\n")[:-1] if (fact := read_line(one)) is not None]


def test_a_line_without_end_is_skipped_in_bounded_memory_and_said_once() -> None:
    reader = LineReader()
    for _ in range(100):
        assert list(reader.feed(b"x" * 50_000)) == []
        assert len(reader._rest) <= MAX_LINE_BYTES
    told = list(reader.feed(b"x\n" + line(kind="heartbeat")))
    assert [type(one) for one in told] == [ErrorHeard, Unread, Heard]
    assert [type(one) for one in reader.feed(b"x" * 100_000 + b"\n" + line(kind="heartbeat"))] == [Unread, Heard]


ODD: dict[str, Any] = {
    "message of 17,000 characters": "x" * 17_000,
    "NUL": "a\0b",
    "NaN": float("nan"),
    "infinite": float("-inf"),
    "2**70": 2**70,
    "half a character": "\ud800",
    "deep": json.loads("[" * 100 + "]" * 100),
    "many": list(range(9000)),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", ["error", "heartbeat", "hello", "reply"])
def test_a_line_says_what_it_says_whatever_values_it_holds(kind: str, odd: str) -> None:
    fact = read_line(line(kind=kind, id="x-1.reset.1", error_message=ODD[odd], error_code=7).strip())
    assert isinstance(fact, {"error": ErrorHeard, "reply": Replied}.get(kind, Heard)), fact
    said: Any = {"error": "error", "reply": "body"}.get(kind, "facts")
    body = getattr(fact, said)
    assert body["error_code"] == 7
    assert "error_message" in body
    encode(Message(Kind.ALERT, "golden-0001", body))


@pytest.mark.parametrize(
    "raw", [b'{"error_message": "a\tb"}', b'{"n": 1, "n": 2}', b'{"a": "caf\xe9"}', b"\xef\xbb\xbf{}"]
)
def test_json_as_programs_write_it_by_hand_is_a_sign_of_life(raw: bytes) -> None:
    assert isinstance(read_line(raw), Heard)


def test_what_can_be_sent_is_left_as_it_is() -> None:
    body = {"result": "x" * 5000, "deep": [[[[[[[[[[1]]]]]]]]]]}
    fact = read_line(line(kind="reply", id="x-1.reset.1", **body))
    assert fact == Replied("x-1.reset.1", body)


def test_a_broken_line_that_was_an_error_is_one() -> None:
    fact = read_line(b'{"kind": "error", "error_message": "no file C:\\Users\\me"}')
    assert isinstance(fact, ErrorHeard)
    assert (fact.error["error_type"], fact.is_life) == ("BridgeLineUnreadable", False)
    assert "C:\\Users\\me" in fact.error["line"]
    for noise in (b"[1]", b"7", b"EA loaded: kind of error", b"[" * 60_000):
        assert isinstance(read_line(noise), Unread)
    assert read_line(b"  ") is None


def told_of(written: bytes, look: Any = lambda: None) -> list[object]:
    """What is told of a pipe that held this when it was closed."""
    inner, outer = os.pipe()
    os.write(outer, written)
    os.close(outer)
    told: list[object] = []
    wake = WakeUp()
    try:
        read_lines(inner, lambda: os.read(inner, 16), wake, threading.Event(), told.append, look)
    finally:
        os.close(inner)
        wake.close()
    return told


def test_the_last_line_needs_no_end() -> None:
    *_, error, lost = told_of(line(kind="heartbeat") + line(kind="error", error_code=9).strip())
    assert isinstance(error, ErrorHeard)
    assert (error.error, type(lost)) == ({"error_code": 9}, Lost)


def test_what_had_come_is_read_before_a_stream_is_left() -> None:
    errors = line(kind="error", error_code=1) + line(kind="error", error_code=2).strip()
    told = told_of(errors, lambda: "it was replaced")
    assert [one.error["error_code"] for one in told if isinstance(one, ErrorHeard)] == [1, 2]
    assert told[-1] == Lost("it was replaced")


def test_a_connection_that_is_reset_loses_no_line() -> None:
    wake, told = WakeUp(), list[object]()
    pieces = iter([b'{"kind": "error"}'])

    def read() -> bytes:
        for piece in pieces:
            return piece
        raise ConnectionResetError

    inner, outer = os.pipe()
    os.close(outer)
    with pytest.raises(ConnectionResetError):
        read_lines(inner, read, wake, threading.Event(), told.append)
    os.close(inner)
    wake.close()
    assert [type(one) for one in told] == [ErrorHeard]


def test_a_flood_of_errors_is_read_no_faster_than_it_may_come() -> None:
    pace = ErrorPace()
    assert [pace.pause_s(5.25) for _ in range(ERRORS_PER_S - 1)] == [0.0] * (ERRORS_PER_S - 1)
    assert pace.pause_s(5.25) == 0.75
    assert pace.pause_s(6.0) == 0.0


# -- TCP --------------------------------------------------------------------------------------------------------------


def test_tcp_junk_long_lines_and_bad_utf8_are_no_end_of_it(system: ActorSystem) -> None:
    with Peer() as peer:
        endpoint = Endpoint(system, tcp(peer.address))
        with peer.accept() as connection:
            connection.sendall(b"\xff\xfe\x00\n" + b"[" * 100_000 + b"\n" + b"y" * 300_000 + b"\n\n{}\n")
            eventually(endpoint.is_ready)
            connection.sendall(line(kind="error", error_code=4051))
            eventually(lambda: len(endpoint.errors) == 2)
            assert endpoint.exit() is None
            endpoint.stop()
    assert [error.get("error_type", error.get("error_code")) for _, error in endpoint.errors] == [
        "BridgeLineTooLong",
        4051,
    ]


def test_tcp_heartbeats_that_hold_nan_are_a_sign_of_life(system: ActorSystem) -> None:
    with Peer() as peer:
        endpoint = Endpoint(system, tcp(peer.address))
        with peer.accept() as connection:
            connection.sendall(line(kind="heartbeat", spread=float("nan")))
            eventually(endpoint.is_ready)
            connection.sendall(line(kind="error", error_message="x" * 17_000))
            eventually(lambda: endpoint.errors)
            connection.sendall(line(kind="error", error_code=8).strip())
        eventually(lambda: len(endpoint.errors) == 2)
        assert eventually(endpoint.exit).reason.origin is Origin.WORLD


def test_tcp_noise_is_counted_and_said_once(system: ActorSystem) -> None:
    with Peer() as peer, structlog.testing.capture_logs() as logged:
        endpoint = Endpoint(system, tcp(peer.address))
        with peer.accept() as connection:
            connection.sendall(b"EA loaded\n[1]\n" + line(kind="heartbeat"))
            eventually(endpoint.is_ready)
            connection.sendall(b"more\n\n")

            def unread() -> object:
                connection.sendall(line(kind="heartbeat"))
                status = system.board.get("root/bridges/mql4")
                return status is not None and status.extra.get("unread_lines") == 3

            eventually(unread)
            endpoint.stop()
    said = [one for one in logged if one["event"] == "a line of an endpoint is not read"]
    assert [one["endpoint"] for one in said] == ["mql4"]
    assert "EA loaded" in said[0]["why"]
    assert endpoint.errors == []


def test_tcp_a_peer_that_reads_nothing_is_lost_and_one_that_says_nothing_is_silent(system: ActorSystem) -> None:
    """Half-open: the connection stands, and nobody is there any more."""
    with Peer() as peer:
        endpoint = Endpoint(system, tcp(peer.address, silence_s=0.4))
        connection = peer.accept()
        exited = eventually(endpoint.exit)
        connection.close()
    assert (exited.reason.origin, "silent" in exited.reason.detail) == (Origin.WORLD, True)


def test_tcp_a_peer_not_there_yet_is_waited_for_after_a_start(system: ActorSystem) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # taken, and refusing: nobody else gets it meanwhile
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        endpoint = Endpoint(system, EndpointPlan("mql4", "tcp", 0.3, address=address, start_period_s=30.0))
        holds_for(lambda: endpoint.exit() is None, 1.0)
        listener.listen()
        listener.settimeout(10)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(line(kind="heartbeat", account=7))
            eventually(endpoint.is_ready)
            assert "silent for 0." in eventually(endpoint.exit).reason.detail, "the allowance is for the first sign"


def test_tcp_facts_of_a_heartbeat_are_shown(system: ActorSystem) -> None:
    with Peer() as peer:
        endpoint = Endpoint(system, tcp(peer.address))
        with peer.accept() as connection:
            connection.sendall(line(kind="heartbeat", account=7, terminal="t" * 500, deep={"a": 1}))
            eventually(endpoint.is_ready)
            status = system.board.get("root/bridges/mql4")
            assert status is not None
            assert status.extra["facts"] == {"account": 7, "terminal": "t" * 200}
            endpoint.stop()


def test_a_command_goes_to_a_tcp_peer_and_its_reply_comes_back(system: ActorSystem) -> None:
    from actors.bridge_commands import BridgeCommands

    with Peer() as peer:
        endpoint = Endpoint(system, tcp(peer.address))
        commands = BridgeCommands(endpoint.sessions, lambda _: True)
        with peer.accept() as connection:
            lines = connection.makefile()
            lines.readline()
            connection.sendall(line(kind="hello", commands=["reconnect"]) + line(kind="heartbeat"))
            answers: list[Any] = []
            request = BridgeRequest("x-1.reconnect.1")
            asking = threading.Thread(
                target=lambda: answers.append(commands.command("mql4", "reconnect", {"n": [1]}, request, 20))
            )
            asking.start()
            asked = json.loads(lines.readline())
            assert asked["kind"] == "command"
            assert (asked["id"], asked["command"], asked["parameters"]) == (request.id, "reconnect", {"n": [1]})
            connection.sendall(line(kind="reply", id="another-id", state="done"))
            connection.sendall(line(kind="reply", id=request.id, state="begun"))
            connection.sendall(line(kind="reply", id=request.id, state="done", result="connected"))
            asking.join(20)
            assert (answers[0].state, answers[0].text) == (BridgeState.DONE, "connected")
            endpoint.stop()
        assert endpoint.sessions.session("mql4") is None, "its session ends with its connection"


def test_tcp_a_socket_connected_to_itself_is_no_peer(system: ActorSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes of trying again and again at a port of the system's own range where nobody listens."""
    itself = []

    def connect_to_itself(address: tuple[str, int], _timeout_s: float) -> socket.socket:
        one = socket.socket()
        itself.append(one)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(address)
            one.connect(address)
        except OSError:
            one.close()
            raise
        return one

    with Peer() as peer:
        address = peer.address
    monkeypatch.setattr("actors.endpoints.tcp.socket.create_connection", connect_to_itself)
    exited = eventually(Endpoint(system, tcp(address, silence_s=0.5)).exit)
    assert itself
    assert exited.reason.origin is Origin.WORLD
    assert f"{address}: " in exited.reason.detail
    assert all(one.fileno() == -1 for one in itself), "each was closed"


# -- named pipes ------------------------------------------------------------------------------------------------------


def test_a_file_where_the_pipe_should_be_is_left_alone_and_said(system: ActorSystem, tmp_path: Path) -> None:
    (tmp_path / "pipe.fifo").write_text("precious")
    exited = eventually(Endpoint(system, EndpointPlan("pipe", "fifo", 30.0, directory=tmp_path)).exit)
    assert "is no named pipe; take it away" in exited.reason.detail
    assert (tmp_path / "pipe.fifo").read_text() == "precious"


@pytest.mark.parametrize(("how", "words"), [("file", "was replaced"), ("nothing", "was taken away")])
def test_a_pipe_that_is_replaced_is_noticed(system: ActorSystem, tmp_path: Path, how: str, words: str) -> None:
    path = tmp_path / "pipe.fifo"
    endpoint = Endpoint(system, EndpointPlan("pipe", "fifo", 30.0, directory=tmp_path))
    eventually(path.exists)
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, line(kind="heartbeat"))
    os.close(fd)
    eventually(endpoint.is_ready)
    path.unlink()
    if how == "file":
        path.write_text("a")
    exited = eventually(endpoint.exit)
    assert (exited.reason.origin, words in exited.reason.detail) == (Origin.WORLD, True)


def test_a_symbolic_link_is_no_pipe(system: ActorSystem, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "elsewhere")
    (tmp_path / "pipe.fifo").symlink_to(tmp_path / "elsewhere")
    exited = eventually(Endpoint(system, EndpointPlan("pipe", "fifo", 30.0, directory=tmp_path)).exit)
    assert exited.reason.origin is Origin.WORLD


# -- folders ----------------------------------------------------------------------------------------------------------


class Listening:
    """A spool transport and what it told."""

    def __init__(self, folder: Path, silence_s: float = 0.15, **more: Any) -> None:
        self.told: list[object] = []
        self.transport = SpoolTransport("spool", folder, silence_s, **more)
        self.transport.start(self.told.append)

    def beats(self) -> int:
        return sum(isinstance(one, Heard) for one in self.told)


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    (tmp_path / "future.csv").write_text("old")
    os.utime(tmp_path / "future.csv", (time.time() + 86400, time.time() + 86400))
    made = Listening(tmp_path)
    eventually(lambda: made.told)
    yield made
    made.transport.close()


def test_a_file_from_the_future_hides_nothing(listening: Listening, tmp_path: Path) -> None:
    holds_for(lambda: listening.beats() == 0, 0.3)
    (tmp_path / "a.csv").write_text("1")
    eventually(lambda: listening.beats() == 1)
    os.utime(tmp_path / "a.csv", (1.0, 1.0))  # a clock that went back writes, too
    eventually(lambda: listening.beats() == 2)


def test_files_taken_away_are_no_sign_of_life(listening: Listening, tmp_path: Path) -> None:
    (tmp_path / "future.csv").unlink()
    (tmp_path / "folder").mkdir()
    holds_for(lambda: listening.beats() == 0, 0.4)


def test_a_half_written_file_is_a_sign_like_any(listening: Listening, tmp_path: Path) -> None:
    with (tmp_path / "half.csv").open("w") as file:
        file.write("time,ok\n17")
        file.flush()
        eventually(lambda: listening.beats() == 1)


def test_a_folder_that_goes_and_comes(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    listening = Listening(folder)
    holds_for(lambda: not listening.told, 0.2)
    folder.mkdir()
    (folder / "a.csv").write_text("1")
    eventually(lambda: listening.beats() == 1)
    shutil.rmtree(folder)
    holds_for(lambda: listening.beats() == 1, 0.2)
    listening.transport.close()


def test_ten_thousand_files_are_looked_at_and_more_are_said(tmp_path: Path) -> None:
    for number in range(10_000):
        os.close(os.open(tmp_path / f"{number}.csv", os.O_CREAT | os.O_WRONLY))
    listening = Listening(tmp_path)
    eventually(lambda: listening.told)
    (tmp_path / "9999.csv").write_text("new")
    eventually(lambda: listening.beats() == 1)
    listening.transport.close()
    full = Listening(tmp_path, max_files=100)
    eventually(lambda: any(isinstance(one, ErrorHeard) for one in full.told))
    (tmp_path / "another.csv").write_text("new")
    eventually(lambda: full.beats() >= 1)
    holds_for(lambda: sum(isinstance(one, ErrorHeard) for one in full.told) == 1, 0.2)
    full.transport.close()


# -- executors --------------------------------------------------------------------------------------------------------

FAKE = """
import sys
words = sys.argv[1:]
if "-Command" not in words:
    print("usage", file=sys.stderr)
    sys.exit(64)
text = words[words.index("-Command") + 1]
if text.startswith("throw "):
    print(f"Exception: {text[6:].strip(chr(39))}", file=sys.stderr)
    sys.exit(1)
sys.exit(int(text.removeprefix("exit ")))
"""
POWERSHELL = shutil.which("pwsh")


def executors(folder: Path) -> dict[str, tuple[str, ...]]:
    """Our stand-in, and PowerShell itself where it is: what is asked of one is asked of both."""
    script = folder / "fake_pwsh.py"
    script.write_text(FAKE)
    found = {"stand-in": (sys.executable, str(script))}
    return found | ({"pwsh": (POWERSHELL,)} if POWERSHELL else {})


def test_an_executor_lives_while_it_can_run_and_its_errors_are_said(tmp_path: Path) -> None:
    for argv in executors(tmp_path).values():
        command = (*argv, "-NoProfile", "-NonInteractive", "-Command")
        well: list[object] = []
        ill: list[object] = []
        silence_s = 15.0 if argv[0] == POWERSHELL else 1.5
        one = ExecutorTransport("powershell", (*command, "exit 0"), silence_s)
        two = ExecutorTransport("powershell", (*command, "throw 'Execution Policy Restricted'"), silence_s)
        one.start(well.append)
        two.start(ill.append)
        eventually(lambda seen=well: sum(isinstance(fact, Heard) for fact in seen) >= 2, within_s=60)  # type: ignore[misc]
        eventually(lambda seen=ill: any(isinstance(fact, ErrorHeard) for fact in seen), within_s=60)  # type: ignore[misc]
        one.close()
        two.close()
        (error,) = [fact for fact in ill if isinstance(fact, ErrorHeard)]
        assert (error.is_life, error.error["exit_code"], error.error["system"]) == (False, 1, "powershell")
        assert "Execution Policy Restricted" in error.error["error_message"]
        assert not any(isinstance(fact, Heard) for fact in ill)


def test_an_executor_that_is_not_there_or_hangs_is_silent(system: ActorSystem) -> None:
    missing = Endpoint(system, EndpointPlan("a", "powershell", 0.5, executor=("no-such-pwsh",)))
    hanging = Endpoint(system, EndpointPlan("b", "powershell", 0.5, executor=("sleep", "4711.4711")))
    for endpoint, error_type in ((missing, "ExecutorMissing"), (hanging, "ExecutorTimeout")):
        assert "silent" in eventually(endpoint.exit).reason.detail
        eventually(lambda one=endpoint: one.errors)  # type: ignore[misc]
        assert endpoint.errors[0][1]["error_type"] == error_type
    eventually(
        lambda: not [one for one in psutil.process_iter(["cmdline"]) if "4711.4711" in (one.info["cmdline"] or ())]
    )


# -- beats ------------------------------------------------------------------------------------------------------------


def test_strangers_are_counted_up_to_a_number_of_names() -> None:
    beats = BeatBoard()
    for number in range(MOST_STRANGERS + 10):
        assert not beats.beat(f"stranger{number}")
        beats.beat("stranger0")
    assert len(beats.unknown) == MOST_STRANGERS
    assert beats.unknown["stranger0"] == MOST_STRANGERS + 11


def test_an_endpoints_error_can_be_an_alert_whatever_it_says() -> None:
    from bridge_link.report import as_report

    for error in ({"id": "5", "type": "no name!", "severity": "panic", "labels": 3}, {}, {"service": "a b"}):
        alert = Alert.from_mapping(as_report({"system": "mql4-b", **error}))
        assert (alert.type, alert.severity, alert.service) == ("bridge_mql4_b_failure", "high", None)


# -- only the link's own endpoints are spoken for over the link --------------------------------------------------------


def on_the_link(endpoint: Endpoint, kind: Kind, name: str, **more: Any) -> list[Message]:
    answers: list[Message] = []
    message = Message(kind, "message-1", {"name": name, "session": "s-1", "commands": ["reconnect"]} | more)
    endpoint.sessions.take(Incoming(b"peer", message, "bridge-1"), answers.append)
    return answers


def test_no_client_of_the_link_takes_a_tcp_endpoint_from_its_peer(system: ActorSystem) -> None:
    with Peer() as peer:
        endpoint = Endpoint(system, tcp(peer.address))
        endpoint.sessions.kinds = {"mql4": "tcp"}
        assert on_the_link(endpoint, Kind.HEARTBEAT, "mql4") == []
        (refusal,) = on_the_link(endpoint, Kind.HELLO, "mql4")
        assert (refusal.kind, refusal.body["code"]) == (Kind.NACK, "conflict")
        assert "'mql4' is of kind tcp: a TCP peer speaks for it" in refusal.body["text"]
        with peer.accept() as connection:
            connection.sendall(line(kind="hello", session="its own", commands=["reconnect"]) + line(kind="heartbeat"))
            eventually(endpoint.is_ready)
            on_the_link(endpoint, Kind.HEARTBEAT, "mql4")
            speaker = endpoint.sessions.session("mql4")
            assert speaker is not None
            assert (speaker.id, endpoint.exit()) == ("its own", None)
            endpoint.stop()


def test_invented_names_push_nobody_out(system: ActorSystem) -> None:
    endpoint = Endpoint(system, EndpointPlan("python", "zeromq", 30.0))
    endpoint.sessions.kinds = {"python": "zeromq"}
    (answer,) = on_the_link(endpoint, Kind.HELLO, "python")
    assert answer.body["result"] == {"is_configured": True}
    for number in range(MOST_SESSIONS + 1):
        on_the_link(endpoint, Kind.HEARTBEAT, f"invented-{number}", session=f"other-{number}")
    (answer,) = on_the_link(endpoint, Kind.HELLO, "invented")
    assert answer.body["result"] == {"is_configured": False}
    assert endpoint.sessions.session("python") is not None
    assert endpoint.sessions.session("invented") is None
    endpoint.stop()
