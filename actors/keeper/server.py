"""The keeper's loop: one thread, one epoll over the daemon's connection and the wake-up of SIGCHLD.

It must never block: the only waits are in ``poll``, and everything it writes to a socket goes through a buffer.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from actors.failpoints import reached, register
from actors.keeper import watch
from actors.keeper.attributes import Attributes
from actors.keeper.kids import Arming, Birth, Kids, StillLocked, facts
from actors.keeper.record import Record
from actors.keeper.respawn import Respawner
from actors.keeper.spawning import SpawnFailed, SpawnOrder
from actors.keeper.words import (
    PEER_CREDENTIALS,
    VERSION,
    BrokenFrame,
    FileStamp,
    Frame,
    Frames,
    KeptRun,
    LogLimits,
    encode,
)
from actors.log_rotation import own_rotation

READ_BYTES: Final = 256 * 1024
LINGER_S: Final = 5.0
"""A keeper without a run and without a daemon ends after this long."""


HELLO_TAKEN: Final = register("keeper.hello.taken", "a daemon was welcomed, it has not read the answer")
TOLD: Final = register("keeper.told", "an end was handed to the socket, it is not forgotten yet")


@dataclass
class Link:
    """The connection of one daemon."""

    socket: socket.socket
    pid: int
    pidfd: int
    frames: Frames = field(default_factory=Frames)
    unsent: bytes = b""
    watch: watch.Watch | None = None
    hello: Mapping[str, Any] = field(default_factory=dict)
    began_s: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        self.socket.close()
        os.close(self.pidfd)


class Server:
    """Args: ``listener`` is bound and listening; ``state_dir`` is where logs of a replaced daemon go."""

    def __init__(self, listener: socket.socket, state_dir: Path, boot_id: str) -> None:
        self._listener = listener
        self._state_dir = state_dir
        self._record = Record()
        self._kids = Kids(boot_id, self._record, self._tell_end, lambda: self._link is not None)
        self._respawner = Respawner(state_dir, self._kids.adopt_daemon)
        self._link: Link | None = None
        self._base: dict[bytes, bytes] = {}
        self._leaving = False
        self._log_work: Iterator[None] | None = None
        self._alone_since_s = time.monotonic()
        self._looked_s = time.monotonic()
        self._epoll = select.epoll()
        self._wake, wake = socket.socketpair()
        self._wake.setblocking(False)
        wake.setblocking(False)
        self._wake_writer = wake
        listener.setblocking(False)
        self._epoll.register(listener, select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)

    def run(self) -> None:
        """Serve until told to leave, or alone and without work for a while."""
        self._take_signals()
        while not self._is_done():
            events = self._epoll.poll(0 if self._log_work is not None else self._respawner.pause_s(watch.LOOK_S))
            if any(fd == self._wake.fileno() for fd, _ in events):  # a death comes before any talk
                self._drain_wake()
                self._kids.reap()
            for fd, mask in events:
                if fd == self._listener.fileno():
                    self._accept()
                elif self._link is not None and fd == self._link.socket.fileno():
                    self._serve(self._link, mask)
            if self._leaving:
                self._respawner.give_up()
            self._respawner.look()
            self._look()
            self._work_on_logs()

    def _is_done(self) -> bool:
        has_services = bool(self._kids.by_pid)
        is_needed = has_services or self._link is not None or self._respawner.is_busy(has_services=has_services)
        if is_needed:
            self._alone_since_s = time.monotonic()
            return False
        return self._leaving or time.monotonic() - self._alone_since_s > LINGER_S

    def _take_signals(self) -> None:
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._leave)
        for one in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(one, lambda *_: None)  # a terminal's signals are the daemon's business

    def _leave(self, *_: object) -> None:
        """Asked to end: as soon as no service needs us. Nobody is to come back then either."""
        self._leaving = True

    def _drain_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(4096):
                pass

    # -- once a second ------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < watch.LOOK_S:
            return
        self._looked_s = now_s
        self._record.look()
        if self._link is not None:
            self._look_at_daemon(self._link, now_s)
        elif self._log_work is None:
            self._log_work = itertools.chain(self._kids.look_after_logs(), own_rotation(self._state_dir))

    def _work_on_logs(self) -> None:
        """One slice, while no daemon lives that does it: a restart must not wait for the copy of a whole log."""
        if self._log_work is not None and next(self._log_work, self) is self:
            self._log_work = None

    def _look_at_daemon(self, link: Link, now_s: float) -> None:
        if link.watch is None:
            return
        link.watch, is_frozen = watch.look(link.watch, now_s)
        if is_frozen:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(link.pidfd, signal.SIGKILL)
            self._drop(link, "frozen")

    # -- the daemon's connection ------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        pid, uid, _ = PEER_CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size)
        )
        if uid not in (os.getuid(), 0):
            connection.close()
            return
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # it is gone again
            connection.close()
            return
        if self._link is not None:  # only one daemon holds the state directory's lock: the older one is no more
            self._drop(self._link, "superseded")
        connection.setblocking(False)
        self._log_work = None  # from now on the daemon does it
        self._link = Link(connection, pid, pidfd)
        self._epoll.register(connection, select.EPOLLIN)

    def _drop(self, link: Link, why: str) -> None:
        """The connection is over. Only a daemon that did not say goodbye is replaced."""
        self._epoll.unregister(link.socket)
        self._link = None
        self._kids.release_claims()
        self._alone_since_s = time.monotonic()
        respawn = link.hello.get("respawn", {})
        if (why == "frozen" and respawn.get("frozen")) or (why == "died" and respawn.get("died")):
            self._respawner.daemon_gone(respawn, link.pidfd, time.monotonic() - link.began_s)
        link.close()

    def _serve(self, link: Link, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._flush(link)
        if not mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        try:
            data = link.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(link, "left" if link.hello.get("bye") else "died")
            return
        try:
            for frame in link.frames.feed(data):
                self._obey(link, frame)
        except (BrokenFrame, KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"  # never the frame or the object: it may hold secrets
            sys.stderr.write(f"keeper: the daemon with pid {link.pid} spoke nonsense: {what}\n")
            sys.stderr.flush()
            if self._link is link:
                self._drop(link, "nonsense")

    def _send(self, link: Link, frame: Mapping[str, Any]) -> None:
        link.unsent += encode(frame)
        self._flush(link)

    def _flush(self, link: Link) -> None:
        try:
            while link.unsent:
                link.unsent = link.unsent[link.socket.send(link.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            link.unsent = b""  # the reading side sees the end
        events = select.EPOLLIN | (select.EPOLLOUT if link.unsent else 0)
        with contextlib.suppress(OSError, ValueError):
            self._epoll.modify(link.socket, events)

    # -- requests ---------------------------------------------------------------------------------------------------

    def _obey(self, link: Link, frame: Frame) -> None:
        acts: dict[str, Callable[[Link, Frame], Frame | None]] = {
            "hello": self._hello,
            "spawn": self._spawn,
            "arm": self._arm,
            "claim": self._claim,
            "signal": self._signal,
            "orphans": lambda _link, _frame: {"pids": sorted(self._kids.orphans())},
            "hidden": lambda _link, frame: {"found": self._kids.hidden(frame["service"])},
            "forget": self._forget,
            "beat": self._beat,
            "bye": self._bye,
        }
        answer = acts[frame["do"]](link, frame)
        if answer is not None and self._link is link:
            self._send(link, {"id": frame["id"], "log_trouble": self._kids.log_trouble, **answer})

    def _hello(self, link: Link, frame: Frame) -> Frame:
        link.hello = frame
        link.watch = watch.begin(float(frame["frozen_after_s"]), time.monotonic())
        self._record.open(frame["ledger"])
        self._base = {os.fsencode(name): os.fsencode(value) for name, value in frame["environment"].items()}
        self._leaving = False
        self._respawner.has_daemon()
        answer = {
            "version": VERSION,
            "pid": os.getpid(),
            "runs": [kid.kept.to_plain() for kid in self._kids.runs.values()],
        }
        reached(HELLO_TAKEN)
        return answer

    def _spawn(self, _link: Link, frame: Frame) -> Frame:
        try:
            kept = self._kids.spawn(frame["service"], frame["run"], frame["token"], self._birth(frame))
        except SpawnFailed as failed:
            return {"errno": failed.errno, "stage": failed.stage}
        except StillLocked:
            return {"errno": 0, "stage": "lock"}
        except OSError as error:
            return {"errno": error.errno or 0, "stage": "keeper"}
        except (ValueError, OverflowError):  # a zero byte in a path: no reason to end the talk for all services
            return {"errno": errno.EINVAL, "stage": "keeper"}
        return {"kept": kept.to_plain()}

    def _birth(self, frame: Frame) -> Birth:
        delta = {os.fsencode(name): os.fsencode(value) for name, value in frame["environment"].items()}
        log = frame["log"]
        order = SpawnOrder(
            argv=tuple(frame["argv"]),
            program=frame["program"],
            cwd=frame["cwd"],
            environment={**self._base, **delta},
            attributes=Attributes.from_plain(frame["attributes"]),
        )
        stamps = tuple(FileStamp(**stamp) for stamp in frame["files"])
        return Birth(order, None if log is None else LogLimits(**log), frame["lock"], stamps)

    def _arm(self, _link: Link, frame: Frame) -> Frame:
        raw = frame["arming"]
        return {"ok": self._kids.arm(frame["service"], frame["run"], None if raw is None else Arming(**raw))}

    def _claim(self, _link: Link, frame: Frame) -> Frame:
        return {"ok": self._kids.claim(frame["service"], frame["run"])}

    def _signal(self, _link: Link, frame: Frame) -> Frame:
        ok = self._kids.signal(
            frame["service"], frame["run"], frame["signal"], is_group=frame["group"], is_asked=frame["asked"]
        )
        return {"ok": ok}

    def _forget(self, _link: Link, frame: Frame) -> None:
        self._kids.forget(frame["service"], frame["run"])

    def _beat(self, link: Link, _frame: Frame) -> Frame:
        if link.watch is not None:
            link.watch = watch.heard(link.watch, time.monotonic())
        self._kids.heard_beat()
        return {"ok": True}

    def _bye(self, link: Link, _frame: Frame) -> Frame:
        """The daemon ends in order: it is not to be replaced, and we end when no service needs us."""
        link.hello = {"bye": True}
        link.watch = None
        self._leaving = True
        return {"ok": True}

    def _tell_end(self, kept: KeptRun, successor: KeptRun | None) -> None:
        if self._link is not None:
            self._send(self._link, {"exited": kept.to_plain(), "successor": facts(successor)})
            reached(TOLD)
