"""The keeper: a real process that keeps real ones, also when the daemon or the keeper itself is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors.failpoints import KEEPER_VARIABLE, NOTES_VARIABLE
from actors.keeper import watch
from actors.keeper.client import connect
from actors.keeper.kids import CLAIM_BEATS
from actors.keeper.words import BrokenFrame, End, Frames, KeptRun, address_of, encode
from actors.ledger import Phase
from actors.log_rotation import OWN_BYTES, OWN_LOGS
from actors.runtimes.base import LaunchError, LaunchSpec, RestartAtOnce
from actors.runtimes.family import kill_family, signal_group, signal_process
from actors.runtimes.locks import lock_holders
from actors.runtimes.procfs import identity_of, read_line
from supervisors.pulse import Pulse
from supervisors.watched import watched_keeper
from tests.runtimes.worlds import LONG_S, RUNS, Exits, KeptPlace
from tests.support.eventually import eventually, holds_for


def script(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


def lives(pid: int) -> bool:
    line = read_line(pid)
    return line is not None and not line.is_dead


def at_once() -> RestartAtOnce:
    return RestartAtOnce()


def pids_in(path: Path) -> list[int]:
    """What scripts that ``echo $$ >> path`` have written."""
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def started(path: Path, how_many: int) -> list[int]:
    def look() -> list[int] | None:
        pids = pids_in(path)
        return pids if len(pids) >= how_many else None

    return eventually(look, within_s=LONG_S, what=f"{how_many} starts")


@pytest.fixture
def births(tmp_path: Path) -> Path:
    return tmp_path / "births"


def announcing(place: KeptPlace, births: Path, then: str = "exec sleep 1000") -> LaunchSpec:
    return place.spec("a", script(f"echo $$ >> {births}; {then}"))


# -- whose child ------------------------------------------------------------------------------------------------------


def test_a_service_is_a_child_of_the_keeper(kept_place: KeptPlace) -> None:
    handle = kept_place.daemon().launch(kept_place.spec("a", RUNS), 1, Exits())
    line = read_line(handle.pid)
    assert line is not None
    assert {line.parent} == kept_place.keepers()


def test_the_keeper_ends_when_no_service_needs_it(kept_place: KeptPlace) -> None:
    runtime = kept_place.daemon()
    handle = runtime.launch(kept_place.spec("a", RUNS), 1, Exits())
    (keeper,) = kept_place.keepers()
    kept_place.nurseries[-1].leave()
    holds_for(lambda: lives(keeper), 0.3)
    runtime.stop(handle, 1.0)
    kept_place.nurseries[-1].close()
    eventually(lambda: not lives(keeper), within_s=LONG_S)


def test_orphans_fall_to_the_keeper_and_are_reaped(kept_place: KeptPlace, tmp_path: Path) -> None:
    pid_file = tmp_path / "orphan"
    text = f"(sleep 0.2; exit 3) & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000"
    kept_place.daemon().launch(
        kept_place.spec("a", script(f"setsid sh -c '{text.replace('exec sleep 1000', ':')}'; exec sleep 1000")),
        1,
        Exits(),
    )
    eventually(pid_file.exists, within_s=LONG_S)
    eventually(lambda: read_line(int(pid_file.read_text())) is None, within_s=LONG_S, what="the orphan to be reaped")


# -- an armed restart -------------------------------------------------------------------------------------------------


def test_an_armed_service_is_started_again_by_the_keeper(kept_place: KeptPlace, births: Path) -> None:
    runtime, on_exit = kept_place.daemon(), Exits()
    handle = runtime.launch(announcing(kept_place, births), 1, on_exit)
    runtime.arm(handle, at_once)
    (first,) = started(births, 1)
    os.kill(first, signal.SIGKILL)
    _, second = started(births, 2)
    assert on_exit.one().signal == signal.SIGKILL
    adopted = runtime.adopt(announcing(kept_place, births), Exits())
    assert adopted is not None
    assert (adopted.pid, adopted.run) == (second, 2)
    record = runtime._ledger.record("a")
    assert (record.run, record.phase, record.identity and record.identity["pid"]) == (2, Phase.LAUNCHED, second)


def test_what_was_disarmed_is_not_started_again(kept_place: KeptPlace, births: Path) -> None:
    runtime, on_exit = kept_place.daemon(), Exits()
    handle = runtime.launch(announcing(kept_place, births), 1, on_exit)
    runtime.arm(handle, at_once)
    runtime.arm(handle, lambda: None)
    os.kill(started(births, 1)[0], signal.SIGKILL)
    on_exit.one()
    holds_for(lambda: len(pids_in(births)) == 1, 0.3)


def test_a_clean_end_is_no_failure(kept_place: KeptPlace, births: Path) -> None:
    runtime, on_exit = kept_place.daemon(), Exits()
    handle = runtime.launch(announcing(kept_place, births, "sleep 0.5; exit 0"), 1, on_exit)
    runtime.arm(handle, lambda: RestartAtOnce(only_on_failure=True))
    assert on_exit.one().is_clean
    holds_for(lambda: len(pids_in(births)) == 1, 0.3)


def test_a_stop_is_no_crash(kept_place: KeptPlace, births: Path) -> None:
    runtime = kept_place.daemon()
    handle = runtime.launch(announcing(kept_place, births), 1, Exits())
    runtime.arm(handle, at_once)
    started(births, 1)
    assert runtime.stop(handle, 5.0).asked
    holds_for(lambda: len(pids_in(births)) == 1, 0.3)


def test_a_stop_also_ends_what_was_started_again_meanwhile(kept_place: KeptPlace, births: Path) -> None:
    runtime, on_exit = kept_place.daemon(), Exits()
    handle = runtime.launch(announcing(kept_place, births), 1, on_exit)
    runtime.arm(handle, at_once)
    os.kill(started(births, 1)[0], signal.SIGKILL)
    _, second = started(births, 2)
    on_exit.one()
    runtime.stop(handle, 5.0)
    assert not lives(second)


def test_nothing_is_started_beside_what_an_ended_run_left(kept_place: KeptPlace, births: Path) -> None:
    """The orphan could be a twin of what it serves: the daemon sweeps first."""
    runtime, on_exit = kept_place.daemon(), Exits()
    then = "setsid sleep 1000 & exec sleep 1000"
    handle = runtime.launch(announcing(kept_place, births, then), 1, on_exit)
    runtime.arm(handle, at_once)
    (first,) = started(births, 1)
    eventually(lambda: len(runtime.sweeper.family(handle.identity, handle.token)) == 2, within_s=LONG_S)
    left = [member.pid for member in runtime.sweeper.family(handle.identity, handle.token) if member.pid != first]
    os.kill(first, signal.SIGKILL)
    on_exit.one()
    holds_for(lambda: len(pids_in(births)) == 1, 0.3)
    runtime.launch(announcing(kept_place, births), 2, Exits())
    assert not lives(left[0])


def test_what_nobody_takes_on_is_killed(kept_place: KeptPlace, births: Path) -> None:
    runtime, on_exit = kept_place.daemon(), Exits()
    handle = runtime.launch(announcing(kept_place, births), 1, on_exit)
    runtime.arm(handle, at_once)
    os.kill(started(births, 1)[0], signal.SIGKILL)
    _, second = started(births, 2)
    on_exit.one()
    for _ in range(CLAIM_BEATS - 1):
        kept_place.nurseries[-1].beat()
    holds_for(lambda: lives(second), 0.3)
    kept_place.nurseries[-1].beat()
    eventually(lambda: not lives(second), within_s=LONG_S)


def test_what_was_taken_on_lives(kept_place: KeptPlace, births: Path) -> None:
    runtime, on_exit = kept_place.daemon(), Exits()
    handle = runtime.launch(announcing(kept_place, births), 1, on_exit)
    runtime.arm(handle, at_once)
    os.kill(started(births, 1)[0], signal.SIGKILL)
    _, second = started(births, 2)
    on_exit.one()
    assert runtime.adopt(announcing(kept_place, births), Exits()) is not None
    for _ in range(2 * CLAIM_BEATS):
        kept_place.nurseries[-1].beat()
    holds_for(lambda: lives(second), 0.3)


# -- while no daemon lives --------------------------------------------------------------------------------------------


def test_how_a_service_ended_is_kept_for_the_next_daemon(kept_place: KeptPlace) -> None:
    first = kept_place.daemon()
    handle = first.launch(kept_place.spec("a", script("echo ready; read x < /dev/null; sleep 0.5; exit 7")), 1, Exits())
    kept_place.nurseries[-1].close()
    eventually(lambda: not lives(handle.pid), within_s=LONG_S)
    on_exit = Exits()
    assert kept_place.daemon().adopt(kept_place.spec("a", RUNS), on_exit) is not None
    assert (on_exit.one().code, on_exit.one().asked) == (7, False)


def test_an_armed_service_is_started_again_while_no_daemon_lives(kept_place: KeptPlace, births: Path) -> None:
    first = kept_place.daemon()
    handle = first.launch(announcing(kept_place, births), 1, Exits())
    first.arm(handle, at_once)
    kept_place.nurseries[-1].close()
    os.kill(started(births, 1)[0], signal.SIGKILL)
    _, second = started(births, 2)
    later = kept_place.daemon()
    assert [missed.run for missed in kept_place.nurseries[-1].missed] == [1]
    adopted = later.adopt(announcing(kept_place, births), Exits())
    assert adopted is not None
    assert (adopted.pid, adopted.run) == (second, 2)


def changed_at(path: Path) -> int | None:
    """None while it is being replaced."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def test_output_goes_on_and_is_rotated_while_no_daemon_lives(kept_place: KeptPlace) -> None:
    spec = LaunchSpec(
        "a",
        script("i=0; while :; do i=$((i+1)); echo line $i; done"),
        log_path=kept_place.folder / "logs" / "a.log",
        log_max_bytes=200_000,
        log_backups=1,
    )
    kept_place.daemon().launch(spec, 1, Exits())
    kept_place.nurseries[-1].close()
    older = kept_place.folder / "logs" / "a.log.1"
    eventually(older.exists, within_s=LONG_S, what="rotation by the keeper")
    before = changed_at(older)
    eventually(lambda: changed_at(older) not in (None, before), within_s=LONG_S, what="another rotation")


