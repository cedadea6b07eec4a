"""The words of deciding: outcomes, decisions, and what is known of the past. Pure.

All times are seconds on one scale that never jumps and survives the daemon (``timing``): ``now`` is on it too.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runbooks.deciding.indexes import Grouped, InTime
from runbooks.model import Facts, Predicate, Runbook, Scope, Status

NO_HELP: Final = frozenset({Status.FAILED, Status.ROLLED_BACK, Status.ROLLBACK_FAILED, Status.UNKNOWN})
"""Ends of a run that began and did not help."""
NEVER_BEGUN: Final = frozenset({Status.REJECTED, Status.EXPIRED, Status.CANCELLED})
"""Unless ``started_at`` says so."""
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
    the key of what is answered together with it. ``severity``: of the run, for all that it answers.
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
    severity: str = "high"

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
        "_began_in_all",
        "_began_of",
        "_began_on",
        "_count",
        "_decided_like",
        "_ended",
        "_ended_on",
        "_numbers",
        "_of_runbook",
        "_open",
        "_open_like",
        "_open_of",
        "_open_on",
        "_queued",
        "_running",
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
        self._numbers: dict[str, int] = {}
        """In the order in which they came to be known."""
        self._count = 0
        self._began: dict[str, PastRun] = {}
        """In the order in which they began."""
        self._began_on: InTime[str] = InTime()
        self._began_of: InTime[str] = InTime()
        self._began_in_all: InTime[str] = InTime()
        self._decided_like: InTime[str] = InTime()
        self._ended_on: InTime[tuple[str, str]] = InTime()
        """By runbook and target; without those that never began."""
        self._ended: list[tuple[float, str]] = []
        """A heap of what is to be forgotten; some of it may be forgotten already."""
        self._of_runbook: Grouped[str] = Grouped()
        self._open: dict[str, PastRun] = {}
        self._running: dict[str, PastRun] = {}
        self._queued: dict[str, PastRun] = {}
        self._open_on: Grouped[str] = Grouped()
        self._open_of: Grouped[str] = Grouped()
        self._open_like: Grouped[str] = Grouped()
        for run in sorted(runs, key=lambda one: one.began_at or 0.0):
            self._note_begin(run, None)
        for run in runs:
            self.put(run)

    # -- writing ----------------------------------------------------------------------------------------------------

    def put(self, run: PastRun) -> None:
        """Add it, or replace what was known of it."""
        key = run.execution_id
        before = self._runs.get(key)
        if before is not None and _place(before) != _place(run):  # another run by the same name
            self.drop(key)
            before = None
        if before is None:
            self._count += 1
            self._numbers[key] = self._count
            self._of_runbook.add(run.runbook_id, key)
        self._note_begin(run, self._began.get(key))
        self._runs[key] = run
        self._note_instants(run, before)
        self._note_open(run)

    def _note_begin(self, run: PastRun, before: PastRun | None) -> None:
        if before is not None and before.began_at != run.began_at:
            del self._began[run.execution_id]
        if run.began_at is not None:
            self._began[run.execution_id] = run

    def _note_instants(self, run: PastRun | None, before: PastRun | None) -> None:
        """``before`` is not so any more, ``run`` is."""
        known = run or before
        if known is None:
            return
        key, number = known.execution_id, self._numbers[known.execution_id]
        decided = (_answered_at(before), _answered_at(run))
        began = (before.began_at if before else None, run.began_at if run else None)
        ended = (_counted_end(before), _counted_end(run))
        if decided[0] != decided[1]:
            _move(self._decided_like, known.fingerprint, *decided, number, key)
        if began[0] != began[1]:
            _move(self._began_on, known.target, *began, number, key)
            _move(self._began_of, known.runbook_id, *began, number, key)
            _move(self._began_in_all, "", *began, number, key)
        if ended[0] != ended[1]:
            _move(self._ended_on, (known.runbook_id, known.target), *ended, number, key)
        if run is not None and run.ended_at is not None and (before is None or before.ended_at != run.ended_at):
            heapq.heappush(self._ended, (run.ended_at, key))

    def _note_open(self, run: PastRun) -> None:
        key, status = run.execution_id, run.status
        if status.is_terminal:
            if self._open.pop(key, None) is not None:
                self._close(run)
            return
        if key not in self._open:
            self._open_on.add(run.target, key)
            self._open_of.add(run.runbook_id, key)
            self._open_like.add(run.fingerprint, key)
        self._open[key] = run
        for index, its_status in ((self._running, Status.RUNNING), (self._queued, Status.QUEUED)):
            if status is its_status:
                index[key] = run
            else:
                index.pop(key, None)

    def _close(self, run: PastRun) -> None:
        key = run.execution_id
        self._running.pop(key, None)
        self._queued.pop(key, None)
        self._open_on.take(run.target, key)
        self._open_of.take(run.runbook_id, key)
        self._open_like.take(run.fingerprint, key)

    def drop(self, execution_id: str) -> None:
        """As if it had never been."""
        run = self._runs.pop(execution_id, None)
        if run is None:
            return
        self._note_instants(None, run)
        self._of_runbook.take(run.runbook_id, execution_id)
        self._began.pop(execution_id, None)
        if self._open.pop(execution_id, None) is not None:
            self._close(run)
        del self._numbers[execution_id]

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
        while self._ended and self._ended[0][0] < before:
            ended_at, execution_id = heapq.heappop(self._ended)
            run = self._runs.get(execution_id)
            if run is not None and run.ended_at == ended_at:
                self.drop(execution_id)

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def runs(self) -> tuple[PastRun, ...]:
        """In the order in which they came to be known; so are all that follow, unless something else is said."""
        return tuple(self._runs.values())

    @property
    def running(self) -> tuple[PastRun, ...]:
        return tuple(self._running.values())

    @property
    def queued(self) -> tuple[PastRun, ...]:
        return tuple(self._queued.values())

    @property
    def has_running(self) -> bool:
        return bool(self._running)

    @property
    def has_queued(self) -> bool:
        return bool(self._queued)

    @property
    def open_count(self) -> int:
        """Of those that are at work or queued."""
        return len(self._running) + len(self._queued)

    @property
    def open_runs(self) -> Iterable[PastRun]:
        return self._open.values()

    def get(self, execution_id: str) -> PastRun | None:
        return self._runs.get(execution_id)

    def alike(self, fingerprint: str, now: float, window_s: float) -> list[PastRun]:
        """Runs for alerts that are one: the open ones, and those decided within the window; the last one first. Not one
        that was cancelled before it began, as when its alert was over: the next alert is another.
        """
        found = set(self._open_like.of(fingerprint))
        for decided_at, _, key in self._decided_like.latest(fingerprint):
            if now - decided_at >= window_s:
                break
            if now >= decided_at:
                found.add(key)
        if len(found) > 1:
            return [self._runs[key] for key in sorted(found, key=self._numbers.__getitem__, reverse=True)]
        return [self._runs[key] for key in found]

    def ended_latest(self, runbook_id: str, target: str) -> Iterator[PastRun]:
        """What began and ended, the latest end first; of one instant the one known last."""
        for _, _, key in self._ended_on.latest((runbook_id, target)):
            yield self._runs[key]

    def has_not_helped(self, runbook_id: str, target: str) -> bool:
        """Whether the last end of what began was no success."""
        key = self._ended_on.last((runbook_id, target))
        return key is not None and self._runs[key].status is not _SUCCEEDED

    def of_runbook(self, runbook_id: str) -> Iterable[PastRun]:
        return [self._runs[key] for key in self._of_runbook.of(runbook_id)]

    def open_of(self, runbook_id: str) -> Iterable[PastRun]:
        """In the order in which they became open."""
        return [self._runs[key] for key in self._open_of.of(runbook_id)]

    def nth_begun(self, scope: Scope, runbook_id: str, target: str, nth: int, but: str = "") -> float | None:
        """When the nth from the last of these began (1: the last); None when there are fewer. ``but`` is left out."""
        if scope is _ON_TARGET:
            index, key = self._began_on, target
        elif scope is _OF_RUNBOOK:
            index, key = self._began_of, runbook_id
        else:
            index, key = self._began_in_all, ""
        at = index.nth_latest(key, nth)
        left_out = self._began.get(but)
        if at is None or left_out is None or (left_out.began_at or 0.0) < at:
            return at
        is_one_of_these = key in (left_out.target if index is self._began_on else left_out.runbook_id, "")
        return index.nth_latest(key, nth + 1) if is_one_of_these else at

    def begun_since(self, since: float) -> Iterable[PastRun]:
        """Those that began then or later, the last one first."""
        for run in reversed(self._began.values()):
            if run.began_at is None or run.began_at < since:
                return
            yield run

    def open_on(self, target: str) -> Iterable[PastRun]:
        """In the order in which they became open."""
        return [self._runs[key] for key in self._open_on.of(target)]

    def running_on(self, target: str) -> PastRun | None:
        return next((run for run in self.open_on(target) if run.status is Status.RUNNING), None)


_SUCCEEDED: Final = Status.SUCCEEDED
_ON_TARGET: Final = Scope.TARGET
_OF_RUNBOOK: Final = Scope.RUNBOOK


def _place(run: PastRun) -> tuple[str, str, str]:
    return (run.runbook_id, run.target, run.fingerprint)


def _counted_end(run: PastRun | None) -> float | None:
    return None if run is None or run.began_at is None else run.ended_at


def _answered_at(run: PastRun | None) -> float | None:
    """From when its alert counts as answered; None for one that was taken back before anything was done."""
    if run is None or (run.status is Status.CANCELLED and run.began_at is None):
        return None
    return run.decided_at


def _move(index: InTime[Any], key: Any, before: float | None, at: float | None, number: int, execution_id: str) -> None:
    if before is not None:
        index.take(key, (before, number, execution_id))
    if at is not None:
        index.add(key, (at, number, execution_id))
