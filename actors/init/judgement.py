"""What the init does when the daemon has ended: leave with its code, or start it again. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from actors.keeper.patience import Patience

MOST_QUICK: Final = 5
"""So many quick ends in a row are answered by a new start; one more ends the init."""


@dataclass(frozen=True, slots=True)
class DaemonEnd:
    """How the daemon ended, and what it had said before.

    Args:
        was_up: its tree stood.
        was_ending: it said that it ends in order.
        was_asked: a signal that means *end* had been passed on to it.
    """

    lived_s: float
    code: int | None = None
    signal: int | None = None
    was_up: bool = False
    was_ending: bool = False
    was_asked: bool = False

    @property
    def exit_code(self) -> int:
        """As a shell tells it: the code, or 128 + signal."""
        return 128 + self.signal if self.signal is not None else (self.code or 0)


@dataclass(frozen=True, slots=True)
class Past:
    """``has_been_up``: some daemon before was up, so services may live that need one."""

    has_been_up: bool = False
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True)
class Leave:
    code: int


@dataclass(frozen=True, slots=True)
class Again:
    delay_s: float


def judge(past: Past, end: DaemonEnd) -> tuple[Past, Leave | Again]:
    """An end that was meant is the init's end too. So is a first start that failed (a bad configuration): trying again
    would not help. Everything else is a crash: the next daemon takes on what lives.
    """
    now = Past(past.has_been_up or end.was_up, past.patience.after(end.lived_s))
    cannot_start = not now.has_been_up and end.signal is None
    if end.was_ending or end.was_asked or cannot_start or now.patience.quick > MOST_QUICK:
        return now, Leave(end.exit_code)
    return now, Again(now.patience.delay_s)
