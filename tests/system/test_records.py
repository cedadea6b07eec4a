"""The daemon's own records fail (full disk, read-only, corrupt, gone): services are still restarted, never doubled."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from actors.runtimes.recognising import environ_of
from supervisors.manager import Node
from supervisors.tree_json import find
from tests.support.eventually import eventually
from tests.system.running import LINKS, SLEEPER, Running, free_port, of_state, write_config
from tests.system.running import daemon as any_daemon
from tests.system.small_disk import fill, make_room, make_writable, needs_root, read_only, small_disk

daemon = functools.partial(any_daemon, in_order=False)
pytestmark = pytest.mark.timeout(240)
LONG_S = 30.0
CRITICAL = '"level": "critical"'


def killed(running: Running) -> None:
    running.process.kill()
    running.process.wait()


def only(state: Path, name: str = "a") -> int:
    """The pid of the one process of a service; an AssertionError while there are none or more."""
    found = [one.pid for one in of_state(state) if environ_of(one.pid).get("SELFHEAL_SERVICE") == name]
    assert len(found) == 1, found
    return found[0]


def keeper_of(pid: int) -> psutil.Process:
    parent = psutil.Process(pid).parent()
    assert parent is not None
    assert parent.name() == "selfheal-keeper"
    return parent


def a_crash_is_answered(state: Path, *, but: int | None = None) -> int:
    """Kill the service; returns the pid of the one that came in its place."""
    before = only(state) if but is None else but
    os.kill(before, signal.SIGKILL)

    def successor() -> int:
        pid = only(state)
        assert pid != before
        return pid

    return eventually(successor, within_s=LONG_S)


def degraded(running: Running, path: str, words: str, *more: str) -> None:
    """The tree shows the trouble, and the exit code of the command says that something is wrong."""

    def look(root: Node) -> bool:
        node = find(root, path)
        assert node["state"] == "degraded", node
        assert words in node["detail"], node
        return True

    eventually(lambda: look(running.get("/v1/tree")["root"]), within_s=LONG_S, every_s=0.1)
    done = running.call("tree", "--json", *more)
    assert done.stdout, done.stderr
    assert look(json.loads(done.stdout)["root"])
    assert done.returncode == 3


def well(running: Running) -> None:
    running.until_well(LONG_S)
    done = running.call("tree")
    assert done.returncode == 0, done.stdout + done.stderr


# -- the disk is full --------------------------------------------------------------------------------------------------


@needs_root
def test_a_disk_full_from_the_start(tmp_path: Path) -> None:
    """Nothing could ever be written: who runs is known from the keeper, at last from the processes themselves."""
    with small_disk(tmp_path / "state") as state:
        fill(state)
        config = write_config(tmp_path, {"a": SLEEPER})
        with daemon(config, state) as first:
            address = first.ready_line.split()[1]
            degraded(first, "root/journal", "journal.db", "--address", address)
            degraded(first, "root/runtimes/exit-watcher", "ledger.jsonl", "--address", address)
            pid = a_crash_is_answered(state)
            assert CRITICAL in first.log.read_text()
            killed(first)
            with daemon(config, state) as second:
                assert only(state) == pid, "taken on from the keeper"
                killed(second)
                keeper_of(pid).kill()
                with daemon(config, state) as third:
                    assert only(state) == pid, "taken on by its environment"
                    make_room(state)
                    well(third)
                    pid = a_crash_is_answered(state)
                    assert '"launched"' in (state / "ledger.jsonl").read_text()


@needs_root
def test_trap_43_a_disk_that_fills_up_and_is_emptied(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER})
    with small_disk(tmp_path / "state") as state, daemon(config, state) as selfheal:
        selfheal.until_ready()
        with (state / "ledger.jsonl").open("ab") as file:
            file.write(b"\n" * (-file.tell() % 4096))  # a tmpfs gives pages: this one is used up too
        fill(state)
        eventually(lambda: not (state / "ballast").exists(), within_s=LONG_S, what="the ballast is given up")
        fill(state)
        pid = a_crash_is_answered(state)
        assert selfheal.call("services", "stop", "b", "--why", "quiet").returncode == 0
        degraded(selfheal, "root/runtimes/exit-watcher", "ledger.jsonl")
        degraded(selfheal, "root/journal", "full")
        make_room(state)
        well(selfheal)
        killed(selfheal)
        keeper_of(pid).kill()
        with daemon(config, state) as second:
            assert second.until_ready("a")["a"]["pid"] == pid
            assert second.services()["b"]["state"] == "stopped", "what was said meanwhile reached the file"


# -- read-only ---------------------------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("has_run_before", [True, False])
def test_trap_44_a_read_only_state_directory(tmp_path: Path, has_run_before: bool) -> None:
    port = free_port()
    links = LINKS | {"operator": {"address": f"127.0.0.1:{port}"}}
    config = write_config(tmp_path, {"a": SLEEPER}, links=links)
    state, pid = tmp_path / "state", None
    state.mkdir()
    if has_run_before:
        with daemon(config, state) as before:
            pid = before.until_ready()["a"]["pid"]
            killed(before)
            a_read_only_directory(config, state, port, pid)
    else:
        a_read_only_directory(config, state, port, pid)


def a_read_only_directory(config: Path, state: Path, port: int, pid: int | None) -> None:
    way = ("--address", f"http://127.0.0.1:{port}")
    with read_only(state), daemon(config, state) as selfheal:
        assert way[1] in selfheal.ready_line
        assert pid in (None, only(state))
        pid = a_crash_is_answered(state)
        degraded(selfheal, "root/journal", "journal.db", *way)
        degraded(selfheal, "root/links/operator", "Read-only", *way)
        assert CRITICAL in selfheal.log.read_text()
        with daemon(config, state, wait=False) as second:
            assert second.process.wait(LONG_S) == 1
            assert f"pid {selfheal.process.pid}" in second.log.read_text()
            assert only(state) == pid
        make_writable(state)
        well(selfheal)


# -- the journal -------------------------------------------------------------------------------------------------------


def _garbage(path: Path) -> None:
    path.write_bytes(b"no database at all " * 1000)


def _page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)


def _future(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [_garbage, _page, _future, _folder])
def test_trap_45_a_damaged_journal(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    state, config = tmp_path / "state", write_config(tmp_path, {"a": SLEEPER})
    with daemon(config, state) as first:
        pid = first.until_ready()["a"]["pid"]
        assert first.call("stop", "--keep-services").returncode == 0
        first.process.wait(LONG_S)
        damage(state / "journal.db")
        with daemon(config, state) as second:
            degraded(second, "root/journal", "journal.db")
            assert only(state) == pid
            a_crash_is_answered(state)
            assert CRITICAL in second.log.read_text()


@pytest.mark.parametrize("damage", [_garbage, Path.unlink])
def test_a_journal_lost_while_it_is_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    state, config = tmp_path / "state", write_config(tmp_path, {"a": SLEEPER})
    with daemon(config, state) as selfheal:
        selfheal.until_ready()
        sent = selfheal.call("alert", "send", "--type", "before", "--json")
        assert sent.returncode in (0, 3), sent.stderr
        journal = state / "journal.db"
        damage(journal)
        degraded(selfheal, "root/journal", "was removed" if damage is Path.unlink else "journal.db")
        a_crash_is_answered(state)
        types = {one["type"] for one in selfheal.json("alerts")["alerts"]}
        assert "records_trouble" in types, "the journal works again, so it holds the alert"
        if damage is Path.unlink:
            assert "before" in types, "nothing acknowledged was lost"


# -- the ledger --------------------------------------------------------------------------------------------------------


def _ledger_garbage(path: Path) -> None:
    path.write_bytes(b"\0\xff{{{\n" * 50)


def _ledger_cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def _ledger_forged(path: Path) -> None:
    """Records of somebody's imagination: another run, another pid, no numbers at all."""
    ours = {"is": "record", "service": "a", "format": 1}
    forged = [
        {"is": "intent", "service": "a", "run": 99, "runtime": "process", "token": "forged"},
        {"is": "launched", "service": "a", "run": 99, "identity": {"pid": 1}, "started_at": 0},
        {"is": "launched", "service": "a", "run": 99, "identity": {"pid": "x"}, "started_at": "never"},
        {**ours, "record": {"service": "a", "run": "many", "phase": "launched"}},
        {**ours, "record": {"service": "b", "run": 3, "phase": "exited", "restarts": -1}},
        {**ours, "record": {"service": "a", "run": 1, "phase": "launched", "last_exit": ["exit"], "token": 7}},
    ]
    with path.open("a") as file:
        file.write("".join(json.dumps(one) + "\n" for one in forged) + "[" * 100_000 + "\n")


