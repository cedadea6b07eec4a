"""Blast radius: when too much is down, no new run begins; what is wrong then is no matter of one service. Pure.

``min_healthy`` is about all services of the tree that are wanted (not stopped by a person): so many, or such a share of
them, must be ready. Below it there is a *storm*: it is alerted once, and ends ``STORM_COOLDOWN_S`` after enough were
ready again, without a relapse in between.
"""

from __future__ import annotations

import functools
import math
from typing import Final

from runbooks.deciding.words import Health, History, Storm
from runbooks.model import Runbook

STORM_COOLDOWN_S: Final = 60.0


@functools.lru_cache(maxsize=256)
def needed(min_healthy: str, wanted: int) -> int:
    """How many services must be ready, of so many that are wanted."""
    if min_healthy.endswith("%"):
        return math.ceil(wanted * int(min_healthy[:-1]) / 100)
    return int(min_healthy)


def weathered(storm: Storm | None, min_healthy: str, health: Health, now: float) -> Storm | None:
    """The storm after a look at the services; None: there is none (any more)."""
    if health.ready < needed(min_healthy, health.wanted):
        return Storm(min_healthy, now if storm is None else storm.since)
    if storm is None:
        return None
    calm_since = now if storm.calm_since is None else storm.calm_since
    return None if now - calm_since >= STORM_COOLDOWN_S else Storm(min_healthy, storm.since, calm_since)


def too_wide(runbook: Runbook, history: History, now: float) -> str:
    """Why no run may begin now; "" when one may. Not knowing how the services are is a reason.

    What was seen is remembered in ``history.storms``.
    """
    rule = runbook.limits.min_healthy
    if rule is None:
        return ""
    if history.health is None:
        return "nobody can tell how many services are ready"
    health = history.health()
    storm = weathered(history.storms.get(rule), rule, health, now)
    if storm is None:
        history.storms.pop(rule, None)
        return ""
    history.storms[rule] = storm
    if storm.calm_since is None:
        return f"{health.ready} of {health.wanted} services are ready, {needed(rule, health.wanted)} are needed"
    left_s = STORM_COOLDOWN_S - (now - storm.calm_since)
    return f"too many services were down a moment ago; again in {left_s:.0f} s"
