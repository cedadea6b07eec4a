"""Commands of runbooks as real processes: argument lists, no shell, nothing left behind when their time is over.

Runs on the I/O pool. Each command has a host of its own (``command_host``), below which stays whatever it starts, and a
token in its environment, by which what outlived an orderly end is found, also after the daemon was killed. It gets an
environment of its own: nothing of the daemon's but where programs are, the language and the time zone.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from runbooks import command_host
from runbooks.model import Trouble
from runbooks.ports import CommandResult, PortError

TOKEN_VARIABLE: Final = "SELFHEAL_RUNBOOK_TOKEN"  # noqa: S105  the name of a variable, no secret
HOST_VARIABLE: Final = "SELFHEAL_COMMAND_HOST"
MAX_OUTPUT_BYTES: Final = 4096
KILL_WAIT_S: Final = 5.0
HOST_WAIT_S: Final = command_host.END_S + 1.5
"""A host that was told to end has ended by then, or is killed itself."""
PASSED: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "HOME", "USER", "LOGNAME", "TMPDIR")
PLAIN_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Order:
    """One command. ``head_bytes``: keep the beginning of its output, not the end; ``environment`` on top of the plain
    one; ``given`` is its standard input.
    """

    argv: tuple[str, ...]
    timeout_s: float
    token: str
    working_dir: str | None = None
    run_as: str | None = None
    environment: Mapping[str, str] | None = None
    given: str = ""
    head_bytes: int = 0


class LocalCommands:
    """Fulfils ``ports.Commands``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[subprocess.Popen[bytes], str] = {}

    def run(
        self,
        argv: tuple[str, ...],
        timeout_s: float,
        token: str,
        working_dir: str | None = None,
        run_as: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> CommandResult:
        return self.carry_out(Order(tuple(argv), timeout_s, token, working_dir, run_as, environment))

    def carry_out(self, order: Order) -> CommandResult:
        """As ``run``. Raises PortError."""
        who, line = _user(order.run_as), b""
        with self._host(order.token) as host:
            stdin, stdout = _pipes(host)
            deadline_s = time.monotonic() + order.timeout_s
            with contextlib.suppress(OSError):  # it was told to end already
                stdin.write(_line(order, who))
                stdin.flush()
            line = _read(stdout, deadline_s)
            if not line:  # out of time, or told to end
                with contextlib.suppress(OSError):
                    stdin.close()
                line = _read(stdout, time.monotonic() + HOST_WAIT_S)
        return self._result(order, line)

    def end_leftovers(self, token: str) -> int:
        self._end_running(token)
        hosts = [one for one in _marked(token) if _is_host(one)]
        psutil.wait_procs(hosts, timeout=HOST_WAIT_S)  # of a daemon that died: they end by themselves
        ended: set[int] = set()
        while found := [process for process in _marked(token) if process.pid not in ended]:
            for process in found:
                ended.add(process.pid)
                _kill(process)
            _, alive = psutil.wait_procs(found, timeout=KILL_WAIT_S)
            if alive:
                pids = ", ".join(str(process.pid) for process in alive)
                raise PortError(f"left over from a command and will not die: pid {pids}")
        return len(ended)

    def _end_running(self, token: str) -> None:
        """Tell the hosts of commands that run now; ``carry_out`` hears of their end."""
        with self._lock:
            hosts = [host for host, of in self._running.items() if of == token]
        for host in hosts:
            with contextlib.suppress(OSError, ValueError):
                _pipes(host)[0].close()
        for host in hosts:
            with contextlib.suppress(subprocess.TimeoutExpired):
                host.wait(HOST_WAIT_S)

    @contextlib.contextmanager
    def _host(self, token: str) -> Iterator[subprocess.Popen[bytes]]:
        try:
            host = subprocess.Popen(
                (sys.executable, "-I", "-S", str(Path(command_host.__file__))),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={TOKEN_VARIABLE: token, HOST_VARIABLE: "1"},
                start_new_session=True,
            )
        except OSError as error:
            raise PortError(f"no process can be started: {error.strerror}") from error
        with self._lock:
            self._running[host] = token
        try:
            yield host
        finally:
            with self._lock:
                del self._running[host]
            self._let_go(host, token)

    def _let_go(self, host: subprocess.Popen[bytes], token: str) -> None:
        for pipe in _pipes(host):
            with contextlib.suppress(OSError):
                pipe.close()
        try:
            host.wait(HOST_WAIT_S)
        except subprocess.TimeoutExpired:
            host.kill()
            host.wait(KILL_WAIT_S)
            self.end_leftovers(token)

    def _result(self, order: Order, line: bytes) -> CommandResult:
        name = order.argv[0]
        if not line:
            self.end_leftovers(order.token)
            raise PortError(f"{name!r}: its host was killed; what was left of it is ended")
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise PortError(f"cannot run {name!r}: {answer['refused']}", Trouble.PERMANENT)
        if answer["left"]:
            raise PortError(f"{name!r}: these processes would not die: {', '.join(map(str, answer['left']))}")
        return CommandResult(answer["code"], _text(answer["out"]), _text(answer["err"]), is_cut=answer["cut"])


def _line(order: Order, who: dict[str, Any] | None) -> bytes:
    said = {
        "argv": list(order.argv),
        "cwd": order.working_dir,
        "env": {**plain_environment(order.run_as), **(order.environment or {}), TOKEN_VARIABLE: order.token},
        "user": who,
        "input": order.given,
        "tail_bytes": MAX_OUTPUT_BYTES,
        "head_bytes": order.head_bytes,
    }
    return json.dumps(said).encode() + b"\n"


def plain_environment(run_as: str | None = None) -> dict[str, str]:
    """What a command of a runbook finds in its environment: no variable that could be a secret of the daemon."""
    made = {"PATH": PLAIN_PATH, "LANG": "C.UTF-8"} | {name: os.environ[name] for name in PASSED if name in os.environ}
    if run_as is not None:
        entry = _entry(run_as)
        made |= {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    return made


def _entry(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        raise PortError(f"there is no user {name!r} on this system: create it or correct `run_as`") from None


def _user(run_as: str | None) -> dict[str, Any] | None:
    """Raises PortError: there is no such user, or we may not become it."""
    if run_as is None:
        return None
    entry = _entry(run_as)
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise PortError(f"only root can run a command as {run_as!r}")
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return {"uid": entry.pw_uid, "gid": entry.pw_gid, "groups": groups}


def _pipes(host: subprocess.Popen[bytes]) -> tuple[Any, Any]:
    return host.stdin, host.stdout


def _read(stdout: Any, deadline_s: float) -> bytes:
    """The host's answer; b"" when there is none in time."""
    raw = bytearray()
    with selectors.DefaultSelector() as wait:
        wait.register(stdout, selectors.EVENT_READ)
        while not raw.endswith(b"\n") and (left_s := deadline_s - time.monotonic()) > 0:
            if wait.select(left_s):
                chunk = os.read(stdout.fileno(), 65536)
                if not chunk:
                    break
                raw += chunk
    return bytes(raw) if raw.endswith(b"\n") else b""


def _is_host(process: psutil.Process) -> bool:
    try:
        return HOST_VARIABLE in process.environ()
    except (psutil.Error, OSError):
        return False


def _marked(token: str) -> list[psutil.Process]:
    """Live processes that carry the token. Those of other users cannot be read, and are not ours."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN_VARIABLE) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise PortError(f"left over from a command and may not be killed: pid {process.pid}") from error


def _text(encoded: str) -> str:
    raw = base64.b64decode(encoded).decode(errors="replace")
    return raw.replace("\x00", "\N{REPLACEMENT CHARACTER}").strip()
