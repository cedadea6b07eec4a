"""The shell round the supervisor's judgement: messages become events, effects become deeds.

Runs in its own actor thread and never waits: stops and starts are asked for, their ends come as messages.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Final

from actors.board import NodeKind, NodeState, NodeStatus
from actors.context import ActorContext, Life
from actors.kernel import IGNORE, PENDING, SupervisedActor
from actors.messages import (
    AddChild,
    ChildExited,
    ChildIgnored,
    ChildReady,
    ChildStarted,
    ChildStartFailed,
    RestartPermit,
    SpecReplaced,
    StopMode,
    StopYourself,
    Wake,
)
from actors.refs import ActorRef
from actors.spec import Begin, ChildPast, ChildSpec, ExitKind, ExitReason
from supervisors.child_notes import child_notes
from supervisors.decisions.model import (
    Answer,
    Ask,
    Boot,
    Call,
    Effect,
    Event,
    ExitSelf,
    Flags,
    Forget,
    KillActor,
    Mode,
    Ok,
    Refused,
    Report,
    ReportKind,
    Requeue,
    Respec,
    SelfStarted,
    SelfStartFailed,
    StartActor,
    StopActor,
    StopRequested,
    SupervisorState,
    TryAgain,
    WakeAt,
    Woke,
)
from supervisors.decisions.permits import restarts_at_once_from
from supervisors.decisions.step import initial, past_of, step

Result = Ok | Refused


_TOLD_FIRST: Final = frozenset({ReportKind.EXITED, ReportKind.RESTARTING, ReportKind.PARKED, ReportKind.GAVE_UP})
"""In the order of what happened: the end, then what follows from it."""


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A run-time call from outside the tree; the answer completes ``reply``."""

    ask: Ask
    id: str | None = None
    spec: object = None
    args: tuple[Any, ...] = ()
    reply: Future[Result] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class RefOf:
    """Ask for the reference of a running child (None when it does not run)."""

    id: str


@dataclass(slots=True)
class Grip:
    """What the supervisor holds of one run of a child."""

    incarnation: int
    ref: ActorRef
    life: Life


