"""How the keeper gives birth: ``spawn(order) -> pid``.

A plain order goes through ``Popen``, which uses vfork: it is on the way from a crash to the restart. An order with
attributes (limits, nice, umask, user) is forked by hand, which is safe here and only here: the keeper has one thread
and is small. What fails in the child comes back through a pipe that a successful exec closes.

The child leads a session of its own, has /dev/null as input and the log as output, and holds no other descriptor than
``keep_fds``. Its signals are as a program expects them: none blocked, SIGPIPE and the like at their defaults.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

from actors.keeper.attributes import PLAIN, Attributes, SpawnFailed, apply

__all__ = ["SpawnFailed", "SpawnOrder", "report", "spawn", "verdict"]

_RESTORED: Final = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores these, and what is ignored stays so over an exec."""
_VERDICT_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class SpawnOrder:
    """Args:
    program: the program's absolute path; ``argv[0]`` is only its name.
    log_fd: standard output and error; /dev/null without one.
    keep_fds: descriptors (above 2) that the process inherits under the same numbers.
    """

    argv: tuple[str, ...]
    program: str
    cwd: str | None = None
    environment: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    log_fd: int | None = None
    keep_fds: tuple[int, ...] = ()
    attributes: Attributes = PLAIN


def spawn(order: SpawnOrder) -> int:
    """Start a process; returns its pid. It is the caller's to reap.

    Raises:
        SpawnFailed: nothing was started.
    """
    return _spawn_plain(order) if order.attributes == PLAIN else _spawn_forked(order)


def _spawn_plain(order: SpawnOrder) -> int:
    try:
        child = subprocess.Popen(
            order.argv,
            executable=order.program,
            cwd=order.cwd,
            env=order.environment,
            stdin=subprocess.DEVNULL,
            stdout=order.log_fd if order.log_fd is not None else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=order.keep_fds,
        )
    except OSError as error:
        raise SpawnFailed(error.errno or errno.EINVAL, stage_of(error, order.cwd)) from error
    child.returncode = 0  # reaped by us, not by Popen
    return child.pid


def stage_of(error: OSError, cwd: object) -> str:
    """Popen names the directory in its error when that could not be entered, else the program."""
    return "cwd" if cwd is not None and error.filename == cwd else "program"


# -- by hand ----------------------------------------------------------------------------------------------------------


def _spawn_forked(order: SpawnOrder) -> int:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # no handler of ours runs in the child
    try:
        pid = os.fork()
        if pid == 0:
            _become(order, writer)
    except OSError as error:
        os.close(reader)
        raise SpawnFailed(error.errno or errno.EAGAIN, "program") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writer)
    failed = verdict(reader)
    if failed is not None:
        os.waitpid(pid, 0)
        raise failed
    return pid


def _become(order: SpawnOrder, writer: int) -> NoReturn:
    """In the child: be the program, or report why not and end."""
    try:
        os.setsid()
        _restore_signals()
        _arrange_descriptors(order, writer)
        apply(order.attributes, order.cwd)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(order.program, order.argv, order.environment)  # noqa: S606  there is no shell in between
    except BaseException as error:  # nothing of the keeper may go on in here
        report(writer, error)
    finally:
        os._exit(127)


def _restore_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number in _RESTORED or callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _arrange_descriptors(order: SpawnOrder, writer: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    output = null if order.log_fd is None else order.log_fd
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    for fd in order.keep_fds:
        os.set_inheritable(fd, True)
    kept = {0, 1, 2, writer, *order.keep_fds}
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208  closing all numbers there could be takes long
        if fd not in kept:
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(fd)


def report(writer: int, error: BaseException) -> None:
    """Tell the parent why there is no program."""
    if isinstance(error, SpawnFailed):
        number, stage = error.errno, error.stage
    elif isinstance(error, OSError):
        number, stage = error.errno or errno.EINVAL, "program"
    else:
        number, stage = errno.ENOMEM if isinstance(error, MemoryError) else errno.EINVAL, "program"
    os.write(writer, b"%d %s" % (number, stage.encode()))


def verdict(reader: int) -> SpawnFailed | None:
    """Wait until the child has become its program (None) or has reported. Closes ``reader``."""
    with os.fdopen(reader, "rb") as pipe:
        words = pipe.read(_VERDICT_BYTES)
    if not words:
        return None
    number, _, stage = words.decode().partition(" ")
    return SpawnFailed(int(number), stage)