@pytest.mark.parametrize(
    ("damage", "is_shown", "keeper_lives"),
    [
        (_ledger_garbage, True, True),
        (_ledger_garbage, True, False),
        (_ledger_cut, False, False),
        (_folder, True, False),
        (_ledger_forged, True, False),
        (Path.unlink, False, True),
        (Path.unlink, False, False),
    ],
)
def test_a_damaged_ledger(tmp_path: Path, damage: Callable[[Path], None], is_shown: bool, keeper_lives: bool) -> None:
    state, config = tmp_path / "state", write_config(tmp_path, {"a": SLEEPER})
    with daemon(config, state) as first:
        pid = first.until_ready()["a"]["pid"]
        killed(first)
        if not keeper_lives:
            keeper_of(pid).kill()
        damage(state / "ledger.jsonl")
        with daemon(config, state) as second:
            assert only(state) == pid, "taken on, not doubled"
            assert second.until_ready()["a"]["pid"] == pid
            if is_shown:
                degraded(second, "root/runtimes/exit-watcher", "ledger.jsonl")
            a_crash_is_answered(state)


def test_a_forged_record_names_a_stranger(tmp_path: Path) -> None:
    """It is neither taken for the service nor ever signalled."""
    state, config = tmp_path / "state", write_config(tmp_path, {"a": SLEEPER})
    state.mkdir()
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True, env={"PATH": os.environ["PATH"]})
    try:
        raw = Path(f"/proc/{stranger.pid}/stat").read_text()
        ticks = int(raw[raw.rfind(")") + 2 :].split()[19])
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        record = {
            "service": "a",
            "run": 4,
            "phase": "launched",
            "runtime": "process",
            "token": "f" * 32,
            "identity": {"pid": stranger.pid, "start_ticks": ticks, "boot_id": boot},
        }
        line = json.dumps({"is": "record", "service": "a", "record": record, "format": 1})
        (state / "ledger.jsonl").write_text(line + "\n")
        with any_daemon(config, state) as selfheal:  # nor is it when the daemon is stopped in order
            assert selfheal.until_ready()["a"]["pid"] != stranger.pid
            a_crash_is_answered(state)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_records_removed_under_a_living_daemon(tmp_path: Path) -> None:
    """Ledger and locks are gone: both are there again, and what they say is right after daemon and keeper died."""
    state, config = tmp_path / "state", write_config(tmp_path, {"a": SLEEPER})
    with daemon(config, state) as first:
        first.until_ready()
        (state / "ledger.jsonl").unlink()
        shutil.rmtree(state / "locks")
        pid = a_crash_is_answered(state)
        assert (state / "locks" / "a.lock").exists()
        ledger = state / "ledger.jsonl"
        eventually(lambda: ledger.exists() and f'"pid":{pid}' in ledger.read_text(), within_s=LONG_S)
        killed(first)
        keeper_of(pid).kill()
        with daemon(config, state) as second:
            assert second.until_ready()["a"]["pid"] == pid
            assert only(state) == pid


