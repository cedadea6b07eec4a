"""What the guardian knows, shared by its parts. All of it belongs to the actor's own thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from actors.context import ActorContext
from actors.deciding.words import GuardianParts
from actors.journal import holds, rows
from actors.journal.rows import Execution, OpenAlert
from actors.refs import Ref
from runbooks.deciding.horizon import looks_back_s
from runbooks.deciding.ladder import Rung
from runbooks.deciding.timing import Moment
from runbooks.deciding.words import History, PastRun, Pending, Silence, Storm
from runbooks.model import Runbook
from runbooks.parse import Library

REMEMBER_S: Final = 24 * 3600.0
"""Executions that ended longer ago are no reason for anything, unless a runbook looks back further."""
AT_ONCE: Final = 2000
"""Alerts read from the journal at a time."""


class Loaded(NamedTuple):
    """What the journal says at the start. Times are on the scale of ``at.up_s``."""

    at: Moment
    alerts: list[OpenAlert]
    executions: list[Execution]
    past: list[PastRun]
    latches: dict[str, str]
    silences: tuple[Silence, ...]
    pending: list[Pending]
    storms: dict[str, Storm]
    rungs: list[holds.StoredRung]


def load(db: sqlite3.Connection, remember_s: float, now: Moment) -> Loaded:
    return Loaded(
        now,
        rows.undecided(db, 0, AT_ONCE),
        rows.unfinished(db),
        rows.past_runs(db, remember_s, now),
        {latch.target: latch.why for latch in holds.latches(db)},
        holds.rules(holds.silences(db, now), now),
        holds.all_pending(db, now),
        holds.storms(db, now),
        holds.all_rungs(db, now),
    )


def remember_s(runbooks: Iterable[Runbook]) -> float:
    """How far back (seconds) any of these runbooks looks."""
    return max(REMEMBER_S, *map(looks_back_s, runbooks), 0.0)


@dataclass
class Desk:
    """``history`` is what deciding asks, and reaches as far back as ``library`` looks; ``executions`` are the open ones
    as they are started; ``ref``: the actor.
    """

    context: ActorContext
    parts: GuardianParts
    ref: Ref
    history: History
    library: Library
    executions: dict[str, Execution] = field(default_factory=dict)
    rungs: dict[str, list[Rung]] = field(default_factory=dict)

    def moment(self) -> Moment:
        return self.context.system.clock.moment()

    def now(self) -> float:
        """On the scale of deciding."""
        return self.moment().up_s

    def look_up(self) -> None:
        """What may have been set otherwise: whether recovery is on, and how many runs may be at work at once."""
        self.history.is_recovery_on = self.parts.is_enabled()
        self.history.max_concurrent = self.parts.max_concurrent()

    def runbook(self, runbook_id: str) -> Runbook | None:
        return self.library.get(runbook_id)

    def take_up(self, loaded: Loaded) -> None:
        """Forget what was known, and know this."""
        history = History(
            loaded.past,
            self.parts.max_concurrent(),
            self.parts.is_enabled(),
            silences=loaded.silences,
            latches=loaded.latches,
            health=self.parts.health,
            warm_until=self.history.warm_until,
        )
        history.pending = {one.key: one for one in loaded.pending}
        history.storms = dict(loaded.storms)
        self.history = history
        self.executions = {one.id: one for one in loaded.executions}
        self.rungs = {}
        for one in loaded.rungs:
            self.climbed(Rung(one.root, one.rung, one.at, one.execution_id))

    def climbed(self, rung: Rung) -> None:
        known = self.rungs.setdefault(rung.root, [])
        if all(one.number != rung.number for one in known):
            known.append(rung)

    def drop(self, execution_id: str) -> None:
        self.executions.pop(execution_id, None)
        self.history.drop(execution_id)
