"""What happened, as a Guardian follows it: events with numbers, and how none is missed or told twice. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Self

from guardian_link.errors import BadAnswer, EventsLost


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Args:
        seq: its number; events come in this order, and numbers are never given again.
        at: when, RFC 3339 in UTC.
        path: the node it happened to: ``root/services/risk-manager``.
        event: what, in a word: ``exited``, ``ready``, ``parked``, ``alert_decided``, ``execution_ended``, ...
        text: for people.
        evidence: more facts (``execution_id``, ``status``, ``code``, ...).
        epoch: the journal's identity. Keep it with ``seq``: numbers begin anew with a new journal.
    """

    seq: int
    at: str
    path: str
    event: str
    text: str
    evidence: Mapping[str, Any]
    epoch: str = ""

    @classmethod
    def from_body(cls, body: Any, epoch: str) -> Self:
        """Raises BadAnswer."""
        match body:
            case {"seq": int(seq), "at": str(at), "path": str(path), "event": str(event), **more}:
                evidence = more.get("evidence")
                facts = evidence if isinstance(evidence, Mapping) else {}
                return cls(seq, at, path, event, str(more.get("text") or ""), facts, epoch)
            case _:
                raise BadAnswer(f"this is no event: {body!r:.200}")


@dataclass(frozen=True, slots=True)
class Page:
    """The daemon's answer: events behind a number, the oldest and the newest it has, and where it publishes."""

    epoch: str
    first: int
    last: int
    events: tuple[Event, ...]
    address: str | None

    @classmethod
    def from_answer(cls, answer: Any) -> Self:
        """Raises BadAnswer."""
        match answer:
            case {"epoch": str(epoch), "first": int(first), "last": int(last), "events": list(found), **more}:
                address = more.get("address")
                events = tuple(Event.from_body(one, epoch) for one in found)
                return cls(epoch, first, last, events, str(address) if address else None)
            case _:
                raise BadAnswer(f"these are no events: {answer!r:.200}")


@dataclass(slots=True)
class Follower:
    """Where one who follows is. ``epoch`` is empty until it is known; ``seq`` is the last event it was given."""

    seq: int
    epoch: str = ""

    def take_page(self, page: Page) -> tuple[Event, ...]:
        """What of the page is new.

        Raises:
            EventsLost: events behind this place are gone. The place has moved on to the first there is.
        """
        self.epoch = self.epoch or page.epoch
        if page.epoch != self.epoch:
            self._jump(page, page.first, "the journal was begun anew")
        if page.last < self.seq:
            self._jump(page, page.last + 1, f"the journal ends with event {page.last}")
        if page.first > self.seq + 1:
            self._jump(page, page.first, "the oldest events are no longer kept")
        new = tuple(one for one in page.events if one.seq > self.seq)
        if new:
            self.seq = new[-1].seq
        return new

    def take_pushed(self, event: Event) -> bool | None:
        """Whether it is the next one. None: there is a gap before it; ask for what is missing."""
        if event.epoch != self.epoch or event.seq > self.seq + 1:
            return None
        if event.seq <= self.seq:
            return False
        self.seq = event.seq
        return True

    def _jump(self, page: Page, first: int, why: str) -> None:
        lost = EventsLost(self.seq, first, page.epoch, why)
        self.epoch, self.seq = page.epoch, first - 1
        raise lost


def is_wanted(event: Event, topics: Sequence[str]) -> bool:
    """A topic is a glob over the event's word (``execution_*``) or, with a slash, over its path (``root/services/*``).
    Without topics all are wanted.
    """
    return not topics or any(fnmatchcase(event.path if "/" in topic else event.event, topic) for topic in topics)
