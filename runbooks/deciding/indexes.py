"""What ``History`` finds runs by, so that a decision costs the same however much is remembered. Pure.

Each index holds ids, in the order of an instant; runs are looked up by id. Those asked for lately are at the end, so
looking starts there.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Entry = tuple[float, int, str]
"""An instant, the run's number (what was known first has the lower one), its id."""


class InTime(Generic[Key]):
    """Under each key the entries, the earliest first; of one instant in the order of their numbers."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[Key, list[Entry]] = {}

    def add(self, key: Key, entry: Entry) -> None:
        entries = self._entries.setdefault(key, [])
        if not entries or entries[-1] < entry:  # as nearly always
            entries.append(entry)
        else:
            insort(entries, entry)

    def take(self, key: Key, entry: Entry) -> None:
        """Raises KeyError when it is not there."""
        entries = self._entries[key]
        at = 0 if entries[0] == entry else bisect_left(entries, entry)  # the oldest are forgotten first
        if at == len(entries) or entries[at] != entry:
            raise KeyError(entry)
        del entries[at]
        if not entries:
            del self._entries[key]

    def latest(self, key: Key) -> Iterator[Entry]:
        """The latest first."""
        return reversed(self._entries.get(key, ()))

    def last(self, key: Key) -> str | None:
        """The id of the latest."""
        entries = self._entries.get(key)
        return entries[-1][2] if entries else None

    def nth_latest(self, key: Key, nth: int) -> float | None:
        """The instant of the nth from the end (1: the latest); None when there are fewer."""
        entries = self._entries.get(key)
        return entries[-nth][0] if entries is not None and len(entries) >= nth else None


class Grouped(Generic[Key]):
    """Ids under keys, in the order in which they came there."""

    __slots__ = ("_ids",)

    def __init__(self) -> None:
        self._ids: dict[Key, dict[str, None]] = {}

    def add(self, key: Key, execution_id: str) -> None:
        self._ids.setdefault(key, {})[execution_id] = None

    def take(self, key: Key, execution_id: str) -> None:
        found = self._ids.get(key)
        if found is not None:
            found.pop(execution_id, None)
            if not found:
                del self._ids[key]

    def of(self, key: Key) -> tuple[str, ...]:
        return tuple(self._ids.get(key, ()))
