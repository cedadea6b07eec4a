"""What redraws: ``tree --watch`` on a real pseudo-terminal, and the live tree of ``run``."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from actors.board import NodeState
from supervisors.api.server import ApiServer
from supervisors.cli.app import run
from supervisors.cli.commands import tree as commands
from supervisors.cli.live import LiveTree, cropped, footer, what_to_try
from supervisors.manager import DaemonUnreachable, Tree
from tests.outside.conftest import serving
from tests.outside.fake_manager import FakeManager
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]
WEB = "root/services/web"


@dataclass
class OnTerminal:
    """A command on a pseudo-terminal of 100 by 30; ``seen`` is everything it wrote."""

    process: subprocess.Popen[bytes]
    master: int
    seen: bytearray = field(default_factory=bytearray)

    def read(self) -> None:
        with suppress(OSError):  # EIO: the other side is closed
            while block := os.read(self.master, 65536):
                self.seen.extend(block)

    def text(self) -> str:
        return self.seen.decode(errors="replace")


@contextmanager
def on_terminal(*words: str, **environ: str) -> Iterator[OnTerminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        env.pop(name, None)
    command = [sys.executable, "-m", "supervisors.cli", *words]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env | environ)
    os.close(slave)
    running = OnTerminal(process, master)
    reader = threading.Thread(target=running.read)
    reader.start()
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        os.close(master)


def test_watching_redraws_and_ends_cleanly(server: ApiServer, fake: FakeManager, tmp_path: Path) -> None:
    assert server.is_alive
    with on_terminal("tree", "--watch", "--state", str(tmp_path)) as terminal:
        eventually(lambda: "pid 103" in terminal.text(), within_s=30)
        assert "\x1b[32m" in terminal.text(), "colour on a terminal"
        fake.put(WEB, state=NodeState.CRASH_LOOP)
        eventually(lambda: "CRASH_LOOP" in terminal.text(), within_s=30)
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(30) == 0
        assert "└─" in terminal.text(), "the letters of the tree, as this terminal has them"
        assert "\x1b[1A" in terminal.text(), "drawn over the same place"
        assert "Traceback" not in terminal.text()
        eventually(lambda: "\x1b[?25h" in terminal.text(), what="the cursor is shown again")


def test_watching_outlives_the_daemon(fake: FakeManager, tmp_path: Path) -> None:
    with on_terminal("tree", "--watch", "--state", str(tmp_path), NO_COLOR="1") as terminal:
        assert terminal.process.wait(30) == 4, "nothing to watch is an error"
    with serving(fake, tmp_path):
        watching = on_terminal("tree", "--watch", "--state", str(tmp_path), NO_COLOR="1")
        terminal = watching.__enter__()
        eventually(lambda: "pid 103" in terminal.text(), within_s=30)
        assert "\x1b[32m" not in terminal.text()
    eventually(lambda: "no daemon" in terminal.text(), within_s=30)
    fake.put(WEB, pid=777)
    with serving(fake, tmp_path):
        eventually(lambda: "pid 777" in terminal.text(), within_s=30)
    watching.__exit__(None, None, None)


def test_watching_as_json_tells_each_change_once(fake: FakeManager, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "supervisors.cli", "tree", "web", "-w", "--json", "--state", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with serving(fake, tmp_path), subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["root"]["state"] == "ready"
        fake.put(WEB, cpu_percent=99.0, memory_bytes=1)
        fake.put("root/services/pipeline/ingest", state=NodeState.FAILED)
        asked = fake.asked
        eventually(lambda: fake.asked > asked + 1, within_s=30, what="it looks, and has nothing to tell")
        fake.put(WEB, state=NodeState.CRASH_LOOP)
        told = json.loads(watching.stdout.readline())
        assert (told["schema"], told["root"]["state"], told["root"]["cpu_percent"]) == (1, "crash_loop", 99.0)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0


def test_watching_as_json_tells_once_that_the_daemon_went_away(
    fake: FakeManager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "REDRAW_S", 0.001)
    answers = iter([None, "here", "here", "gone", "gone", "here"])  # the first is asked for an error only

    def look(_outside: object) -> Tree:
        match next(answers, "end"):
            case "gone":
                raise DaemonUnreachable("no daemon runs")
            case "end":
                raise KeyboardInterrupt
        return fake.tree()

    monkeypatch.setattr(commands, "_look", look)
    assert run(["tree", "--watch", "--json", "--depth", "0"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one.get("error", "here") for one in told] == ["here", "no daemon runs", "here"]


def test_a_beat_is_no_change() -> None:
    well = {"kind": "bridge", "state": "ready", "detail": "last beat 0.1s ago"}
    assert commands.without_use([well]) == commands.without_use([{**well, "detail": "last beat 0.2s ago"}])
    for changed in ({"state": "degraded"}, {"kind": "service"}, {"pid": 1}):
        assert commands.without_use(well) != commands.without_use({**well, **changed})


def test_the_live_tree_shows_changes_and_hints(
    fake: FakeManager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("supervisors.cli.live.REDRAW_S", 0.02)
    seen: list[str] = []
    live = LiveTree(fake, what_to_try("--state /s"))

    def said(text: str) -> bool:
        seen.append(capsys.readouterr().out)
        return text in "".join(seen)

    live.start()
    eventually(lambda: said("kill -9 101"))
    eventually(lambda: said("selfheal --state /s tree"))
    fake.put(WEB, pid=999)
    eventually(lambda: said("pid 999"))
    live.stop()
    seen.clear()
    assert said("root")
    last = "".join(seen).strip().split("\n\n")[-1]
    assert "root" in last
    assert "Ctrl-C" not in last, "the hints go with the daemon"


def test_the_hints_name_a_service_that_runs(fake: FakeManager) -> None:
    lines = what_to_try()(fake.tree())
    assert "selfheal tree" in lines
    assert any(line.startswith("kill -9 101 ") for line in lines)
    assert any("alert send --type service_failure --service ingest" in line for line in lines)
    for path in [one["path"] for one in fake.services()]:
        fake.put(path, state=NodeState.STOPPED, pid=None)
    assert not any("kill" in line for line in what_to_try()(fake.tree()))
    assert "Ctrl-C" in footer(["x"])


def test_a_low_terminal_keeps_the_beginning() -> None:
    text = "\n".join(map(str, range(10)))
    assert cropped(text, 10) == text
    assert cropped(text, 4).split("\n") == ["0", "1", "2", "... 7 more lines: the terminal is too low"]
