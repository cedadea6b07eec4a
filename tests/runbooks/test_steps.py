"""Calls and checks against real processes, sockets and HTTP; services through a small table."""

from __future__ import annotations

import http.server
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from runbooks.calls.family import CallOutcome, CheckOutcome
from runbooks.commands import LocalCommands
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType, Trouble
from runbooks.network import LocalHttp, LocalTcp
from runbooks.ports import PortError, Ports, RunInfo, ServiceView
from runbooks.steps import make_call, make_check, take_snapshot
from tests.support.eventually import eventually

TOKEN = f"x-test-{os.getpid()}"  # what is left of a run is found by it, on the whole machine


@dataclass
class Table:
    """Services that do what they are told at once."""

    views: dict[str, ServiceView] = field(default_factory=lambda: {"a": ServiceView("a", True, 3, "ready")})
    is_away: bool = False
    told: list[str] = field(default_factory=list)
    meanwhile: ServiceView | None = None
    """What a person does between a look at the service and its start."""

    def status(self, name: str) -> ServiceView | None:
        if self.is_away:
            raise PortError("the engine is away")
        return self.views.get(name)

    def restart(self, name: str, timeout_s: float) -> RunInfo:
        self.told.append(f"restart {name}")
        self.views[name] = ServiceView(name, True, self.views[name].run + 1, "ready")
        return RunInfo(self.views[name].run)

    def start(self, name: str, timeout_s: float, decided: str | None = None) -> RunInfo:
        self.told.append(f"start {name}")
        if self.meanwhile is not None:
            self.views[name] = self.meanwhile
        if decided is not None and self.views[name].decided != decided:
            raise PortError(f"{name}: is not started: {self.views[name].decided}")
        return RunInfo(self.views[name].run)

    def stop(self, name: str, timeout_s: float) -> None:
        self.told.append(f"stop {name}")
        self.views[name] = ServiceView(name, False, self.views[name].run, "stopped", is_wanted=False)


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def ports(table: Table) -> Ports:
    return Ports(table, LocalCommands(), LocalHttp(), LocalTcp())


def about(*services: str) -> tuple[Call, ...]:
    return tuple(Call(CallType.SERVICE_GENERATION, {"service": name}) for name in services)


def do(ports: Ports, kind: CallType, snapshot: Any = None, timeout_s: float = 20.0, **arguments: Any) -> CallOutcome:
    return make_call(Call(kind, arguments, timeout_s), snapshot, ports, TOKEN)


def look(ports: Ports, kind: CallType, snapshot: Any = None, timeout_s: float = 20.0, **arguments: Any) -> CheckOutcome:
    return make_check(Call(kind, arguments, timeout_s), snapshot, ports, TOKEN)


def python(code: str, *more: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *more)


# -- services ---------------------------------------------------------------------------------------------------------


def test_the_generation_tells_whether_a_restart_happened(ports: Ports, table: Table) -> None:
    snapshot = take_snapshot(about("a", "b"), ports, TOKEN)
    assert snapshot == {"a": {"run": 3, "state": "ready", "ready": True, "wanted": True, "decided": ""}, "b": None}
    generation = CallType.SERVICE_GENERATION
    assert look(ports, generation, snapshot, service="a").answer is Answer.NO
    assert do(ports, CallType.SERVICE_RESTART, service="a") == CallOutcome(ok=True, output="run 4", result={"run": 4})
    assert look(ports, generation, snapshot, service="a").answer is Answer.YES
    assert look(ports, generation, None, service="a").answer is Answer.UNKNOWN
    assert look(ports, generation, snapshot, service="b").answer is Answer.UNKNOWN
    table.is_away = True
    assert look(ports, generation, snapshot, service="a").answer is Answer.UNKNOWN


def test_restoring_brings_back_whether_it_is_to_run(ports: Ports, table: Table) -> None:
    running = take_snapshot(about("a"), ports, TOKEN)
    table.stop("a", 1)
    stopped = take_snapshot(about("a"), ports, TOKEN)
    assert look(ports, CallType.SERVICE_RESTORED, running, service="a").answer is Answer.NO
    assert look(ports, CallType.SERVICE_RESTORED, stopped, service="a").answer is Answer.YES
    table.told.clear()
    assert do(ports, CallType.SERVICE_RESTORE, running, service="a").ok
    table.views["a"] = ServiceView("a", True, 4, "ready")
    assert do(ports, CallType.SERVICE_RESTORE, stopped, service="a").ok
    assert not do(ports, CallType.SERVICE_RESTORE, None, service="a").ok
    assert table.told == ["start a", "stop a"]


def was(state: str, *, ready: bool = False, wanted: bool = True) -> dict[str, Any]:
    return {"a": {"run": 3, "state": state, "ready": ready, "wanted": wanted}}


