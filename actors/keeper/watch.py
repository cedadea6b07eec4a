"""When a daemon counts as frozen. Pure: the clock comes in as a number.

The daemon beats while its root supervisor answers. A keeper that was itself held up (the machine slept, the host was
overloaded) must not judge by the silence it slept through: then the daemon gets a whole period more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Watch:
    """Args:
    frozen_after_s: silence after which the daemon is replaced; 0 switches the watch off.
    heard_s: clock seconds of the last beat.
    looked_s: clock seconds of the last look.
    """

    frozen_after_s: float
    heard_s: float
    looked_s: float


HELD_UP_S = 3.0
"""A look this much later than asked for means that we were held up ourselves."""
LOOK_S = 1.0


def begin(frozen_after_s: float, now_s: float) -> Watch:
    return Watch(frozen_after_s, now_s, now_s)


def heard(watch: Watch, now_s: float) -> Watch:
    return replace(watch, heard_s=now_s, looked_s=now_s)


def look(watch: Watch, now_s: float) -> tuple[Watch, bool]:
    """The watch after a look, and whether the daemon is frozen."""
    was_held_up = now_s - watch.looked_s > LOOK_S + HELD_UP_S
    heard_s = now_s if was_held_up else watch.heard_s
    is_frozen = watch.frozen_after_s > 0 and now_s - heard_s > watch.frozen_after_s
    return replace(watch, heard_s=heard_s, looked_s=now_s), is_frozen
