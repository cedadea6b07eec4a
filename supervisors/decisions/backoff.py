"""How long to wait before the n-th restart in a row. Pure: the jitter comes in as a number."""

from __future__ import annotations

from actors.spec import Backoff


def backoff_delay_s(policy: Backoff, failures: int, roll: float) -> float:
    """Seconds before restart number ``failures`` (from 1) in a row; ``roll`` in [0, 1) spreads it.

    The first restart waits ``first_s`` exactly; the later ones grow from ``initial_s`` to at most ``max_s`` and are
    spread over the upper half of their delay, also at the cap, so that children killed together come back apart.
    """
    if failures <= 1:
        return policy.first_s
    try:
        grown_s = policy.initial_s * policy.factor ** (failures - 2)
    except OverflowError:
        grown_s = policy.max_s
    return spread_s(min(policy.max_s, grown_s), roll, jitter=policy.jitter)


def spread_s(delay_s: float, roll: float, *, jitter: bool) -> float:
    return delay_s * (0.5 + roll / 2) if jitter else delay_s
