"""The process table: who lives, since when, whose child, in which session, and which run's token it carries.

Reads /proc directly (one small read a process); psutil where there is no /proc. No thread, no signal.
A pid alone is never an identity: pids are used again. (pid, start ticks, boot id) is.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
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
    """Finds the processes that carry a run's token, quickly: each process's environment is read only once.

    A process is known by its pid and the inode of its /proc folder, which the directory listing gives for nothing. What
    a process carried when first seen sticks to it: a descendant that clears its environment later is still a
    descendant. A process in the middle of exec has no environment for a moment: it is looked at again. (A child of ours
    between fork and exec shows the daemon's environment: main processes are known by their identity, not from here.)
    Not thread-safe; the owner locks.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, str | None]] = {}

    def holders(self, token: str) -> set[int]:
        """The pids that carry ``token``, or did when they were first seen."""
        self._refresh()
        return {pid for pid, (_, held) in self._known.items() if held == token}

    def _refresh(self) -> None:
        before, self._known = self._known, {}
        for pid, inode in _list_pids():
            known = before.get(pid)
            if known is None or known[0] != inode:
                token, is_certain = _look(pid)
                known = (inode if is_certain else 0, token)
            self._known[pid] = known


def _list_pids() -> Iterable[tuple[int, int]]:
    if not HAS_PROC:
        return ((pid, line.start_ticks) for pid, line in read_table().items())
    with os.scandir("/proc") as entries:
        return [(int(entry.name), entry.inode()) for entry in entries if entry.name.isdigit()]


def _look(pid: int) -> tuple[str | None, bool]:
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
