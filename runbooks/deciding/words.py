"""The words of deciding: outcomes, decisions, and what is known of the past. Pure.

All times are seconds on one scale that never jumps and survives the daemon (``timing``): ``now`` is on it too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runbooks.model import Facts, Predicate, Runbook, Status

NO_HELP: Final = frozenset({Status.FAILED, Status.ROLLED_BACK, Status.ROLLBACK_FAILED, Status.UNKNOWN})
"""Ends of a run that began and did not help."""
NEVER_BEGUN: Final = frozenset({Status.REJECTED, Status.EXPIRED, Status.CANCELLED})
LATCHING: Final = frozenset({Status.ROLLBACK_FAILED, Status.UNKNOWN})
"""Ends after which nobody knows what the target is: a person must look (``selfheal recovery release``)."""


class Outcome(enum.Enum):
    """The answer to an alert."""

    RUN = "run"
    DUPLICATE = "duplicate"
    COOLING = "cooling"
    QUEUED = "queued"
    NO_MATCH = "no_match"
    RECOVERY_OFF = "recovery_off"
    REJECTED = "rejected"
    SILENCED = "silenced"
    INHIBITED = "inhibited"
    BREAKER_OPEN = "breaker_open"
    LIMITED = "limited"
    BLAST_RADIUS = "blast_radius"
    LATCHED = "latched"
    OBSERVED = "observed"
    AWAITING_APPROVAL = "awaiting_approval"
    PENDING = "pending"


class Waits(enum.Enum):
    """What a pending alert waits for: that its condition goes on, more of its group, the end of the warm-up."""

    FOR = "for"
    GROUP = "group"
    WARM_UP = "warm_up"


@dataclass(frozen=True, slots=True)
class Pending:
    """An alert that is answered later, with those folded into it. ``key`` is equal for what is answered together."""

    key: str
    waits: Waits
    runbook_id: str
    alert_seq: int
    first_at: float
    last_at: float
    due_at: float
    count: int = 1
    severity: str = "high"


@dataclass(frozen=True, slots=True)
class Decision:
    """``execution_id`` names the earlier execution for a duplicate; a new one gets its id from whoever records it.

    ``pending`` is what is to be remembered of an alert that waits, or of the one it is folded into; ``settles`` is
    the key of what is answered together with it.
    """

    outcome: Outcome
    reason: str
    runbook: Runbook | None = None
    target: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    execution_id: str | None = None
    pending: Pending | None = None
    settles: str = ""

    @property
    def starts_execution(self) -> bool:
        return self.outcome in (Outcome.RUN, Outcome.QUEUED, Outcome.AWAITING_APPROVAL)


@dataclass(frozen=True, slots=True)
class PastRun:
    """One execution as deciding sees it. ``facts``: its alert's, kept while it is open; ``escalates``: whoever comes
    next on its ladder does so at once.
    """

    execution_id: str
    runbook_id: str
    target: str
    fingerprint: str
    status: Status
    decided_at: float
    ended_at: float | None = None
    severity: str = "high"
    started_at: float | None = None
    priority: int = 50
    facts: Facts | None = None
    escalates: bool = False

    @property
    def began_at(self) -> float | None:
        """When its first step may have been made; None: nothing was done."""
        if self.started_at is not None:
            return self.started_at
        if self.status is Status.RUNNING or (self.status.is_terminal and self.status not in NEVER_BEGUN):
            return self.decided_at
        return None


@dataclass(frozen=True, slots=True)
class Silence:
    """No recovery for alerts that all ``matchers`` fit, until ``until``."""

    id: str
    matchers: Predicate
    until: float
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Health:
    """How many of the services that are wanted are ready."""

    ready: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Storm:
    """Too many services are down. ``calm_since``: when enough were ready again; None: they are not."""

    min_healthy: str
    since: float
    calm_since: float | None = None


class History:
    """What deciding knows: executions that matter (all open ones, and those that ended lately), silences, latches.

    Mutable, for one thread. Found by what they are asked for, so that a decision costs the same whatever is remembered.

    Args:
        runs: oldest first.
        latches: target -> why nothing is done to it.
        health: how the services are now; it may raise. None: nobody can tell.
        warm_until: before it, what something else might inhibit waits.
    """

    __slots__ = (
        "_began",
        "_by_fingerprint",
        "_by_place",
        "_by_runbook",
        "_by_target",
        "_open",
        "_open_on",
        "_runs",
        "health",
        "is_recovery_on",
        "latches",
        "max_concurrent",
        "pending",
        "silences",
        "storms",
        "warm_until",
    )

    def __init__(
        self,
        runs: Sequence[PastRun] = (),
        max_concurrent: int = 5,
        is_recovery_on: bool = True,
        *,
        silences: Iterable[Silence] = (),
        latches: Mapping[str, str] | None = None,
        health: Callable[[], Health] | None = None,
        warm_until: float = float("-inf"),
    ) -> None:
        self.max_concurrent = max_concurrent
        self.is_recovery_on = is_recovery_on
        self.silences = tuple(silences)
        self.latches: dict[str, str] = dict(latches or {})
        self.health = health
        self.warm_until = warm_until
        self.pending: dict[str, Pending] = {}
        self.storms: dict[str, Storm] = {}
        """Those that are on, by ``min_healthy``."""
        self._runs: dict[str, PastRun] = {}
        self._by_fingerprint: dict[str, dict[str, PastRun]] = {}
        self._by_place: dict[tuple[str, str], dict[str, PastRun]] = {}
        self._by_runbook: dict[str, dict[str, PastRun]] = {}
        self._by_target: dict[str, dict[str, PastRun]] = {}
        self._began: dict[str, PastRun] = {}
        """In the order in which they began."""
        self._open: dict[str, PastRun] = {}
        self._open_on: dict[str, dict[str, PastRun]] = {}
        for run in sorted(runs, key=lambda one: one.began_at or 0.0):
            self._note_begin(run, None)
        for run in runs:
            self.put(run)

    # -- writing ----------------------------------------------------------------------------------------------------

    def put(self, run: PastRun) -> None:
        """Add it, or replace what was known of it."""
        key, is_open = run.execution_id, not run.status.is_terminal
        self._note_begin(run, self._began.get(key))
        self._by_target.setdefault(run.target, {})[key] = run
        self._runs[key] = run
        self._by_fingerprint.setdefault(run.fingerprint, {})[key] = run
        self._by_place.setdefault((run.runbook_id, run.target), {})[key] = run
        self._by_runbook.setdefault(run.runbook_id, {})[key] = run
        if is_open:
            self._open[key] = run
            self._open_on.setdefault(run.target, {})[key] = run
        elif self._open.pop(key, None) is not None:
            _take(self._open_on, run.target, key)

    def _note_begin(self, run: PastRun, before: PastRun | None) -> None:
        if before is not None and before.began_at != run.began_at:
            del self._began[run.execution_id]
        if run.began_at is not None:
            self._began[run.execution_id] = run

    def drop(self, execution_id: str) -> None:
        """As if it had never been."""
        run = self._runs.pop(execution_id, None)
        if run is None:
            return
        _take(self._by_fingerprint, run.fingerprint, execution_id)
        _take(self._by_place, (run.runbook_id, run.target), execution_id)
        _take(self._by_runbook, run.runbook_id, execution_id)
        _take(self._by_target, run.target, execution_id)
        self._began.pop(execution_id, None)
        if self._open.pop(execution_id, None) is not None:
            _take(self._open_on, run.target, execution_id)

    def remember(self, runs: Iterable[PastRun]) -> None:
        """Also these, oldest first; of those that are known already what is known counts."""
        together = {run.execution_id: run for run in runs} | self._runs
        for execution_id in tuple(self._runs):
            self.drop(execution_id)
        for run in sorted(together.values(), key=lambda one: one.began_at or 0.0):
            self._note_begin(run, None)
        for run in together.values():
            self.put(run)

    def forget(self, before: float) -> None:
        """Those that ended earlier."""
        for run in [one for one in self._runs.values() if one.ended_at is not None and one.ended_at < before]:
            self.drop(run.execution_id)

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def runs(self) -> tuple[PastRun, ...]:
        return tuple(self._runs.values())

    @property
    def running(self) -> tuple[PastRun, ...]:
        return tuple(run for run in self._open.values() if run.status is Status.RUNNING)

    @property
    def queued(self) -> tuple[PastRun, ...]:
        return tuple(run for run in self._open.values() if run.status is Status.QUEUED)

    @property
    def open_count(self) -> int:
        """Of those that are at work or queued."""
        return sum(1 for run in self._open.values() if run.status is not Status.AWAITING_APPROVAL)

    @property
    def open_runs(self) -> Iterable[PastRun]:
        return self._open.values()

    def get(self, execution_id: str) -> PastRun | None:
        return self._runs.get(execution_id)

    def alike(self, fingerprint: str) -> Iterable[PastRun]:
        """Runs for alerts that are one, oldest first."""
        return self._by_fingerprint.get(fingerprint, {}).values()

    def of(self, runbook_id: str, target: str) -> Iterable[PastRun]:
        return self._by_place.get((runbook_id, target), {}).values()

    def of_runbook(self, runbook_id: str) -> Iterable[PastRun]:
        return self._by_runbook.get(runbook_id, {}).values()

    def on(self, target: str) -> Iterable[PastRun]:
        return self._by_target.get(target, {}).values()

    def begun_since(self, since: float) -> Iterable[PastRun]:
        """Those that began then or later, the last one first."""
        for run in reversed(self._began.values()):
            if run.began_at is None or run.began_at < since:
                return
            yield run

    def open_on(self, target: str) -> Iterable[PastRun]:
        return self._open_on.get(target, {}).values()

    def running_on(self, target: str) -> PastRun | None:
        return next((run for run in self.open_on(target) if run.status is Status.RUNNING), None)


def _take(index: dict[Any, dict[str, PastRun]], key: Any, execution_id: str) -> None:
    found = index.get(key)
    if found is not None:
        found.pop(execution_id, None)
        if not found:
            del index[key]
