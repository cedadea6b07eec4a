"""The exit watcher by itself."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.exit_watcher import Ended, ExitWatcher, OnEnded
from tests.runtimes.worlds import LONG_S
from tests.support.eventually import eventually


@pytest.fixture(params=[True, False], ids=["pidfd", "threads"])
def watcher(request: pytest.FixtureRequest) -> Iterator[ExitWatcher]:
    made = ExitWatcher(use_pidfd=request.param)
    yield made
    made.close()


def start(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def seen_by(event: threading.Event) -> OnEnded:
    return lambda _ended: event.set()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()  # ``read`` in the child ends
    eventually(lambda: child.returncode is not None, within_s=LONG_S)


def test_every_one_of_many_ends_is_told_with_its_own_code(watcher: ExitWatcher) -> None:
    seen: dict[int, list[Ended]] = {}
    children = [start("sh", "-c", f"read x; exit {code}") for code in range(20)]
    for code, child in enumerate(children):
        seen[code] = []
        watcher.watch(child.pid, seen[code].append, child=child)
    for child in children:
        end(child)
    eventually(lambda: all(seen.values()), within_s=LONG_S)
    assert seen == {code: [Ended(code=code)] for code in range(20)}


def test_a_signal_is_told_as_one(watcher: ExitWatcher) -> None:
    seen: list[Ended] = []
    child = start("sleep", "1000")
    watcher.watch(child.pid, seen.append, child=child)
    child.kill()
    eventually(lambda: seen, within_s=LONG_S)
    assert seen == [Ended(signal=9)]
    end(child)


def test_a_child_that_died_before_it_was_watched_is_told(watcher: ExitWatcher) -> None:
    child = start("sh", "-c", "exit 4")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    seen: list[Ended] = []
    watcher.watch(child.pid, seen.append, child=child)
    eventually(lambda: seen == [Ended(code=4)], within_s=LONG_S)
    end(child)


def test_a_process_that_is_not_our_child_ends_without_a_code(watcher: ExitWatcher) -> None:
    parent = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    seen: list[Ended] = []
    watcher.watch(pid, seen.append)
    os.kill(pid, 9)
    eventually(lambda: seen, within_s=LONG_S)
    assert seen == [Ended()]
    parent.wait()
    parent.stdout.close()


def test_the_group_can_be_signalled_before_the_pid_is_given_back() -> None:
    """Without pidfd the parent's wait has reaped it already."""
    watcher = ExitWatcher()
    still_there: list[bool] = []
    child = start("sh", "-c", "exit 0")

    def look() -> None:
        os.kill(child.pid, 0)
        still_there.append(True)

    watcher.watch(child.pid, lambda _ended: None, child=child, before_reap=look)
    end(child)
    watcher.close()
    assert still_there == [True]


def test_a_listener_that_raises_ends_nothing(watcher: ExitWatcher) -> None:
    def broken(_ended: Ended) -> None:
        raise RuntimeError("broken")

    first, second = start("sh", "-c", "exit 1"), start("sh", "-c", "read x; exit 2")
    seen: list[Ended] = []
    watcher.watch(first.pid, broken, child=first)
    end(first)
    watcher.watch(second.pid, seen.append, child=second)
    end(second)
    eventually(lambda: seen == [Ended(code=2)], within_s=LONG_S)
    assert watcher.is_running


def test_close_ends_the_thread_and_leaves_the_processes() -> None:
    before = set(threading.enumerate())
    watcher = ExitWatcher()
    child = start("sleep", "1000")
    watcher.watch(child.pid, lambda _ended: None, child=child)
    assert watcher.is_running
    assert set(threading.enumerate()) - before
    watcher.close()
    watcher.close()
    assert not set(threading.enumerate()) - before
    os.kill(child.pid, 0)
    os.kill(child.pid, 9)
    os.waitpid(child.pid, 0)
    end(child)


def test_nothing_is_left_open_after_many_processes() -> None:
    watcher = ExitWatcher()
    before = open_files()
    for _ in range(30):
        child = subprocess.Popen(["true"])
        seen = threading.Event()
        watcher.watch(child.pid, seen_by(seen), child=child)
        assert seen.wait(LONG_S)
    eventually(lambda: open_files() == before)
    watcher.close()


def test_a_child_that_fell_to_us_is_reaped_and_its_code_is_known() -> None:
    """As a service does whose keeper was killed: it is our child then, and no ``Popen`` of ours started it."""
    watcher, seen = ExitWatcher(), list[Ended]()
    reader, writer = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, reader, 0), (os.POSIX_SPAWN_CLOSE, writer)]
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "read x; exit 3"], os.environ, file_actions=actions)
    try:
        watcher.watch(pid, seen.append)
        os.close(writer)
        eventually(lambda: seen == [Ended(code=3)], within_s=LONG_S)
        eventually(lambda: not Path(f"/proc/{pid}").exists(), within_s=LONG_S, what="no zombie")
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    finally:
        os.close(reader)
        watcher.close()
