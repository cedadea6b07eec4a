"""The init's process: one thread, one ``select`` over the wake-up of signals and what the daemon says.

A signal is passed on when the daemon handles signals; until then it is held. The daemon has a process group of its own
and, where there is a terminal, is its foreground: so Ctrl-C reaches it once, not twice.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from actors.failpoints import DAEMON_VARIABLE
from actors.init.judgement import Again, DaemonEnd, Leave, Past, judge
from actors.init.link import ENDING, LISTENING, UP, VARIABLE
from actors.keeper.kernel import become_subreaper, set_name

ENDS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
"""After one of these an end of the daemon was meant, however it looks."""
PASSED_ON: Final = ENDS | {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
BY_DEFAULT: Final = PASSED_ON | {signal.SIGPIPE, signal.SIGXFSZ}
"""The daemon is born without our handlers, and without what Python ignores."""
HOLD_S: Final = 10.0
"""A daemon that does not say that it handles signals gets them all the same after this long."""
CANNOT_START: Final = 127


@dataclass
class Daemon:
    """One run of the daemon, not reaped yet: its pid is its own."""

    pid: int
    ear: int
    began_s: float
    heard: bytes = b""
    is_mute: bool = False
    was_asked: bool = False


class Init:
    """Args: ``argv`` starts the daemon; ``environ`` is what it gets, with the way to us in it."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self._argv = tuple(argv)
        self._environ = dict(environ)
        self._wake, self._wake_writer = socket.socketpair()
        self._wake.setblocking(False)
        self._wake_writer.setblocking(False)
        self._daemon: Daemon | None = None
        self._past = Past()
        self._held: list[int] = []
        self._has_terminal = _has_terminal()
        self._due_s = 0.0
        self._code: int | None = None

    def run(self) -> int:
        """Serve until the daemon has ended for good; returns the exit code."""
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        for one in (*PASSED_ON, signal.SIGCHLD):
            signal.signal(one, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)  # what came since we began comes now
        while self._code is None:
            self._start_if_due()
            self._wait()
            self._reap()
            self._pass_on()
        self._give_terminal_to(os.getpgrp())
        return self._code

    # -- the daemon ---------------------------------------------------------------------------------------------------

    def _start_if_due(self) -> None:
        """One that is to end in order must live: then no pause is kept."""
        is_due = time.monotonic() >= self._due_s or any(one in ENDS for one in self._held)
        if self._daemon is not None or self._code is not None or not is_due:
            return
        ear, mouth = os.pipe()
        os.set_inheritable(mouth, True)
        environ = {**self._environ, VARIABLE: f"{os.getpid()}:{mouth}"}
        self._environ.pop(DAEMON_VARIABLE, None)  # it was for the first one
        began_s = time.monotonic()
        try:
            pid = os.posix_spawn(self._argv[0], self._argv, environ, setpgroup=0, setsigmask=(), setsigdef=BY_DEFAULT)
        except OSError as error:
            sys.stderr.write(f"selfheal: cannot start {self._argv[0]}: {error.strerror}\n")
            os.close(ear)
            self._judge(DaemonEnd(0.0, code=CANNOT_START))
            return
        finally:
            os.close(mouth)
        os.set_blocking(ear, False)
        self._daemon = Daemon(pid, ear, began_s)
        self._give_terminal_to(pid)

    def _reap(self) -> None:
        """Everything that died and is ours: the daemon, its keeper, orphans."""
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                return
            if info is None:
                return
            daemon = self._daemon
            if daemon is not None and info.si_pid == daemon.pid:
                self._daemon_ended(daemon, info.si_status, is_exit=info.si_code == os.CLD_EXITED)

    def _daemon_ended(self, daemon: Daemon, status: int, *, is_exit: bool) -> None:
        self._hear(daemon)
        os.close(daemon.ear)
        self._daemon = None
        self._judge(
            DaemonEnd(
                time.monotonic() - daemon.began_s,
                code=status if is_exit else None,
                signal=None if is_exit else status,
                was_up=UP in daemon.heard,
                was_ending=ENDING in daemon.heard,
                was_asked=daemon.was_asked,
            )
        )

    def _judge(self, end: DaemonEnd) -> None:
        self._past, verdict = judge(self._past, end)
        match verdict:
            case Leave(code):
                self._code = code
            case Again(delay_s):
                how = f"signal {end.signal}" if end.signal is not None else f"exit {end.code}"
                sys.stderr.write(f"selfheal: the daemon ended ({how}); started again in {delay_s:g} s\n")
                sys.stderr.flush()
                self._due_s = time.monotonic() + delay_s

    def _give_terminal_to(self, group: int) -> None:
        if not self._has_terminal:
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # from the background it would stop us
        try:
            os.tcsetpgrp(0, group)
        except OSError:
            self._has_terminal = False  # it was closed
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTTOU})

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        if self._code is not None:
            return
        daemon = self._daemon
        ears = [self._wake.fileno()] + ([] if daemon is None or daemon.is_mute else [daemon.ear])
        ready, _, _ = select.select(ears, [], [], self._pause_s())
        if self._wake.fileno() in ready:
            self._held += [number for number in self._wake.recv(4096) if number in PASSED_ON]
        if daemon is not None and daemon.ear in ready:
            self._hear(daemon)

    def _pause_s(self) -> float | None:
        """Until something is to be done without being woken; None: there is no such thing."""
        if self._daemon is None:
            return max(0.0, self._due_s - time.monotonic())
        return max(0.0, self._daemon.began_s + HOLD_S - time.monotonic()) if self._held else None

    def _hear(self, daemon: Daemon) -> None:
        try:
            words = os.read(daemon.ear, 64)
        except BlockingIOError:
            return
        daemon.heard += words
        daemon.is_mute = not words  # it closed its end: dying, or not one of us

    def _pass_on(self) -> None:
        daemon = self._daemon
        if daemon is None or not self._held:
            return
        if LISTENING not in daemon.heard and time.monotonic() - daemon.began_s < HOLD_S:
            return
        for number in self._held:
            os.kill(daemon.pid, number)
            daemon.was_asked = daemon.was_asked or number in ENDS
        self._held.clear()


def _has_terminal() -> bool:
    """Whether standard input is a terminal whose foreground we are: then it is ours to give."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # another session's
        return False


def main(argv: Sequence[str]) -> int:
    """Be the init of the daemon that ``argv`` starts."""
    set_name("selfheal-init")
    become_subreaper()
    return Init(argv, os.environ).run()
