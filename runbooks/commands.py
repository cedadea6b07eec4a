"""Commands of runbooks as real processes: argument lists, no shell, nothing left behind.

Runs on the I/O pool. Each command gets a session of its own and a token in its environment; by that token everything it
started is found again, even what left its session, and even after the daemon that started it was killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from typing import IO, Final

import psutil

from runbooks.ports import CommandResult, PortError

TOKEN_VARIABLE: Final = "SELFHEAL_RUNBOOK_TOKEN"  # noqa: S105  the name of a variable, no secret
MAX_OUTPUT_BYTES: Final = 4096
KILL_WAIT_S: Final = 5.0


class LocalCommands:
    """Fulfils ``ports.Commands``."""

    def run(self, argv: tuple[str, ...], timeout_s: float, token: str, working_dir: str | None = None) -> CommandResult:
        # files, not pipes: a grandchild that holds a pipe open would keep us waiting for its end
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = self._spawn(argv, token, working_dir, out, err)
            code = self._wait(child, timeout_s, token)
            return CommandResult(code, _tail(out), _tail(err))

    def end_leftovers(self, token: str) -> int:
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

    def _spawn(
        self, argv: tuple[str, ...], token: str, working_dir: str | None, out: IO[bytes], err: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=working_dir,
                env={**os.environ, TOKEN_VARIABLE: token},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise PortError(f"cannot run {argv[0]!r}: {error}") from error

    def _wait(self, child: subprocess.Popen[bytes], timeout_s: float, token: str) -> int | None:
        try:
            return child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait(KILL_WAIT_S)
                self.end_leftovers(token)


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


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - MAX_OUTPUT_BYTES))
    return file.read().decode(errors="replace").replace("\x00", "\N{REPLACEMENT CHARACTER}").strip()
