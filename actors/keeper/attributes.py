"""What a process is given between its birth and its program: limits, nice, umask, user, working directory.

The same code runs in the keeper's forked child (``spawning``) and in the exec shim of a daemon without a keeper
(``shim``), so both give the same attributes and refuse with the same words. Standard library only, no thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_UNKNOWN: Final = -1
"""A limit this system does not have: refused as EINVAL."""
RLimit = tuple[str, int, int]
"""Name as in ``resource.RLIMIT_<NAME>`` but small, soft, hard; -1 is unlimited."""


class SpawnFailed(Exception):
    """No program was started. ``stage`` says what was refused: "rlimits nofile", "nice", "user", "cwd", "program"."""

    def __init__(self, number: int, stage: str) -> None:
        super().__init__(f"{stage}: {os.strerror(number)}")
        self.errno = number
        self.stage = stage


@dataclass(frozen=True, slots=True)
class Attributes:
    """None (and no limit) leaves what the parent has. ``groups`` are the supplementary ones."""

    rlimits: tuple[RLimit, ...] = ()
    nice: int | None = None
    umask: int | None = None
    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] | None = None

    def to_plain(self) -> dict[str, Any]:
        return {
            "rlimits": [list(limit) for limit in self.rlimits],
            "nice": self.nice,
            "umask": self.umask,
            "uid": self.uid,
            "gid": self.gid,
            "groups": None if self.groups is None else list(self.groups),
        }

    @classmethod
    def from_plain(cls, raw: dict[str, Any]) -> Attributes:
        return cls(
            rlimits=tuple((str(name), int(soft), int(hard)) for name, soft, hard in raw["rlimits"]),
            nice=raw["nice"],
            umask=raw["umask"],
            uid=raw["uid"],
            gid=raw["gid"],
            groups=None if raw["groups"] is None else tuple(raw["groups"]),
        )


PLAIN = Attributes()


def apply(attributes: Attributes, cwd: str | None) -> None:
    """Take on the attributes: what needs privileges first, then the user, then the directory as that user.

    Raises:
        SpawnFailed: something was refused; this process is fit for nothing but to end.
    """
    for name, soft, hard in attributes.rlimits:
        with _stage(f"rlimits {name}"):
            number = getattr(resource, f"RLIMIT_{name.upper()}", _UNKNOWN)
            resource.setrlimit(number, (soft, hard))
    if attributes.nice is not None:
        with _stage("nice"):
            os.setpriority(os.PRIO_PROCESS, 0, attributes.nice)
    if attributes.umask is not None:
        os.umask(attributes.umask)
    _switch(attributes)
    if cwd is not None:
        with _stage("cwd"):
            os.chdir(cwd)


def _switch(attributes: Attributes) -> None:
    """All ids, real, effective and saved: there is no way back."""
    uid, gid, groups = attributes.uid, attributes.gid, attributes.groups
    with _stage("user" if uid is not None else "groups"):
        if groups is not None:
            os.setgroups(groups)
    with _stage("user" if uid is not None else "group"):
        if gid is not None:
            os.setresgid(gid, gid, gid)
    with _stage("user"):
        if uid is not None:
            os.setresuid(uid, uid, uid)


@contextlib.contextmanager
def _stage(stage: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpawnFailed(error.errno or errno.EINVAL, stage) from error
    except ValueError as error:  # setrlimit says EPERM and EINVAL so
        number = errno.EPERM if "not allowed" in str(error) else errno.EINVAL
        raise SpawnFailed(number, stage) from error
