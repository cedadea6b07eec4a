"""The calls that running executions have under way on the I/O pool, and the places where a crash test strikes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from actors.failpoints import register
from runbooks.calls.family import CallOutcome
from runbooks.engine_words import Kind, Phase
from runbooks.ports import PortError

DECIDED: Final = register("runbook.decided", "the decision to run is on disk, nothing is started")
CLAIMING: Final = register("runbook.claiming", "a run's actor writes that it begins, not committed")
CLAIMED: Final = register("runbook.claimed", "a run's actor has begun, nothing else is done")
SNAPSHOT: Final = register("runbook.snapshot", "what was before a step is known, no intent is written")
CALLING: Final = register("runbook.calling", "the intent is on disk, the call is not made")
CALLED: Final = register("runbook.called", "the call is made, nobody was told")
UNDOING: Final = register("runbook.undoing", "the intent to undo is on disk, nothing is undone")
UNDONE: Final = register("runbook.undone", "the undoing call is made, nobody was told")
ENDING: Final = register("runbook.ending", "a run's end is written, not committed")
ENDED: Final = register("runbook.ended", "a run's end is on disk, nobody was told")
TOLD: Final = register("runbook.told", "a run's end is told to whoever decides")
WRITING: Final = {
    kind: register(f"runbook.{kind.value}.writing", f"the record {kind.value} is written, not committed")
    for kind in Kind
}
WRITTEN: Final = {
    kind: register(f"runbook.{kind.value}.written", f"the record {kind.value} is on disk, nothing follows yet")
    for kind in Kind
}
LOOKED: Final = {
    phase: register(f"runbook.looked.{phase.value}", f"a look of the phase {phase.value} is taken, nobody was told")
    for phase in (
        Phase.PRECONDITION,
        Phase.PROBE,
        Phase.RESUME_PROBE,
        Phase.VERIFY,
        Phase.CRITERION,
        Phase.LEFT,
        Phase.UNDO_PROBE,
        Phase.UNDO_VERIFY,
    )
}


_UNBEGUN: Final = CallOutcome(ok=False, error="was given up before it was begun", is_untouched=True)


@dataclass(eq=False)
class Flight:
    """One call on its way: ``until_s`` (of ``time.monotonic``) it must have ended, if its port keeps its word."""

    until_s: float
    is_begun: bool = False
    is_abandoned: bool = False


@dataclass
class CallsInFlight:
    """By execution: an actor that died left its call behind, and the next one must not look at the world before that
    call has ended. Also how often the actors of an execution have crashed in this daemon.
    """

    _changed: threading.Condition = field(default_factory=threading.Condition)
    _flights: dict[str, list[Flight]] = field(default_factory=dict)
    _crashes: Counter[str] = field(default_factory=Counter)
    _reasons: dict[str, str] = field(default_factory=dict)

    def begin(self, execution_id: str, limit_s: float) -> Flight:
        """Before the call is handed to the pool: one that still waits there counts too."""
        flight = Flight(monotonic() + limit_s)
        with self._changed:
            self._flights.setdefault(execution_id, []).append(flight)
        return flight

    def make(self, execution_id: str, flight: Flight, call: Callable[[], CallOutcome]) -> CallOutcome:
        """Make it, unless it was abandoned before."""
        with self._changed:
            flight.is_begun = not flight.is_abandoned
        try:
            return call() if flight.is_begun else _UNBEGUN
        finally:
            self._forget(execution_id, flight)

    def abandon(self, flight: Flight) -> bool:
        """Give up one that takes too long. True: it was not begun, and never will be."""
        with self._changed:
            flight.is_abandoned = True
            return not flight.is_begun

    def await_end(self, execution_id: str) -> None:
        """Nothing of it is under way any more.

        Raises:
            PortError: something is, beyond its time.
        """
        with self._changed:
            while flights := self._flights.get(execution_id):
                left_s = max(flight.until_s for flight in flights) - monotonic()
                if left_s <= 0:
                    raise PortError("a call of an earlier actor does not come back")
                self._changed.wait(left_s)

    def crashed(self, execution_id: str, reason: str) -> None:
        """An actor of this execution ended by a fault of its own."""
        with self._changed:
            self._crashes[execution_id] += 1
            self._reasons[execution_id] = reason

    def crashes(self, execution_id: str) -> tuple[int, str]:
        """How often, and why the last time."""
        with self._changed:
            return self._crashes[execution_id], self._reasons.get(execution_id, "")

    def forget(self, execution_id: str) -> None:
        """It has ended."""
        with self._changed:
            self._crashes.pop(execution_id, None)
            self._reasons.pop(execution_id, None)

    def _forget(self, execution_id: str, flight: Flight) -> None:
        with self._changed:
            left = [one for one in self._flights.get(execution_id, ()) if one is not flight]
            if left:
                self._flights[execution_id] = left
            else:
                self._flights.pop(execution_id, None)
            self._changed.notify_all()
