"""What was seen lately, in bounded memory and constant time: two sets that take turns. For one thread."""

from __future__ import annotations


class Recent:
    """Knows at least the last ``least`` things added, and at most twice as many."""

    def __init__(self, least: int) -> None:
        self._least = least
        self._new: set[object] = set()
        self._old: set[object] = set()

    def __contains__(self, thing: object) -> bool:
        return thing in self._new or thing in self._old

    def add(self, thing: object) -> None:
        if len(self._new) >= self._least:
            self._old, self._new = self._new, set()
        self._new.add(thing)
