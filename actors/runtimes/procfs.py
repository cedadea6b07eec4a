"""The process table: who lives, since when, whose child, in which session, and which run's token it carries.

Reads /proc directly (one small read a process); psutil where there is no /proc. No thread, no signal.
A pid alone is never an identity: pids are used again. (pid, start ticks, boot id) is.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

HAS_PROC: Final = Path("/proc/self/stat").exists()
TOKEN_VARIABLE: Final = "SELFHEAL_TOKEN"  # noqa: S105  the name of a variable, no secret
_DEAD_STATES: Final = frozenset("ZXx")
_STILL_STATES: Final = frozenset("TtZXx")
_ENVIRON_BYTES: Final = 256 * 1024
_KERNEL_THREADS_PARENT: Final = 2
_YOUNG_S: Final = 1.0
if HAS_PROC:
    _TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
    _PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process for all time: start in clock ticks since boot (/proc/PID/stat field 22), and which boot."""

    pid: int
    start_ticks: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class ProcessLine:
    """One line of the table. ``cpu_s`` is user and system time used; ``is_dead``: a zombie still has a line."""

    pid: int
    parent: int
    group: int
    session: int
    start_ticks: int
    is_dead: bool
    cpu_s: float
    resident_bytes: int


ProcessTable = Mapping[int, ProcessLine]


@functools.cache
def boot_id() -> str:
    """The name of this boot. Without /proc the boot time in seconds stands for it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"boot-{int(psutil.boot_time())}"


def read_line(pid: int) -> ProcessLine | None:
    """The line of one process, or None when there is no such process."""
    if not HAS_PROC:
        return _line_from_psutil(pid)
    raw = _read(f"/proc/{pid}/stat", 1024)
    return _parse_stat(pid, raw) if raw else None


def read_table() -> dict[int, ProcessLine]:
    """All processes that can be seen, zombies too."""
    lines = (read_line(pid) for pid in psutil.pids())
    return {line.pid: line for line in lines if line is not None}


def identity_of(pid: int) -> ProcessIdentity | None:
    """Who has this pid now (also an unreaped zombie)."""
    line = read_line(pid)
    return None if line is None else ProcessIdentity(pid, line.start_ticks, boot_id())


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether exactly this process lives. A zombie is dead; another process with its pid is somebody else."""
    if identity.boot_id != boot_id():
        return False
    line = read_line(identity.pid)
    return line is not None and not line.is_dead and line.start_ticks == identity.start_ticks


def ancestors_of(pid: int) -> frozenset[int]:
    """The pids of who started this process, and who started them, up to the first."""
    found: set[int] = set()
    while (line := read_line(pid)) is not None and line.parent and line.parent not in found:
        pid = line.parent
        found.add(pid)
    return frozenset(found)


def is_stopped(pid: int) -> bool:
    """Whether a process stands still (SIGSTOP, a tracer), or is dead, or gone."""
    if not HAS_PROC:
        return _is_stopped_by_psutil(pid)
    raw = _read(f"/proc/{pid}/stat", 1024)
    return raw is None or raw[raw.rfind(b")") + 2 :][:1].decode() in _STILL_STATES


def token_of(pid: int) -> str | None:
    """The run token in the environment this process was started with; None when it has none or may not be read."""
    if not HAS_PROC:
        return _token_from_psutil(pid)
    return _find_token(_read(f"/proc/{pid}/environ", _ENVIRON_BYTES) or b"")


