"""What the guardian is told and what it needs: messages of other actors and threads to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from actors.journal.journal import Journal
from actors.journal.rows import Execution, OpenAlert
from actors.runbook import ExecutionFinished, RunbookParts
from runbooks.asking import RUNBOOK_LABEL
from runbooks.deciding.queue import Waiting
from runbooks.deciding.words import Health, Silence
from runbooks.parse import Library

INSIDE: Final = "selfheal"
"""The daemon itself as a sender; no client is named so."""
DECIDER_PATH: Final = "root/links/alerts"
"""Where decisions are events of."""
OPERATOR: Final = "selfheal operator"
"""A person who asked for a run, as its alert's sender; no client's name has a blank."""
ESCALATED_FROM: Final = "escalated_from"
ESCALATED_TO: Final = "escalated_to"
RUNG: Final = "rung"
LADDER_LABELS: Final = frozenset({ESCALATED_FROM, ESCALATED_TO, RUNG})
"""Labels of an alert of the daemon's own that climbs a rung; on others' alerts they mean nothing, and no alert of the
daemon's own takes them over from others.
"""
WARM_UP_S: Final = 30.0
"""After the daemon began, what another run may inhibit waits so long: senders tell again what goes on."""


def runbook_wanted(client: str, facts: Mapping[str, Any]) -> str | None:
    """The id of the one runbook that an alert of the daemon's own, or of a person, is for; None: whichever fits."""
    said = facts.get("labels")
    labels = said if isinstance(said, Mapping) else {}
    if client == OPERATOR:
        return str(labels.get(RUNBOOK_LABEL, ""))
    wanted = labels.get(ESCALATED_TO) if client == INSIDE and RUNG in labels else None  # others' labels climb nothing
    return None if wanted is None else str(wanted)


@dataclass(frozen=True, slots=True)
class AlertsStored:
    """New alerts are on disk and wait to be decided."""

    alerts: tuple[OpenAlert, ...]


@dataclass(frozen=True, slots=True)
class LookAgain:
    """More alerts were stored than could be told: those that wait are in the journal."""


@dataclass(frozen=True, slots=True)
class AlertsOver:
    """Some alerts have been said to be over (already on disk): runs queued for them are not needed."""


@dataclass(frozen=True, slots=True)
class EndUnbegun:
    """A person wants the end of an execution that waits. One that has begun hears of it from the journal."""

    execution_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RecoverySwitched:
    """A person switched recovery on or off (already remembered)."""

    enabled: bool


@dataclass(frozen=True, slots=True)
class RunbooksChanged:
    """Some runbooks are others than before: what is decided from here on is decided by them."""


@dataclass(frozen=True, slots=True)
class Granted:
    """An execution is queued now (already on disk): one that awaited approval, or ``execution``, which nobody knew."""

    execution_id: str
    execution: Execution | None = None


@dataclass(frozen=True, slots=True)
class SilenceBegun:
    """Already on disk. ``for_s``: from now."""

    silence: Silence
    for_s: float


@dataclass(frozen=True, slots=True)
class SilenceEnded:
    silence_id: str


@dataclass(frozen=True, slots=True)
class Latched:
    """Nothing is done to the target any more (already on disk)."""

    target: str
    why: str


@dataclass(frozen=True, slots=True)
class Released:
    """A person has looked at the target (already on disk)."""

    target: str


class Decided(NamedTuple):
    """What was decided about one alert, on disk. ``body`` is the wire's DECIDED."""

    alert: OpenAlert
    body: Mapping[str, Any]


@dataclass(frozen=True)
class GuardianParts:
    """What the guardian needs. The callables answer others and must only hand on.

    Args:
        library: the runbooks in use now; a change of them is told (``RunbooksChanged``).
        max_concurrent: how many runs may be at work at once, as it is now.
        decided: what was decided about alerts.
        finished: an execution has ended.
        begun: an incarnation decides from here on.
        asked: an execution awaits approval, by its id.
        health: how the services are now; it may raise. None: nobody can tell.
        alert: an alert of the daemon's own, into the intake.
        show_queue: the queue as it stands, whenever it changed.
        warm_up_s: see ``WARM_UP_S``.
    """

    journal: Journal
    library: Callable[[], Library]
    runbooks: RunbookParts
    decided: Callable[[Sequence[Decided]], object]
    finished: Callable[[ExecutionFinished], object]
    is_enabled: Callable[[], bool]
    max_concurrent: Callable[[], int] = lambda: 5
    begun: Callable[[], object] = lambda: None
    asked: Callable[[str], object] = lambda _execution_id: None
    health: Callable[[], Health] | None = None
    alert: Callable[[Mapping[str, Any]], object] = lambda _mapping: None
    show_queue: Callable[[tuple[Waiting, ...]], object] = lambda _waiting: None
    warm_up_s: float = WARM_UP_S
