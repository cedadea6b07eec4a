"""What people say about deciding, and what they are shown of it: silences, latches, and the queue.

Called from HTTP threads (and the queue's view from the guardian's). What is said is on disk before it counts.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from actors.board import Board, NodeKind, NodeState
from actors.clock import Clock
from actors.deciding.words import Released, SilenceBegun, SilenceEnded
from actors.journal import happened, holds
from actors.journal.holds import Latch, StoredSilence
from actors.journal.journal import Journal
from runbooks.deciding.queue import Waiting
from runbooks.deciding.quiet import BadMatcher
from runbooks.deciding.timing import Moment
from runbooks.deciding.words import Health
from supervisors.manager import CommandFailed, Record, UnknownNode
from supervisors.people import who_asks
from supervisors.tree_json import rfc3339

EVENTS_PATH: Final = "root/links/alerts"
WRITE_S: Final = 10.0
HEALTH_KEPT_S: Final = 0.2
"""In a storm of alerts the tree is not looked through for each of them."""


@dataclass
class Held:
    """``tell`` hands a message to the guardian. Methods raise JournalTrouble when the journal cannot be used now."""

    journal: Journal
    clock: Clock
    board: Board
    tell: Callable[[object], object]
    _waiting: Mapping[str, Waiting] = field(default_factory=dict)
    _health: tuple[float, Health] = (float("-inf"), Health(0, 0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # -- silences -----------------------------------------------------------------------------------------------------

    def silences(self) -> Sequence[Record]:
        """Newest first, those that are over too."""
        now = self.clock.moment()
        return [_silence(one, now) for one in self.journal.read(lambda db: holds.silences(db, now))]

    def add_silence(self, matchers: Sequence[str], for_s: float, *, by: str, why: str = "") -> Record:
        """Alerts that all ``matchers`` fit start nothing for ``for_s`` seconds. Raises CommandFailed."""
        now = self.clock.moment()
        made = StoredSilence(f"s-{uuid.uuid4().hex[:8]}", tuple(matchers), by, why, now.wall_s, for_s, for_s)
        try:
            rule = holds.as_rule(made, now)
        except BadMatcher as bad:
            raise CommandFailed(str(bad)) from bad
        text = f"silence {made.id} by {by} for {for_s:g} s: {', '.join(matchers)}" + (f" ({why})" if why else "")
        evidence = {"silence": made.id, "matchers": list(matchers), "for_s": for_s, **who_asks(by, why)}

        def write(db: Any) -> None:
            holds.add_silence(db, made, now)
            happened.tell(db, now.wall_s, EVENTS_PATH, "silenced", text, evidence)

        self.journal.submit(write).result(WRITE_S)
        self.tell(SilenceBegun(rule, for_s))
        return _silence(made, now)

    def end_silence(self, silence_id: str, *, by: str, why: str = "") -> Record:
        """Raises UnknownNode."""
        now = self.clock.moment()
        text = f"silence {silence_id} ended by {by}" + (f": {why}" if why else "")
        evidence = {"silence": silence_id, **who_asks(by, why)}

        def write(db: Any) -> StoredSilence | None:
            found = holds.end_silence(db, silence_id, by, now)
            if found is not None and found.left_s > 0:
                happened.tell(db, now.wall_s, EVENTS_PATH, "unsilenced", text, evidence)
            return next((one for one in holds.silences(db, now) if one.id == silence_id), None)

        ended = self.journal.submit(write).result(WRITE_S)
        if ended is None:
            raise UnknownNode(silence_id, what="silence")
        self.tell(SilenceEnded(silence_id))
        return _silence(ended, now)

    # -- latches ------------------------------------------------------------------------------------------------------

    def latches(self) -> Sequence[Record]:
        """Oldest first."""
        return [_latch(one) for one in self.journal.read(holds.latches)]

    def release(self, target: str, *, by: str, why: str) -> Record:
        """Runs may begin on the target again. Raises UnknownNode, CommandFailed."""
        if not why:
            raise CommandFailed(f"{target} is released with a reason only: --why tells what was found")
        now, asked = self.clock.moment(), who_asks(by, why)

        def write(db: Any) -> Latch | None:
            found = next((one for one in holds.latches(db) if one.target == target), None)
            if found is not None and holds.release(db, target, now.wall_s):
                evidence = {"target": target, "execution_id": found.execution_id, **asked}
                happened.tell(db, now.wall_s, EVENTS_PATH, "released", f"{target} released by {by}: {why}", evidence)
            return found

        found = self.journal.submit(write).result(WRITE_S)
        if found is None:
            raise UnknownNode(target, what="latched target")
        self.tell(Released(target))
        return _latch(found) | {"released_by": by, "released_why": why}

    # -- what the guardian asks and shows -----------------------------------------------------------------------------

    def show_queue(self, waiting: tuple[Waiting, ...]) -> None:
        self._waiting = {one.run.execution_id: one for one in waiting}

    def waiting(self, execution_id: str) -> Waiting | None:
        """The queued run's place, and why it has not begun."""
        return self._waiting.get(execution_id)

    def health(self) -> Health:
        """Of the services of the tree that nobody has stopped."""
        with self._lock:
            at, known = self._health
            now = self.clock.now()
            if now - at >= HEALTH_KEPT_S:
                services = [
                    one for one in self.board.snapshot().values() if one.kind is NodeKind.SERVICE and one.wanted
                ]
                known = Health(sum(one.state is NodeState.READY for one in services), len(services))
                self._health = (now, known)
            return known


def _silence(one: StoredSilence, now: Moment) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": one.id,
        "state": "ended" if one.ended_at is not None else "active" if one.left_s > 0 else "expired",
        "matchers": list(one.matchers),
        "by": one.by,
        "why": one.why,
        "created_at": rfc3339(one.at),
        "for_s": one.for_s,
    }
    if one.left_s > 0:
        shown["ends_at"] = rfc3339(now.wall_s + one.left_s)
    if one.ended_at is not None:
        shown |= {"ended_at": rfc3339(one.ended_at), "ended_by": one.ended_by}
    return shown


def _latch(one: Latch) -> dict[str, Any]:
    return {"target": one.target, "execution_id": one.execution_id, "since": rfc3339(one.at), "why": one.why}