class SupervisorActor(SupervisedActor):
    """One supervisor. ``flags`` and ``specs`` are checked (``decisions.admission``) before it is made."""

    node_kind = NodeKind.SUPERVISOR

    def __init__(
        self,
        context: ActorContext,
        flags: Flags,
        specs: tuple[ChildSpec, ...] = (),
        init: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(context)
        self._init = init
        self._state = initial(self._with_wishes(flags, specs), specs, self._recalled(specs))
        self._grips: dict[str, Grip] = {}
        self._replies: dict[int, Future[Result]] = {}
        self._calls = 0
        self._wakes: set[float] = set()
        self._permits: dict[str, tuple[int, bool]] = {}
        self._since = context.system.clock.wall()

    # -- kernel hooks ---------------------------------------------------------------------------------------------

    def setup(self) -> object:
        if self._init is not None and self._init() is IGNORE:
            return IGNORE
        self._annotate({})
        self._take(Boot())
        return PENDING

    def handle(self, message: Any) -> Any:
        match message:
            case ChildStarted() | ChildIgnored() | ChildStartFailed() | ChildReady() | ChildExited() | TryAgain():
                self._take(message)
            case Wake(token=float(at_s)):
                self._wakes.discard(at_s)
                self._take(Woke())
            case CallRequest():
                self._take(self._call(message))
            case AddChild(spec):
                self._take(Call(None, Ask.START, spec=spec))
            case SpecReplaced():
                pass  # it counts when this supervisor is started anew; live edits of its children are calls
            case RefOf(child_id):
                grip = self._grips.get(child_id)
                return grip.ref if grip is not None and grip.ref.is_alive else None
            case _:
                super().handle(message)
        return None

    def stop_requested(self, reason: ExitReason) -> None:
        self._take(StopRequested(reason, self.stop_mode))

    def teardown(self, reason: ExitReason) -> None:
        """Also after a crash of this very actor: nothing it started may go on without a supervisor."""
        for grip in reversed(tuple(self._grips.values())):
            if grip.ref.tell(StopYourself(ExitReason(ExitKind.SHUTDOWN, "supervisor ended"), StopMode.DETACH)):
                self.log.warning("child told to stop by a dying supervisor", child=repr(grip.ref))
        for reply in self._replies.values():
            reply.set_result(Refused("noproc"))
        self._replies.clear()
        self._publish(NodeState.STOPPED if reason.is_clean else NodeState.FAILED)

    # -- one step -------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        before = self._state
        clock = self.context.system.clock
        self._state, effects = step(before, event, clock.now(), random.random())  # noqa: S311  jitter
        self._keep_pasts(before)
        for effect in effects:
            if isinstance(effect, Report) and effect.kind in _TOLD_FIRST:
                self._report_on(effect)  # counted before the new run looks at the count
        for effect in effects:  # deeds next: nothing that is only told may stand between a death and a birth
            if not isinstance(effect, (Answer, Report)):
                self._act(effect)
        self._give_permits(before, is_all=isinstance(event, Woke) or _concerns_all(before, self._state))
        self._annotate(before.children)
        for effect in effects:
            if isinstance(effect, (Answer, Report)):  # who hears an answer sees it on the board too
                self._act(effect)
        is_same = before.mode is self._state.mode and before.flags is self._state.flags
        if not is_same or tuple(before.children) != tuple(self._state.children):
            self._publish(_SHOWN[self._state.mode])

    def _with_wishes(self, flags: Flags, specs: tuple[ChildSpec, ...]) -> Flags:
        """Whom a person has stopped by now: a supervisor that is started anew must not go by what was so at boot."""
        memory = self.context.system.memory
        if memory is None:
            return flags
        held = {spec.id: memory.is_held(self._path_of(spec.id)) for spec in specs}
        wished = frozenset(child_id for child_id, is_held in held.items() if is_held)
        unasked = frozenset(child_id for child_id in flags.held if held.get(child_id) is None)
        return replace(flags, held=wished | unasked)

    def _recalled(self, specs: tuple[ChildSpec, ...]) -> dict[str, ChildPast]:
        memory = self.context.system.memory
        if memory is None:
            return {}
        pasts = {spec.id: memory.recall(self._path_of(spec.id)) for spec in specs if spec.pacing is not None}
        return {child_id: past for child_id, past in pasts.items() if past is not None}

    def _keep_pasts(self, before: SupervisorState) -> None:
        memory = self.context.system.memory
        if memory is None:
            return
        for child_id, child in self._state.children.items():
            known = before.children.get(child_id)
            if child.spec.pacing is not None and known is not child:
                past = past_of(child)
                if known is None or past_of(known) != past:
                    memory.keep(self._path_of(child_id), past)

    def _act(self, effect: Effect) -> None:
        match effect:
            case StartActor(spec, incarnation, begin):
                self._start_actor(spec, incarnation, begin)
            case StopActor(child_id, _, reason, mode):
                self._grips[child_id].ref.tell(StopYourself(reason, mode))
            case Respec(spec):
                self._grips[spec.id].ref.tell(SpecReplaced(spec))
            case KillActor(child_id):
                self._kill(child_id)
            case WakeAt(at_s):
                self._wake_at(at_s)
            case Requeue(child_id):
                self.ref.tell(TryAgain(child_id))
            case Answer(number, result):
                self._answer(number, result)
            case Report():
                self._pass_on(effect)
            case Forget(child_id):
                self._forget(child_id)
            case _:
                self._act_on_self(effect)

    def _act_on_self(self, effect: Effect) -> None:
        match effect:
            case SelfStarted():
                self.started()
                self.ready()
            case SelfStartFailed(reason):
                self.start_failed(reason)
            case ExitSelf(reason):
                self.exit(reason)

    def _forget(self, child_id: str) -> None:
        self._grips.pop(child_id, None)
        self._permits.pop(child_id, None)
        self.context.system.names.pop(self._path_of(child_id), None)
        self.context.system.board.remove(self._path_of(child_id))

    def _answer(self, number: int, result: Result) -> None:
        """A started child is answered with the reference of the very run that was asked for."""
        if isinstance(result, Ok) and isinstance(result.value, str):
            result = Ok(self._grips[result.value].ref)
        self._replies.pop(number).set_result(result)

    def _start_actor(self, spec: ChildSpec, incarnation: int, begin: Begin) -> None:
        context = ActorContext(
            spec.id, self._path_of(spec.id), incarnation, self.ref, self.context.system, life := Life(), begin
        )
        try:
            ref = ActorRef(spec.start.start(context, *spec.args, **spec.kwargs))
        except Exception as error:
            reason = ExitReason(ExitKind.START_FAILED, f"{type(error).__name__}: {error}")
            self.ref.tell(ChildStartFailed(spec.id, incarnation, reason))
            return
        self._grips[spec.id] = Grip(incarnation, ref, life)
        self.context.system.names[context.path] = ref

    def _kill(self, child_id: str) -> None:
        """The thread cannot be killed: what it owns is, and what it still says is of an old incarnation."""
        grip = self._grips.pop(child_id, None)
        if grip is None:
            return
        self.log.error("child did not stop in time: killed what it owns, abandoned its thread", child=child_id)
        if grip.life.kill_owned is not None:
            self.context.system.io.run(grip.life.kill_owned)

    def _wake_at(self, at_s: float) -> None:
        if at_s not in self._wakes:
            self._wakes.add(at_s)
            system = self.context.system
            system.timers.after(at_s - system.clock.now(), self.ref, Wake(at_s))

    def _give_permits(self, before: SupervisorState, *, is_all: bool) -> None:
        """Tell each child that changed (or all, when time or mode did) whether its crash may be answered at once."""
        now = self.context.system.clock.now()
        for child_id, child in self._state.children.items():
            takes_permits = child.spec.pacing is not None and getattr(child.spec.start, "takes_restart_permits", False)
            if not takes_permits or (before.children.get(child_id) is child and not is_all):
                continue
            at = restarts_at_once_from(self._state, child, now)
            if at is not None and at > now:
                self._wake_at(at)
            self._permit(child_id, child.incarnation, at_once=at is not None and at <= now)

    def _permit(self, child_id: str, incarnation: int, *, at_once: bool) -> None:
        if self._permits.get(child_id, (incarnation, False)) != (incarnation, at_once):
            grip = self._grips.get(child_id)
            if grip is not None and grip.incarnation == incarnation:
                grip.ref.tell(RestartPermit(at_once))
        self._permits[child_id] = incarnation, at_once

    def _call(self, request: CallRequest) -> Call:
        self._calls += 1
        self._replies[self._calls] = request.reply
        return Call(self._calls, request.ask, request.id, request.spec, request.args)

    # -- telling --------------------------------------------------------------------------------------------------

    def _path_of(self, child_id: str) -> str:
        return f"{self.context.path}/{child_id}"

    def _pass_on(self, report: Report) -> None:
        self.log.info(
            report.kind.value,
            child=report.id,
            reason=str(report.reason) if report.reason else None,
            delay_s=report.delay_s,
        )
        if report.kind not in _TOLD_FIRST:
            self._report_on(report)

    def _report_on(self, report: Report) -> None:
        if self.context.system.reporter is not None:
            self.context.system.reporter(self._path_of(report.id), report)

    def _annotate(self, before: Any) -> None:
        """Show on the board what only the supervisor knows of a child that changed."""
        clock = self.context.system.clock
        for child_id, child in self._state.children.items():
            if before.get(child_id) is not child:
                kind: NodeKind = getattr(child.spec.start, "node_kind", NodeKind.ACTOR)
                notes = child_notes(child, clock.now(), clock.wall())
                self.context.system.board.annotate(self._path_of(child_id), kind, **notes)

    def _publish(self, state: NodeState) -> None:
        flags = self._state.flags
        self.context.system.board.publish(
            NodeStatus(
                self.context.path,
                NodeKind.SUPERVISOR,
                state,
                strategy=flags.strategy.value,
                runtime="actor",
                incarnation=self.context.incarnation,
                since=self._since,
                ready_since=self._since,
                children=tuple(self._state.children),
                extra={"intensity": flags.intensity, "period_s": flags.period_s},
            )
        )


def _concerns_all(before: SupervisorState, after: SupervisorState) -> bool:
    """Whether what a crash of one child means may have changed for all of them."""
    is_same_order = tuple(before.children) == tuple(after.children)
    return before.mode is not after.mode or before.flags is not after.flags or not is_same_order


_SHOWN = {
    Mode.NEW: NodeState.STARTING,
    Mode.BOOTING: NodeState.STARTING,
    Mode.RUNNING: NodeState.READY,
    Mode.HALTING: NodeState.STOPPING,
    Mode.DONE: NodeState.STOPPED,
}
