"""One step's working copy of the state, and the few moves all decisions are made of. Used by ``step`` only.

Mutable inside one call of ``step``; nothing of it is seen outside before it is frozen again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from actors.messages import StopMode
from actors.spec import SHUTDOWN, ChildSpec, ExitKind, ExitReason, Restart
from supervisors.decisions import intensity
from supervisors.decisions.model import (
    ALIVE,
    Answer,
    Child,
    Effect,
    Event,
    ExitSelf,
    Flags,
    Forget,
    Mode,
    Ok,
    Phase,
    Refused,
    Report,
    ReportKind,
    SelfStartFailed,
    Strategy,
    SupervisorState,
)

NOPROC: Final = "noproc"


@dataclass(slots=True)
class Work:
    flags: Flags
    children: dict[str, Child]
    mode: Mode
    restarts: tuple[float, ...]
    exit_reason: ExitReason | None
    boot_error: ExitReason | None
    stop_mode: StopMode
    recycle_mode: StopMode
    deferred: list[Event]
    callers: dict[str, int]
    turn: int
    births: int
    now: float
    roll: float
    effects: list[Effect] = field(default_factory=list)

    @classmethod
    def of(cls, state: SupervisorState, now: float, roll: float) -> Work:
        return cls(
            state.flags,
            dict(state.children),
            state.mode,
            state.restarts,
            state.exit_reason,
            state.boot_error,
            state.stop_mode,
            state.recycle_mode,
            list(state.deferred),
            dict(state.callers),
            state.turn,
            state.births,
            now,
            roll,
        )

    def frozen(self) -> SupervisorState:
        return SupervisorState(
            self.flags,
            self.children,
            self.mode,
            self.restarts,
            self.exit_reason,
            self.boot_error,
            self.stop_mode,
            self.recycle_mode,
            tuple(self.deferred),
            self.callers,
            self.turn,
            self.births,
        )

    # -- looking --------------------------------------------------------------------------------------------------

    @property
    def is_group(self) -> bool:
        return self.flags.strategy.is_group

    @property
    def is_dynamic(self) -> bool:
        return self.flags.strategy is Strategy.SIMPLE_ONE_FOR_ONE

    @property
    def is_starting_one(self) -> bool:
        return any(child.phase is Phase.STARTING for child in self.children.values())

    @property
    def is_recycling(self) -> bool:
        return any(child.recycle for child in self.children.values())

    @property
    def is_busy(self) -> bool:
        """In the part of a boot or restart in which OTP's supervisor would not take another message."""
        return self.mode is Mode.BOOTING or self.is_starting_one or self.is_recycling

    # -- moves ----------------------------------------------------------------------------------------------------

    def put(self, child: Child, **changes: Any) -> Child:
        child = replace(child, **changes)
        self.children[child.spec.id] = child
        return child

    def add(self, spec: ChildSpec) -> Child:
        child = Child(spec, is_new=True)
        self.children[spec.id] = child
        return child

    def forget(self, child: Child) -> None:
        del self.children[child.spec.id]
        self.effects.append(Forget(child.spec.id))

    def want(self, child: Child, **changes: Any) -> Child:
        self.turn += 1
        return self.put(child, wanted=True, held=False, turn=self.turn, **changes)

    def set_down(self, child: Child, reason: ExitReason) -> None:
        """The child is gone: what a stop was asked for is done, what is doomed is forgotten."""
        child = self.put(
            child, phase=Phase.DOWN, recycle=False, is_ready=False, ready_at=None, stop_by=None, last_reason=reason
        )
        if child.doomed or (not child.wanted and self._is_dropped_when_down(child)):
            self.forget(child)
        self.answer(child.spec.id, Ok(child) if child.is_moving else Ok())

    def _is_dropped_when_down(self, child: Child) -> bool:
        return self.is_dynamic or child.spec.restart is Restart.TEMPORARY

    def answer(self, child_id: str, result: Ok | Refused) -> None:
        """Answer the call that waits for this child, if one does."""
        number = self.callers.pop(child_id, None)
        if number is not None:
            self.effects.append(Answer(number, result))

    def reply(self, number: int | None, result: Ok | Refused) -> None:
        if number is not None:
            self.effects.append(Answer(number, result))

    def report(self, kind: ReportKind, child: Child, reason: ExitReason | None, delay_s: float | None = None) -> None:
        self.effects.append(Report(kind, child.spec.id, child.incarnation, reason, delay_s))

    def charge(self) -> bool:
        """Spend one restart of the supervisor's own budget; False when it was one too many."""
        self.restarts, is_too_many = intensity.charge(
            self.restarts, self.flags.intensity, self.flags.period_s, self.now
        )
        return not is_too_many

    def give_up(self, child: Child, cause: ExitReason, mode: StopMode) -> None:
        """Too many restarts: end with ``shutdown``, as OTP does; the parent judges."""
        self.report(ReportKind.GAVE_UP, child, cause)
        evidence = {"why": "reached_max_restart_intensity", "child": child.spec.id, "cause": str(cause)}
        self.halt(ExitReason(ExitKind.SHUTDOWN, evidence=evidence), mode)

    def halt(self, reason: ExitReason, mode: StopMode) -> None:
        """Close the door, then stop everything (``reconcile`` does it, newest first)."""
        self.mode = Mode.HALTING
        self.exit_reason = reason
        self.stop_mode = mode
        for child in tuple(self.children.values()):
            phase = child.phase if child.phase in ALIVE else Phase.DOWN
            self.put(child, wanted=False, recycle=False, phase=phase, not_before=None)

    def abort_boot(self, child: Child, cause: ExitReason) -> None:
        """A child failed at boot: nothing is retried, what was started is stopped (OTP)."""
        self.boot_error = ExitReason(
            ExitKind.START_FAILED,
            f"failed to start child {child.spec.id!r}: {cause}",
            evidence={"child": child.spec.id, "reason": cause},
        )
        self.halt(SHUTDOWN, StopMode.TERMINATE)

    def finish(self) -> None:
        """Everything is down."""
        self.mode = Mode.DONE
        if self.boot_error is not None:
            self.effects.append(SelfStartFailed(self.boot_error))
        else:
            self.effects.append(ExitSelf(self.exit_reason or SHUTDOWN))
        for number in self.callers.values():
            self.effects.append(Answer(number, Refused(NOPROC)))
        self.callers.clear()
