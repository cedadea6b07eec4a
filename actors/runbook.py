"""One running runbook as an actor: the thin shell round ``runbooks.engine``.

Runs in its own actor thread and never blocks: calls, checks and snapshots go to the I/O pool, records to the journal.
Started again after a crash, of this actor or of the daemon, it goes on from its records. Each incarnation claims the
run first; an older one that is not as dead as it seemed can write nothing any more. Every wait has a bound.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Final

from actors.board import NodeKind, NodeState, NodeStatus
from actors.context import ActorContext
from actors.failpoints import reached
from actors.journal import runs
from actors.journal.journal import Journal
from actors.journal.rows import Execution
from actors.journal.runs import Claim, HasEnded, Overtaken, RunLost
from actors.journal.schema import JournalTrouble
from actors.kernel import SupervisedActor
from actors.messages import IoDone, Wake
from actors.runbook_calls import CLAIMED, CLAIMING, ENDED, ENDING, TOLD, WRITING, WRITTEN, CallsInFlight
from actors.runbook_hands import Deed, Hands, Overdue
from actors.spec import NORMAL, ExitReason
from runbooks import engine
from runbooks.deciding.timing import on_scale
from runbooks.engine_words import (
    CancelAsked,
    Effect,
    Event,
    Finish,
    Phase,
    Recorded,
    State,
    WakeAt,
    Woke,
    WriteRecord,
)
from runbooks.model import Status
from runbooks.parameters import BadParameter
from runbooks.parse import BadRunbook, parse
from runbooks.plan import Plan, bind
from runbooks.ports import Ports
from runbooks.redaction import Redactor
from runbooks.templating import BadTemplate

RETRY_S: Final = 1.0
"""A record that could not be written is tried again this often; nothing goes on without it."""
MOST_CRASHES: Final = 3
"""So often an execution's actor may crash in one daemon."""
MOST_STALLS: Final = 10
"""So many incarnations, of whatever daemons, may begin without that anything is written of the run."""
_OF_NO_STEP: Final = (Phase.PRECONDITION, Phase.CRITERION, Phase.FAILING, Phase.FINISHED)
"""There the index may be that of a look."""


