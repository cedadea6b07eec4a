"""How a running execution reaches the world: calls, looks, snapshots and the fence, on the I/O pool, each with a bound.

What is not back long after its own time is given up: nobody may wait for an answer that never comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from actors.context import ActorSystem
from actors.failpoints import reached
from actors.messages import IoDone
from actors.refs import Ref
from actors.runbook_calls import CALLED, CALLING, LOOKED, SNAPSHOT, UNDOING, UNDONE, CallsInFlight, Flight
from runbooks.calls.family import CallOutcome, CheckOutcome
from runbooks.engine_words import (
    Answer,
    CallDone,
    CheckDone,
    Event,
    Fence,
    Fenced,
    Phase,
    RunCall,
    RunCheck,
    Snapshot,
    SnapshotTaken,
    TakeSnapshot,
    Try,
)
from runbooks.model import Call
from runbooks.plan import Plan
from runbooks.ports import PortError, Ports
from runbooks.steps import make_call, make_check, take_snapshot

GRACE_S: Final = 5.0
"""What is not back so long after its own time is given up: its port has not kept its word."""
NO_ANSWER: Final = "there was no answer in its time, and it cannot be ended"
Deed = RunCall | RunCheck | TakeSnapshot | Fence


@dataclass(frozen=True, slots=True)
class CommandsEnded:
    """Tag of the job that ends what a call under way has started."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """To the actor: the answer to this effect should have come."""

    effect: Deed


class Hands:
    """Of one actor, called on its thread; ``ref`` gets the answers as ``IoDone``, or ``Overdue``."""

    def __init__(self, system: ActorSystem, ref: Ref, calls: CallsInFlight, ports: Ports, execution_id: str) -> None:
        self._system = system
        self._ref = ref
        self._calls = calls
        self._ports = ports
        self._id = execution_id
        self._flight: Flight | None = None
        self._is_ending = False
        self._held: IoDone | None = None

    def do(self, effect: Deed, phase: Phase, plan: Plan) -> None:
        """Begin it. ``phase``: what the engine waits for."""
        ports, token, run = self._ports, self._id, self._system.waits.run
        match effect:
            case RunCall(call=call):
                self._call(effect, is_undoing=phase is Phase.UNDO_CALL)
                limit_s = call.timeout_s
            case RunCheck(call=call, snapshot=snapshot, of=of):
                run(lambda: _looked(call, snapshot, ports, token, of, LOOKED[phase]), self._ref, effect)
                limit_s = call.timeout_s
            case TakeSnapshot(calls=calls):
                run(lambda: _snapshot(calls, ports, token), self._ref, effect)
                limit_s = sum(call.timeout_s for call in calls)
            case Fence():
                run(self._fence, self._ref, effect)
                limit_s = _longest_call_s(plan) + GRACE_S
        self._system.timers.after(limit_s + GRACE_S, self._ref, Overdue(effect))

    def answered(self, done: IoDone) -> Event | None:
        """What the engine is told, now or later. Raises what a job of ours raised."""
        match done:
            case IoDone(tag=CommandsEnded()):
                self._is_ending, held, self._held = False, self._held, None
                return None if held is None else self.answered(held)
            case IoDone(tag=RunCall()) if self._is_ending:  # what comes next must not be ended along with it
                self._held = done
                return None
            case IoDone(tag=Fence(ticket=ticket), error=PortError() as error):
                return Fenced(ticket, str(error))
            case IoDone(error=error) if error is not None:
                raise error
            case IoDone(tag=RunCall(ticket=ticket), result=CallOutcome(ok, output, error, result, trouble, untouched)):
                return CallDone(ticket, ok, output, error, result, trouble, is_untouched=untouched)
            case IoDone(tag=RunCheck(ticket=ticket), result=CheckOutcome(answer, detail, is_untouched=untouched)):
                return CheckDone(ticket, answer, detail, untouched)
            case IoDone(tag=TakeSnapshot(ticket=ticket), result=(snapshot, text)):
                reached(SNAPSHOT)
                return SnapshotTaken(ticket, snapshot, text)
            case IoDone(tag=Fence(ticket=ticket)):
                return Fenced(ticket)
            case _:
                raise TypeError(f"no answer to anything asked: {done!r:.200}")

    def given_up(self, effect: Deed) -> Event:
        """What the engine is told instead of an answer. A call that was not begun yet never will be."""
        match effect:
            case RunCall(ticket=ticket):
                is_unbegun = self._flight is not None and self._calls.abandon(self._flight)
                said = "it could not be begun in its time" if is_unbegun else NO_ANSWER
                return CallDone(ticket, ok=False, error=said, is_lost=not is_unbegun, is_untouched=is_unbegun)
            case RunCheck(ticket=ticket):
                return CheckDone(ticket, Answer.UNKNOWN, NO_ANSWER)
            case TakeSnapshot(ticket=ticket):
                return SnapshotTaken(ticket, None, NO_ANSWER)
            case Fence(ticket=ticket):
                return Fenced(ticket, NO_ANSWER)

    def end_commands(self) -> None:
        """End what the call under way has started. The call says how it ended; one that will not die is given up."""
        self._is_ending = True
        self._system.waits.run(lambda: self._ports.commands.end_leftovers(self._id), self._ref, CommandsEnded())

    def _call(self, effect: RunCall, *, is_undoing: bool) -> None:
        ports, token, calls = self._ports, self._id, self._calls
        before, after = (UNDOING, UNDONE) if is_undoing else (CALLING, CALLED)
        flight = self._flight = calls.begin(token, effect.call.timeout_s + GRACE_S)

        def make() -> CallOutcome:
            reached(before)
            made = make_call(effect.call, effect.snapshot, ports, token, effect.of)
            reached(after)
            return made

        self._system.waits.run(lambda: calls.make(token, flight, make), self._ref, effect)

    def _fence(self) -> None:
        """After this nothing that an earlier incarnation began is under way. Raises PortError."""
        self._calls.await_end(self._id)
        self._ports.commands.end_leftovers(self._id)


def _longest_call_s(plan: Plan) -> float:
    """Of all that an earlier incarnation may have left under way."""
    calls = [call for one in plan.actions for call in (one.call, one.rollback.call if one.rollback else None)]
    return max((call.timeout_s for call in calls if call is not None), default=0.0)


def _looked(
    call: Call, snapshot: Snapshot | None, ports: Ports, token: str, of: Try | None, place: str
) -> CheckOutcome:
    looked = make_check(call, snapshot, ports, token, of)
    reached(place)
    return looked


def _snapshot(calls: tuple[Call, ...], ports: Ports, token: str) -> tuple[Snapshot | None, str]:
    try:
        return take_snapshot(calls, ports, token), ""
    except Exception as error:  # not knowing is an answer the engine has a rule for
        return None, str(error)
