"""What an earlier daemon left alive although nobody wants it any more: stopped when the next one starts.

A service a person stopped (the daemon was killed before it was down), one that is no longer configured or of which
none is to run any more (scaled to 0). Runs on a thread of its own: no wanted service waits for it. Tries until it is
done: the engine may be away.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import structlog

from actors.failpoints import reached, register
from actors.former import MAY_LIVE
from actors.ledger import ServiceRecord
from actors.runtimes.base import Runtime, StopFailed, TruthUnknown

RETRY_S: Final = 2.0
GRACE_S: Final = 10.0
"""What a service gets whose configuration is gone."""
CLEAR_WANTED: Final = register("daemon.clear.wanted", "something nobody wants may live, nobody has looked")
CLEARED: Final = register("daemon.clear.done", "nothing of it lives, the ledger still knows it")
CLEAR_FORGOTTEN: Final = register("daemon.clear.forgotten", "it was cleared, and forgotten if it is not configured")


@dataclass(frozen=True, slots=True)
class Leftover:
    service: str
    runtime: str
    grace_s: float
    is_configured: bool


def leftovers(
    records: Mapping[str, ServiceRecord], graces_s: Mapping[str, float], idle: AbstractSet[str]
) -> tuple[Leftover, ...]:
    """Whose runs may live and should not. Pure. Each is cleared by the runtime that began it, which leaves alone what
    was only attached to; what an edit of the file makes another run is ended by its service (``actors.former``).

    Args:
        records: what the ledger knew when the daemon started.
        graces_s: configured services and the seconds each gets to end.
        idle: those of them of which none is to run.
    """
    return tuple(
        Leftover(name, record.runtime, graces_s.get(name, GRACE_S), name in graces_s)
        for name, record in records.items()
        if record.phase in MAY_LIVE and (record.stopped is not None or name in idle or name not in graces_s)
    )


class Cleaner:
    """Args:
    forget: called for a service that is no longer configured, once nothing of it is left.
    is_stopped: whether a configured one is still wanted down.
    """

    def __init__(
        self,
        found: tuple[Leftover, ...],
        runtimes: Mapping[str, Runtime],
        forget: Callable[[str], None],
        is_stopped: Callable[[str], bool],
    ) -> None:
        self._found = found
        self._runtimes = runtimes
        self._forget = forget
        self._is_stopped = is_stopped
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._spared: set[str] = set()

    def start(self) -> None:
        for one in self._found:
            self._begin(one)

    def add(self, one: Leftover) -> None:
        """One more, found while the daemon runs. Any thread."""
        self._spared.discard(one.service)
        self._begin(one)

    def spare(self, service: str) -> None:
        """It is wanted again: it is not cleared any more. Any thread."""
        self._spared.add(service)

    def _begin(self, one: Leftover) -> None:
        thread = threading.Thread(target=self._clear, args=(one,), name=f"leftover:{one.service}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def _is_wanted_again(self, one: Leftover) -> bool:
        return one.service in self._spared or (one.is_configured and not self._is_stopped(one.service))

    def _clear(self, one: Leftover) -> None:
        log = structlog.get_logger().bind(service=one.service, configured=one.is_configured)
        runtime = self._runtimes.get(one.runtime)
        said: str | None = None
        while runtime is not None and not self._closed.is_set() and not self._is_wanted_again(one):
            try:
                reached(CLEAR_WANTED)
                if runtime.clear(one.service, one.grace_s):
                    log.info("left over from an earlier daemon: stopped")
                reached(CLEARED)
                if not one.is_configured:
                    self._forget(one.service)
                reached(CLEAR_FORGOTTEN)
                return
            except (TruthUnknown, StopFailed, OSError) as error:
                if str(error) != said:
                    log.warning("left over from an earlier daemon: cannot be stopped yet", error=str(error))
                said = str(error)
            self._closed.wait(RETRY_S)
