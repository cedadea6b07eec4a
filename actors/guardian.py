"""Decides about alerts: the thin shell round ``runbooks.matching``.

Runs in its own actor thread and never blocks. Its memory of the past comes from the journal; alerts that were stored
and not decided, and executions that did not end, are taken up again after a restart.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from actors.board import NodeKind, NodeState, NodeStatus
from actors.context import ActorContext
from actors.journal import happened, rows
from actors.journal.alert_batches import NewDecision
from actors.journal.journal import Journal
from actors.journal.rows import Execution, OpenAlert
from actors.journal.schema import JournalTrouble
from actors.kernel import SupervisedActor
from actors.messages import AddChild, IoDone, Wake
from actors.recent import Recent
from actors.runbook import ExecutionFinished, RunbookActor, RunbookParts
from actors.saying import Sayer
from actors.spec import ChildSpec, ExitReason, Restart
from runbooks.matching import Decision, History, Outcome, PastRun, decide, severity_of, startable
from runbooks.model import Status
from runbooks.parse import Library

REMEMBER_S: Final = 24 * 3600.0
"""Executions that ended longer ago are no reason for dedup or cooldown."""
RETRY_S: Final = 1.0
AT_ONCE: Final = 2000
"""Alerts read from the journal at a time."""
MOST_SEEN: Final = 20_000
"""Alerts remembered so that one told of twice is decided once; the journal keeps that promise for older ones."""
SWITCH_KEY: Final = "recovery"
RUNBOOKS_PATH: Final = "root/runbooks"


@dataclass(frozen=True, slots=True)
class AlertsStored:
    """New alerts are on disk and wait to be decided."""

    alerts: tuple[OpenAlert, ...]


@dataclass(frozen=True, slots=True)
class LookAgain:
    """More alerts were stored than could be told: those that wait are in the journal."""


@dataclass(frozen=True, slots=True)
class RecoverySwitched:
    """A person switched recovery on or off (already remembered)."""

    enabled: bool


class Decided(NamedTuple):
    """What was decided about one alert, on disk. ``body`` is the wire's DECIDED."""

    alert: OpenAlert
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Loaded:
    alerts: list[OpenAlert]
    executions: list[Execution]
    past: list[PastRun]


class _Made(NamedTuple):
    """A decision on its way to the disk."""

    alert: OpenAlert
    execution: Execution | None


@dataclass(frozen=True, slots=True)
class _DecisionsWritten:
    """``stands``: the decisions that stand, in the order of ``made``; none when they could not be written."""

    made: list[_Made]
    stands: list[Mapping[str, Any]]
    error: BaseException | None


@dataclass(frozen=True)
class GuardianParts:
    """What the guardian needs. ``decided`` and ``finished`` answer senders, ``begun`` says that an incarnation decides
    from here on; they must only hand on.
    """

    journal: Journal
    library: Library
    runbooks: RunbookParts
    decided: Callable[[Sequence[Decided]], object]
    finished: Callable[[ExecutionFinished], object]
    is_enabled: Callable[[], bool]
    max_concurrent: int = 5
    begun: Callable[[], object] = lambda: None