def test_our_own_logs_are_rotated_while_no_daemon_lives(kept_place: KeptPlace) -> None:
    kept_place.daemon().launch(kept_place.spec("a", RUNS), 1, Exits())
    kept_place.nurseries[-1].close()
    for name in OWN_LOGS:
        with (kept_place.folder / name).open("ab") as log:
            log.truncate(OWN_BYTES + 1)
    logs = [kept_place.folder / name for name in OWN_LOGS]
    eventually(lambda: all(log.with_name(f"{log.name}.1").exists() for log in logs), within_s=LONG_S, what="rotation")
    eventually(lambda: all(log.stat().st_size < OWN_BYTES for log in logs), within_s=LONG_S)


# -- the keeper killed ------------------------------------------------------------------------------------------------


def _kill_keeper(place: KeptPlace) -> int:
    (pid,) = place.keepers()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not place.nurseries[-1].is_alive, within_s=LONG_S)
    return pid


def test_services_outlive_the_keeper_and_their_end_is_seen(kept_place: KeptPlace) -> None:
    runtime, on_exit = kept_place.daemon(), Exits()
    handle = runtime.launch(kept_place.spec("a", RUNS), 1, on_exit)
    _kill_keeper(kept_place)
    assert lives(handle.pid)
    holds_for(lambda: not on_exit.seen, 0.2)
    os.kill(handle.pid, signal.SIGKILL)
    assert on_exit.one().cause in ("signal SIGKILL", "unknown"), "known only to a subreaper"
    again = runtime.launch(kept_place.spec("a", RUNS), 2, Exits())
    line = read_line(again.pid)
    assert line is not None
    assert {line.parent} == kept_place.keepers(), "by a new keeper"