UP, DEAD = ServiceView("a", True, 4, "ready"), ServiceView("a", False, 4, "crash_loop")
LEFT, BY_HAND = ServiceView("a", False, 4, "stopped"), ServiceView("a", False, 4, "stopped", is_wanted=False)
FROZEN, AILING = ServiceView("a", False, 4, "paused", is_wanted=False), ServiceView("a", False, 4, "degraded")


@pytest.mark.parametrize(
    ("before", "good", "bad"),
    [
        (was("ready", ready=True), [UP], [DEAD, LEFT, BY_HAND, FROZEN, AILING]),
        (was("degraded"), [UP, AILING, DEAD], [LEFT, BY_HAND]),
        (was("crash_loop"), [UP, DEAD], [LEFT, BY_HAND]),
        (was("failed"), [UP, DEAD, LEFT], [BY_HAND]),
        (was("stopped", wanted=False), [BY_HAND], [UP, DEAD, LEFT, FROZEN]),
        (was("paused", wanted=False), [FROZEN], [UP, LEFT, BY_HAND]),
        (was("paused"), [FROZEN], [UP, LEFT, BY_HAND]),
    ],
)
def test_restored_is_what_it_was(
    ports: Ports, table: Table, before: Any, good: list[ServiceView], bad: list[ServiceView]
) -> None:
    for views, wanted in ((good, Answer.YES), (bad, Answer.NO)):
        for table.views["a"] in views:
            answer = look(ports, CallType.SERVICE_RESTORED, before, service="a")
            assert answer.answer is wanted, answer


def test_what_a_person_decided_meanwhile_stands(ports: Ports, table: Table) -> None:
    running = take_snapshot(about("a"), ports, TOKEN)
    for word in ("stopped", "paused"):
        decided = f"{word} by ann at 2026-01-01T00:00:00.000Z"
        table.views["a"] = ServiceView("a", False, 4, word, is_wanted=False, decided=decided)
        restored = do(ports, CallType.SERVICE_RESTORE, running, service="a")
        assert (restored.ok, restored.output) == (True, f"is left as it is: {decided}")
        seen = look(ports, CallType.SERVICE_RESTORED, running, service="a")
        assert (seen.answer, seen.detail) == (Answer.YES, f"service 'a' is {word}: {decided}")
        again = do(ports, CallType.SERVICE_RESTART, service="a")
        assert (again.ok, again.trouble, again.is_untouched) == (False, Trouble.PERMANENT, True)
        assert decided in again.error
    assert table.told == []


def test_what_a_person_decides_at_this_very_moment_stands(ports: Ports, table: Table) -> None:
    running = take_snapshot(about("a"), ports, TOKEN)
    table.views["a"] = AILING
    table.meanwhile = ServiceView("a", False, 4, "stopped", is_wanted=False, decided="stopped by ann at noon")
    restored = do(ports, CallType.SERVICE_RESTORE, running, service="a")
    assert (restored.ok, restored.output) == (True, "is left as it is: stopped by ann at noon")
    assert table.told == ["start a"]


def test_what_a_person_decided_before_is_restored(ports: Ports, table: Table) -> None:
    """The run has started what a person had stopped: undone it is stopped again."""
    by_ann = ServiceView("a", False, 4, "stopped", is_wanted=False, decided="stopped by ann at noon")
    table.views["a"] = by_ann
    stopped = take_snapshot(about("a"), ports, TOKEN)
    assert look(ports, CallType.SERVICE_RESTORED, stopped, service="a").answer is Answer.YES
    table.views["a"] = UP
    assert look(ports, CallType.SERVICE_RESTORED, stopped, service="a").answer is Answer.NO
    assert do(ports, CallType.SERVICE_RESTORE, stopped, service="a").ok
    assert table.told == ["stop a"]


def test_restoring_what_is_frozen_or_stopped_as_before_does_nothing(ports: Ports, table: Table) -> None:
    for table.views["a"], before in ((FROZEN, was("paused")), (BY_HAND, was("stopped", wanted=False))):
        assert do(ports, CallType.SERVICE_RESTORE, before, service="a").ok
    assert table.told == []
    assert do(ports, CallType.SERVICE_RESTORE, was("paused"), service="a").ok
    table.views["a"] = UP
    assert do(ports, CallType.SERVICE_RESTORE, was("stopped", wanted=False), service="a").ok
    assert table.told == ["stop a", "stop a"]


def test_ready_and_exists(ports: Ports, table: Table) -> None:
    assert look(ports, CallType.SERVICE_READY, service="a").answer is Answer.YES
    assert look(ports, CallType.SERVICE_READY, service="b").answer is Answer.NO
    assert look(ports, CallType.SERVICE_EXISTS, service="b") == CheckOutcome(Answer.NO, "service 'b' is not configured")
    assert look(ports, CallType.SERVICE_WANTED, service="a").answer is Answer.YES
    assert look(ports, CallType.SERVICE_WANTED, service="b").answer is Answer.NO
    table.stop("a", 1)
    assert look(ports, CallType.SERVICE_WANTED, service="a").answer is Answer.NO
    table.is_away = True
    assert look(ports, CallType.SERVICE_EXISTS, service="a") == CheckOutcome(Answer.UNKNOWN, "the engine is away")


