"""The processes the keeper is the parent of: spawned, reaped, and started again when they were armed.

Every method runs on the keeper's one thread, so that nothing comes between the look at a pid and the act on it: a pid
in the table is not reaped yet, therefore it is still that process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from actors.failpoints import reached, register
from actors.keeper import record
from actors.keeper.kernel import own_children, start_ticks
from actors.keeper.record import Record
from actors.keeper.spawning import SpawnFailed, SpawnOrder, spawn
from actors.keeper.words import End, FileStamp, KeptRun, LogLimits
from actors.log_rotation import LogFile, rescue, rotation

TOKEN_VARIABLE: Final = b"SELFHEAL_TOKEN"
CLAIM_BEATS: Final = 5
"""A successor that the daemon has not taken on after this many of its beats (one a second) was not wanted: it is
killed. A daemon that does not beat is frozen, and nothing follows from its silence.
"""

SPAWN_WANTED: Final = register("keeper.spawn.wanted", "the keeper was asked to spawn, nothing was done yet")
SPAWNED: Final = register("keeper.spawned", "the process exists, the daemon was not told its pid")
END_SEEN: Final = register("keeper.end.seen", "a main process has ended, it is not reaped yet")
END_REAPED: Final = register("keeper.end.reaped", "it is reaped, nobody was told")
ARMED_WRITTEN: Final = register("keeper.armed.written", "the intent of an armed restart is written, nothing spawned")
ARMED_SPAWNED: Final = register("keeper.armed.spawned", "the armed successor exists, its identity is not written")
ARMED_RECORDED: Final = register("keeper.armed.recorded", "the armed successor's identity is written, nobody was told")
ARM_TAKEN: Final = register("keeper.arm.taken", "a standing order was taken, the daemon was not told")
CLAIMED: Final = register("keeper.claimed", "the daemon has taken on a run, it was not told that this is known")
SIGNALLED: Final = register("keeper.signalled", "a run was signalled, the daemon was not told")
FORGOTTEN: Final = register("keeper.forgotten", "an ended run is forgotten")


@dataclass(frozen=True, slots=True)
class Birth:
    """Everything needed to spawn a service's run, again if need be. ``lock_path`` is locked for as long as any of its
    processes lives.
    """

    order: SpawnOrder
    log: LogLimits | None
    lock_path: str
    files: tuple[FileStamp, ...] = ()
    """What its environment was read from."""

    @property
    def is_up_to_date(self) -> bool:
        return all(stamp.still_fits() for stamp in self.files)


@dataclass(frozen=True, slots=True)
class Arming:
    """The standing order to start the next run at once when this one ends by itself."""

    token: str
    only_on_failure: bool


@dataclass(slots=True)
class Kid:
    """One run: what the daemon knows of it (``kept``), how to start it again, and what is to be done at its end."""

    kept: KeptRun
    birth: Birth
    armed: Arming | None = None
    is_asked: bool = False
    beats_to_claim: int | None = None
    log_file: LogFile | None = None


class StillLocked(Exception):
    """A process of an earlier run of the service is alive somewhere."""


@dataclass
class Kids:
    """Args:
    tell: called with (ended run, successor or None) once an end is known.
    has_daemon: whether somebody is connected who takes on what happens.
    """

    boot_id: str
    record: Record
    tell: Callable[[KeptRun, KeptRun | None], None]
    has_daemon: Callable[[], bool]
    by_pid: dict[int, Kid] = field(default_factory=dict)
    runs: dict[tuple[str, int], Kid] = field(default_factory=dict)
    log_trouble: str | None = None
    daemons: set[int] = field(default_factory=set)
    """Daemons that we started in the place of frozen ones: children of ours, but no orphans."""
    had_daemon: bool = False
    served: set[str] = field(default_factory=set)
    """Every service that was ever spawned here."""

    # -- birth ----------------------------------------------------------------------------------------------------

    def spawn(self, service: str, run: int, token: str, birth: Birth) -> KeptRun:
        """Start the main process of a run.

        Raises:
            SpawnFailed: what was refused. Nothing was started.
            StillLocked: an earlier run's process holds the service's lock.
        """
        reached(SPAWN_WANTED)
        kid = self._born(service, run, token, birth)
        reached(SPAWNED)
        return kid.kept

    def _born(self, service: str, run: int, token: str, birth: Birth, *, by_keeper: bool = False) -> Kid:
        lock = _take_lock(birth.lock_path)
        log_fd = self._open_log(birth.log)
        try:
            environment = {**birth.order.environment, TOKEN_VARIABLE: token.encode()}
            keep = () if lock is None else (lock,)
            pid = spawn(replace(birth.order, environment=environment, log_fd=log_fd, keep_fds=keep))
        finally:
            for fd in (lock, log_fd):
                if fd is not None:
                    os.close(fd)
        kept = KeptRun(service, run, token, pid, start_ticks(pid), time.time(), by_keeper=by_keeper)
        kid = Kid(kept, birth)
        self.by_pid[pid] = self.runs[service, run] = kid
        self.served.add(service)
        return kid

    def _open_log(self, log: LogLimits | None) -> int | None:
        """The service's log, for appending. A service is worth more than its log: without one it runs all the same."""
        if log is None:
            return None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            try:
                fd = os.open(log.path, flags, 0o640)
            except FileNotFoundError:
                Path(log.path).parent.mkdir(parents=True, exist_ok=True)
                fd = os.open(log.path, flags, 0o640)
        except OSError as error:
            self.log_trouble = f"cannot write log {log.path}: {error.strerror}"
            return None
        self.log_trouble = None
        return fd

    # -- death ----------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """See every end there is: of services, and of orphans that fell to us."""
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if info is None:
                return
            kid = self.by_pid.pop(info.si_pid, None)
            if kid is None:
                self.daemons.discard(info.si_pid)
                os.waitid(os.P_PID, info.si_pid, os.WEXITED)
                continue
            reached(END_SEEN)
            _kill_group(info.si_pid)  # while the dead leader still holds its number
            os.waitid(os.P_PID, info.si_pid, os.WEXITED)
            reached(END_REAPED)
            is_exit = info.si_code == os.CLD_EXITED
            end = End(
                info.si_status if is_exit else None,
                None if is_exit else info.si_status,
                time.time(),
                kid.is_asked,
            )
            self._ended(kid, end)

    def _ended(self, kid: Kid, end: End) -> None:
        kid.kept = replace(kid.kept, end=end)
        successor = self._start_again(kid, end)
        if successor is not None:
            kid.kept = replace(kid.kept, successor=successor.run)
        elif not self.has_daemon():
            self.record.write(record.exited(kid.kept.service, kid.kept.run, end))
        self.tell(kid.kept, successor)

    def _start_again(self, kid: Kid, end: End) -> KeptRun | None:
        """The armed restart. Only when nothing of the ended run is left: else the daemon sweeps first."""
        arming, service, run = kid.armed, kid.kept.service, kid.kept.run + 1
        kid.armed = None
        if arming is None or end.asked or (arming.only_on_failure and end.is_clean) or self._are_left():
            return None
        if self.has_daemon() and not kid.birth.is_up_to_date:
            return None  # the daemon reads them anew; while there is none, what was read last is better than nothing
        self.record.write(
            record.exited(service, kid.kept.run, end),
            record.intent(service, run, arming.token),
        )
        reached(ARMED_WRITTEN)
        try:
            born = self._born(service, run, arming.token, kid.birth, by_keeper=True)
        except (SpawnFailed, StillLocked, OSError):
            return None  # the daemon tries, and says why it cannot
        reached(ARMED_SPAWNED)
        self.record.write(record.launched(born.kept, self.boot_id))
        reached(ARMED_RECORDED)
        if self.has_daemon():
            born.beats_to_claim = CLAIM_BEATS
        return born.kept

    def orphans(self) -> frozenset[int]:
        """Children of ours that are no main process: descendants whose parents died."""
        return own_children() - self.by_pid.keys() - self.daemons

    def hidden(self, service: str) -> list[tuple[int, int]]:
        """Orphans (pid, start ticks) that carry no token and can be this service's only: no other was ever served here,
        and no daemon was started from here whose children they might be.
        """
        if self.served != {service} or self.had_daemon:
            return []
        found = []
        for pid in self.orphans():
            with contextlib.suppress(OSError):
                if _token_of(pid) is None:
                    found.append((pid, start_ticks(pid)))
        return found

    def adopt_daemon(self, pid: int) -> None:
        """A daemon was started from here."""
        self.daemons.add(pid)
        self.had_daemon = True

    def _are_left(self) -> bool:
        """Whether there are orphans that cannot be shown to belong to another service's living run."""
        orphans = self.orphans()
        return bool(orphans) and not {_token_of(pid) for pid in orphans} <= {
            kid.kept.token.encode() for kid in self.by_pid.values()
        }

    # -- what the daemon asks for -----------------------------------------------------------------------------------

    def arm(self, service: str, run: int, arming: Arming | None) -> bool:
        """Give or take back the standing order. False: this run does not live (any more)."""
        kid = self._living(service, run)
        if kid is None:
            return False
        kid.armed = arming
        reached(ARM_TAKEN)
        return True

    def claim(self, service: str, run: int) -> bool:
        """The daemon has taken on this run. False: it does not live."""
        kid = self._living(service, run)
        if kid is None:
            return False
        kid.beats_to_claim = None
        kid.armed = None  # an order of the last daemon: this one gives its own
        reached(CLAIMED)
        return True

    def signal(self, service: str, run: int, number: int, *, is_group: bool, is_asked: bool) -> bool:
        """Signal a main process (and its group). False: it does not live, or may not be signalled by us."""
        kid = self._living(service, run)
        if kid is None:
            return False
        if is_asked:
            kid.is_asked, kid.armed = True, None
        pid = kid.kept.pid
        try:
            if is_group and os.getpgid(pid) == pid:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)
        except ProcessLookupError:
            pass  # a zombie that is not reaped yet
        except PermissionError:  # it became another user's: whoever asked must say that it cannot be stopped
            return False
        reached(SIGNALLED)
        return True

    def forget(self, service: str, run: int) -> None:
        """The end of this run is recorded by the daemon."""
        kid = self.runs.get((service, run))
        if kid is not None and kid.kept.end is not None:
            del self.runs[service, run]
            reached(FORGOTTEN)

    def heard_beat(self) -> None:
        """The daemon is well: had it wanted a successor of ours, it would have taken it on by now."""
        for kid in tuple(self.by_pid.values()):
            if kid.beats_to_claim is None:
                continue
            kid.beats_to_claim -= 1
            if kid.beats_to_claim <= 0:
                kid.beats_to_claim = None
                self.signal(kid.kept.service, kid.kept.run, signal.SIGKILL, is_group=True, is_asked=True)

    def release_claims(self) -> None:
        """Nobody is there to claim: what was started goes on."""
        for kid in self.by_pid.values():
            kid.beats_to_claim = None

    def look_after_logs(self) -> Iterator[None]:
        """Keep the logs of all living runs small and at their places; a bounded piece of the work between yields."""
        for kid in tuple(self.by_pid.values()):
            log = kid.birth.log
            if log is None:
                continue
            path = Path(log.path)
            with contextlib.suppress(OSError):  # no room: the daemon says so when it is back
                yield from rotation(path, log.max_bytes, log.backups)
                if kid.kept.end is None:
                    kid.log_file = yield from rescue(path, kid.kept.pid, kid.log_file, log.max_bytes)

    def _living(self, service: str, run: int) -> Kid | None:
        kid = self.runs.get((service, run))
        return kid if kid is not None and kid.kept.end is None else None


def _take_lock(path: str) -> int | None:
    """The service's lock, to be inherited by its processes. None: it cannot be made (no space): we go on without.

    Raises:
        StillLocked: somebody holds it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError:  # somebody removed the folder
            Path(path).parent.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(path, flags, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise StillLocked(path) from None
        return None
    return fd


def _token_of(pid: int) -> bytes | None:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    start = TOKEN_VARIABLE + b"="
    return next((entry.removeprefix(start) for entry in environ.split(b"\0") if entry.startswith(start)), None)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def facts(kept: KeptRun | None) -> dict[str, Any] | None:
    return None if kept is None else kept.to_plain()
