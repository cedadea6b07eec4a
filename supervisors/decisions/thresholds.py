"""When a figure has been too high for long enough to say so, and when it has been well for long enough. Pure.

Both need time (``for``, as Prometheus has it), and their bounds differ (hysteresis): a figure that swings about its
limit is one alert, not many.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Limit:
    """More than ``most`` for ``for_s`` seconds is too much; at most ``clear`` for ``clear_for_s`` seconds is well."""

    most: float
    clear: float
    for_s: float
    clear_for_s: float


@dataclass(frozen=True, slots=True)
class Level:
    """What is remembered of one figure. ``since_s``: since when it speaks for a change; None: it does not."""

    is_raised: bool = False
    since_s: float | None = None
    looked_s: float | None = None


class Change(enum.Enum):
    NONE = "none"
    BEGAN = "began"
    ENDED = "ended"


def step(level: Level, limit: Limit, value: float | None, now_s: float, most_gap_s: float) -> tuple[Level, Change]:
    """One look.

    Args:
        value: None when nobody can tell: it speaks for nothing, and what was counted is counted anew.
        now_s: of a clock that never goes back.
        most_gap_s: what was not looked at for longer (the machine slept) is not known to have lasted.
    """
    is_for_change = value is not None and (value <= limit.clear if level.is_raised else value > limit.most)
    if not is_for_change:
        return replace(level, since_s=None, looked_s=now_s), Change.NONE
    has_gap = level.looked_s is not None and now_s - level.looked_s > most_gap_s
    since_s = now_s if level.since_s is None or has_gap else level.since_s
    if now_s - since_s < (limit.clear_for_s if level.is_raised else limit.for_s):
        return replace(level, since_s=since_s, looked_s=now_s), Change.NONE
    return Level(not level.is_raised, None, now_s), Change.ENDED if level.is_raised else Change.BEGAN