@pytest.fixture
def deadly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Arms the next keeper; the file appears when it has died of it."""

    def arm(point: str) -> Path:
        notes = tmp_path / "notes"
        notes.mkdir()
        monkeypatch.setenv(KEEPER_VARIABLE, point)
        monkeypatch.setenv(NOTES_VARIABLE, str(notes))
        return notes / f"died.{point}"

    return arm


def test_what_a_keeper_started_with_its_last_breath_is_taken_on(
    deadly: Callable[[str], Path], kept_place: KeptPlace, births: Path
) -> None:
    died = deadly("keeper.spawned")
    handle = kept_place.daemon().launch(announcing(kept_place, births), 1, Exits())
    assert died.exists()
    assert started(births, 1) == [handle.pid]
    holds_for(lambda: pids_in(births) == [handle.pid], 0.3)


@pytest.mark.parametrize("point", ["keeper.armed.spawned", "keeper.armed.recorded"])
def test_what_a_keeper_started_again_with_its_last_breath_is_taken_on(
    point: str, deadly: Callable[[str], Path], kept_place: KeptPlace, births: Path
) -> None:
    died = deadly(point)
    runtime, on_exit = kept_place.daemon(), Exits()
    handle = runtime.launch(announcing(kept_place, births), 1, on_exit)
    runtime.arm(handle, at_once)
    os.kill(started(births, 1)[0], signal.SIGKILL)
    on_exit.one()
    assert died.exists()
    _, second = started(births, 2)
    again = runtime.launch(announcing(kept_place, births), 2, Exits())
    assert again.pid == second
    holds_for(lambda: len(pids_in(births)) == 2, 0.3)


def test_what_the_keeper_was_not_told_to_forget_is_no_news(kept_place: KeptPlace) -> None:
    """A daemon that had gone on to the next run was killed before it said so."""
    first = kept_place.daemon()
    handle = first.launch(kept_place.spec("a", script("exit 3")), 1, Exits(answer=False))
    eventually(lambda: not lives(handle.pid), within_s=LONG_S)
    kept_place.nurseries[-1].close()
    later = kept_place.daemon()
    later._ledger.intent("a", 2, "process", "token of a run that was never started")
    on_exit = Exits()
    assert later.adopt(kept_place.spec("a", RUNS), on_exit) is None
    assert not on_exit.seen
    assert later._ledger.record("a").run == 2


@pytest.mark.parametrize("verdict", ["restarted", "judged"])
def test_an_end_that_was_answered_is_not_told_again(verdict: str, kept_place: KeptPlace) -> None:
    """A daemon that had counted the restart, or given up, was killed before it said so: it would count twice."""
    handle = kept_place.daemon().launch(kept_place.spec("a", RUNS), 1, Exits())
    kept_place.nurseries[-1].close()
    os.kill(handle.pid, signal.SIGKILL)
    eventually(lambda: not lives(handle.pid), within_s=LONG_S)
    later = kept_place.daemon()
    later._ledger.exited("a", 1, {"cause": "signal SIGKILL", "signal": 9})
    getattr(later._ledger, verdict)("a")
    on_exit = Exits()
    assert later.adopt(kept_place.spec("a", RUNS), on_exit) is None
    assert not on_exit.seen


def test_a_service_of_a_killed_keeper_is_stopped_whole(kept_place: KeptPlace, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    runtime = kept_place.daemon()
    text = f"setsid sleep 1000 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000"
    handle = runtime.launch(kept_place.spec("a", script(text)), 1, Exits())
    eventually(pid_file.exists, within_s=LONG_S)
    _kill_keeper(kept_place)
    runtime.stop(handle, 5.0)
    assert not lives(handle.pid)
    assert not lives(int(pid_file.read_text()))


def test_after_both_died_there_is_no_twin_and_the_end_is_unknown(kept_place: KeptPlace) -> None:
    handle = kept_place.daemon().launch(kept_place.spec("a", RUNS), 1, Exits())
    (keeper,) = kept_place.keepers()
    kept_place.nurseries[-1].close()
    os.kill(keeper, signal.SIGKILL)
    eventually(lambda: not lives(keeper), within_s=LONG_S)
    later, on_exit = kept_place.daemon(), Exits()
    adopted = later.adopt(kept_place.spec("a", RUNS), on_exit)
    assert adopted is not None
    assert adopted.pid == handle.pid
    os.kill(handle.pid, signal.SIGKILL)
    assert on_exit.one().cause in ("unknown", "signal SIGKILL")


def test_a_keeper_that_hangs_is_killed_and_the_services_live(
    kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.keeper.client.ANSWER_S", 0.5)
    runtime = kept_place.daemon()
    handle = runtime.launch(kept_place.spec("a", RUNS), 1, Exits())
    (keeper,) = kept_place.keepers()
    os.kill(keeper, signal.SIGSTOP)

    def beat() -> bool:
        kept_place.nurseries[-1].beat()
        return not kept_place.nurseries[-1].is_alive

    eventually(beat, within_s=LONG_S)
    eventually(lambda: not lives(keeper), within_s=LONG_S)
    assert lives(handle.pid)


# -- the lock ---------------------------------------------------------------------------------------------------------


def test_whoever_hides_from_every_table_still_holds_the_lock(kept_place: KeptPlace, tmp_path: Path) -> None:
    """No session, no token, no parent: only the inherited file tells, and no second instance is started beside it."""
    pid_file = tmp_path / "pid"
    runtime, on_exit = kept_place.daemon(), Exits()
    hide = f'env -i setsid sh -c "echo \\$\\$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 1000" &'
    runtime.launch(kept_place.spec("a", script(f"{hide} while [ ! -e {pid_file} ]; do :; done; exit 5")), 1, on_exit)
    on_exit.one()
    hidden = int(pid_file.read_text())
    again = runtime.launch(kept_place.spec("a", RUNS), 2, Exits())
    assert lives(again.pid)
    assert not lives(hidden)


def test_who_only_looks_into_the_lock_file_is_no_holder(kept_place: KeptPlace) -> None:
    runtime = kept_place.daemon()
    handle = runtime.launch(kept_place.spec("a", RUNS), 1, Exits())
    path = kept_place.folder / "locks" / "a.lock"
    with path.open("rb") as file, subprocess.Popen(["sleep", "1000"], stdin=file) as reader:
        try:
            assert [one.pid for one in lock_holders(path)] == [handle.pid]
        finally:
            reader.kill()


# -- what only a careful reader found ------------------------------------------------------------------------------


def test_a_keeper_lost_right_after_its_answer_leaves_no_run_unwatched(
    kept_place: KeptPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, on_exit = kept_place.daemon(), Exits()
    nursery = kept_place.nurseries[-1]
    link = nursery._link
    assert link is not None
    ask = link.ask

    def ask_and_lose(act: str, **words: Any) -> Any:
        answer = ask(act, **words)
        if act == "spawn":
            _kill_keeper(kept_place)
        return answer

    monkeypatch.setattr(link, "ask", ask_and_lose)
    handle = runtime.launch(kept_place.spec("a", RUNS), 1, on_exit)
    os.kill(handle.pid, signal.SIGKILL)
    assert on_exit.one().cause in ("signal SIGKILL", "unknown")


def test_a_beat_after_a_silence_of_our_own_kills_no_keeper(kept_place: KeptPlace) -> None:
    kept_place.daemon()
    (keeper,) = kept_place.keepers()
    link = kept_place.nurseries[-1]._link
    assert link is not None
    link._unanswered_since_s, link._unanswered = time.monotonic() - 1000, 1  # frozen with an answer not read yet
    link.beat()
    eventually(lambda: link._unanswered == 0, within_s=LONG_S)
    assert lives(keeper)


def test_an_impossible_path_ends_no_talk(kept_place: KeptPlace) -> None:
    runtime = kept_place.daemon()
    bystander = runtime.launch(kept_place.spec("b", RUNS), 1, Exits())
    (keeper,) = kept_place.keepers()
    strange = replace(kept_place.spec("a", RUNS), working_dir=Path("/tmp/\0x"))
    with pytest.raises(LaunchError):
        runtime.launch(strange, 1, Exits())
    assert kept_place.keepers() == {keeper}
    assert lives(bystander.pid)


def test_an_order_of_the_last_daemon_is_not_one_of_the_next(kept_place: KeptPlace, births: Path) -> None:
    first = kept_place.daemon()
    first.arm(first.launch(announcing(kept_place, births), 1, Exits()), at_once)
    (pid,) = started(births, 1)
    on_exit = Exits()
    assert kept_place.daemon().adopt(announcing(kept_place, births), on_exit) is not None
    os.kill(pid, signal.SIGKILL)
    on_exit.one()
    holds_for(lambda: len(pids_in(births)) == 1, 0.3)


def test_locks_that_can_be_made_again_are_no_trouble_any_more(kept_place: KeptPlace) -> None:
    runtime, locks = kept_place.daemon(), kept_place.folder / "locks"
    locks.write_text("in the way")
    handle = runtime.launch(kept_place.spec("a", RUNS), 1, Exits())
    assert lives(handle.pid)
    assert kept_place.nurseries[-1].trouble == f"cannot make {locks}: File exists"
    locks.unlink()
    assert kept_place.nurseries[-1].trouble is None  # nothing else was launched


def test_a_lost_keeper_is_replaced_whatever_else_is_wrong(kept_place: KeptPlace) -> None:
    kept_place.daemon()
    nursery = kept_place.nurseries[-1]
    (kept_place.folder / "locks").write_text("in the way")
    nursery._lock_folder()
    pulse = Pulse(lambda _path: None, tuple, time.monotonic)
    watched = watched_keeper(nursery, pulse, lambda _what, trouble: trouble)
    assert watched.is_alive()
    _kill_keeper(kept_place)
    assert nursery.trouble is not None
    assert not watched.is_alive()


def test_whom_we_may_not_signal_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that became another user's: ``stop`` says that it cannot be ended, and the others are."""

    def refuse(*_: object) -> None:
        raise PermissionError

    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as theirs:
        identity = identity_of(theirs.pid)
        assert identity is not None
        monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
        monkeypatch.setattr(os, "killpg", refuse)
        assert not signal_process(identity, signal.SIGTERM)
        assert not signal_group(identity, signal.SIGTERM)
        assert kill_family(lambda: (identity,), 0.1) == (identity,)
        monkeypatch.undo()
        theirs.kill()


