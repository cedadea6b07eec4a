"""A daemon that stops slowly: what other commands say meanwhile, and when ``selfheal stop`` says ``stopped``."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from supervisors.cli.app import run
from supervisors.cli.ending import Watched
from supervisors.single_root import Holder, RootLock, StateInUse, holder

OWNER = """
import sys
from pathlib import Path
from supervisors.single_root import RootLock
with RootLock(Path(sys.argv[1])) as lock:
    if sys.argv[2] == "ending":
        lock.ending()
    print("held", flush=True)
    sys.stdin.readline()
"""
HEADLESS = """
import ctypes, sys, threading
def stay():
    print("here", flush=True)
    sys.stdin.readline()
    import os; os._exit(0)
threading.Thread(target=stay).start()
ctypes.CDLL(None).pthread_exit(None)
"""
"""Its first thread has ended; to a look at its state alone that is a dead process."""


@pytest.fixture(params=["ending"])
def owner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", OWNER, str(tmp_path), request.param]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_daemon_that_stops_is_there(
    owner: subprocess.Popen[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert holder(tmp_path) == Holder(owner.pid, is_ending=True)
    with pytest.raises(StateInUse, match=f"pid {owner.pid}, which is stopping; await its end with 'selfheal stop"):
        RootLock(tmp_path)
    for words in (("tree",), ("services", "status"), ("alert", "send", "--type", "x", "--timeout", "300ms")):
        assert run([*words, "--state", str(tmp_path)]) == 4, words
        assert f"the daemon (pid {owner.pid})" in (said := capsys.readouterr().err), words
        assert "is stopping" in said
        assert said.count("\n") == 1


@pytest.mark.parametrize("owner", ["starting"], indirect=True)
def test_a_daemon_that_does_not_answer_is_not_said_to_stop(
    owner: subprocess.Popen[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (("tree",), ("stop", "--timeout", "300ms")):
        assert run([*words, "--state", str(tmp_path)]) == 4
        assert f"the daemon (pid {owner.pid})" in (said := capsys.readouterr().err)
        assert "it is starting, or hangs" in said


def test_a_second_stop_waits_for_the_end(
    owner: subprocess.Popen[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["stop", "--timeout", "200ms", "--state", str(tmp_path)]) == 5
    assert f"the daemon (pid {owner.pid}) had not ended" in capsys.readouterr().err
    ending = threading.Timer(0.3, owner.communicate, ("end\n",))
    ending.start()
    assert run(["stop", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "stopped\n"
    ending.join()
    assert not psutil.pid_exists(owner.pid)
    assert holder(tmp_path) is None
    assert run(["stop", "--state", str(tmp_path)]) == 4
    assert "no daemon runs" in capsys.readouterr().err


def test_an_ended_one_leaves_nothing_behind(tmp_path: Path) -> None:
    with RootLock(tmp_path) as lock:
        lock.ending()
    with RootLock(tmp_path) as lock:
        assert lock.trouble is None
        held = holder(tmp_path)
        assert held is not None
        assert not held.is_ending


@pytest.mark.skipif(sys.platform != "linux", reason="the end of a last thread is told by Linux only")
def test_a_process_has_ended_when_its_last_thread_has() -> None:
    words = [sys.executable, "-c", HEADLESS]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        watched = Watched.of(process.pid)
        assert watched is not None
        assert not watched.has_ended(0.5)
        again = Watched.of(process.pid)
        assert again is not None
        ending = threading.Timer(0.2, process.communicate, ("end\n",))
        ending.start()
        assert again.has_ended(20)
        ending.join()
        assert not psutil.pid_exists(process.pid)
