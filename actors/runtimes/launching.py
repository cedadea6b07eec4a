"""How a process is spawned: program, environment, log file; and the clear words when it cannot be.

Called on the I/O pool, between a death and the next spawn: every system call here is latency. So the program's path and
the daemon's environment are looked up once.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from actors.runtimes.base import LaunchError, LaunchSpec
from actors.runtimes.procfs import TOKEN_VARIABLE

SERVICE_VARIABLE: Final = "SELFHEAL_SERVICE"
_TRANSIENT: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ETXTBSY})


class Spawner:
    """Spawns main processes, each a session of its own, without a shell, a pipe or code between fork and exec."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        base = os.environ if environment is None else environment
        self._base = {os.fsencode(name): os.fsencode(value) for name, value in base.items()}
        self._programs: dict[tuple[str, str | None, Path | None], str] = {}
        self._lock = threading.Lock()

    def spawn(self, spec: LaunchSpec, token: str) -> subprocess.Popen[bytes]:
        """Start the main process of one run.

        Raises:
            LaunchError: what is missing or refused, and where. Nothing was started.
        """
        program = self.program(spec)
        log_fd = _open_log(spec)
        try:
            return subprocess.Popen(
                spec.command,
                executable=program,
                cwd=spec.working_dir,
                env=self._environment(spec, token),
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self.forget(spec)
            raise launch_error(spec, program, error) from error
        finally:
            if log_fd != subprocess.DEVNULL:
                os.close(log_fd)

    def _environment(self, spec: LaunchSpec, token: str) -> dict[bytes, bytes]:
        own = {**spec.environment, TOKEN_VARIABLE: token, SERVICE_VARIABLE: spec.service}
        return {**self._base, **{os.fsencode(name): os.fsencode(value) for name, value in own.items()}}

    def program(self, spec: LaunchSpec) -> str:
        """The program's path. Raises: LaunchError, it is not to be found."""
        if not spec.command:
            raise LaunchError(f"service {spec.service!r} has no command to run", permanent=True)
        key = (spec.command[0], spec.environment.get("PATH"), spec.working_dir)
        with self._lock:
            known = self._programs.get(key)
        if known is None:
            known = _resolve(spec, os.fsdecode(self._base.get(b"PATH", b"")))
            with self._lock:
                self._programs[key] = known
        return known

    def forget(self, spec: LaunchSpec) -> None:
        """It could not be run: look it up anew next time."""
        with self._lock:
            self._programs.pop((spec.command[0], spec.environment.get("PATH"), spec.working_dir), None)


def _resolve(spec: LaunchSpec, path: str) -> str:
    """The program as an absolute path, or relative to the working directory when it is written with a slash."""
    name = spec.command[0]
    if Path(name).name != name:
        return str(Path(spec.working_dir or Path.cwd(), name).absolute())
    found = shutil.which(name, path=spec.environment.get("PATH", path))
    if found is None:
        raise LaunchError(
            f"service {spec.service!r}: program {name!r} is not on the PATH: install it or give its full path",
            permanent=True,
        )
    return str(Path(found).absolute())


def _open_log(spec: LaunchSpec) -> int:
    """The service's own log file, for appending: no pipe, so the child outlives us and never blocks on us.

    A service is worth more than its log: without one it runs all the same.
    """
    if spec.log_path is None:
        return subprocess.DEVNULL
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    try:
        try:
            return os.open(spec.log_path, flags, 0o640)
        except FileNotFoundError:
            spec.log_path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(spec.log_path, flags, 0o640)
    except OSError as error:
        structlog.get_logger().critical(
            "cannot write a log", service=spec.service, path=str(spec.log_path), error=error.strerror
        )
        return subprocess.DEVNULL


def launch_error(spec: LaunchSpec, program: str, error: OSError, stage: str = "program") -> LaunchError:
    """Popen does not say whether the program or the working directory is at fault: look, now that it failed."""
    where = spec.working_dir
    start = f"service {spec.service!r}: "
    if stage not in ("program", "cwd"):
        text = f"cannot set its {stage}: {error.strerror}"
    elif where is not None and not where.is_dir():
        text = f"working directory {where} does not exist: create it or correct working_dir"
    elif where is not None and not os.access(where, os.X_OK):
        text = f"working directory {where} may not be entered: check its permissions"
    elif not Path(program).exists():
        text = f"program {program} does not exist: correct the first word of command"
    elif isinstance(error, PermissionError):
        text = f"program {program} may not be run: is it executable (chmod +x)?"
    elif isinstance(error, FileNotFoundError):
        text = f"program {program} names an interpreter that does not exist: check its first line"
    elif error.errno == errno.ENOEXEC:
        text = f"program {program} has no format the system can run: does it lack a first line such as #!/bin/sh?"
    elif error.errno == errno.E2BIG:
        text = "command and environment are too long for the system"
    else:
        text = f"cannot start {program}: {error.strerror}"
    return LaunchError(start + text, permanent=error.errno not in _TRANSIENT)