def test_a_port_that_breaks_is_an_answer(ports: Ports) -> None:
    outcome = do(ports, CallType.SERVICE_RESTART, service="gone")
    assert (outcome.ok, outcome.error) == (False, "KeyError: 'gone'")


# -- commands ---------------------------------------------------------------------------------------------------------


def test_a_command_runs_without_a_shell(ports: Ports, tmp_path: Path) -> None:
    nasty = "x; touch OWNED $(touch OWNED) | cat"
    code = "import os, sys; print(os.getcwd(), sys.argv[1])"
    outcome = do(ports, CallType.COMMAND, argv=python(code, nasty), working_dir=str(tmp_path))
    assert outcome == CallOutcome(ok=True, output=f"{tmp_path} {nasty}", result={"output": f"{tmp_path} {nasty}"})
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_fails_says_how(ports: Ports) -> None:
    outcome = do(ports, CallType.COMMAND, argv=python("import sys; print('no room', file=sys.stderr); sys.exit(3)"))
    assert (outcome.ok, outcome.error) == (False, "exit 3: no room")
    missing = do(ports, CallType.COMMAND, argv=("/no/such/program",))
    assert "cannot run '/no/such/program'" in missing.error


@pytest.mark.parametrize(("code", "answer"), [(0, Answer.YES), (1, Answer.NO), (2, Answer.UNKNOWN)])
def test_the_exit_code_of_a_check(ports: Ports, code: int, answer: Answer) -> None:
    assert look(ports, CallType.COMMAND_OK, argv=python(f"raise SystemExit({code})")).answer is answer


LEAVES_ONE = """
import signal, subprocess, sys
subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", sys.argv[1]], start_new_session=True)
"""


def test_out_of_time_ends_also_what_left_the_session(ports: Ports, tmp_path: Path) -> None:
    mark = str(tmp_path)
    outcome = do(ports, CallType.COMMAND, timeout_s=2.0, argv=python(LEAVES_ONE + "signal.pause()", mark))
    assert not outcome.ok
    assert "took longer than 2 s" in outcome.error
    assert living(mark) == []


def test_leftovers_are_found_by_their_token_and_others_are_let_be(tmp_path: Path) -> None:
    commands = LocalCommands()
    ours, others = str(tmp_path / "ours"), str(tmp_path / "others")
    commands.run(python(LEAVES_ONE, ours), 20, "x-ours")
    commands.run(python(LEAVES_ONE, others), 20, "x-others")
    eventually(lambda: living(ours) and living(others))
    assert commands.end_leftovers("x-ours") == 1
    assert (living(ours), len(living(others))) == ([], 1)
    assert commands.end_leftovers("x-others") == 1
    assert commands.end_leftovers("x-ours") == 0


def living(mark: str) -> list[int]:
    """Live processes of this test, by their last argument."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        is_ours = bool(process.info["cmdline"]) and process.info["cmdline"][-1] == mark
        if is_ours and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(process.pid)
    return found


# -- network ----------------------------------------------------------------------------------------------------------


class Answering(http.server.BaseHTTPRequestHandler):
    seen: list[tuple[str, bytes]]

    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.headers.get("Content-Type", ""), body))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def base() -> Iterator[str]:
    Answering.seen = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


def test_http_requests_and_checks(ports: Ports, base: str) -> None:
    assert do(ports, CallType.HTTP_REQUEST, url=f"{base}/204", body={"a": 1}).ok
    assert Answering.seen == [("application/json", b'{"a":1}')]
    assert not do(ports, CallType.HTTP_REQUEST, url=f"{base}/500").ok
    assert not do(ports, CallType.HTTP_REQUEST, url=f"{base}/302").ok
    assert do(ports, CallType.HTTP_REQUEST, method="GET", url=f"{base}/409", expect=[409]).ok
    answers = {code: look(ports, CallType.HTTP_OK, url=f"{base}/{code}").answer for code in (200, 404, 410, 503)}
    assert answers == {200: Answer.YES, 404: Answer.NO, 410: Answer.NO, 503: Answer.UNKNOWN}


def test_tcp_and_nobody_there(ports: Ports) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert look(ports, CallType.TCP_CONNECT, port=port).answer is Answer.YES
    assert look(ports, CallType.TCP_CONNECT, port=port).answer is Answer.NO
    assert look(ports, CallType.HTTP_OK, url=f"http://127.0.0.1:{port}/").answer is Answer.UNKNOWN
    refused = do(ports, CallType.HTTP_REQUEST, url=f"http://127.0.0.1:{port}/")
    assert "no connection" in refused.error
