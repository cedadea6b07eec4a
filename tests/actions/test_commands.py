"""Commands: what they find in their environment, and that all of them ends when their time is over."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from runbooks import command_host
from runbooks.commands import MAX_OUTPUT_BYTES, TOKEN_VARIABLE, LocalCommands, Order
from runbooks.engine_words import Answer
from runbooks.model import CallType, Trouble
from runbooks.ports import CommandResult, PortError
from runbooks.templating import BadTemplate, fill_argv
from tests.actions.place import TOKEN, answer, do, ports_of
from tests.support.escapees import lives_lived, storm
from tests.support.eventually import eventually, holds_for

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="running a command as another user needs root")
CANARY = "canary-5e1f-do-not-show"

# Each writes its pid into the folder argv[1] (a storm only its generation) and never ends by itself.
PLAIN = "import os, signal, sys; open(f'{sys.argv[1]}/{os.getpid()}', 'w'); signal.pause()"
HIDES = f"""
import os, subprocess, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-c", {PLAIN!r}, sys.argv[1]], {{}})
    os._exit(0)
"""
ENDS = """
import signal
signal.pause()
"""
IGNORES = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + PLAIN


def python(code: str, *more: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code, *more)


def living(folder: Path) -> list[int]:
    return [int(one.name) for one in folder.iterdir() if psutil.pid_exists(int(one.name)) and _is_up(int(one.name))]


def _is_up(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Running:
    """A command on a thread of its own."""

    def __init__(self, commands: LocalCommands, order: Order) -> None:
        self.result: CommandResult | PortError | None = None
        self._thread = threading.Thread(target=self._run, args=(commands, order))
        self._thread.start()

    def _run(self, commands: LocalCommands, order: Order) -> None:
        try:
            self.result = commands.carry_out(order)
        except PortError as error:
            self.result = error

    def join(self) -> CommandResult | PortError | None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.result


@pytest.mark.parametrize("code", [PLAIN, HIDES + ENDS, IGNORES], ids=["plain", "hides", "ignores SIGTERM"])
@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_nothing_is_left_of_it(tmp_path: Path, code: str, how: str) -> None:
    commands, pids = LocalCommands(), tmp_path / "pids"
    pids.mkdir()
    running = Running(commands, Order(python(code, str(pids)), 6.0 if how == "timeout" else 60.0, "x-end"))
    eventually(lambda: living(pids), within_s=30)
    began = time.monotonic()
    if how == "cancel":
        commands.end_leftovers("x-end")
    result = running.join()
    assert isinstance(result, CommandResult)
    assert result.code is None
    assert time.monotonic() - began < 8.0 + (how == "timeout") * 6
    assert living(pids) == []
    assert list(pids.iterdir())


STORM = f"x-storm-{os.getpid()}"


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_storm_of_forks_ends(tmp_path: Path, how: str) -> None:
    """Four that fork and end as fast as they can, each life in a session of its own."""
    commands, lives = LocalCommands(), tmp_path / "lives"
    running = Running(commands, Order(storm(lives, 4), 5.0 if how == "timeout" else 60.0, STORM))
    eventually(lambda: lives.exists() and min(lives_lived(lives) or [0]) > 5, within_s=30)
    began = time.monotonic()
    if how == "cancel":
        commands.end_leftovers(STORM)
    result = running.join()
    assert isinstance(result, CommandResult), result
    assert result.code is None
    assert time.monotonic() - began < 15.0, "it would go on for a minute"
    assert [one.pid for one in psutil.process_iter() if _token(one) == STORM] == []
    lived = lives_lived(lives)
    holds_for(lambda: lives_lived(lives) == lived, 0.3)


def _token(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(TOKEN_VARIABLE)
    except (psutil.Error, OSError):
        return None


DAEMON = """
import sys
from runbooks.commands import LocalCommands, Order
LocalCommands().carry_out(Order((sys.executable, "-c", sys.argv[1], sys.argv[2]), 600.0, "x-dead"))
"""


def test_the_death_of_the_daemon_ends_its_commands(tmp_path: Path) -> None:
    """Also of those who cleared their environment, which nobody would find afterwards."""
    daemon = subprocess.Popen(python(DAEMON, HIDES + ENDS, str(tmp_path)))
    try:
        eventually(lambda: living(tmp_path), within_s=30)
    finally:
        daemon.send_signal(signal.SIGKILL)
        daemon.wait(10)
    LocalCommands().end_leftovers("x-dead")  # the next daemon's fence
    assert living(tmp_path) == []


def test_what_a_command_leaves_in_order_stays(tmp_path: Path) -> None:
    """As an init script's daemon does."""
    leaves = f"import os, sys\nif os.fork() == 0:\n    os.setsid()\n    exec({PLAIN!r})"
    commands = LocalCommands()
    assert commands.run(python(leaves, str(tmp_path)), 30.0, "x-stays").code == 0
    eventually(lambda: living(tmp_path), within_s=30)
    assert commands.end_leftovers("x-stays") == 1
    assert living(tmp_path) == []


# -- what it gets and gives -------------------------------------------------------------------------------------------


