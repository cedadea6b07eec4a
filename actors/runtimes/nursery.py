"""Who is the parent of the services' processes: the daemon itself, or its keeper.

``ProcessRuntime`` decides what is to be started and stopped; a nursery spawns, knows ends, and signals safely. Methods
may block and run on the I/O pool; ends are told on a watcher's thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from actors.clock import Clock
from actors.exit_watcher import Ended, ExitWatcher
from actors.runtimes.base import LaunchSpec, RestartAtOnce
from actors.runtimes.family import signal_group
from actors.runtimes.launching import Spawner
from actors.runtimes.procfs import ProcessIdentity, boot_id, read_line

KILL_SIGNAL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Kept:
    """A run that a keeper knows. ``ended`` is None while it lives; ``at`` is the wall time of its end."""

    service: str
    run: int
    token: str
    identity: ProcessIdentity
    started_at: float
    ended: Ended | None = None
    at: float = 0.0
    asked: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """How a run ended, and the run that was started in its place at once (armed)."""

    ended: Ended
    successor: Kept | None = None


OnNews = Callable[[News], None]


class Nursery(Protocol):
    def spawn(self, spec: LaunchSpec, run: int, token: str) -> Kept:
        """Start a main process. It must be watched next.

        Raises:
            LaunchError: what is missing or refused, and where. Nothing was started.
        """

    def watch(self, kept: Kept, on_news: OnNews) -> None:
        """Tell the end of a run that was spawned here, is kept, or was found by its identity.

        Raises:
            ProcessLookupError: it is gone. OSError, ValueError: it cannot be watched.
        """

    def drop(self, kept: Kept) -> None:
        """Kill a spawned run that cannot be watched."""

    def kept(self, service: str) -> Kept | None:
        """The newest run of this service a keeper knows, living or ended and not yet recorded."""

    def all_kept(self) -> tuple[Kept, ...]:
        """``kept`` of every service."""

    def signal(self, kept: Kept, number: int, *, asked: bool) -> bool:
        """Signal the main process and its group, unless it has ended. ``asked``: its end is our wish."""

    def arm(self, kept: Kept, order: RestartAtOnce | None) -> None:
        """Give or take back the standing order. A nursery that cannot does nothing."""

    def order_token(self, service: str) -> str | None:
        """The token of the run that the last standing order for this service starts or has started."""

    def recorded(self, service: str, run: int) -> None:
        """The end of this run is in the ledger."""

    def parents(self) -> frozenset[int]:
        """The processes to which orphans fall."""

    def hidden(self, service: str) -> tuple[ProcessIdentity, ...]:
        """Orphans that show in no way whose they are, and can be this service's only."""

    def close(self) -> None:
        """End the threads; the processes live on."""


class LocalNursery:
    """The daemon spawns by itself: where there is no keeper."""

    def __init__(self, watcher: ExitWatcher, spawner: Spawner, clock: Clock) -> None:
        self._watcher = watcher
        self._spawner = spawner
        self._clock = clock
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def spawn(self, spec: LaunchSpec, run: int, token: str) -> Kept:
        child = self._spawner.spawn(spec, token)
        started_at = self._clock.wall()
        line = read_line(child.pid)  # nobody but the watcher reaps it, so its line is there even if it died at once
        with self._lock:
            self._children[child.pid] = child
        identity = ProcessIdentity(child.pid, line.start_ticks if line else 0, boot_id())
        return Kept(spec.service, run, token, identity, started_at)

    def watch(self, kept: Kept, on_news: OnNews) -> None:
        pid = kept.identity.pid
        with self._lock:
            child = self._children.get(pid)
        self._watcher.watch(
            pid,
            lambda ended: on_news(News(ended)),
            child=child,
            before_reap=None if child is None else lambda: _kill_rest_of_group(pid),
        )
        with self._lock:
            self._children.pop(pid, None)

    def drop(self, kept: Kept) -> None:
        self.dropped(kept)

    def dropped(self, kept: Kept) -> bool:
        """``drop``; False when it was not spawned here."""
        with self._lock:
            child = self._children.pop(kept.identity.pid, None)
        if child is None:
            return False
        os.killpg(child.pid, KILL_SIGNAL)
        child.wait()
        return True

    def kept(self, service: str) -> Kept | None:
        del service  # what a daemon spawned by itself is in nobody's memory but its own
        return None

    def all_kept(self) -> tuple[Kept, ...]:
        return ()

    def signal(self, kept: Kept, number: int, *, asked: bool) -> bool:
        del asked  # only a keeper might start it again
        return signal_group(kept.identity, number)

    def arm(self, kept: Kept, order: RestartAtOnce | None) -> None:
        del kept, order  # nobody is there to be given an order

    def order_token(self, service: str) -> str | None:
        del service
        return None

    def recorded(self, service: str, run: int) -> None:
        del service, run  # nobody else knows of it

    def parents(self) -> frozenset[int]:
        return frozenset({os.getpid()})

    def hidden(self, service: str) -> tuple[ProcessIdentity, ...]:
        del service  # the daemon has children of many kinds
        return ()

    def close(self) -> None:
        self._watcher.close()


def _kill_rest_of_group(pid: int) -> None:
    """The main process is dead but still holds its pid, so this number can only be its own group's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, KILL_SIGNAL)
