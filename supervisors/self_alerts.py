"""Watches services, box and daemon, and raises alerts for what is over its limit for too long; takes them back.

``look`` runs on its node's thread and is quick; the looking itself runs on the I/O pool, one at a time. What it says
goes the way of every alert. What fired when an earlier daemon ended is known from the journal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from actors.board import NodeState, NodeStatus
from actors.clock import Clock
from actors.journal.schema import JournalTrouble
from actors.own_alerts import OwnAlerts
from config.models import WatchConfig
from supervisors.decisions.thresholds import Change, Level, step
from supervisors.self_measures import Measured
from supervisors.self_words import CRASH_LOOP, SERVICE_SCOPE, Figure, Subject, alert_of, crash_loop_figure

RETELL_S: Final = 300.0
"""What goes on is told again so often: an answer of "not now" is then decided anew."""
HANGS_AFTER_S: Final = 30.0


@dataclass(frozen=True)
class WatchParts:
    """``status`` finds a service's node by name, None for one that is not configured; ``run`` runs on the I/O pool;
    ``labels``: what a crash loop of that name says beside.
    """

    watch: Callable[[], WatchConfig]
    measure: Callable[[], Measured]
    status: Callable[[str], NodeStatus | None]
    alerts: OwnAlerts
    clock: Clock
    run: Callable[[Callable[[], None]], object]
    labels: Callable[[str], Mapping[str, Any]] = lambda _name: {}


@dataclass
class _Raised:
    """``starts_at``: Unix seconds; ``told_s``: clock seconds."""

    starts_at: float
    told_s: float
    said: str = ""


@dataclass
class SelfAlerts:
    parts: WatchParts
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _levels: dict[Subject, Level] = field(default_factory=dict)
    _raised: dict[Subject, _Raised] = field(default_factory=dict)
    _ending: set[Subject] = field(default_factory=set)
    _is_loaded: bool = False
    _looked_s: float = float("-inf")
    _began_s: float | None = None
    _failed: str | None = None

    # -- the node's thread --------------------------------------------------------------------------------------------

    def look(self) -> str | None:
        """About once a second. Returns what is wrong with the looking itself."""
        now_s = self.parts.clock.now()
        with self._lock:
            began_s = self._began_s
            is_due = began_s is None and now_s - self._looked_s >= self.parts.watch().every
            if is_due:
                self._began_s = self._looked_s = now_s
        if is_due:
            try:
                self.parts.run(self._look)
            except RuntimeError:  # the daemon ends
                return None
        if began_s is not None and now_s - began_s > HANGS_AFTER_S:
            return f"looking at CPU, memory and disks has taken {now_s - began_s:.0f} s: is a file system away?"
        return self._failed

    # -- a supervisor's thread ----------------------------------------------------------------------------------------

    def parked(self, service: str, said: str) -> None:
        """A service is in a crash loop."""
        subject = Subject(CRASH_LOOP, SERVICE_SCOPE, service)
        with self._lock:
            known = self._raised.get(subject)
            starts_at = known.starts_at if known is not None else self.parts.alerts.clock.wall()
            self._levels[subject] = Level(is_raised=True)
            self._raised[subject] = _Raised(starts_at, self.parts.clock.now(), said)
            self._ending.discard(subject)
        self._tell(subject, self._crash_loop(service, said, is_well=False), starts_at)

    # -- the I/O pool -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        try:
            self._load()
            self._judge(self.parts.measure())
            self._failed = None
        except Exception as error:  # the next look may do better; services must not suffer
            self._failed = f"cannot look at CPU, memory and disks: {type(error).__name__}: {error}"
            structlog.get_logger().error("cannot look at usage", error=str(error))
        finally:
            with self._lock:
                self._began_s = None

    def _load(self) -> None:
        """What an earlier daemon said and nobody took back."""
        if self._is_loaded:
            return
        try:
            firing = self.parts.alerts.firing()
        except JournalTrouble:
            return  # asked again at the next look
        self._is_loaded = True
        with self._lock:
            for fingerprint, starts_at in firing.items():
                subject = Subject.of(fingerprint)
                if subject is not None and subject not in self._raised:
                    self._raised[subject] = _Raised(starts_at, float("-inf"))
                    self._levels[subject] = Level(is_raised=True)

    def _judge(self, measured: Mapping[Subject, Figure]) -> None:
        told: list[tuple[Subject, Figure, float]] = []
        over: list[Subject] = []
        now_s, watch = self.parts.clock.now(), self.parts.watch()
        with self._lock:
            figures = {**measured, **self._crash_loops()}
            for subject, figure in figures.items():
                before = self._levels.get(subject, Level())
                level, change = step(before, figure.limit, figure.value, now_s, 3 * watch.every + 1)
                self._levels[subject] = level
                raised = self._raised.get(subject)
                if change is Change.BEGAN:
                    raised = self._raised[subject] = _Raised(self.parts.alerts.clock.wall(), float("-inf"))
                    self._ending.discard(subject)  # an end that could not be written is none any more
                if change is Change.ENDED:
                    over.append(subject)
                elif raised is not None and now_s - raised.told_s >= RETELL_S:
                    raised.told_s = now_s
                    told.append((subject, figure, raised.starts_at))
            over += [subject for subject in self._raised if subject not in figures]  # nobody watches it any more
            for subject in self._levels.keys() - figures.keys():
                del self._levels[subject]
            for subject in over:
                del self._raised[subject]
            self._ending.update(over)
            ending = tuple(self._ending)
        for subject, figure, starts_at in told:
            self._tell(subject, figure, starts_at)
        for subject in ending:
            self._end(subject)

    def _crash_loops(self) -> dict[Subject, Figure]:
        """Of those that are said: is it over? Under the lock."""
        found = {}
        for subject, raised in self._raised.items():
            status = self.parts.status(subject.name) if subject.type == CRASH_LOOP else None
            if status is not None:
                is_well = status.state is NodeState.READY or not status.wanted
                found[subject] = self._crash_loop(subject.name, raised.said or "goes on crashing", is_well=is_well)
        return found

    def _crash_loop(self, name: str, said: str, *, is_well: bool) -> Figure:
        return crash_loop_figure(is_well, said, self.parts.watch(), self.parts.labels(name))

    def _tell(self, subject: Subject, figure: Figure, starts_at: float) -> None:
        self.parts.alerts.fires(subject.fingerprint, starts_at, alert_of(subject, figure))

    def _end(self, subject: Subject) -> None:
        def written(done: Future[Any]) -> None:
            if done.exception() is not None:
                return  # the next look tries again
            with self._lock:
                self._ending.discard(subject)
            structlog.get_logger().info("own alert over", type=subject.type, scope=subject.scope, name=subject.name)

        self.parts.alerts.is_over(subject.fingerprint).add_done_callback(written)
