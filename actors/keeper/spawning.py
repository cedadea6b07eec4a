"""Temporary."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field


class SpawnFailed(Exception):
    def __init__(self, errno: int, stage: str) -> None:
        super().__init__(f"{stage}: {errno}")
        self.errno = errno
        self.stage = stage


@dataclass(frozen=True)
class SpawnOrder:
    argv: tuple[str, ...]
    program: str
    cwd: str | None = None
    environment: Mapping[bytes, bytes] = field(default_factory=dict)
    log_fd: int | None = None
    keep_fds: tuple[int, ...] = ()
    rlimits: tuple[tuple[int, int, int], ...] = ()
    nice: int | None = None
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None
    umask: int | None = None


def spawn(order: SpawnOrder) -> int:
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
        raise SpawnFailed(error.errno or 0, "program") from error
    child.returncode = 0
    return child.pid
