"""Who a process is when no record says so: by the environment it was started with, and by the lock it inherited.

Every process of a service carries the service's name, its state directory and its run's token in its environment.
Looks only; no thread, no signal. Used when a service is looked for the first time, never on the way of a restart.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from actors.runtimes.launching import SERVICE_VARIABLE
from actors.runtimes.locks import holds
from actors.runtimes.procfs import HAS_PROC, TOKEN_VARIABLE, ProcessIdentity, ProcessLine, boot_id, read_line

STATE_VARIABLE: Final = "SELFHEAL_STATE"


@dataclass(frozen=True, slots=True)
class Stranger:
    """A living process of the service that no record of ours explains. ``command`` is what it runs now."""

    line: ProcessLine
    token: str
    command: tuple[str, ...]

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(self.line.pid, self.line.start_ticks, boot_id())


def unrecorded(place: Path, service: str, known_tokens: Collection[str]) -> tuple[Stranger, ...]:
    """The living processes started for this service of the state directory ``place``, under no token that is known."""
    if not HAS_PROC:
        return ()
    found = []
    for pid in psutil.pids():
        environ = environ_of(pid)
        token = environ.get(TOKEN_VARIABLE)
        if not token or token in known_tokens or environ.get(SERVICE_VARIABLE) != service or pid == os.getpid():
            continue
        line = read_line(pid)
        if line is not None and not line.is_dead and _is_same(environ.get(STATE_VARIABLE), place):
            found.append(Stranger(line, token, _command_of(pid)))
    return tuple(found)


def main_among(strangers: Sequence[Stranger], command: Sequence[str]) -> Stranger | None:
    """The one that can only be the main process of the newest run. Pure. None: there is none, or nobody can tell.

    A main process leads a session and is no child of another process of its run; where that leaves several, the one
    that runs the service's command is it.
    """
    by_pid = {one.line.pid: one for one in strangers}

    def is_child(one: Stranger) -> bool:
        parent = by_pid.get(one.line.parent)
        return parent is not None and parent.token == one.token

    leaders = [one for one in strangers if one.line.session == one.line.pid and not is_child(one)]
    if len(leaders) > 1:
        leaders = [one for one in leaders if one.command == tuple(command)]
    return leaders[0] if len(leaders) == 1 else None


def may_be(identity: ProcessIdentity, lock: Path) -> bool:
    """Whether a living process that shows no token can be the one a record names: it holds the service's lock, or
    its environment cannot be read or was written over. One that shows an environment of other origin is a stranger.
    """
    if holds(identity.pid, lock):
        return True
    line = read_line(identity.pid)
    return line is not None and line.session == identity.pid and not environ_of(identity.pid)


def environ_of(pid: int) -> Mapping[str, str]:
    """The environment a process was started with; empty when it may not be read."""
    try:
        return psutil.Process(pid).environ()
    except (psutil.Error, OSError, ValueError):
        return {}


def _command_of(pid: int) -> tuple[str, ...]:
    try:
        return tuple(psutil.Process(pid).cmdline())
    except (psutil.Error, OSError):
        return ()


def _is_same(written: str | None, place: Path) -> bool:
    """However the path is written: through a symlink, relative."""
    if not written:
        return False
    try:
        return Path(written).samefile(place)
    except OSError:
        return written == str(place)