class TokenScan:
    """Finds the processes of a run, quickly: each process is looked at only once.

    A process belongs to the run whose token it carried when it was first seen, or else to its parent's run. That sticks
    to it: a descendant that clears its environment, leaves its session or loses its parent later is still a descendant.
    What was never seen beside its parent and carries nothing is found by its open lock file only.

    A process is known by its pid and the inode of its /proc folder, which the directory listing gives for nothing. What
    is read of it counts only if the folder is still the same afterwards: numbers are used again. A process in the
    middle of exec has no environment for a moment: it is looked at again. A child of ours between fork and exec shows
    our environment: main processes are made known with ``know``. Not thread-safe; the owner locks.
    """

    def __init__(self) -> None:
        self._known: dict[int, _Seen] = {}
        self._mains: dict[int, tuple[int, str]] = {}
        self._has_missed = False

    def know(self, main: ProcessIdentity, token: str) -> None:
        """This main process belongs to the run with ``token``: its children do too, whatever they carry."""
        self._mains[main.pid] = (main.start_ticks, token)

    def holders(self, token: str) -> set[int]:
        """The pids that carry ``token`` or descend from who does; zombies too."""
        self.look()
        return {pid for pid, seen in self._known.items() if seen.token == token}

    def members(
        self, token: str, on_sight: Callable[[ProcessIdentity], object] | None = None
    ) -> tuple[tuple[ProcessIdentity, ...], bool]:
        """The processes that belong to the run, and whether that is all for certain.

        A process that forks and ends as fast as it can may be gone before it was looked at: then one should look again.
        One that was seen for the first time is told even if it is gone by now: it may have forked.

        Args:
            on_sight: called at once with each that is seen; whoever lives for a millisecond is gone after the look.
        """
        old = self._known
        self.look(token, on_sight)
        holders = ((pid, seen) for pid, seen in self._known.items() if seen.token == token)
        found = (
            identity
            for pid, seen in holders
            if is_alive(identity := ProcessIdentity(pid, seen.start_ticks, boot_id())) or old.get(pid) != seen
        )
        return tuple(found), not self._has_missed

    def look(self, token: str = "", on_sight: Callable[[ProcessIdentity], object] | None = None) -> None:
        """See who is there. Often enough, so that descendants are seen while their parents live."""
        before, self._known = self._known, {}
        self._has_missed = False
        listed = dict(_list_pids())
        for pid in listed:
            seen = self._see(pid, listed, before)
            if on_sight is not None and seen is not None and seen.token == token:
                on_sight(ProcessIdentity(pid, seen.start_ticks, boot_id()))
        self._mains = {pid: main for pid, main in self._mains.items() if pid in listed}

    def _see(self, pid: int, listed: Mapping[int, int], before: Mapping[int, _Seen]) -> _Seen | None:
        """None: it is gone, or not the one that was listed."""
        if pid in self._known:
            return self._known[pid]
        seen: _Seen | None = before.get(pid)
        if seen is None or seen.inode != listed[pid] or not seen.is_final:
            seen = self._first_sight(pid, listed, before)
        if seen is None:
            self._has_missed = True
        else:
            self._known[pid] = seen
        return seen

    def _first_sight(self, pid: int, listed: Mapping[int, int], before: Mapping[int, _Seen]) -> _Seen | None:
        line = read_line(pid)
        token, is_final = _carried(pid)
        if line is None or _inode_of(pid) != listed[pid]:
            return None
        main = self._mains.get(pid)
        if main is not None and main[0] == line.start_ticks:
            return _Seen(listed[pid], line.start_ticks, main[1], is_final=True)
        if token is None and line.parent in listed and line.parent != pid:
            parent = self._see(line.parent, listed, before)
            if parent is not None and _inode_of(line.parent) == parent.inode:  # the same before and after the look
                token = parent.token
        is_young = _is_young(line)
        if token is None and is_young and (line.is_dead or not is_final):
            self._has_missed = True  # it died under our eyes, its environment with it: it may have left a child behind
        is_final = token is not None or ((is_final or line.is_dead) and not is_young)
        return _Seen(listed[pid], line.start_ticks, token, is_final)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of one process. ``is_final``: it need not be looked at again."""

    inode: int
    start_ticks: int
    token: str | None
    is_final: bool


def _is_young(line: ProcessLine) -> bool:
    """It may still be on its way from fork to exec, and whose it is may be made known in a moment."""
    if not HAS_PROC:
        return False
    return time.clock_gettime(time.CLOCK_BOOTTIME) - line.start_ticks * _TICK_S < _YOUNG_S


def _inode_of(pid: int) -> int | None:
    """The second half of ``_list_pids`` for one process."""
    if not HAS_PROC:
        line = _line_from_psutil(pid)
        return None if line is None else line.start_ticks
    try:
        return os.stat(f"/proc/{pid}").st_ino  # noqa: PTH116  thousands of them
    except OSError:
        return None


def _list_pids() -> Iterable[tuple[int, int]]:
    if not HAS_PROC:
        return ((pid, line.start_ticks) for pid, line in read_table().items())
    with os.scandir("/proc") as entries:
        return [(int(entry.name), entry.inode()) for entry in entries if entry.name.isdigit()]


def _carried(pid: int) -> tuple[str | None, bool]:
    """The token, and whether the answer will stay true: an empty environment is final for kernel threads only."""
    if not HAS_PROC:
        return _token_from_psutil(pid), True
    environ = _read(f"/proc/{pid}/environ", _ENVIRON_BYTES)
    if environ == b"":
        line = read_line(pid)
        return None, line is not None and line.parent in (0, _KERNEL_THREADS_PARENT)
    return _find_token(environ or b""), True


def _read(path: str, at_most: int) -> bytes | None:
    """What stands there; None when it is gone or not ours to look at."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, at_most)
    except OSError:
        return None
    finally:
        os.close(fd)


def _parse_stat(pid: int, raw: bytes) -> ProcessLine:
    """Fields after the last ``)``: a program's name may hold spaces and brackets. Numbers: man 5 proc."""
    fields = raw[raw.rfind(b")") + 2 :].split()
    return ProcessLine(
        pid=pid,
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        is_dead=fields[0].decode() in _DEAD_STATES,
        cpu_s=(int(fields[11]) + int(fields[12])) * _TICK_S,
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
    )


def _find_token(environ: bytes) -> str | None:
    name = TOKEN_VARIABLE.encode() + b"="
    for entry in environ.split(b"\0"):
        if entry.startswith(name):
            return entry[len(name) :].decode("ascii", "replace")
    return None


def _line_from_psutil(pid: int) -> ProcessLine | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            cpu = process.cpu_times()
            return ProcessLine(
                pid=pid,
                parent=process.ppid() or 0,
                group=os.getpgid(pid) if hasattr(os, "getpgid") else 0,
                session=os.getsid(pid) if hasattr(os, "getsid") else 0,
                start_ticks=int(process.create_time() * 100),
                is_dead=process.status() == psutil.STATUS_ZOMBIE,
                cpu_s=cpu.user + cpu.system,
                resident_bytes=process.memory_info().rss,
            )
    except (psutil.Error, OSError):
        return None


def _is_stopped_by_psutil(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE))
    except psutil.Error:
        return True


def _token_from_psutil(pid: int) -> str | None:
    try:
        return psutil.Process(pid).environ().get(TOKEN_VARIABLE)
    except (psutil.Error, OSError):
        return None
