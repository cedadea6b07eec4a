"""Who belongs to a run, and how all of them are ended: by control group where there is one, else one by one.

One for all processes of a daemon. Any thread may call; may block.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

from actors.runtimes.base import StopFailed
from actors.runtimes.cgroups import Cgroups
from actors.runtimes.family import KILL_SIGNAL, OrphanHunt, family_now, kill_family, signal_process
from actors.runtimes.nursery import Nursery
from actors.runtimes.procfs import ProcessIdentity, TokenScan, ancestors_of, is_alive

SWEEP_S: Final = 5.0  # SIGKILL takes effect at once except in an uninterruptible disk wait
PATIENCE_S: Final = 0.1
"""How long to look again for whom, when somebody was gone before we had looked at him."""

Family = tuple[ProcessIdentity, ...]


class Sweeper:
    """A run is named by its service and its token."""

    def __init__(self, nursery: Nursery, cgroups: Cgroups | None) -> None:
        self.cgroups = cgroups
        self._nursery = nursery
        self._scan = TokenScan()
        self._scan_lock = threading.Lock()

    def close(self) -> None:
        if self.cgroups is not None:
            self.cgroups.close()

    # -- who is there ---------------------------------------------------------------------------------------------

    def know(self, main: ProcessIdentity, token: str) -> None:
        """This is a run's main process: what it forks belongs to the run, whatever it carries."""
        with self._scan_lock:
            self._scan.know(main, token)

    def look(self) -> None:
        """See who descends from whom, once in a while: what loses its parent later is then known all the same."""
        with self._scan_lock:
            self._scan.look()

    def family(self, main: ProcessIdentity, token: str) -> Family:
        """All of a run whose main process is not reaped yet."""
        with self._scan_lock:
            holders = self._scan.holders(token)
        return family_now(main, holders, self.protected())

    def living(self, token: str) -> Family:
        """Who carries the token or descends from who does: one look."""
        with self._scan_lock:
            found, _ = self._scan.members(token)
        protected = self.protected() if found else frozenset()
        return tuple(one for one in found if one.pid not in protected)

    def protected(self) -> frozenset[int]:
        """Who is never signalled, whatever a record says: init, ourselves, who started us, our keeper."""
        return frozenset({0, 1}) | self._nursery.parents() | ancestors_of(os.getpid())

    def place(self, service: str, token: str, main: ProcessIdentity) -> None:
        """Give the run a control group of its own, soon, where there are any."""
        if self.cgroups is not None:
            self.cgroups.place(service, token, main, lambda: self.family(main, token))

    # -- the end of all -------------------------------------------------------------------------------------------

    def sweep(self, service: str, token: str, seen: Family) -> None:
        """End all of a run.

        Args:
            seen: who belonged to it before the first signal.

        Raises:
            StopFailed: something would not die.
        """

        def find() -> Family:
            return tuple({member for member in seen if is_alive(member)} | set(self._doomed(service, token)))

        self._kill_group(service, token)
        self._kill_all(service, find)
        self.tidy(service, token)

    def swept(self, service: str, token: str) -> bool:
        """End what an ended run left; whether there was anything. Quick when there was nothing.

        Raises:
            StopFailed: something would not die.
        """
        was_empty = self._kill_group(service, token)
        # on the way to a restart: one look; the lock guards against a twin
        found = self.living(token) or self._hidden(service)
        if found:
            self._kill_all(service, lambda: self._doomed(service, token))
        self.tidy(service, token)
        return bool(found) or not was_empty

    def tidy(self, service: str, token: str) -> None:
        """Remove the run's control group, soon, if it is empty."""
        if self.cgroups is not None:
            self.cgroups.tidy(service, token)

    def _kill_group(self, service: str, token: str) -> bool:
        """Whether nothing is in the run's group (any more)."""
        return self.cgroups is None or self.cgroups.kill(service, token, SWEEP_S)

    def _kill_all(self, service: str, find: Callable[[], Family]) -> None:
        if left := kill_family(find, SWEEP_S):
            pids = ", ".join(str(member.pid) for member in left)
            raise StopFailed(f"service {service!r}: these processes would not die: {pids}")

    def _doomed(self, service: str, token: str) -> Family:
        """Who of the run was still there; most have just been killed."""
        protected = self.protected()
        OrphanHunt(token, protected, protected).run(SWEEP_S, PATIENCE_S)
        return self._killed_at_sight(token, protected) or self._hidden(service)

    def _killed_at_sight(self, token: str, protected: frozenset[int]) -> Family:
        """Who carries the token or descends from who does. Looks again while somebody may have been missed."""
        deadline = time.monotonic() + PATIENCE_S

        def kill(one: ProcessIdentity) -> None:
            if one.pid not in protected:
                signal_process(one, KILL_SIGNAL)

        while True:
            with self._scan_lock:
                found, is_all = self._scan.members(token, kill)
            if found or is_all or time.monotonic() >= deadline:
                return tuple(one for one in found if one.pid not in protected)

    def _hidden(self, service: str) -> Family:
        """Who shows in no way whose he is, and can be this service's only."""
        return tuple(one for one in self._nursery.hidden(service) if is_alive(one))
