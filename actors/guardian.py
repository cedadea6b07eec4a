"""Decides about alerts: the thin shell round ``runbooks.matching`` and ``runbooks.deciding``.

Runs in its own actor thread and never blocks. Its memory of the past comes from the journal; alerts that were stored
and not decided, and executions that did not end, are taken up again after a restart. ``actors.deciding`` has its parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from actors.board import NodeKind, NodeState, NodeStatus
from actors.context import ActorContext
from actors.deciding.desk import AT_ONCE, Desk, Loaded, load, remember_s
from actors.deciding.heeding import heed, note_end
from actors.deciding.later import Later, PendingSeen, RootSeen, Tick
from actors.deciding.making import Made, make, standing, take_back
from actors.deciding.queueing import Claimed, RunQueue, cancel_over
from actors.deciding.words import (
    AlertsOver,
    AlertsStored,
    Decided,
    EndUnbegun,
    Granted,
    GuardianParts,
    Latched,
    LookAgain,
    RecoverySwitched,
    Released,
    RunbooksChanged,
    SilenceBegun,
    SilenceEnded,
)
from actors.failpoints import reached
from actors.journal import happened, rows, verdicts
from actors.journal.holds import THE_ALERT_IS_OVER
from actors.journal.rows import Execution, OpenAlert
from actors.journal.schema import JournalTrouble
from actors.kernel import SupervisedActor
from actors.messages import AddChild, IoDone, Wake
from actors.recent import Recent
from actors.runbook import ExecutionFinished, RunbookActor
from actors.runbook_calls import DECIDED
from actors.saying import Sayer
from actors.spec import ChildSpec, ExitReason, Restart
from runbooks.deciding.timing import Moment
from runbooks.deciding.words import History, Pending, Waits
from runbooks.model import Status
from runbooks.parse import Library

__all__ = [
    "AlertsOver",
    "AlertsStored",
    "Decided",
    "EndUnbegun",
    "Granted",
    "GuardianActor",
    "GuardianParts",
    "LookAgain",
    "RecoverySwitched",
    "RunbooksChanged",
]
RETRY_S: Final = 1.0
FORGET_S: Final = 60.0
"""How often what is too old to matter is forgotten."""
MOST_SEEN: Final = 20_000
"""Alerts remembered so that one told of twice is decided once; the journal keeps that promise for older ones."""
RUNBOOKS_PATH: Final = "root/runbooks"
_TOLD: Final = (ExecutionFinished, Granted, RunbooksChanged, SilenceBegun, SilenceEnded, Latched, Released)


@dataclass(frozen=True, slots=True)
class _DecisionsWritten:
    """``stands``: the decisions that stand, in the order of ``made``; none when they could not be written."""

    made: list[Made]
    stands: list[Mapping[str, Any]]
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class _Cancelled:
    """Queued executions that were ended because their alert is over."""

    ids: list[str]


@dataclass(frozen=True, slots=True)
class _Further:
    """Tag of a look into the journal as far back as these runbooks look."""

    library: Library


class GuardianActor(SupervisedActor):
    node_kind = NodeKind.LINK

    def __init__(self, context: ActorContext, parts: GuardianParts) -> None:
        super().__init__(context)
        self._parts = parts
        self._early: list[OpenAlert] | None = []
        self._early_told: list[object] = []
        self._seen = Recent(MOST_SEEN)
        self._sayer = Sayer(self._sum_up)
        self._shown: tuple[object, ...] = ()
        self._since = context.system.clock.wall()
        self._forgot_at = float("-inf")

    # -- kernel hooks -----------------------------------------------------------------------------------------------

    def setup(self) -> object:
        warm_until = self.context.system.clock.moment().up_s + self._parts.warm_up_s
        self._desk = Desk(self.context, self._parts, self.ref, History(warm_until=warm_until), self._parts.library())
        self._queue = RunQueue(self._desk, self._start, self._finished)
        self._later = Later(self._desk, self._answer_waiting)
        self._load()
        self._show(NodeState.STARTING)
        return None

    def _load(self) -> None:
        journal, now = self._parts.journal, self.context.system.clock.moment()
        far_s = remember_s(self._desk.library.runbooks)
        self.context.system.io.run(lambda: journal.read(lambda db: load(db, far_s, now)), self.ref, "load")

    def _load_more(self, after: int) -> None:
        """Those that wait in the journal beyond the number ``after``, a part at a time."""
        journal = self._parts.journal
        self.context.system.io.run(
            lambda: journal.read(lambda db: rows.undecided(db, after, AT_ONCE)), self.ref, LookAgain()
        )

    def handle(self, message: Any) -> Any:
        match message:
            case AlertsStored(alerts):
                self._decide(alerts)
            case _DecisionsWritten():
                self._written(message)
            case IoDone(tag="load", error=JournalTrouble() as trouble):  # it cannot be read now: ask again
                self._show(NodeState.DEGRADED, f"nothing can be decided: {trouble}")
                self.context.system.timers.after(RETRY_S, self.ref, Wake("load"))
            case Wake(token="load"):
                self._load()
            case IoDone(tag="load", error=error) if error is not None:
                raise error
            case IoDone(tag="load", result=Loaded() as loaded):
                self._take_up(loaded)
            case LookAgain():
                self._load_more(0)
            case IoDone(tag=LookAgain()):
                self._loaded_more(message)
            case IoDone(tag=_Further() as further):
                self._looked_further(further, message)
            case Wake(token=AlertsStored(alerts)):
                self._decide(alerts, again=True)
            case _ if self._early is not None and isinstance(message, _TOLD):  # what is being read may be older
                self._early_told.append(message)
            case _:
                self._handle_later(message)
        return None

    def _handle_later(self, message: Any) -> None:
        match message:
            case ExecutionFinished() | EndUnbegun():
                self._about_execution(message)
            case Claimed():
                self._claimed(message)
            case RecoverySwitched():
                self._look_at_queue()
            case RunbooksChanged() | Wake(token=RunbooksChanged()):
                self._take_library()
            case AlertsOver():
                self._cancel_over()
                self._later.look_at_pending()
            case _Cancelled(ids):
                for execution_id in ids:
                    self._finished(ExecutionFinished(execution_id, Status.CANCELLED, THE_ALERT_IS_OVER))
            case Wake(token=Tick()):
                self._later.tick()
                self._look_at_queue()
            case IoDone(tag=PendingSeen() as seen):
                self._later.pending_seen(seen, message)
                self._arm()
            case IoDone(tag=RootSeen() as seen):
                self._later.root_seen(seen, message)
                self._arm()
            case SilenceBegun() | SilenceEnded() | Latched() | Released() | Granted():
                heed(self._desk, message)
                self._look_at_queue()
            case _:
                super().handle(message)

    def teardown(self, reason: ExitReason) -> None:
        self._show(NodeState.STOPPED if reason.is_clean else NodeState.FAILED)

    # -- taking up --------------------------------------------------------------------------------------------------

    def _take_up(self, loaded: Loaded) -> None:
        """What an earlier daemon, or an earlier incarnation, left open."""
        self._desk.take_up(loaded)
        self._later.take_up()
        early, self._early = self._early or [], None
        for execution in loaded.executions:
            if execution.status is Status.RUNNING:
                self._start(execution)
        self._parts.begun()
        self._decide((*loaded.alerts, *early))
        self._load_more(0)  # what is beyond those, and what was stored and told to nobody meanwhile
        told, self._early_told = self._early_told, []
        for message in told:
            self._handle_later(message)
        self._cancel_over()
        self._look_at_queue()
        self.ready()

    def _loaded_more(self, done: IoDone) -> None:
        if isinstance(done.error, JournalTrouble):
            self.context.system.timers.after(RETRY_S, self.ref, LookAgain())
        elif done.error is not None:
            raise done.error
        else:
            alerts: list[OpenAlert] = done.result
            self._decide(alerts)
            if len(alerts) >= AT_ONCE:
                self._load_more(alerts[-1].seq)

    # -- other runbooks ---------------------------------------------------------------------------------------------

    def _take_library(self) -> None:
        """Decide by the runbooks as they are now; where they look further back, once that is known."""
        desk, library = self._desk, self._parts.library()
        far_s = remember_s(library.runbooks)
        if far_s <= remember_s(desk.library.runbooks):
            desk.library = library
            self._look_at_queue()
            return
        journal, now = self._parts.journal, desk.moment()
        self.context.system.io.run(
            lambda: journal.read(lambda db: rows.past_runs(db, far_s, now)), self.ref, _Further(library)
        )

    def _looked_further(self, further: _Further, done: IoDone) -> None:
        if done.error is not None:
            self.log.error("the past cannot be read for edited runbooks, trying again", error=str(done.error))
            self.context.system.timers.after(RETRY_S, self.ref, Wake(RunbooksChanged()))
            return
        self._desk.history.remember(done.result)
        self._desk.library = further.library
        self._take_library()  # they may be others again by now

    # -- deciding ---------------------------------------------------------------------------------------------------

    def _decide(self, alerts: Sequence[OpenAlert], *, again: bool = False) -> None:
        """All of them, written with one commit."""
        if self._early is not None:
            self._early += alerts
            return
        now = self.context.system.clock.moment()
        self._desk.look_up()
        made: list[Made] = []
        for alert in alerts:
            if alert.seq in self._seen and not again:
                continue  # it was told of more than once
            self._seen.add(alert.seq)
            made.append(make(self._desk, alert, now))
        self._write(made, now)

    def _answer_waiting(self, alert: OpenAlert, passed: frozenset[Waits], pending: Pending) -> None:
        """Its time has come: it is asked about again, and need not wait for the same twice."""
        self._desk.look_up()
        now = self.context.system.clock.moment()
        if pending.waits is Waits.GROUP:
            alert = alert._replace(facts={**alert.facts, "severity": pending.severity})
        self._write([make(self._desk, alert, now, passed, pending.key)], now)

    def _write(self, made: list[Made], now: Moment) -> None:
        if not made:
            return
        all_of_it = [one.verdict for one in made]
        is_plain = all(one.is_plain for one in all_of_it)
        path, most = self.context.path, self._desk.history.max_concurrent
        future = self._parts.journal.submit(
            lambda db: verdicts.write(db, path, all_of_it, most, now), is_simple=is_plain, is_patient=is_plain
        )
        future.add_done_callback(lambda done: self.ref.tell(_as_written(made, done)))
        self._later.storms_changed()

    def _written(self, written: _DecisionsWritten) -> None:
        """Only what is on disk is told and started."""
        if written.error is not None:
            self.log.error("decisions could not be written, trying again", error=str(written.error))
            for one in reversed(written.made):
                take_back(self._desk, one)
            again = AlertsStored(tuple(one.verdict.alert for one in written.made))
            self.context.system.timers.after(RETRY_S, self.ref, Wake(again))
            return
        told: list[Decided] = []
        for one, stands in zip(written.made, written.stands, strict=True):
            execution = standing(self._desk, one, stands)
            if execution is not None or self._sayer.may_say(str(stands.get("outcome"))):
                self.log.info("alert decided", alert=one.verdict.alert.msg_id, **dict(stands))
            told.append(Decided(one.verdict.alert, stands))
            if execution is not None:
                reached(DECIDED)
            if execution is not None and execution.status is Status.RUNNING:
                self._start(execution)
            elif execution is not None and execution.status is Status.AWAITING_APPROVAL:
                self._parts.asked(execution.id)
        self._parts.decided(told)
        if any(not one.verdict.is_plain for one in written.made):
            self._look_at_queue()

    def _sum_up(self, count: int, outcomes: Mapping[str, int]) -> None:
        self.log.info("alerts decided", more=count, outcomes=dict(outcomes))

    def _cancel_over(self) -> None:
        """Nothing that waits in the queue is begun for an alert that is over."""
        desk, now, path = self._desk, self._desk.moment(), self.context.path
        queued = [desk.executions[run.execution_id] for run in desk.history.queued]
        if queued:
            future = self._parts.journal.submit(lambda db: cancel_over(db, path, queued, now))
            future.add_done_callback(self._tell_cancelled)

    def _tell_cancelled(self, done: Future[list[str]]) -> None:
        """On the journal's thread. Could it not be written, then who claims such a run later cancels it."""
        if done.exception() is None and done.result():
            self.ref.tell(_Cancelled(done.result()))

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
        note_end(self._desk, finished)
        self.log.info(
            "execution ended", execution=finished.execution_id, status=finished.status.value, detail=finished.detail
        )
        self._parts.finished(finished)
        self._look_at_queue()

    def _claimed(self, message: Claimed) -> None:
        if message.error is not None:
            self.log.error("no queued run could be begun, trying again", error=str(message.error))
        self._queue.claimed(message)
        if message.error is None:
            self._look_at_queue()
        else:
            self._arm()

    def _look_at_queue(self) -> None:
        desk = self._desk
        now = desk.now()
        if now - self._forgot_at > FORGET_S:
            self._forgot_at = now
            desk.history.forget(now - remember_s(desk.library.runbooks))
        self._queue.look()
        self._later.storms_changed()
        self._arm()
        self._show(NodeState.READY)

    def _arm(self) -> None:
        self._later.arm(soon=self._queue.is_held_back)

    def _about_execution(self, message: ExecutionFinished | EndUnbegun) -> None:
        if isinstance(message, EndUnbegun):
            self._end_unbegun(message)
        else:
            self._finished(message)

    def _end_unbegun(self, wanted: EndUnbegun) -> None:
        execution = self._desk.executions.get(wanted.execution_id)
        if execution is None or execution.status is Status.RUNNING:
            return
        path, now = self.context.path, self.context.system.clock.moment()
        status, detail = Status.CANCELLED, f"cancelled: {wanted.reason}"

        def written(done: Future[bool]) -> None:
            if done.exception() is None and done.result():
                self.ref.tell(ExecutionFinished(execution.id, status, detail))

        self._parts.journal.submit(
            lambda db: happened.finish_execution(db, path, execution, status, detail, now.wall_s, now.mark)
        ).add_done_callback(written)

    def _show(self, state: NodeState, trouble: str | None = None) -> None:
        history = self._desk.history
        running, queued = len(history.running), len(history.queued)
        shown = (state, trouble, running, queued, self._parts.is_enabled())
        if shown == self._shown:
            return
        self._shown = shown
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


def _as_written(made: list[Made], done: Future[list[Mapping[str, Any]]]) -> _DecisionsWritten:
    error = done.exception()
    return _DecisionsWritten(made, [] if error is not None else done.result(), error)
