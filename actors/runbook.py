"""One running runbook as an actor: the thin shell round ``runbooks.engine``.

Runs in its own actor thread and never blocks: calls, checks and snapshots go to the I/O pool, records to the journal.
Started again after a crash, of this actor or of the daemon, it goes on from its records.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from actors.board import NodeKind, NodeState, NodeStatus
from actors.context import ActorContext
from actors.journal import happened, rows
from actors.journal.journal import Journal
from actors.journal.rows import Execution
from actors.journal.schema import JournalTrouble
from actors.kernel import SupervisedActor
from actors.messages import IoDone, Wake
from actors.spec import NORMAL, ExitReason
from runbooks import engine
from runbooks.engine_words import (
    CallDone,
    CheckDone,
    Effect,
    Event,
    Fence,
    Fenced,
    Finish,
    Record,
    Recorded,
    RunCall,
    RunCheck,
    SnapshotTaken,
    State,
    TakeSnapshot,
    WakeAt,
    Woke,
    WriteRecord,
)
from runbooks.model import Status
from runbooks.parameters import BadParameter
from runbooks.parse import BadRunbook, parse
from runbooks.plan import Plan, bind
from runbooks.ports import Ports
from runbooks.steps import CallOutcome, CheckOutcome, make_call, make_check, take_snapshot
from runbooks.templating import BadTemplate

RETRY_S: Final = 1.0
"""A record that could not be written is tried again this often; nothing goes on without it."""


@dataclass(frozen=True, slots=True)
class ExecutionFinished:
    """To whoever decides about alerts: this execution has ended, and its end is on disk."""

    execution_id: str
    status: Status
    detail: str


@dataclass(frozen=True, slots=True)
class _Committed:
    """A journal write of this actor ended."""

    what: object
    error: BaseException | None = None


class CallsInFlight:
    """Calls being made on the I/O pool, by execution: an actor that died left its call behind, and the next one must
    not look at the world before that call has ended.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: Counter[str] = Counter()

    def begin(self, execution_id: str) -> None:
        """Before the call is handed to the pool: one that still waits there counts too."""
        with self._changed:
            self._running[execution_id] += 1

    def make(self, execution_id: str, call: Callable[[], CallOutcome]) -> CallOutcome:
        try:
            return call()
        finally:
            with self._changed:
                self._running[execution_id] -= 1
                self._running += Counter()  # forget those at zero
                self._changed.notify_all()

    def await_end(self, execution_id: str) -> None:
        """Every call has a timeout of its own, so this ends."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running[execution_id])


@dataclass(frozen=True)
class RunbookParts:
    """What runbook actors share. ``finished`` is told of the end (from the actor's thread; it must only hand it on)."""

    journal: Journal
    ports: Ports
    finished: Callable[[ExecutionFinished], object]
    calls: CallsInFlight = field(default_factory=CallsInFlight)

    def fence(self, execution_id: str) -> None:
        """After this nothing that an earlier incarnation began is under way. Blocks; on the I/O pool."""
        self.calls.await_end(execution_id)
        self.ports.commands.end_leftovers(execution_id)


class RunbookActor(SupervisedActor):
    node_kind = NodeKind.RUNBOOK

    def __init__(self, context: ActorContext, execution: Execution, parts: RunbookParts) -> None:
        super().__init__(context)
        self._execution = execution
        self._parts = parts
        self._state: State | None = None
        self._since = context.system.clock.wall()

    def setup(self) -> object:
        self._load()
        self._show("starting")
        return None

    def _load(self) -> None:
        journal, execution_id = self._parts.journal, self._execution.id
        self.context.system.io.run(lambda: journal.read(lambda db: rows.records(db, execution_id)), self.ref, "load")

    def handle(self, message: Any) -> Any:
        match message:
            case IoDone(tag="load", error=JournalTrouble() as trouble):  # it cannot be read now: ask again
                self._show(f"waits for the journal: {trouble}")
                self.context.system.timers.after(RETRY_S, self.ref, Wake("load"))
            case Wake(token="load"):
                self._load()
            case IoDone(error=error) if error is not None:
                raise error
            case IoDone(tag="load", result=records):
                self._begin(records)
            case IoDone(tag=RunCall(ticket=ticket), result=CallOutcome(ok, output, error)):
                self._take(CallDone(ticket, ok, output, error))
            case IoDone(tag=RunCheck(ticket=ticket), result=CheckOutcome(answer, detail)):
                self._take(CheckDone(ticket, answer, detail))
            case IoDone(tag=Fence(ticket=ticket)):
                self._take(Fenced(ticket))
            case IoDone(tag=TakeSnapshot(ticket=ticket), result=(snapshot, text)):
                self._take(SnapshotTaken(ticket, snapshot, text))
            case _Committed():
                self._committed(message)
            case Wake(token=WriteRecord() | Finish() as effect):
                self._act(effect)
            case Wake(token=int(ticket)):
                self._take(Woke(ticket))
            case _:
                super().handle(message)
        return None

    def teardown(self, reason: ExitReason) -> None:
        self._show(str(reason), NodeState.STOPPED if reason.is_clean else NodeState.FAILED)

    # -- the engine -------------------------------------------------------------------------------------------------

    def _begin(self, records: list[tuple[float, Record]]) -> None:
        clock = self.context.system.clock
        try:
            plan = self._plan()
        except (BadRunbook, BadParameter, BadTemplate) as bad:
            status = Status.UNKNOWN if records else Status.REJECTED  # a step may stand
            self._finish(Finish(status, str(bad)))
            return
        started_at = self._execution.started_at or clock.wall()
        execution, path = self._execution, self.context.path
        self._parts.journal.submit(lambda db: happened.begin_execution(db, path, execution, started_at))
        if records:
            elapsed_s = clock.wall() - started_at
            step = engine.resume(plan, [record for _, record in records], clock.now(), elapsed_s)
        else:
            step = engine.start(plan, clock.now())
        self._carry_out(step)

    def _plan(self) -> Plan:
        """Of the very bytes the decision was about."""
        return bind(parse(self._execution.source, self._execution.runbook), self._execution.parameters)

    def _take(self, event: Event) -> None:
        if self._state is not None:
            self._carry_out(engine.step(self._state, event, self.context.system.clock.now()))

    def _carry_out(self, step: engine.Step) -> None:
        self._state, effects = step
        for effect in effects:
            self._act(effect)
        self._show(self._words())

    def _act(self, effect: Effect) -> None:
        io, ports, token = self.context.system.waits, self._parts.ports, self._execution.id
        match effect:
            case RunCall(call=call, snapshot=snapshot, of=of):
                calls = self._parts.calls
                calls.begin(token)
                io.run(lambda: calls.make(token, lambda: make_call(call, snapshot, ports, token, of)), self.ref, effect)
            case RunCheck(call=call, snapshot=snapshot, of=of):
                io.run(lambda: make_check(call, snapshot, ports, token, of), self.ref, effect)
            case TakeSnapshot(services=services):
                io.run(lambda: _snapshot(services, ports), self.ref, effect)
            case Fence():
                io.run(lambda: self._parts.fence(token), self.ref, effect)
            case WriteRecord(record=record):
                at = self.context.system.clock.wall()
                self._write(self._parts.journal.submit(lambda db: rows.add_record(db, token, record, at)), effect)
            case WakeAt(ticket=ticket, at_s=at_s):
                system = self.context.system
                system.timers.after(at_s - system.clock.now(), self.ref, Wake(ticket))
            case Finish():
                self._finish(effect)

    def _finish(self, finish: Finish) -> None:
        execution, path, at = self._execution, self.context.path, self.context.system.clock.wall()
        self._write(
            self._parts.journal.submit(
                lambda db: happened.finish_execution(db, path, execution, finish.status, finish.detail, at)
            ),
            finish,
        )

    # -- the journal ------------------------------------------------------------------------------------------------

    def _write(self, future: Future[None], what: object) -> None:
        future.add_done_callback(lambda done: self.ref.tell(_Committed(what, done.exception())))

    def _committed(self, message: _Committed) -> None:
        if message.error is not None:
            self.log.error("cannot write the journal, trying again", error=str(message.error))
            self.context.system.timers.after(RETRY_S, self.ref, Wake(message.what))
            return
        match message.what:
            case WriteRecord(ticket=ticket):
                self._take(Recorded(ticket))
            case Finish(status, detail):
                self._parts.finished(ExecutionFinished(self._execution.id, status, detail))
                self.exit(NORMAL)

    # -- the board --------------------------------------------------------------------------------------------------

    def _words(self) -> str:
        state = self._state
        if state is None:
            return "starting"
        total = len(state.plan.actions)
        number = min(state.index + 1, total)
        return f'step {number}/{total} "{state.action.id}" {state.phase.value}' if total else state.phase.value

    def _show(self, detail: str, state: NodeState = NodeState.UP) -> None:
        self.context.system.board.publish(
            NodeStatus(
                self.context.path,
                NodeKind.RUNBOOK,
                state,
                runtime="actor",
                incarnation=self.context.incarnation,
                since=self._since,
                detail=f"{self._execution.runbook} on {self._execution.target}: {detail}",
            )
        )


def _snapshot(services: tuple[str, ...], ports: Ports) -> tuple[Any, str]:
    try:
        return take_snapshot(services, ports), ""
    except Exception as error:  # not knowing is an answer the engine has a rule for
        return None, str(error)
