"""The exit watcher: one thread that learns of every process's end at once, by pidfd, and reaps our own children.

Owns the pidfds and one epoll; runs in its own thread. It calls listeners that must only put a message into an inbox.
Exit codes are never lost: the status is read with ``WNOWAIT`` first, and only the ``Popen`` that started the child
reaps it. Where the system has no pidfd, a thread per process waits instead. Must never import supervisors.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psutil
import structlog

HAS_PIDFD: Final = hasattr(os, "pidfd_open") and hasattr(select, "epoll")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: ``code`` or ``signal``; both None when it was not our child and nobody can know."""

    code: int | None = None
    signal: int | None = None


OnEnded = Callable[[Ended], None]


@dataclass(frozen=True, slots=True)
class _Watch:
    pid: int
    child: subprocess.Popen[bytes] | None
    on_ended: OnEnded
    before_reap: Callable[[], None] | None


class ExitWatcher:
    """``watch`` from any thread; each watched process's end is told once."""

    def __init__(self, *, use_pidfd: bool = HAS_PIDFD) -> None:
        self._use_pidfd = use_pidfd
        self._watches: dict[int, _Watch] = {}
        self._closed = threading.Event()
        self._log = structlog.get_logger()
        self._thread: threading.Thread | None = None
        if use_pidfd:
            self._epoll = select.epoll()
            self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._epoll.register(self._wake_fd, select.EPOLLIN)
            self.ensure_running()

    def watch(
        self,
        pid: int,
        on_ended: OnEnded,
        *,
        child: subprocess.Popen[bytes] | None = None,
        before_reap: Callable[[], None] | None = None,
    ) -> None:
        """Call ``on_ended`` from the watcher's thread when process ``pid`` has ended.

        Args:
            pid: a process whose identity the caller has checked, or an unreaped child of ours.
            on_ended: called once.
            child: the ``Popen`` that started it; None for an adopted process, whose exit code nobody can know.
            before_reap: called while the dead child still holds its pid, so that its group can be signalled safely.

        Raises:
            ProcessLookupError: there is no such process (never for an unreaped child).
            OSError: no file descriptor is left. ``ValueError``: the watcher is closed.
        """
        watch = _Watch(pid, child, on_ended, before_reap)
        if not self._use_pidfd:
            threading.Thread(target=self._wait_for, args=(watch,), name=f"exit-watcher:{pid}", daemon=True).start()
            return
        fd = os.pidfd_open(pid)
        self._watches[fd] = watch
        try:
            self._epoll.register(fd, select.EPOLLIN)  # safe from any thread: a waiting epoll sees it at once
        except (OSError, ValueError):
            del self._watches[fd]
            os.close(fd)
            raise

    @property
    def is_running(self) -> bool:
        return not self._use_pidfd or (self._thread is not None and self._thread.is_alive())

    def ensure_running(self) -> bool:
        """Start the thread if it is not there (at birth, or after a fault of ours). Returns whether it had to."""
        if self.is_running or self._closed.is_set():
            return False
        self._thread = threading.Thread(target=self._run, name="exit-watcher", daemon=True)
        self._thread.start()
        return True

    def close(self) -> None:
        """End the thread; the processes live on, unwatched."""
        if self._closed.is_set():
            return
        self._closed.set()
        if not self._use_pidfd:
            return
        os.eventfd_write(self._wake_fd, 1)
        if self._thread is not None:
            self._thread.join(timeout=5)
        self._epoll.close()
        for fd in (*self._watches, self._wake_fd):
            os.close(fd)
        for watch in self._watches.values():
            if watch.child is not None:
                watch.child.returncode = 0  # or Popen would reap it later, behind an adopter's back
        self._watches.clear()

    def _run(self) -> None:
        while not self._closed.is_set():
            for fd, _ in self._epoll.poll():
                if fd != self._wake_fd:
                    self._see(fd)

    def _see(self, fd: int) -> None:
        watch = self._watches[fd]
        try:
            ended = _read_end(fd)
        except ChildProcessError:
            ended = Ended()  # not our child, or somebody else reaped it
        if ended is None:
            return  # readable but not waitable yet: epoll says so again
        del self._watches[fd]
        self._epoll.unregister(fd)
        self._guarded(watch, ended)
        if watch.child is None and ended != Ended():
            with contextlib.suppress(ChildProcessError):  # somebody else was quicker
                os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)  # a child of ours without a Popen: it fell to us
        os.close(fd)

    def _guarded(self, watch: _Watch, ended: Ended) -> None:
        try:
            if watch.before_reap is not None:
                watch.before_reap()
            if watch.child is not None:
                watch.child.poll()
            watch.on_ended(ended)
        except Exception as error:  # the thread serves all processes: one fault must not blind it
            self._log.error("exit listener failed", pid=watch.pid, exc_info=error)

    def _wait_for(self, watch: _Watch) -> None:
        """The way without pidfd, on a thread of its own. Popen must be the one who waits for a child."""
        ended = Ended()
        try:
            if watch.child is not None:
                ended = _from_returncode(watch.child.wait())
            else:
                psutil.Process(watch.pid).wait()
        except psutil.Error:
            ended = Ended()  # it was gone before we looked
        if not self._closed.is_set():
            self._guarded(watch, ended)


def _read_end(fd: int) -> Ended | None:
    info = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if info is None:
        return None
    if info.si_code == os.CLD_EXITED:
        return Ended(code=info.si_status)
    return Ended(signal=info.si_status)


def _from_returncode(returncode: int) -> Ended:
    return Ended(signal=-returncode) if returncode < 0 else Ended(code=returncode)
