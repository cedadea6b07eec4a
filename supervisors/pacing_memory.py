"""What supervisors must not forget of their children's failures, kept in the ledger. Any thread; nothing is waited for.

Times are of the clock that runs since boot: one of another boot means nothing any more, and a machine that was started
anew begins with a clean slate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from actors.clock import Clock
from actors.ledger import Ledger, Phase
from actors.runtimes.procfs import boot_id
from actors.spec import ChildPast

MOST_FAILURES: Final = 1_000_000_000
"""More in a row than any service can have had since the machine was started."""


@dataclass(frozen=True, slots=True)
class LedgerMemory:
    """``PacingMemory`` over the ledger.

    Args:
        path_of: the path of a service by its name; None for what is no service.
        is_idle: whether none of a service is to run (scaled to 0).
    """

    ledger: Ledger
    clock: Clock
    path_of: Callable[[str], str | None]
    is_idle: Callable[[str], bool] = lambda _name: False

    def recall(self, path: str) -> ChildPast | None:
        name = self._service(path)
        if name is None:
            return None
        past = self._read(name)
        may_live = self.ledger.record(name).phase is not Phase.EXITED
        return replace(past, not_before=None) if past is not None and may_live else past

    def keep(self, path: str, past: ChildPast) -> None:
        name = self._service(path)
        if name is not None:
            self._write(name, past)

    def is_held(self, path: str) -> bool | None:
        name = self._service(path)
        return None if name is None else self.is_idle(name) or self.ledger.record(name).stopped is not None

    def missed(self, name: str, ended_at: float) -> None:
        """A run of this service ended at that wall time and was started again, while nobody was there to count it.

        That is done only for a service that had not failed before, or had been stable since.
        """
        past = self._read(name) or ChildPast()
        at = self.clock.now() - max(0.0, self.clock.wall() - ended_at)
        self._write(name, ChildPast(failures=1, paced_at=(*past.paced_at, at)))

    def _service(self, path: str) -> str | None:
        name = path.rsplit("/", 1)[-1]
        return name if self.path_of(name) == path else None

    def _write(self, name: str, past: ChildPast) -> None:
        self.ledger.paced(
            name,
            {
                "failures": past.failures,
                "is_exhausted": past.is_exhausted,
                "paced_at": list(past.paced_at),
                "not_before": past.not_before,
                "is_stale": past.is_stale,
                "boot_id": boot_id(),
            },
        )

    def _read(self, name: str) -> ChildPast | None:
        facts = self.ledger.record(name).pacing
        if facts is None or facts.get("boot_id") != boot_id():
            return None
        try:
            return _past(facts, self.clock.now())
        except (KeyError, TypeError, ValueError, OverflowError):  # damaged: it keeps no service from being started
            return None


def _past(facts: Mapping[str, Any], now: float) -> ChildPast:
    """What is written, without what cannot be so. How long a child may wait at most its supervisor knows (``step``).

    Raises:
        KeyError, TypeError, ValueError, OverflowError: it makes no sense as a whole.
    """
    failures, not_before = int(facts["failures"]), facts["not_before"]
    if not 0 <= failures <= MOST_FAILURES:
        raise ValueError(f"no number of failures: {failures}")
    waits_until = None if not_before is None else float(not_before)
    paced_at = tuple(float(at) for at in facts["paced_at"])
    return ChildPast(
        failures,
        bool(facts["is_exhausted"]),
        tuple(at for at in paced_at if math.isfinite(at) and at <= now),
        waits_until if waits_until is None or math.isfinite(waits_until) else None,
        bool(facts.get("is_stale", False)),
    )
