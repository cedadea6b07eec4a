"""What only the process runtime can do wrong: identities, descendants, descriptors, words of refusal."""

from __future__ import annotations

import ast
import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import actors
from actors.board import NodeState, is_ready
from actors.context import ActorSystem
from actors.exit_watcher import ExitWatcher
from actors.ledger import Ledger, Phase
from actors.messages import Wake
from actors.runtimes.base import LaunchError, LaunchSpec, TruthUnknown
from actors.runtimes.family import signal_group, signal_process
from actors.runtimes.process import ProcessHandle, ProcessRuntime
from actors.runtimes.procfs import ProcessIdentity, TokenScan, identity_of, is_alive, read_line, read_table, token_of
from actors.service import ServiceActor, ServiceParts, ServicePlan
from actors.service_fsm import RestartPolicy, Rules
from actors.spec import ChildSpec, Pacing, Restart
from supervisors import Supervisor
from tests.runtimes.worlds import LONG_S, RUNS, Exits, KeptPlace, ProcessPlace
from tests.support.eventually import eventually, holds_for

PR_SET_CHILD_SUBREAPER = 36


def script(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


def lives(pid: int) -> bool:
    line = read_line(pid)
    return line is not None and not line.is_dead


def pid_in(path: Path) -> int:
    """The pid a script wrote into ``path``, once it is whole."""
    eventually(lambda: path.exists() and path.read_text().endswith("\n"), within_s=LONG_S)
    return int(path.read_text())


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is not ours."""
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


# -- identity ---------------------------------------------------------------------------------------------------------


def forge(place: ProcessPlace, pid: int, ticks: int, token: str) -> None:
    ledger = Ledger(place.folder / "ledger.jsonl")
    facts = {"pid": pid, "start_ticks": ticks, "boot_id": identity_of(os.getpid()).boot_id}  # type: ignore[union-attr]
    ledger.intent("a", 1, "process", token)
    ledger.launched("a", 1, facts, 0.0)
    ledger.close()


def test_trap_37_a_reused_pid_is_neither_adopted_nor_killed(
    process_place: ProcessPlace, stranger: subprocess.Popen[bytes]
) -> None:
    identity = identity_of(stranger.pid)
    assert identity is not None
    forge(process_place, stranger.pid, identity.start_ticks - 1, "t")
    runtime = process_place.daemon()
    assert runtime.adopt(process_place.spec("a", RUNS), Exits()) is None
    handle = runtime.launch(process_place.spec("a", RUNS), 2, Exits())
    runtime.stop(handle, LONG_S)
    assert lives(stranger.pid)


def test_trap_37_a_process_with_another_token_is_not_adopted(process_place: ProcessPlace) -> None:
    other = subprocess.Popen(["sleep", "1000"], env={**os.environ, "SELFHEAL_TOKEN": "other"}, start_new_session=True)
    try:
        identity = eventually(lambda: token_of(other.pid) == "other" and identity_of(other.pid))
        assert isinstance(identity, ProcessIdentity)
        forge(process_place, other.pid, identity.start_ticks, "mine")
        assert process_place.daemon().adopt(process_place.spec("a", RUNS), Exits()) is None
        assert lives(other.pid)
    finally:
        other.kill()
        other.wait()


def test_trap_37_no_signal_reaches_a_process_with_other_ticks(stranger: subprocess.Popen[bytes]) -> None:
    identity = identity_of(stranger.pid)
    assert identity is not None
    wrong = ProcessIdentity(identity.pid, identity.start_ticks + 1, identity.boot_id)
    other_boot = ProcessIdentity(identity.pid, identity.start_ticks, "another-boot")
    for foreign in (wrong, other_boot):
        assert not signal_process(foreign, signal.SIGKILL)
        assert not signal_group(foreign, signal.SIGKILL)
    assert lives(stranger.pid)
    assert signal_process(identity, signal.SIGKILL)
    assert stranger.wait(LONG_S) == -signal.SIGKILL


def test_trap_38_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])
    identity = eventually(lambda: identity_of(child.pid))
    eventually(lambda: (line := read_line(child.pid)) is not None and line.is_dead, what="the zombie")
    assert identity is not None
    assert not is_alive(identity)
    child.wait()


def test_trap_36_a_child_whose_pid_was_never_written_is_found_by_its_token(process_place: ProcessPlace) -> None:
    ledger = Ledger(process_place.folder / "ledger.jsonl")
    token = uuid4().hex  # looked for in the whole machine: another worker's test may be at work
    ledger.intent("a", 3, "process", token)
    ledger.close()
    spawned = subprocess.Popen(RUNS, env={**os.environ, "SELFHEAL_TOKEN": token}, start_new_session=True)
    try:
        eventually(lambda: token_of(spawned.pid) == token)
        runtime, on_exit = process_place.daemon(), Exits()
        with pytest.raises(LaunchError, match=f"still runs from an earlier daemon: pid {spawned.pid}, run 3"):
            runtime.launch(process_place.spec("a", RUNS), 4, Exits())
        adopted = runtime.adopt(process_place.spec("a", RUNS), on_exit)
        assert adopted is not None
        assert (adopted.pid, adopted.run) == (spawned.pid, 3)
        runtime.stop(adopted, LONG_S)
        assert len(on_exit.seen) == 1
    finally:
        spawned.kill()
        spawned.wait()


# -- descendants ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "escape",
    [
        pytest.param("setsid sh -c 'echo $$ > {pid}; exec sleep 1000' &", id="setsid"),
        pytest.param("(setsid sh -c 'echo $$ > {pid}; exec sleep 1000' &);", id="double-fork"),
        pytest.param("env -i setsid /bin/sh -c 'echo $$ > {pid}; exec sleep 1000' &", id="setsid-clean-environment"),
        pytest.param("trap '' TERM; sh -c 'echo $$ > {pid}; exec sleep 1000' & trap - TERM;", id="ignores-TERM"),
    ],
)
def test_trap_39_a_grandchild_is_gone_after_stop(process_place: ProcessPlace, tmp_path: Path, escape: str) -> None:
    pid_file = tmp_path / "pid"
    runtime = process_place.daemon()
    text = escape.format(pid=pid_file) + " echo ready; exec sleep 1000"
    handle = runtime.launch(process_place.spec("a", script(text)), 1, Exits())
    grandchild = pid_in(pid_file)
    assert lives(grandchild)
    runtime.stop(handle, LONG_S)
    assert not lives(grandchild)


def test_stop_lets_a_service_end_in_its_own_way(process_place: ProcessPlace) -> None:
    polite = script("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done")
    runtime = process_place.daemon()
    handle = runtime.launch(process_place.spec("a", polite), 1, Exits())
    process_place.wait_ready(handle)
    status = runtime.stop(handle, LONG_S)
    assert (status.code, status.cause, status.asked) == (7, "exit 7", True)
    assert "bye" in runtime.log_tail(handle, 2)


def test_a_run_that_keeps_forking_is_gone_after_stop(process_place: ProcessPlace) -> None:
    runtime = process_place.daemon()
    storm = script("trap '' TERM; i=0; while [ $i -lt 300 ]; do i=$((i+1)); setsid sleep 1000 & sleep 0.02; done; wait")
    handle = runtime.launch(process_place.spec("a", storm), 1, Exits())
    eventually(lambda: len(TokenScan().holders(handle.token)) > 5, within_s=LONG_S)
    runtime.stop(handle, 0.1)
    table = read_table()
    assert [pid for pid in TokenScan().holders(handle.token) if pid in table and not table[pid].is_dead] == []


@pytest.mark.parametrize(
    "leftover",
    [
        pytest.param("setsid sh -c 'echo $$ > {pid}; exec sleep 1000' &", id="own-session"),
        pytest.param("env -i /bin/sh -c 'echo $$ > {pid}; exec sleep 1000' &", id="own-group-clean-environment"),
    ],
)
def test_what_a_crash_left_is_gone_before_the_next_run(
    process_place: ProcessPlace, tmp_path: Path, leftover: str
) -> None:
    pid_file = tmp_path / "pid"
    runtime, on_exit = process_place.daemon(), Exits()
    text = leftover.format(pid=pid_file) + " exec sleep 1000"
    handle = runtime.launch(process_place.spec("a", script(text)), 1, on_exit)
    orphan = pid_in(pid_file)
    process_place.crash(handle)
    on_exit.one()
    runtime.launch(process_place.spec("a", RUNS), 2, Exits())
    eventually(lambda: not lives(orphan), within_s=LONG_S)


def test_stop_after_a_crash_sweeps_what_was_left(process_place: ProcessPlace, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    runtime, on_exit = process_place.daemon(), Exits()
    text = f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 1000' & exec sleep 1000"
    handle = runtime.launch(process_place.spec("a", script(text)), 1, on_exit)
    orphan = pid_in(pid_file)
    process_place.crash(handle)
    on_exit.one()
    assert runtime.stop(handle, 1.0).signal == signal.SIGKILL
    assert not lives(orphan)


# -- life of the daemon -----------------------------------------------------------------------------------------------

DAEMON = """
import sys, threading
from pathlib import Path
from actors.exit_watcher import ExitWatcher
from actors.ledger import Ledger
from actors.runtimes.base import LaunchSpec
from actors.runtimes.process import ProcessRuntime
folder = Path(sys.argv[1])
spec = LaunchSpec("a", ("sh", "-c", "while :; do echo tick; sleep 0.05; done"), log_path=folder / "logs" / "a.log")
handle = ProcessRuntime(Ledger(folder / "ledger.jsonl"), ExitWatcher()).launch(spec, 1, lambda status: None)
print(handle.pid, flush=True)
threading.Event().wait()
"""


def test_trap_42_a_printing_child_outlives_a_killed_daemon_and_is_adopted(process_place: ProcessPlace) -> None:
    root = Path(actors.__file__).parent.parent
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(process_place.folder)], stdout=subprocess.PIPE, cwd=root, text=True
    )
    assert daemon.stdout is not None
    pid = int(daemon.stdout.readline())
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    log = process_place.folder / "logs" / "a.log"
    before = log.stat().st_size
    eventually(lambda: log.stat().st_size > before, within_s=LONG_S)
    runtime, on_exit = process_place.daemon(), Exits()
    adopted = runtime.adopt(process_place.spec("a", RUNS), on_exit)
    assert adopted is not None
    assert adopted.pid == pid
    assert runtime.log_tail(adopted, 1) == ("tick",)
    os.kill(pid, signal.SIGKILL)
    status = on_exit.one()
    assert (status.cause, status.code, status.signal, status.is_clean) == ("unknown", None, None, False)


def test_trap_40_the_exit_code_survives_a_subreaper(process_place: ProcessPlace) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        on_exit = Exits()
        process_place.daemon().launch(process_place.spec("a", script("exit 3")), 1, on_exit)
        assert on_exit.one().code == 3
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_an_ended_run_leaves_no_zombie(process_place: ProcessPlace) -> None:
    on_exit = Exits()
    handle = process_place.daemon().launch(process_place.spec("a", script("exit 0")), 1, on_exit)
    on_exit.one()
    eventually(lambda: read_line(handle.pid) is None)


def test_a_broken_exit_listener_blinds_nobody(process_place: ProcessPlace) -> None:
    def broken(_status: object) -> None:
        raise RuntimeError("listener broke")

    runtime, on_exit = process_place.daemon(), Exits()
    runtime.launch(process_place.spec("a", script("exit 1")), 1, broken)
    runtime.launch(process_place.spec("b", script("exit 2")), 1, on_exit)
    assert on_exit.one().code == 2


def test_the_ledger_tells_the_story(process_place: ProcessPlace) -> None:
    on_exit = Exits()
    runtime = process_place.daemon()
    handle = runtime.launch(process_place.spec("a", RUNS), 9, on_exit)
    record = runtime._ledger.record("a")
    assert (record.phase, record.run, record.token) == (Phase.LAUNCHED, 9, handle.token)
    process_place.crash(handle)
    on_exit.one()
    eventually(lambda: runtime._ledger.record("a").phase is Phase.EXITED)
    last_exit = runtime._ledger.record("a").last_exit
    assert last_exit is not None
    assert last_exit["signal"] == 9


# -- the spawn --------------------------------------------------------------------------------------------------------


def test_what_a_process_gets(process_place: ProcessPlace, tmp_path: Path) -> None:
    text = "pwd; echo $GREETING $SELFHEAL_SERVICE $SELFHEAL_TOKEN; cat; echo to-stderr >&2; ls -l /proc/self/fd"
    spec = LaunchSpec("a", script(text), tmp_path, {"GREETING": "hello"}, tmp_path / "new" / "folder" / "a.log")
    runtime, on_exit = process_place.daemon(), Exits()
    handle = runtime.launch(spec, 1, on_exit)
    assert on_exit.one().code == 0
    lines = (tmp_path / "new" / "folder" / "a.log").read_text().splitlines()
    assert lines[:3] == [str(tmp_path), f"hello a {handle.token}", "to-stderr"]
    assert not [line for line in lines if "pipe:" in line or "socket:" in line or "ledger" in line]


def test_a_process_leads_a_session_of_its_own(process_place: ProcessPlace) -> None:
    handle = process_place.daemon().launch(process_place.spec("a", RUNS), 1, Exits())
    line = read_line(handle.pid)
    assert line is not None
    assert (line.session, line.group) == (handle.pid, handle.pid)


def test_trap_41_no_code_between_fork_and_exec() -> None:
    """``preexec_fn``, ``user`` and groups make Python fork instead of vfork: 20 times slower, unsafe with threads."""
    slow = {"preexec_fn", "user", "group", "extra_groups", "umask", "shell"}
    spawns = 0
    for path in Path(actors.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "Popen":
                spawns += 1
                assert not slow & {keyword.arg for keyword in node.keywords}, path
    assert spawns >= 2


@pytest.mark.parametrize(
    ("command", "words", "permanent"),
    [
        (("no-such-program-here",), "program 'no-such-program-here' is not on the PATH", True),
        (("./missing",), "missing does not exist", True),
        (("./plain",), "may not be run: is it executable", True),
        (("./lost-interpreter",), "names an interpreter that does not exist", True),
        (("./no-format",), "has no format the system can run", True),
        ((), "has no command to run", True),
        (("echo", "x" * 300_000), "too long", True),
    ],
)
def test_a_refused_launch_says_why(
    process_place: ProcessPlace, tmp_path: Path, command: tuple[str, ...], words: str, permanent: bool
) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    for name, content in (("lost-interpreter", "#!/no/such/shell\n"), ("no-format", "\0\1\2")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    runtime, on_exit = process_place.daemon(), Exits()
    with pytest.raises(LaunchError, match=words) as refused:
        runtime.launch(LaunchSpec("a", command, tmp_path), 1, on_exit)
    assert "'a'" in str(refused.value)
    assert refused.value.permanent is permanent
    assert runtime.adopt(process_place.spec("a", RUNS), Exits()) is None
    assert on_exit.seen == []
    handle = runtime.launch(process_place.spec("a", RUNS), 2, on_exit)  # nothing is in the way
    assert process_place.is_alive(handle)


def test_a_missing_working_directory_is_named(process_place: ProcessPlace, tmp_path: Path) -> None:
    spec = LaunchSpec("a", RUNS, tmp_path / "nowhere")
    with pytest.raises(LaunchError, match=r"working directory .*nowhere does not exist"):
        process_place.daemon().launch(spec, 1, Exits())


def test_a_service_is_worth_more_than_its_log(kept_place: KeptPlace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spec = LaunchSpec("a", RUNS, log_path=tmp_path / "file" / "a.log")
    handle = kept_place.daemon().launch(spec, 1, Exits())
    assert kept_place.is_alive(handle)
    assert "cannot write log" in (kept_place.nurseries[-1].trouble or "")


def test_a_program_that_appears_later_is_found(process_place: ProcessPlace, tmp_path: Path) -> None:
    runtime, program = process_place.daemon(), tmp_path / "late"
    with pytest.raises(LaunchError):
        runtime.launch(LaunchSpec("a", (str(program),)), 1, Exits())
    program.write_text("#!/bin/sh\nexit 6\n")
    program.chmod(0o755)
    on_exit = Exits()
    runtime.launch(LaunchSpec("a", (str(program),)), 2, on_exit)
    assert on_exit.one().code == 6


def _living_children() -> set[int]:
    return {line.pid for line in read_table().values() if line.parent == os.getpid() and not line.is_dead}


def test_a_run_that_cannot_be_watched_does_not_live(process_place: ProcessPlace, tmp_path: Path) -> None:
    runtime, pid_file = process_place.daemon(), tmp_path / "pid"
    before = _living_children()
    runtime._nursery.close()
    with pytest.raises(LaunchError, match="cannot watch"):
        runtime.launch(process_place.spec("a", script(f"echo $$ > {pid_file}; exec sleep 1000")), 1, Exits())
    assert _living_children() <= before


def without_first_watch(
    monkeypatch: pytest.MonkeyPatch, error: OSError, before: Callable[[], None] = lambda: None
) -> list[int]:
    """``ExitWatcher.watch`` meets ``error`` the first time, and ``before`` is done then; returns what pids it got."""
    real, asked = ExitWatcher.watch, []

    def watch(watcher: ExitWatcher, pid: int, *args: Any, **words: Any) -> None:
        asked.append(pid)
        if len(asked) == 1:
            before()
            raise error
        real(watcher, pid, *args, **words)

    monkeypatch.setattr(ExitWatcher, "watch", watch)
    return asked


def found_alive(place: ProcessPlace) -> tuple[ProcessRuntime, ProcessHandle]:
    """A second daemon, before it adopts; a keeper there was is dead, so that the run is watched from here."""
    first = place.daemon().launch(place.spec("a", RUNS), 1, Exits())
    place.wait_ready(first)
    runtime = place.daemon()
    if isinstance(place, KeptPlace):
        (keeper,) = place.keepers()
        os.kill(keeper, signal.SIGKILL)
        eventually(lambda: not place.nurseries[-1].is_alive, within_s=LONG_S)
    return runtime, first


def test_an_adopted_run_that_cannot_be_watched_is_unknown_and_tried_again(
    process_place: ProcessPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, first = found_alive(process_place)
    asked = without_first_watch(monkeypatch, OSError(errno.EMFILE, "Too many open files"))
    with pytest.raises(
        TruthUnknown, match=r"service 'a' runs \(pid \d+\), but cannot be watched: .*Too many open files"
    ):
        runtime.adopt(process_place.spec("a", RUNS), Exits())
    with pytest.raises(LaunchError):  # never a twin
        runtime.launch(process_place.spec("a", RUNS), 2, Exits())
    exits = Exits()
    second = runtime.adopt(process_place.spec("a", RUNS), exits)
    assert second is not None
    assert (second.pid, second.run, asked) == (first.pid, 1, [first.pid] * 2)
    process_place.crash(second)
    assert exits.one().at > 0


def test_a_run_that_dies_between_the_look_and_the_watch_is_an_end(
    process_place: ProcessPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, first = found_alive(process_place)

    def die() -> None:
        process_place.crash(first)
        eventually(lambda: not lives(first.pid), within_s=LONG_S)

    without_first_watch(monkeypatch, ProcessLookupError(errno.ESRCH, "No such process"), die)
    exits = Exits()
    found = runtime.adopt(process_place.spec("a", RUNS), exits)
    assert (found is None) == (not exits.seen), "returned as one that has ended, or not at all"
    second = runtime.launch(process_place.spec("a", RUNS), 2, Exits())
    assert process_place.is_alive(second)
    assert second.pid != first.pid


def state_of(system: ActorSystem) -> NodeState | None:
    node = system.board.get("root/a")
    return None if node is None else node.state


@pytest.mark.parametrize("policy", [RestartPolicy.ALWAYS, RestartPolicy.NEVER])
def test_trap_53_an_end_that_was_told_to_an_actor_in_a_restart_stands_in_the_ledger(
    process_place: ProcessPlace, monkeypatch: pytest.MonkeyPatch, policy: RestartPolicy
) -> None:
    """What lies in a crashed actor's inbox is lost; the end is not: the next actor tells it, and it is judged."""
    runtime, system, reached, told = process_place.daemon(), ActorSystem(), threading.Event(), threading.Event()

    def crash(_actor: ServiceActor, _token: object) -> None:
        reached.set()
        assert told.wait(LONG_S)
        raise RuntimeError("crashed with an end in its inbox")

    monkeypatch.setattr(ServiceActor, "_woke", crash)
    plan = ServicePlan("a", "process", process_place.spec("a", RUNS), Rules(policy))
    parts = ServiceParts({"process": runtime}, runtime._ledger)
    root = Supervisor.start(
        children=[ChildSpec("a", ServiceActor, (plan, parts), restart=Restart.TRANSIENT, pacing=Pacing())],
        system=system,
    )
    try:
        eventually(lambda: is_ready(system.board.get("root/a")), within_s=LONG_S)
        first = runtime._runs["a"]
        ref = root.child("a")
        assert ref is not None
        ref.tell(Wake("poison"))
        assert reached.wait(LONG_S)
        process_place.crash(first.handle)
        assert first.wait(LONG_S) is not None
        told.set()
        if policy is RestartPolicy.NEVER:
            eventually(lambda: state_of(system) in (NodeState.STOPPED, NodeState.FAILED), within_s=LONG_S)
            holds_for(lambda: runtime._runs["a"] is first, 0.5)
        else:
            eventually(lambda: runtime._runs["a"] is not first, within_s=LONG_S)
            assert runtime._runs["a"].handle.run == 2
        record = runtime._ledger.record("a")
        assert record.last_exit is not None
        assert (record.last_exit["cause"], record.exited_run) == ("signal SIGKILL", 1)
    finally:
        told.set()
        root.stop(LONG_S)
        system.close()


def test_usage_counts_descendants(process_place: ProcessPlace) -> None:
    runtime = process_place.daemon()
    handle = runtime.launch(process_place.spec("a", script("sh -c 'while :; do :; done' & wait")), 1, Exits())
    eventually(lambda: (usage := runtime.usage(handle)) is not None and usage.cpu_percent > 10, within_s=LONG_S)


def test_an_unwritable_ledger_prevents_no_launch(process_place: ProcessPlace, tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").mkdir()
    runtime = process_place.daemon()
    handle = runtime.launch(process_place.spec("a", RUNS), 1, Exits())
    assert process_place.is_alive(handle)
    assert "ledger.jsonl" in (runtime._ledger.trouble or "")
    holds_for(lambda: process_place.is_alive(handle), 0.1)
