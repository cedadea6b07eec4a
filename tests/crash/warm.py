"""Starting the real daemon: as a new interpreter, or as a fork of this one that has imported everything already.

A forked daemon runs the very same code from ``supervisors.cli.main`` on; only the 1.5 s of imports are saved. Fork only
from a process without other threads.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

WORDS = ("-m", "supervisors.cli")


class DaemonProcess:
    """One daemon process, a child of this one. ``code`` is known once it has ended (negative: the signal)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        self._pidfd = os.pidfd_open(pid)

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, or None when it lives on after ``timeout_s`` seconds."""
        if self.code is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if poll.poll(timeout_s * 1000):
                self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                os.close(self._pidfd)
        return self.code

    def kill(self) -> None:
        """SIGKILL, if it lives; returns when it is dead."""
        if self.wait(0) is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.wait(60)


def start(arguments: tuple[str, ...], environ: Mapping[str, str], log: Path, *, is_warm: bool) -> DaemonProcess:
    return (_fork if is_warm else _spawn)(arguments, environ, log)


def _spawn(arguments: tuple[str, ...], environ: Mapping[str, str], log: Path) -> DaemonProcess:
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, *WORDS, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environ,
        )
    child.returncode = 0  # waited for by its DaemonProcess
    return DaemonProcess(child.pid)


def _fork(arguments: tuple[str, ...], environ: Mapping[str, str], log: Path) -> DaemonProcess:
    import supervisors.cli.app
    import supervisors.run  # noqa: F401
    from supervisors.cli import main

    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return DaemonProcess(pid)
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, 256)
        os.environ.clear()
        os.environ.update(environ)
        sys.orig_argv = [sys.executable, *WORDS, *arguments]  # how its keeper would start it again
        main(arguments)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