def test_two_that_could_both_be_it_are_ended_before_one_is_started(tmp_path: Path) -> None:
    """Nobody can tell whose process is the service's: then neither may live beside a new one."""
    state, config = tmp_path / "state", write_config(tmp_path, {"a": SLEEPER})
    state.mkdir()
    claims = {**os.environ, "SELFHEAL_STATE": str(state), "SELFHEAL_SERVICE": "a"}
    both = [
        subprocess.Popen(["sleep", "1000"], start_new_session=True, env=claims | {"SELFHEAL_TOKEN": f"t{number}"})
        for number in range(2)
    ]
    try:
        with daemon(config, state) as selfheal:
            pid = selfheal.until_ready()["a"]["pid"]
            assert pid not in {one.pid for one in both}
            assert [one.wait(LONG_S) for one in both] == [-signal.SIGKILL, -signal.SIGKILL]
            assert only(state) == pid
    finally:
        for one in both:
            one.kill()
            one.wait()


# -- one root ----------------------------------------------------------------------------------------------------------


def test_the_lock_file_is_removed_and_the_second_daemon_still_refuses(tmp_path: Path) -> None:
    state, config = tmp_path / "state", write_config(tmp_path, {"a": SLEEPER})
    with daemon(config, state) as selfheal:
        pid = selfheal.until_ready()["a"]["pid"]
        (state / "lock").unlink()
        link = tmp_path / "another way"
        link.symlink_to(state)
        for path in (link, state):  # in this order: the test's own sweep ends what runs under the same path
            with daemon(config, path, wait=False) as second:
                assert second.process.wait(LONG_S) == 1
                assert f"pid {selfheal.process.pid};" in second.log.read_text()
                assert only(state) == pid
        eventually(lambda: (state / "lock").read_text() == f"{selfheal.process.pid}\n", within_s=LONG_S)


def test_a_lock_file_left_behind_blocks_nobody(tmp_path: Path) -> None:
    """After a reboot the pid inside is nobody's, or a stranger's."""
    state, config = tmp_path / "state", write_config(tmp_path, {"a": SLEEPER})
    state.mkdir()
    (state / "lock").write_text(f"{os.getpid()}\n")
    with daemon(config, state) as selfheal:
        selfheal.until_ready()
        assert (state / "lock").read_text() == f"{selfheal.process.pid}\n"
