"""Instants that neither a restart nor a wrong clock can move. Pure.

The store holds each instant twice: as wall time (UTC), and as a *mark*, the seconds since the machine was started
together with the name of that start. Within one start of the machine only the mark counts: setting the clock changes
nothing. After another start of the machine the wall clock is all there is; an instant in its future is taken as now.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """Now. ``up_s``: seconds since the start of the machine that is called ``boot``, sleep included."""

    wall_s: float
    boot: str
    up_s: float

    @property
    def mark(self) -> str:
        return f"{self.boot}/{self.up_s:.3f}"


def on_scale(wall_s: float, mark: str | None, now: Moment) -> float:
    """A stored instant in seconds since the present start of the machine (before it: negative), never after ``now``."""
    boot, _, up = (mark or "").rpartition("/")
    if boot and boot == now.boot:
        return min(float(up), now.up_s)
    return now.up_s - max(0.0, now.wall_s - wall_s)