# -- strangers --------------------------------------------------------------------------------------------------------


def test_nonsense_ends_a_connection_and_nothing_else(kept_place: KeptPlace) -> None:
    runtime = kept_place.daemon()
    handle = runtime.launch(kept_place.spec("a", RUNS), 1, Exits())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger:
        stranger.connect(address_of(kept_place.folder))
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        stranger.settimeout(LONG_S)
        assert stranger.recv(1) == b""
    assert lives(handle.pid)
    (keeper,) = [pid for pid in {read_line(handle.pid).parent} if lives(pid)]  # type: ignore[union-attr]
    assert lives(keeper)


def test_another_user_is_turned_away(kept_place: KeptPlace) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to become another user")
    runtime = kept_place.daemon()
    handle = runtime.launch(kept_place.spec("a", RUNS), 1, Exits())
    text = (
        "import socket,sys;s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1].encode().decode('unicode_escape'));"
        "s.settimeout(20);print(s.recv(1))"
    )
    address = address_of(kept_place.folder).replace("\0", "\\x00")
    done = subprocess.run(
        ["python3", "-c", text, address],
        user=65534,
        group=65534,
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )
    assert done.stdout == "b''\n", done.stderr
    assert kept_place.nurseries[-1].is_alive
    assert lives(handle.pid)