def test_its_environment_has_nothing_of_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", CANARY)
    monkeypatch.setenv("SELFHEAL_STATE", CANARY)
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    show = "import json, os; print(json.dumps(dict(os.environ)))"
    done = do(ports_of(tmp_path), CallType.COMMAND, argv=python(show), environment={"MODE": "night"})
    environment = done.result
    assert environment["MODE"] == "night"
    assert environment["LANG"] == "de_DE.UTF-8"
    assert environment[TOKEN_VARIABLE] == TOKEN
    allowed = {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "USER", "LOGNAME", "TMPDIR", "MODE", TOKEN_VARIABLE}
    assert set(environment) <= allowed
    assert CANARY not in json.dumps(environment)


def test_its_output_is_bounded(tmp_path: Path) -> None:
    done = do(
        ports_of(tmp_path), CallType.COMMAND, argv=python("import sys\nfor n in range(10**5): print('x' * 99, n)")
    )
    assert done.ok
    assert len(done.output) <= MAX_OUTPUT_BYTES
    assert done.output.endswith(" 99999"), "the end is what says how it went"


def test_a_grandchild_that_holds_the_output_keeps_nobody_waiting(tmp_path: Path) -> None:
    holds = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {PLAIN!r}, sys.argv[1]])"
    ports, began = ports_of(tmp_path / "state"), time.monotonic()
    pids = tmp_path / "pids"
    pids.mkdir()
    assert do(ports, CallType.COMMAND, argv=python(holds, str(pids))).ok
    assert time.monotonic() - began < 20
    ports.commands.end_leftovers(TOKEN)


@needs_root
def test_run_as_another_user(tmp_path: Path) -> None:
    show = "import json, os; print(json.dumps([os.getresuid(), os.getresgid(), os.getgroups(), os.environ['HOME']]))"
    nobody = pwd.getpwnam("nobody")
    ports = ports_of(tmp_path)
    python3 = "/usr/bin/python3"
    done = do(ports, CallType.COMMAND, argv=(python3, "-c", show), run_as="nobody", working_dir="/")
    assert done.ok, done
    uids, gids, groups, home = done.result
    assert uids == [nobody.pw_uid] * 3
    assert gids == [nobody.pw_gid] * 3
    assert (0 in groups, home) == (False, nobody.pw_dir)
    slow = do(ports, CallType.COMMAND, 1.0, argv=(python3, "-c", "import signal; signal.pause()"), run_as="nobody")
    assert slow.trouble is Trouble.TIMEOUT
    refused = do(ports, CallType.COMMAND, argv=("true",), run_as="no-such-user")
    assert "there is no user 'no-such-user'" in refused.error


def test_what_cannot_be_run_is_said(tmp_path: Path) -> None:
    ports = ports_of(tmp_path)
    missing = do(ports, CallType.COMMAND, argv=("/no/such/program", "x"))
    assert (missing.trouble, "cannot run '/no/such/program'" in missing.error) == (Trouble.PERMANENT, True)
    assert not do(ports, CallType.COMMAND, argv=("true",), working_dir="/no/such/folder").ok
    assert answer(ports, CallType.COMMAND_OK, argv=("/no/such/program",)) is Answer.UNKNOWN


HOSTILE = (
    "; touch OWNED",
    "$(touch OWNED)",
    "`touch OWNED`",
    "| touch OWNED",
    "&& touch OWNED",
    "> OWNED",
    "a\nb",
    "a b  c",
    "\t",
    "",
    "'\"\\",
    "%PATH%",
    "${HOME}",
    "{service}",
    "{{x}}",
    "*",
    "~root",
    "Ünïcode \N{PILE OF POO}",
    "\udcff",
    "x" * 60000,
    "../../etc/passwd",
    "; rm -rf /",
    "Get-Process; Stop-Computer",
)
SHOW = "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, sys.argv[1:])).hex().encode())"


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_one_item_whatever_it_holds(tmp_path: Path, value: str) -> None:
    argv = fill_argv((*python(SHOW), "first", "{value}", "last"), {"value": value})
    commands = LocalCommands()
    done = commands.carry_out(Order(argv, 30.0, TOKEN, working_dir=str(tmp_path), head_bytes=10**6))
    items = bytes.fromhex(done.output).split(b"|")
    wanted = os.fsencode(value)
    assert b"|".join(items) == b"|".join((b"first", wanted, b"last"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["-rf", "--config=/etc/shadow", "a\0b", "\ud800"])
def test_a_value_that_cannot_be_a_plain_item_is_refused(tmp_path: Path, value: str) -> None:
    if value.startswith("-"):
        with pytest.raises(BadTemplate, match="would be read as an option"):
            fill_argv(("echo", "{value}"), {"value": value})
        return
    argv = fill_argv(("echo", "{value}"), {"value": value})
    done = do(ports_of(tmp_path), CallType.COMMAND, argv=argv)
    assert not done.ok
    assert "cannot run" in done.error


def test_the_host_needs_the_standard_library_only() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", command_host.__file__], input=b"", check=False, capture_output=True, timeout=30
    )
    assert b"no order came" in done.stderr
