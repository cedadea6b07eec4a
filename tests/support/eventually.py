"""The only place in the tests that sleeps: wait until something holds, or fail saying what was last seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T | None], *, within_s: float = 10.0, every_s: float = 0.01, what: str = "") -> T:
    """The first truthy value of ``look()``; an AssertionError with its last value after ``within_s`` seconds.

    An AssertionError raised by ``look`` itself counts as "not yet".
    """
    deadline = time.monotonic() + within_s
    while True:
        last: object
        try:
            value = look()
            if value:
                return value
            last = value
        except AssertionError as not_yet:
            last = not_yet
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {within_s:g} s: {what or look}: last seen {last!r}")
        time.sleep(every_s)


def holds_for(look: Callable[[], object], seconds: float, *, every_s: float = 0.01) -> None:
    """Fail as soon as ``look()`` is falsy within the next ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = look()
        assert value, f"stopped holding: {value!r}"
        time.sleep(every_s)
