"""The few calls to the Linux kernel that both the keeper and the daemon need: subreaper, children, start ticks, and
cutting off a file's beginning.

Standard library only, no thread.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NAME: Final = 15
_FALLOC_FL_COLLAPSE_RANGE: Final = 8
CAN_KEEP: Final = sys.platform == "linux" and Path("/proc/self/stat").exists()
"""Whether this system has what a keeper needs: subreapers and /proc."""


def become_subreaper() -> None:
    """From now on orphaned descendants become children of this process (Linux 3.4).

    Raises:
        OSError: the kernel refuses.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """The short name ``ps`` and ``top`` show."""
    _prctl(_PR_SET_NAME, ctypes.create_string_buffer(name.encode()[:15]))


def _prctl(option: int, value: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def cut_off_beginning(fd: int, length: int) -> bool:
    """Remove the first ``length`` bytes of a file, whose writers go on at its end: nothing is lost (Linux 3.15).

    Whole blocks only, and never the whole file. False: this file system cannot (tmpfs, btrfs), nothing has changed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        call = getattr(libc, "fallocate64", None) or libc.fallocate
    except AttributeError:  # no Linux
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(call(fd, _FALLOC_FL_COLLAPSE_RANGE, 0, length) == 0)


def children_of(pid: int) -> frozenset[int]:
    """The children of all threads of a process, zombies too; empty when it is gone."""
    found: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  on the way to a restart
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123  on the way to a restart
                found.update(map(int, file.read().split()))
    except OSError:
        return frozenset(found)
    return frozenset(found)


def own_children() -> frozenset[int]:
    """The children of this single-threaded process."""
    with open("/proc/thread-self/children", "rb") as file:  # noqa: PTH123  on the way to a restart
        return frozenset(map(int, file.read().split()))


def start_ticks(pid: int) -> int:
    """When a process (also an unreaped zombie) was started, in clock ticks since boot: /proc/PID/stat field 22.

    Raises:
        OSError: there is no such process.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  on the way to a restart
        raw = file.read(1024)
    return int(raw[raw.rfind(b")") + 2 :].split()[19])