class GuardianActor(SupervisedActor):
    node_kind = NodeKind.LINK

    def __init__(self, context: ActorContext, parts: GuardianParts) -> None:
        super().__init__(context)
        self._parts = parts
        self._history = History(max_concurrent=parts.max_concurrent)
        self._executions: dict[str, Execution] = {}
        self._early: list[OpenAlert] | None = []
        self._seen = Recent(MOST_SEEN)
        self._sayer = Sayer(self._sum_up)
        self._shown: tuple[object, ...] = ()
        self._since = context.system.clock.wall()

    # -- kernel hooks -----------------------------------------------------------------------------------------------

    def setup(self) -> object:
        self._load()
        self._show(NodeState.STARTING)
        return None

    def _load(self) -> None:
        journal, since = self._parts.journal, self.context.system.clock.wall() - REMEMBER_S
        self.context.system.io.run(
            lambda: journal.read(
                lambda db: _Loaded(rows.undecided(db, 0, AT_ONCE), rows.unfinished(db), rows.past_runs(db, since))
            ),
            self.ref,
            "load",
        )

    def _load_more(self, after: int) -> None:
        """Those that wait in the journal beyond the number ``after``, a part at a time."""
        journal = self._parts.journal
        self.context.system.io.run(
            lambda: journal.read(lambda db: rows.undecided(db, after, AT_ONCE)), self.ref, LookAgain()
        )

    def handle(self, message: Any) -> Any:
        match message:
            case IoDone(tag="load", error=JournalTrouble() as trouble):  # it cannot be read now: ask again
                self._show(NodeState.DEGRADED, f"nothing can be decided: {trouble}")
                self.context.system.timers.after(RETRY_S, self.ref, Wake("load"))
            case Wake(token="load"):
                self._load()
            case IoDone(tag="load", error=error) if error is not None:
                raise error
            case IoDone(tag="load", result=_Loaded() as loaded):
                self._take_up(loaded)
            case AlertsStored(alerts):
                self._decide(alerts)
            case _DecisionsWritten():
                self._written(message)
            case LookAgain():
                self._load_more(0)
            case IoDone(tag=LookAgain()):
                self._loaded_more(message)
            case ExecutionFinished():
                self._finished(message)
            case RecoverySwitched():
                self._start_queued()
                self._show(NodeState.READY)
            case Wake(token=AlertsStored(alerts)):
                self._decide(alerts, again=True)
            case _:
                super().handle(message)
        return None

    def teardown(self, reason: ExitReason) -> None:
        self._show(NodeState.STOPPED if reason.is_clean else NodeState.FAILED)

    # -- deciding ---------------------------------------------------------------------------------------------------

    def _take_up(self, loaded: _Loaded) -> None:
        """What an earlier daemon, or an earlier incarnation, left open."""
        self._history = replace(self._history, runs=tuple(loaded.past))
        early, self._early = self._early or [], None
        for execution in loaded.executions:
            self._executions[execution.id] = execution
            if execution.status is Status.RUNNING:
                self._start(execution)
        self._parts.begun()
        self._decide((*loaded.alerts, *early))
        self._load_more(0)  # what is beyond those, and what was stored and told to nobody meanwhile
        self._start_queued()
        self._show(NodeState.READY)
        self.ready()

    def _load_rest(self, loaded: list[OpenAlert]) -> None:
        if len(loaded) >= AT_ONCE:
            self._load_more(loaded[-1].seq)

    def _loaded_more(self, done: IoDone) -> None:
        if isinstance(done.error, JournalTrouble):
            self.context.system.timers.after(RETRY_S, self.ref, LookAgain())
        elif done.error is not None:
            raise done.error
        else:
            alerts: list[OpenAlert] = done.result
            self._decide(alerts)
            self._load_rest(alerts)

    def _decide(self, alerts: Sequence[OpenAlert], *, again: bool = False) -> None:
        """All of them, written with one commit."""
        if self._early is not None:
            self._early += alerts
            return
        now = self.context.system.clock.wall()
        self._forget_old(now)
        if self._history.is_recovery_on != self._parts.is_enabled():
            self._history = replace(self._history, is_recovery_on=self._parts.is_enabled())
        made: list[_Made] = []
        decisions: list[NewDecision] = []
        for alert in alerts:
            if alert.seq in self._seen and not again:
                continue  # it was told of more than once
            self._seen.add(alert.seq)
            decision = decide(alert.facts, self._parts.library, self._history, now)
            execution = self._execution(alert, decision, now) if decision.starts_execution else None
            made.append(_Made(alert, execution))
            decisions.append(NewDecision(alert.seq, _body(decision, execution), execution, now))
        if made:
            self._write(made, decisions)

    def _execution(self, alert: OpenAlert, decision: Decision, now: float) -> Execution:
        runbook = decision.runbook
        if runbook is None:
            raise ValueError(f"a decision to run without a runbook: {decision.reason}")
        status = Status.RUNNING if decision.outcome is Outcome.RUN else Status.QUEUED
        execution = Execution(
            f"x-{uuid.uuid4().hex[:16]}",
            alert.seq,
            runbook.id,
            runbook.source,
            runbook.sha256,
            decision.target,
            decision.parameters,
            decision.fingerprint,
            severity_of(alert.facts),
            runbook.priority,
            status,
            now,
        )
        self._executions[execution.id] = execution
        run = PastRun(
            execution.id, runbook.id, decision.target, decision.fingerprint, status, now, None, execution.severity
        )
        self._history = replace(self._history, runs=(*self._history.runs, run))
        return execution

    def _write(self, made: list[_Made], decisions: list[NewDecision]) -> None:
        starts_none = all(one.execution is None for one in decisions)
        path, alerts = self.context.path, [one.alert for one in made]
        future = self._parts.journal.submit(
            lambda db: happened.decide_alerts(db, path, alerts, decisions),
            is_simple=starts_none,
            is_patient=starts_none,
        )
        future.add_done_callback(lambda done: self.ref.tell(_as_written(made, done)))

    def _written(self, written: _DecisionsWritten) -> None:
        """Only what is on disk is told and started."""
        if written.error is not None:
            self.log.error("decisions could not be written, trying again", error=str(written.error))
            for one in written.made:
                self._drop(one.execution)
            again = AlertsStored(tuple(one.alert for one in written.made))
            self.context.system.timers.after(RETRY_S, self.ref, Wake(again))
            return
        told: list[Decided] = []
        for one, stands in zip(written.made, written.stands, strict=True):
            execution = one.execution
            if execution is not None and stands.get("execution_id") != execution.id:
                self._drop(execution)  # an earlier incarnation's decision stands
                execution = None
            if execution is not None or self._sayer.may_say(str(stands.get("outcome"))):
                self.log.info("alert decided", alert=one.alert.msg_id, **dict(stands))
            told.append(Decided(one.alert, stands))
            if execution is not None and execution.status is Status.RUNNING:
                self._start(execution)
        self._parts.decided(told)
        self._show(NodeState.READY)

    def _drop(self, execution: Execution | None) -> None:
        if execution is not None:
            self._executions.pop(execution.id, None)
            self._drop_run(execution.id)

    def _sum_up(self, count: int, outcomes: Mapping[str, int]) -> None:
        self.log.info("alerts decided", more=count, outcomes=dict(outcomes))

    # -- executions -------------------------------------------------------------------------------------------------

    def _start(self, execution: Execution) -> None:
        runbooks = self.context.system.whereis(RUNBOOKS_PATH)
        if runbooks is None:
            self.log.error("no runbook supervisor", execution=execution.id)
            return
        spec = ChildSpec(
            id=execution.id,
            start=RunbookActor,
            args=(execution, self._parts.runbooks),
            restart=Restart.TRANSIENT,
            shutdown=5.0,
        )
        runbooks.tell(AddChild(spec))

    def _finished(self, finished: ExecutionFinished) -> None:
        now = self.context.system.clock.wall()
        self._executions.pop(finished.execution_id, None)
        self._history = replace(
            self._history,
            runs=tuple(
                replace(run, status=finished.status, ended_at=now) if run.execution_id == finished.execution_id else run
                for run in self._history.runs
            ),
        )
        self.log.info(
            "execution ended", execution=finished.execution_id, status=finished.status.value, detail=finished.detail
        )
        self._parts.finished(finished)
        self._start_queued()
        self._show(NodeState.READY)

    def _start_queued(self) -> None:
        queue = [
            (self._executions[run.execution_id].priority, run)
            for run in self._history.runs
            if run.status is Status.QUEUED and run.execution_id in self._executions
        ]
        for run in startable(queue, self._history) if self._parts.is_enabled() else ():
            execution = replace(self._executions[run.execution_id], status=Status.RUNNING)
            self._executions[run.execution_id] = execution
            self._history = replace(
                self._history,
                runs=tuple(
                    replace(one, status=Status.RUNNING) if one.execution_id == run.execution_id else one
                    for one in self._history.runs
                ),
            )
            self._start(execution)

    def _drop_run(self, execution_id: str) -> None:
        if not self._history.runs:
            return
        runs = tuple(run for run in self._history.runs if run.execution_id != execution_id)
        self._history = replace(self._history, runs=runs)

    def _forget_old(self, now: float) -> None:
        if not self._history.runs:
            return
        runs = tuple(run for run in self._history.runs if run.ended_at is None or now - run.ended_at < REMEMBER_S)
        if len(runs) != len(self._history.runs):
            self._history = replace(self._history, runs=runs)

    def _show(self, state: NodeState, trouble: str | None = None) -> None:
        shown = (state, trouble, self._history, self._parts.is_enabled())
        if shown == self._shown:
            return
        self._shown = shown
        running, queued = len(self._history.running), sum(run.status is Status.QUEUED for run in self._history.runs)
        words = [] if trouble is None else [trouble]
        words += [] if self._parts.is_enabled() else ["recovery is off"]
        words += [f"{running} running"] if running else []
        words += [f"{queued} queued"] if queued else []
        self.context.system.board.publish(
            NodeStatus(
                self.context.path,
                NodeKind.LINK,
                state,
                runtime="actor",
                incarnation=self.context.incarnation,
                since=self._since,
                ready_since=self._since if state is NodeState.READY else None,
                detail=", ".join(words) or None,
            )
        )


def _as_written(made: list[_Made], done: Future[list[Mapping[str, Any]]]) -> _DecisionsWritten:
    error = done.exception()
    return _DecisionsWritten(made, [] if error is not None else done.result(), error)


def _body(decision: Decision, execution: Execution | None) -> dict[str, Any]:
    return {
        "outcome": decision.outcome.value,
        "execution_id": execution.id if execution is not None else decision.execution_id,
        "runbook": decision.runbook.id if decision.runbook is not None else None,
        "reason": decision.reason,
    }
