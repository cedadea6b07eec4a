"""How many restarts within how long are too many. Pure."""

from __future__ import annotations


def within_window(times: tuple[float, ...], period_s: float, now: float) -> tuple[float, ...]:
    """Those of ``times`` that still count; the edge of the window does (OTP: a gap of at most the period counts)."""
    return tuple(at for at in times if now - at <= period_s)


def charge(times: tuple[float, ...], intensity: int, period_s: float, now: float) -> tuple[tuple[float, ...], bool]:
    """One more restart at ``now``: the new window, and whether it is more than ``intensity`` (OTP ``add_restart``)."""
    window = (*within_window(times, period_s, now), now)
    return window, len(window) > intensity