def test_many_that_start_one_at_the_same_time_share_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        links = list(pool.map(lambda _: connect(tmp_path), range(8)))
    pids = eventually(lambda: _keepers_of(tmp_path), within_s=LONG_S)
    holds_for(lambda: _keepers_of(tmp_path) == pids, 0.3)
    assert len(pids) == 1
    for link in links:
        link.close()
    os.kill(pids[0], signal.SIGTERM)  # nobody needs it: at once
    eventually(lambda: not lives(pids[0]), within_s=LONG_S)
    os.waitpid(pids[0], 0)


def _keepers_of(state_dir: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(state_dir) in (process.info["cmdline"] or ()) and "actors.keeper.main" in str(process.info["cmdline"])
    ]


# -- words and watch, pure --------------------------------------------------------------------------------------------


def test_frames_are_cut_wherever_the_stream_breaks() -> None:
    sent: list[dict[str, object]] = [{"do": "hello", "id": 1}, {"environment": {"A": "\udcff"}}, {}]
    data = b"".join(map(encode, sent))
    for size in (1, 3, 7, len(data)):
        frames, seen = Frames(), []
        for start in range(0, len(data), size):
            seen += list(frames.feed(data[start : start + size]))
        assert seen == sent


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\2[]", b"\0\0\0\1{"])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(BrokenFrame):
        list(Frames().feed(data))


def test_a_kept_run_survives_the_way_over_the_wire() -> None:
    run = KeptRun("a", 3, "token", 42, 7, 1.5, End(None, 9, 2.5, asked=True), successor=4, by_keeper=True)
    (frame,) = Frames().feed(encode(run.to_plain()))
    assert KeptRun.from_plain(frame) == run


def test_a_silent_daemon_is_frozen_and_a_keeper_that_slept_does_not_judge() -> None:
    begun = watch.begin(20.0, 100.0)
    looked, frozen = begun, False
    for second in range(1, 21):
        looked, frozen = watch.look(looked, 100.0 + second)
        assert not frozen
    _, frozen = watch.look(looked, 121.0)
    assert frozen
    slept, frozen = watch.look(watch.heard(begun, 110.0), 500.0)
    assert not frozen
    _, frozen = watch.look(slept, 501.0)
    assert not frozen
    assert not watch.look(watch.begin(0.0, 100.0), 102.0)[1], "switched off"
