"""Decides about alerts: the thin shell round ``runbooks.matching``.

Runs in its own actor thread and never blocks. Its memory of the past comes from the journal; alerts that were stored
and not decided, and executions that did not end, are taken up again after a restart.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final

from actors.board import NodeKind, NodeState, NodeStatus
from actors.context import ActorContext
from actors.journal import happened, rows
from actors.journal.journal import Journal
from actors.journal.rows import Execution, OpenAlert
from actors.journal.schema import JournalTrouble
from actors.kernel import SupervisedActor
from actors.messages import AddChild, IoDone, Wake
from actors.runbook import ExecutionFinished, RunbookActor, RunbookParts
from actors.spec import ChildSpec, ExitReason, Restart
from runbooks.matching import Decision, History, Outcome, PastRun, decide, severity_of, startable
from runbooks.model import Status
from runbooks.parse import Library

REMEMBER_S: Final = 24 * 3600.0
"""Executions that ended longer ago are no reason for dedup or cooldown."""
RETRY_S: Final = 1.0
SWITCH_KEY: Final = "recovery"
RUNBOOKS_PATH: Final = "root/runbooks"


@dataclass(frozen=True, slots=True)
class AlertStored:
    """A new alert is on disk and waits to be decided."""

    alert: OpenAlert


@dataclass(frozen=True, slots=True)
class RecoverySwitched:
    """A person switched recovery on or off (already remembered)."""

    enabled: bool


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided about one alert, on disk. ``body`` is the wire's DECIDED."""

    alert: OpenAlert
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Loaded:
    alerts: list[OpenAlert]
    executions: list[Execution]
    past: list[PastRun]


@dataclass(frozen=True, slots=True)
class _DecisionWritten:
    alert: OpenAlert
    stands: Mapping[str, Any]
    execution: Execution | None
    error: BaseException | None


@dataclass(frozen=True)
class GuardianParts:
    """What the guardian needs. ``decided`` and ``finished`` answer senders; they must only hand on."""

    journal: Journal
    library: Library
    runbooks: RunbookParts
    decided: Callable[[Decided], object]
    finished: Callable[[ExecutionFinished], object]
    is_enabled: Callable[[], bool]
    max_concurrent: int = 5


class GuardianActor(SupervisedActor):
    node_kind = NodeKind.LINK

    def __init__(self, context: ActorContext, parts: GuardianParts) -> None:
        super().__init__(context)
        self._parts = parts
        self._history = History(max_concurrent=parts.max_concurrent)
        self._executions: dict[str, Execution] = {}
        self._early: list[OpenAlert] | None = []
        self._seen: set[int] = set()
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
                lambda db: _Loaded(rows.undecided(db), rows.unfinished(db), rows.past_runs(db, since))
            ),
            self.ref,
            "load",
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
            case AlertStored(alert):
                self._decide(alert)
            case _DecisionWritten():
                self._written(message)
            case ExecutionFinished():
                self._finished(message)
            case RecoverySwitched():
                self._start_queued()
                self._show(NodeState.READY)
            case Wake(token=OpenAlert() as alert):
                self._seen.discard(alert.seq)
                self._decide(alert)
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
        for alert in (*loaded.alerts, *early):
            self._decide(alert)
        self._start_queued()
        self._show(NodeState.READY)
        self.ready()

    def _decide(self, alert: OpenAlert) -> None:
        if self._early is not None:
            self._early.append(alert)
            return
        if alert.seq in self._seen:
            return  # the hint and the load told of it both
        self._seen.add(alert.seq)
        now = self.context.system.clock.wall()
        self._forget_old(now)
        history = replace(self._history, is_recovery_on=self._parts.is_enabled())
        decision = decide(alert.facts, self._parts.library, history, now)
        execution = self._execution(alert, decision, now) if decision.starts_execution else None
        body = _body(decision, execution)
        self._write(alert, body, execution, now)

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

    def _write(self, alert: OpenAlert, body: Mapping[str, Any], execution: Execution | None, now: float) -> None:
        path = self.context.path
        future = self._parts.journal.submit(lambda db: happened.decide_alert(db, path, alert, body, execution, now))
        future.add_done_callback(lambda done: self.ref.tell(_as_written(alert, execution, done)))

    def _written(self, written: _DecisionWritten) -> None:
        """Only what is on disk is told and started."""
        execution = written.execution
        if execution is not None and written.stands.get("execution_id") != execution.id:
            self._executions.pop(execution.id, None)  # not on disk, or an earlier incarnation's decision stands
            self._drop_run(execution.id)
            execution = None
        if written.error is not None:
            self.log.error("a decision could not be written, trying again", error=str(written.error))
            self.context.system.timers.after(RETRY_S, self.ref, Wake(written.alert))
            return
        self.log.info("alert decided", alert=written.alert.msg_id, **dict(written.stands))
        self._parts.decided(Decided(written.alert, written.stands))
        if execution is not None and execution.status is Status.RUNNING:
            self._start(execution)
        self._show(NodeState.READY)

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
        runs = tuple(run for run in self._history.runs if run.execution_id != execution_id)
        self._history = replace(self._history, runs=runs)

    def _forget_old(self, now: float) -> None:
        runs = tuple(run for run in self._history.runs if run.ended_at is None or now - run.ended_at < REMEMBER_S)
        if len(runs) != len(self._history.runs):
            self._history = replace(self._history, runs=runs)

    def _show(self, state: NodeState, trouble: str | None = None) -> None:
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


def _as_written(alert: OpenAlert, execution: Execution | None, done: Future[Mapping[str, Any]]) -> _DecisionWritten:
    error = done.exception()
    return _DecisionWritten(alert, {} if error is not None else done.result(), execution, error)


def _body(decision: Decision, execution: Execution | None) -> dict[str, Any]:
    return {
        "outcome": decision.outcome.value,
        "execution_id": execution.id if execution is not None else decision.execution_id,
        "runbook": decision.runbook.id if decision.runbook is not None else None,
        "reason": decision.reason,
    }
