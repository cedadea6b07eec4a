"""What leads to what: alert types to runbooks, runbooks to each other. Pure.

One runbook leads to another by an escalation, by the safe action of an approval nobody gave, or by raising an alert the
other answers: ``recovery_failed``, which a run raises whose steps could not be undone, and the types its file names in
the label ``raises`` (with commas).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from runbooks.model import Runbook
from runbooks.predicates import types_asked

RECOVERY_FAILED: Final = "recovery_failed"
"""The alert a run raises that ended rollback_failed or unknown."""
RAISES: Final = "raises"


class Why(enum.Enum):
    ESCALATES = "escalates to"
    SAFE_ACTION = "falls back on"
    RAISES = "raises"


@dataclass(frozen=True, slots=True)
class Link:
    """``start`` and ``end`` are runbooks; ``kind`` is the alert type, where one is between them."""

    start: str
    end: str
    why: Why
    kind: str | None = None

    @property
    def said(self) -> str:
        return self.why.value if self.kind is None else f"{self.why.value} {self.kind}, answered by"


def raised_by(runbook: Runbook) -> tuple[str, ...]:
    """The alert types its runs may raise."""
    named = [one.strip() for one in runbook.labels.get(RAISES, "").split(",")]
    own = [RECOVERY_FAILED] if any(action.mutates for action in runbook.actions) else []
    return tuple(dict.fromkeys([*own, *(one for one in named if one)]))


def connections(runbooks: Sequence[Runbook]) -> tuple[Link, ...]:
    """Which runbook may lead to which, in the order of the runbooks."""
    known = {one.id for one in runbooks}
    answering: dict[str, list[str]] = {}
    for one in runbooks:
        for kind in types_asked(one.match):
            answering.setdefault(kind, []).append(one.id)
    links: list[Link] = []
    for one in runbooks:
        links += [Link(one.id, step.runbook, Why.ESCALATES) for step in one.escalate if step.runbook in known]
        safe = one.approval.safe_action if one.approval is not None else None
        links += [Link(one.id, safe, Why.SAFE_ACTION)] if safe in known and safe is not None else []
        for kind in raised_by(one):
            links += [Link(one.id, other, Why.RAISES, kind) for other in answering.get(kind, ())]
    return tuple(links)


def rings(links: Iterable[Link]) -> tuple[tuple[Link, ...], ...]:
    """The shortest way from each runbook back to itself, each ring once; those of escalations alone come first."""
    everything = tuple(links)
    found: dict[frozenset[str], tuple[Link, ...]] = {}
    for some in (tuple(one for one in everything if one.why is Why.ESCALATES), everything):
        ways = _by_start(some)
        for start in ways:
            ring = _way_back(start, ways)
            if ring:
                found.setdefault(frozenset(link.start for link in ring), ring)
    return tuple(found.values())


def _by_start(links: Iterable[Link]) -> dict[str, list[Link]]:
    ways: dict[str, list[Link]] = {}
    for link in links:
        ways.setdefault(link.start, []).append(link)
    return ways


def _way_back(start: str, ways: dict[str, list[Link]]) -> tuple[Link, ...]:
    came_by: dict[str, Link] = {}
    waiting = deque([start])
    while waiting:
        for link in ways.get(waiting.popleft(), ()):
            if link.end == start:
                ring = [link]
                while ring[0].start != start:
                    ring.insert(0, came_by[ring[0].start])
                return tuple(ring)
            if link.end not in came_by:
                came_by[link.end] = link
                waiting.append(link.end)
    return ()
