"""The journal's events for who follows them: pages for questions, messages for the publisher.

Reads on its caller's thread. Each event is bounded and always fits into a message: one that did not would stop a
stream for ever.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from actors.journal import events
from actors.journal.events import Page
from actors.journal.journal import Journal
from actors.journal.schema import JournalTrouble
from actors.questions import BadQuestion
from bridge_link.bodies import LEAST_INT, MOST_INT
from bridge_link.publisher import Batch, Place
from bridge_link.wire import Kind, Message
from supervisors.tree_json import rfc3339

MOST_EVENTS: Final = 500
MOST_BYTES: Final = 48 * 1024
MOST_VALUES: Final = 3500
"""Of one answer; a body may have 65,536 bytes and 4,096 values."""
MOST_TEXT: Final = 2000
MOST_FACTS: Final = 16
MOST_FACT: Final = 500
MOST_LISTED: Final = 500
MOST_LISTED_TEXT: Final = 64
"""Of a list of ids: so many, each as long as an id may be."""

Shown = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Happenings:
    """``published_at``: where events are published now, or None."""

    journal: Journal
    published_at: Callable[[], str | None]

    def answer(self, question: Mapping[str, Any]) -> Shown:
        """The answer to ``{"ask": "events", "after": SEQ, "limit": N}``.

        Raises:
            BadQuestion: ``after`` or ``limit`` is no such number.
            JournalTrouble: not now.
        """
        after, limit = question.get("after"), question.get("limit", MOST_EVENTS)
        if after is not None and not _is_number(after, 0):
            raise BadQuestion(f"after: {after!r:.80} is no whole number from 0")
        if not _is_number(limit, 1):
            raise BadQuestion(f"limit: {limit!r:.80} is no whole number from 1")
        page = self._page(after, min(limit, MOST_EVENTS))
        return {
            "epoch": page.epoch,
            "first": page.first,
            "last": page.last,
            "events": fitting([shown(row) for row in page.events]),
            "address": self.published_at(),
        }

    def batch(self, place: Place | None) -> Batch | None:
        """For the publisher: what came behind ``place``."""
        try:
            page = self._page(None if place is None else place.seq, MOST_EVENTS)
            if place is not None and place.epoch != page.epoch:  # begun anew under us
                page = self._page(0, MOST_EVENTS)
        except JournalTrouble:
            return None
        if place is None:
            return Batch(Place(page.epoch, page.last))
        seq = page.events[-1]["seq"] if page.events else min(place.seq, page.last)
        messages = [(row["event"], as_message(page.epoch, shown(row))) for row in page.events]
        return Batch(Place(page.epoch, seq), messages, is_all=len(messages) < MOST_EVENTS)

    def _page(self, after: int | None, limit: int) -> Page:
        return self.journal.read(lambda db: events.page(db, after, limit))


def shown(row: Mapping[str, Any]) -> Shown:
    """One event as it goes over the wire; its texts are shortened until it fits in both encodings. Pure."""
    share = 1
    while size_of(made := _shown(row, share)) > MOST_BYTES:
        share *= 2
    return made


def size_of(event: Shown) -> int:
    """In JSON as it is sent, where it is largest."""
    return len(json.dumps(event))


def _shown(row: Mapping[str, Any], share: int) -> Shown:
    facts = list(row["evidence"].items())[:MOST_FACTS]
    return {
        "seq": row["seq"],
        "at": rfc3339(row["at"]),
        "path": _text(row["path"], MOST_FACT),
        "event": _text(row["event"], MOST_FACT),
        "text": _text(row["text"], MOST_TEXT // share),
        "evidence": {_text(key, MOST_FACT // share): _fact(value, share) for key, value in facts},
    }


def fitting(found: Sequence[Shown]) -> list[Shown]:
    """As many of the first as fit into one answer; one always does. Pure."""
    taken: list[Shown] = []
    left_bytes, left_values = MOST_BYTES, MOST_VALUES
    for one in found:
        left_bytes -= size_of(one)
        left_values -= 7 + sum(len(fact) + 1 if isinstance(fact, list) else 1 for fact in one["evidence"].values())
        if taken and (left_bytes < 0 or left_values < 0):
            break
        taken.append(one)
    return taken


def as_message(epoch: str, event: Shown) -> Message:
    return Message(Kind.EVENT, f"{epoch}:{event['seq']}", {"epoch": epoch, **event})


def _is_number(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST_INT


def _fact(value: Any, share: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if (isinstance(value, int) and LEAST_INT <= value <= MOST_INT) or (
        isinstance(value, float) and math.isfinite(value)
    ):
        return value
    if isinstance(value, list):
        return [_text(one, MOST_LISTED_TEXT) for one in value[: MOST_LISTED // share]]
    return _text(value, MOST_FACT // share)


def _text(value: object, most: int) -> str:
    """What an event was told with may be a program's own output: whatever it is, it becomes text that can be sent."""
    text = str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")[:most]
    return text.encode("utf-8", "replace").decode("utf-8")