class StopPolicy(enum.Enum):
    """What becomes of a run that is told to end: its step in flight finishes and stays, or all of it is undone."""

    FINISH = "finish"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class StopRun:
    """To the actor of a run: end at the next safe place. It is remembered over a death of the daemon."""

    policy: StopPolicy
    reason: str

    def as_json(self) -> dict[str, str]:
        """As ``journal.runs.ask_stop`` keeps it."""
        return {"policy": self.policy.value, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class ExecutionFinished:
    """To whoever decides about alerts: this execution has ended, and its end is on disk."""

    execution_id: str
    status: Status
    detail: str


@dataclass(frozen=True, slots=True)
class _Claim:
    """To be written first of all."""


@dataclass(frozen=True, slots=True)
class _Written:
    """A journal write of this actor ended."""

    what: object
    result: Any = None
    error: BaseException | None = None


@dataclass(frozen=True)
class RunbookParts:
    """What runbook actors share. ``finished`` is told of every end, ``failed`` of those after which the target is
    latched (from the actor's thread; they must only hand on). ``redact`` takes out of a text what nobody may read.
    ``must_stop``: why a run that is taken up now is to end, if so: one may be begun just as recovery is switched off.
    """

    journal: Journal
    ports: Ports
    finished: Callable[[ExecutionFinished], object]
    failed: Callable[[Execution, Status, str], object] = lambda _execution, _status, _detail: None
    redact: Callable[[str], str] = lambda text: text
    must_stop: Callable[[], StopRun | None] = lambda: None
    calls: CallsInFlight = field(default_factory=CallsInFlight)


class RunbookActor(SupervisedActor):
    node_kind = NodeKind.RUNBOOK

    def __init__(self, context: ActorContext, execution: Execution, parts: RunbookParts) -> None:
        super().__init__(context)
        self._execution = execution
        self._parts = parts
        self._state: State | None = None
        self._epoch = 0  # of no claim yet
        self._has_intent = False
        self._is_given_up = False
        self._wanted_end: StopRun | None = None
        self._hands = Hands(context.system, self.ref, parts.calls, parts.ports, execution.id)
        self._redact = Redactor(parts.redact)
        self._since = context.system.clock.wall()

    def setup(self) -> object:
        self._claim()
        self._show("starting")
        return None

    def handle(self, message: Any) -> Any:
        match message:
            case _Written():
                self._written(message)
            case IoDone():
                if (event := self._hands.answered(message)) is not None:
                    self._take(event)
            case Overdue(effect):
                self._give_up(effect)
            case StopRun():
                self._stop_asked(message)
            case Wake(token=_Claim()):
                self._claim()
            case Wake(token=WriteRecord() | Finish() as effect):
                self._act(effect)
            case Wake(token=int(ticket)):
                self._take(Woke(ticket))
            case _:
                super().handle(message)
        return None

    def teardown(self, reason: ExitReason) -> None:
        if not reason.is_clean:
            self._parts.calls.crashed(self._execution.id, str(reason))
        self._show(str(reason), NodeState.STOPPED if reason.is_clean else NodeState.FAILED)

    # -- the engine -------------------------------------------------------------------------------------------------

    def _begin(self, claim: Claim) -> None:
        clock = self.context.system.clock
        self._epoch, self._has_intent = claim.epoch, bool(claim.records)
        reached(CLAIMED)
        crashes, why = self._parts.calls.crashes(self._execution.id)
        if crashes >= MOST_CRASHES or claim.stalls > MOST_STALLS:
            said = f"its actor crashed {crashes} times: {why}" if crashes else f"{claim.stalls - 1} actors of it ended"
            self._give_up_run(f"{said}; nobody knows how far it has come")
            return
        try:
            plan = self._plan(claim)
        except (BadRunbook, BadParameter, BadTemplate) as bad:
            status = Status.UNKNOWN if claim.records else Status.REJECTED  # a step may stand
            self._finish(Finish(status, str(bad)))
            return
        cancel = self._cancel(claim)
        if claim.records:
            now = clock.moment()  # setting the clock makes a run neither longer nor shorter
            elapsed_s = now.up_s - on_scale(claim.started_at, claim.started_mark, now)
            records = [record for _, record in claim.records]
            step = engine.resume(plan, records, clock.now(), elapsed_s, cancel)
        else:
            step = engine.start(plan, clock.now(), cancel)
        self._carry_out(step)

    def _plan(self, claim: Claim) -> Plan:
        """Of the very bytes the decision was about."""
        runbook = parse(self._execution.source, self._execution.runbook)
        hidden = [self._execution.parameters.get(one.name) for one in runbook.parameters if one.redact]
        self._redact = Redactor(self._parts.redact, hidden)
        return bind(runbook, self._execution.parameters, claim.facts, seed=self._execution.id)

    def _cancel(self, claim: Claim) -> CancelAsked | None:
        if claim.stop is not None:
            return CancelAsked(str(claim.stop["reason"]), claim.stop["policy"] == StopPolicy.FINISH.value)
        stop = self._wanted_end or self._parts.must_stop()
        if stop is not None and stop is not self._wanted_end:
            self._remember_end(stop)
        return None if stop is None else CancelAsked(stop.reason, stop.policy is StopPolicy.FINISH)

    def _take(self, event: Event) -> None:
        if self._state is not None:
            self._carry_out(engine.step(self._state, event, self.context.system.clock.now()))

    def _carry_out(self, step: engine.Step) -> None:
        self._state, effects = step
        for effect in effects:
            self._act(effect)
        self._show(self._words())

    def _act(self, effect: Effect) -> None:
        match effect:
            case WriteRecord(record=record):
                clean = replace(record, detail=self._redact(record.detail))
                at, epoch, token = self.context.system.clock.wall(), self._epoch, self._execution.id

                def write(db: sqlite3.Connection) -> None:
                    runs.add_record(db, token, epoch, clean, at)
                    reached(WRITING[record.kind])

                self._write(self._parts.journal.submit(write), effect)
            case WakeAt(ticket=ticket, at_s=at_s):
                system = self.context.system
                system.timers.after(at_s - system.clock.now(), self.ref, Wake(ticket))
            case Finish():
                self._finish(effect)
            case _:
                if self._state is not None:
                    self._hands.do(effect, self._state.phase, self._state.plan)

    def _finish(self, finish: Finish) -> None:
        execution, path, now = self._execution, self.context.path, self.context.system.clock.moment()
        epoch, clean = self._epoch or None, replace(finish, detail=self._redact(finish.detail))

        def write(db: sqlite3.Connection) -> None:
            runs.finish(db, path, execution, epoch, clean.status, clean.detail, now.wall_s, now.mark)
            reached(ENDING)

        self._write(self._parts.journal.submit(write), clean)

    def _give_up(self, effect: Deed) -> None:
        """Nobody waits for an answer that never comes. One that has come: this is late, and nothing."""
        if self._state is not None and self._state.ticket == effect.ticket:
            self._take(self._hands.given_up(effect))

    def _stop_asked(self, stop: StopRun) -> None:
        """Remembered, and told to the engine; a command that runs now is ended with all it started."""
        self._remember_end(stop)
        if self._state is None:
            return  # not begun: it will be known then
        if self._state.cancelled is None and stop.policy is StopPolicy.ROLLBACK and self._state.phase is Phase.CALL:
            self._hands.end_commands()
        self._take(CancelAsked(stop.reason, stop.policy is StopPolicy.FINISH))

    def _remember_end(self, stop: StopRun) -> None:
        self._wanted_end = self._wanted_end or stop
        execution_id = self._execution.id
        self._parts.journal.submit(lambda db: runs.ask_stop(db, execution_id, stop.as_json()))

    # -- the journal ------------------------------------------------------------------------------------------------

    def _claim(self) -> None:
        execution, path, now = self._execution, self.context.path, self.context.system.clock.moment()

        def write(db: sqlite3.Connection) -> Claim | HasEnded:
            if (refused := runs.refused(db, path, execution, now.wall_s, now.mark)) is not None:
                return refused
            claim = runs.claim(db, path, execution, now.wall_s)
            reached(CLAIMING)
            return claim

        self._write(self._parts.journal.submit(write), _Claim())

    def _write(self, future: Future[Any], what: object) -> None:
        def told(done: Future[Any]) -> None:
            error = done.exception()
            self.ref.tell(_Written(what, None if error is not None else done.result(), error))

        future.add_done_callback(told)

    def _written(self, message: _Written) -> None:
        match message:
            case _Written(what=_Claim(), result=HasEnded() as end):  # by this very write: people are told
                self._parts.failed(self._execution, end.status, end.detail)
                self._told(ExecutionFinished(self._execution.id, end.status, end.detail))
            case _Written(error=HasEnded() as end):
                self._told(ExecutionFinished(self._execution.id, end.status, end.detail))
            case _Written(error=Overtaken()):
                self.log.warning("another incarnation carries this run out")
                self.exit(NORMAL)
            case _Written(error=RunLost()):
                self._lost()
            case _Written(what=what, error=error) if error is not None and not _is_of_the_disk(error):
                self._unwritable(what, error)
            case _Written(what=what, error=error) if error is not None:
                self.log.error("cannot write the journal, trying again", error=str(error))
                self._show(f"waits for the journal: {error}")
                self.context.system.timers.after(RETRY_S, self.ref, Wake(what))
            case _Written(what=_Claim(), result=Claim() as claim):
                self._begin(claim)
            case _Written(what=WriteRecord(ticket=ticket, record=record)):
                reached(WRITTEN[record.kind])
                self._has_intent = True
                self._take(Recorded(ticket))
            case _Written(what=Finish(status, detail)):
                reached(ENDED)
                if status in runs.LATCHING:
                    self._parts.failed(self._execution, status, detail)
                self._told(ExecutionFinished(self._execution.id, status, detail))

    def _told(self, finished: ExecutionFinished) -> None:
        self._parts.calls.forget(self._execution.id)
        self._parts.finished(finished)
        reached(TOLD)
        self.exit(NORMAL)

    def _give_up_run(self, why: str) -> None:
        """Without a word of the engine. Where nothing was intended nothing was done."""
        self._finish(Finish(Status.UNKNOWN if self._has_intent else Status.FAILED, why))

    def _unwritable(self, what: object, error: BaseException) -> None:
        """By a fault of ours, so that another try would end no better."""
        said = f"its journal could not be written, by a fault of the program: {error!a}"
        self.log.critical("a run's journal cannot be written", execution=self._execution.id, error=ascii(error))
        self._state = None
        if isinstance(what, _Claim):
            self._has_intent = True  # for all that is known
        if self._is_given_up:
            self._ends_unwritten(said)
        else:
            self._is_given_up = True
            self._give_up_run(f"{said}; nobody knows how far it has come")

    def _lost(self) -> None:
        """The journal was lost under it: nothing can be written of this run any more, so nothing more is done."""
        self.log.critical("a run's records are lost", execution=self._execution.id, target=self._execution.target)
        self._ends_unwritten("its records were lost with the journal; nobody knows how far it has come")

    def _ends_unwritten(self, detail: str) -> None:
        """Its end is not in its row; the latch and the alert tell of it where anything may stand."""
        execution, at = self._execution, self.context.system.clock.wall()
        status = Status.UNKNOWN if self._has_intent else Status.FAILED
        if status in runs.LATCHING:
            self._parts.journal.submit(lambda db: runs.latch(db, execution.target, execution.id, at, detail))
            self._parts.failed(execution, status, detail)
        self._told(ExecutionFinished(execution.id, status, detail))

    # -- the board --------------------------------------------------------------------------------------------------

    def _words(self) -> str:
        state = self._state
        if state is None:
            return "starting"
        if state.phase in _OF_NO_STEP:
            return str(state.phase.value)
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


def _is_of_the_disk(error: BaseException) -> bool:
    """It may be over in a while: the file, its disk, or the writer."""
    return (
        isinstance(error, (JournalTrouble, OSError, sqlite3.OperationalError)) or type(error) is sqlite3.DatabaseError
    )
