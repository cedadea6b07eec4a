"""A journal's events in memory, asked for and published as a daemon does, with faults a follower has to stand."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bridge_link.publisher import Batch, EventPublisher, Place
from bridge_link.wire import Kind, Message
from guardian_link.errors import DaemonUnreachable
from guardian_link.events import Event, Follower
from guardian_link.reader import EventReader

PAGE = 100


@dataclass
class EventSource:
    """``drop``: how likely a published message is lost. ``is_away``: questions are not answered."""

    drop: float = 0.0
    epoch: str = "epoch-one"
    text: str = "it happened"
    is_away: bool = False
    is_published: bool = True
    questions: list[Mapping[str, Any]] = field(default_factory=list)
    publisher: EventPublisher = field(init=False)
    _chance: random.Random = field(default_factory=lambda: random.Random(7))
    _kept: dict[int, dict[str, Any]] = field(default_factory=dict)
    _last: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.publisher = EventPublisher("tcp://127.0.0.1:0", self._read)

    def happen(self, count: int = 1, event: str = "exited", path: str = "root/services/a") -> None:
        with self._lock:
            for _ in range(count):
                self._last += 1
                facts = {"seq": self._last, "at": "2026-01-01T00:00:00.000Z", "path": path, "event": event}
                self._kept[self._last] = facts | {"text": self.text, "evidence": {"n": self._last}}
        self.publisher.ring()

    def forget(self, until: int) -> None:
        with self._lock:
            self._kept = {seq: one for seq, one in self._kept.items() if seq > until}

    def begin_anew(self, epoch: str) -> None:
        with self._lock:
            self.epoch, self._kept, self._last = epoch, {}, 0

    def ask(self, question: Mapping[str, Any], _timeout_s: float) -> Any:
        if self.is_away:
            raise DaemonUnreachable("nobody there")
        with self._lock:
            self.questions.append(question)
            return {
                "epoch": self.epoch,
                "first": min(self._kept, default=self._last + 1),
                "last": self._last,
                "events": self._behind(question.get("after")),
                "address": self.publisher.address if self.is_published else None,
            }

    def _behind(self, after: int | None) -> list[dict[str, Any]]:
        if after is None:
            return []
        return [self._kept[seq] for seq in sorted(self._kept) if seq > after][:PAGE]

    def _read(self, place: Place | None) -> Batch | None:
        with self._lock:
            if place is None:
                return Batch(Place(self.epoch, self._last))
            found = self._behind(place.seq if place.epoch == self.epoch else 0)
            heard = [one for one in found if self._chance.random() >= self.drop]
            messages = [
                (one["event"], Message(Kind.EVENT, f"{self.epoch}:{one['seq']}", {"epoch": self.epoch, **one}))
                for one in heard
            ]
            seq = found[-1]["seq"] if found else min(place.seq, self._last)
            return Batch(Place(self.epoch, seq), messages, is_all=len(found) < PAGE)


@contextmanager
def following(
    source: EventSource, after: int = 0, epoch: str = "", topics: tuple[str, ...] = ()
) -> Iterator[EventReader]:
    source.publisher.start()
    reader = EventReader(source.ask, Follower(after, epoch), topics, lambda: "127.0.0.1")
    try:
        yield reader
    finally:
        reader.close()
        source.publisher.close()


def taken(reader: EventReader, count: int, within_s: float = 20.0) -> list[Event]:
    """The next ``count`` events."""
    found: list[Event] = []
    for _ in range(count):
        event = reader.shelf.take(within_s)
        assert event is not None, f"only {len(found)} of {count} events came: {reader.trouble}"
        found.append(event)
    return found
