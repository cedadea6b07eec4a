"""The real init, with a child that says what reaches it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.init.scripted_daemon import HEARD
from tests.support.eventually import eventually, holds_for

LONG_S = 30.0
ROOT = Path(__file__).resolve().parents[2]
ENTER = "import sys; from actors.init.entering import become_init; become_init(sys.argv[1:])"
SCRIPT = Path(__file__).parent / "scripted_daemon.py"


@contextmanager
def init(folder: Path, *ends: str) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    daemon = [sys.executable, str(SCRIPT), str(folder), *ends]
    process = subprocess.Popen([sys.executable, "-c", ENTER, *daemon], env=environ, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        for pid in births(folder):
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate(timeout=LONG_S)


def births(folder: Path) -> list[int]:
    file = folder / "births"
    return [int(word) for word in file.read_text().split()] if file.exists() else []


def signals(folder: Path) -> list[str]:
    file = folder / "signals"
    return file.read_text().split() if file.exists() else []


def until(folder: Path, name: str) -> None:
    eventually((folder / name).exists, within_s=LONG_S, what=name)


def test_every_signal_is_passed_on_once(tmp_path: Path) -> None:
    (tmp_path / "listen").touch()
    with init(tmp_path, "end:0") as process:
        until(tmp_path, "up0")
        for number in HEARD:
            process.send_signal(number)
            name = signal.Signals(number).name
            eventually(lambda name=name: signals(tmp_path)[-1:] == [name], within_s=LONG_S)  # type: ignore[misc]
        (tmp_path / "go0").touch()
        assert process.wait(LONG_S) == 0
    assert signals(tmp_path) == [one.name for one in HEARD]


def test_a_signal_waits_until_the_daemon_handles_signals(tmp_path: Path) -> None:
    """Without that it would die of it, before it could stop anything in order."""
    with init(tmp_path, "end:0") as process:
        until(tmp_path, "born0")
        process.send_signal(signal.SIGTERM)
        holds_for(lambda: psutil.Process(births(tmp_path)[0]).is_running(), 0.5)
        (tmp_path / "listen").touch()
        eventually(lambda: signals(tmp_path) == ["SIGTERM"], within_s=LONG_S)
        (tmp_path / "go0").touch()
        assert process.wait(LONG_S) == 0


def test_the_daemons_exit_code_is_the_inits(tmp_path: Path) -> None:
    (tmp_path / "listen").touch()
    (tmp_path / "go0").touch()
    with init(tmp_path, "end:41") as process:
        assert process.wait(LONG_S) == 41
    assert len(births(tmp_path)) == 1


def test_a_killed_daemon_is_started_again_and_an_orderly_end_is_final(tmp_path: Path) -> None:
    (tmp_path / "listen").touch()
    with init(tmp_path, "kill", "70", "end:5") as process:
        for number in range(3):
            until(tmp_path, f"up{number}")
            (tmp_path / f"go{number}").touch()
        assert process.wait(LONG_S) == 5
        assert process.stderr is not None
        said = process.stderr.read()
    assert len(births(tmp_path)) == 3
    assert "ended (signal 9); started again in 0.5 s" in said
    assert "ended (exit 70); started again in 1 s" in said


def test_a_stop_during_the_pause_has_the_services_stopped_by_a_new_daemon(tmp_path: Path) -> None:
    (tmp_path / "listen").touch()
    with init(tmp_path, *["kill"] * 3, "end:0") as process:
        for number in range(3):
            until(tmp_path, f"up{number}")
            (tmp_path / f"go{number}").touch()
        eventually(lambda: not psutil.pid_exists(births(tmp_path)[2]), within_s=LONG_S)
        process.send_signal(signal.SIGTERM)
        until(tmp_path, "up3")
        eventually(lambda: signals(tmp_path) == ["SIGTERM"], within_s=LONG_S)
        (tmp_path / "go3").touch()
        assert process.wait(LONG_S) == 0


def test_what_cannot_be_started_at_all_is_said(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ENTER, str(tmp_path / "nothing")],
        check=False,
        env=environ,
        capture_output=True,
        text=True,
        timeout=LONG_S,
    )
    assert done.returncode == 127
    assert "nothing: No such file" in done.stderr


def test_orphans_are_reaped(tmp_path: Path) -> None:
    """A grandchild whose parent died falls to the init, and no zombie of it stays."""
    (tmp_path / "listen").touch()
    with init(tmp_path, "end:0") as process:
        until(tmp_path, "up0")
        orphan = int((tmp_path / "orphan").read_text())
        eventually(lambda: not psutil.pid_exists(orphan), within_s=LONG_S)
        assert [child.pid for child in psutil.Process(process.pid).children()] == births(tmp_path)
