"""How a process is spawned: program, environment, log file; and the clear words when it cannot be.

Called on the I/O pool, between a death and the next spawn: every system call here is latency. So the program's path and
the daemon's environment are looked up once.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from actors.keeper.attributes import PLAIN, SpawnFailed
from actors.keeper.shim import argv_of
from actors.keeper.spawning import stage_of, verdict
from actors.runtimes.base import LaunchError, LaunchSpec
from actors.runtimes.environment import is_possible
from actors.runtimes.procfs import TOKEN_VARIABLE
from actors.runtimes.resolving import Resolved, resolve

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
        resolved = resolve(spec)
        environment = self._environment(spec, resolved, token)
        log_fd = _open_log(spec)
        try:
            if resolved.attributes == PLAIN:
                return _popen(list(spec.command), program, spec.working_dir, environment, log_fd)
            return _popen_by_shim(spec, program, resolved, environment, log_fd)
        except SpawnFailed as failed:
            self.forget(spec)
            raise launch_error(spec, program, failed) from failed
        except OSError as error:
            self.forget(spec)
            stage = stage_of(error, spec.working_dir)
            raise launch_error(spec, program, SpawnFailed(error.errno or errno.EINVAL, stage)) from error
        finally:
            if log_fd != subprocess.DEVNULL:
                os.close(log_fd)

    def _environment(self, spec: LaunchSpec, resolved: Resolved, token: str) -> dict[bytes, bytes]:
        own = {**resolved.environment, TOKEN_VARIABLE: token, SERVICE_VARIABLE: spec.service}
        return {**self._base, **{os.fsencode(name): os.fsencode(value) for name, value in own.items()}}

    def program(self, spec: LaunchSpec) -> str:
        """The program's path. Raises: LaunchError, it is not to be found."""
        if not spec.command:
            raise LaunchError(f"service {spec.service!r} has no command to run", permanent=True)
        for what, words in (("command", spec.command), ("working_dir", (str(spec.working_dir or ""),))):
            if not all(map(is_possible, words)):
                raise LaunchError(f"service {spec.service!r}: its {what} holds a zero byte or no text", permanent=True)
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


def _popen(
    argv: list[str],
    program: str,
    cwd: Path | None,
    environment: Mapping[bytes, bytes],
    log_fd: int,
    keep_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        executable=program,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log_fd,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=keep_fds,
    )


def _popen_by_shim(
    spec: LaunchSpec, program: str, resolved: Resolved, environment: Mapping[bytes, bytes], log_fd: int
) -> subprocess.Popen[bytes]:
    """Limits, nice and users without code of ours between fork and exec. Waits until the program runs."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    cwd = None if spec.working_dir is None else str(spec.working_dir)
    argv = argv_of(resolved.attributes, writer, cwd, program, spec.command)
    try:
        child = _popen(argv, sys.executable, None, environment, log_fd, (writer,))
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    failed = verdict(reader)
    if failed is not None:
        child.wait()
        raise failed
    return child


def _resolve(spec: LaunchSpec, path: str) -> str:
    """The program as an absolute path, or relative to the working directory when it is written with a slash."""
    name = spec.command[0]
    if Path(name).name != name:
        return _absolute(spec, Path(spec.working_dir or "", name))
    found = shutil.which(name, path=spec.environment.get("PATH", path))
    if found is None:
        raise LaunchError(
            f"service {spec.service!r}: program {name!r} is not on the PATH: install it or give its full path",
            permanent=True,
        )
    return _absolute(spec, Path(found))


def _absolute(spec: LaunchSpec, path: Path) -> str:
    try:
        return str(path.absolute())
    except OSError as error:  # the daemon was started in a directory that was deleted since
        raise LaunchError(
            f"service {spec.service!r}: {path} is relative, and the daemon's own working directory cannot be told "
            f"({error.strerror}): give the program's full path, or a working_dir from /",
            permanent=True,
        ) from error


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


def launch_error(spec: LaunchSpec, program: str, failed: SpawnFailed) -> LaunchError:
    """In words what was refused, and what to do."""
    match failed.stage.partition(" "):
        case ("program", _, _):
            text = _program_fault(spec, program, failed)
        case ("cwd", _, _):
            text = _directory_fault(spec, failed)
        case ("rlimits", _, name):
            text = f"cannot set its limit {name}: {os.strerror(failed.errno)}"
            if failed.errno == errno.EPERM:
                text += f": only root with CAP_SYS_RESOURCE raises a hard limit, and {name} may have a bound of its own"
        case ("keeper", _, _):
            text = f"the keeper cannot start it: {os.strerror(failed.errno)}"
        case _:
            text = f"cannot set its {failed.stage}: {os.strerror(failed.errno)}"
            if failed.errno in (errno.EPERM, errno.EACCES):
                text += ": the daemon must run as root for that"
    return LaunchError(f"service {spec.service!r}: {text}", permanent=failed.errno not in _TRANSIENT)


def _directory_fault(spec: LaunchSpec, failed: SpawnFailed) -> str:
    where, user = spec.working_dir, spec.settings.user
    if failed.errno == errno.EACCES:
        who = "" if user is None else f" by user {user}"
        return f"working directory {where} may not be entered{who}: check its permissions"
    if failed.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"working directory {where} does not exist: create it or correct working_dir"
    return f"cannot enter working directory {where}: {os.strerror(failed.errno)}"


def _program_fault(spec: LaunchSpec, program: str, failed: SpawnFailed) -> str:
    user = spec.settings.user
    match failed.errno:
        case errno.ENOENT | errno.ENOTDIR if not os.path.exists(program):  # noqa: PTH110  it never raises
            return f"program {program} does not exist: correct the first word of command"
        case errno.EACCES | errno.EPERM if user is not None:
            return f"program {program} may not be run by user {user}: check the permissions of it and its folders"
        case errno.EACCES | errno.EPERM:
            return f"program {program} may not be run: is it executable (chmod +x)?"
        case errno.ENOENT:
            return f"program {program} names an interpreter that does not exist: check its first line"
        case errno.ENOEXEC:
            return f"program {program} has no format the system can run: does it lack a first line such as #!/bin/sh?"
        case errno.E2BIG:
            return "command and environment are too long for the system"
        case number:
            return f"cannot start {program}: {os.strerror(number)}"
