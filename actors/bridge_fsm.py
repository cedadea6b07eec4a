"""One connection to a bridge endpoint as a state machine: connect, hello, beating, silent. Pure: time comes in."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from actors.spec import ExitKind, ExitReason, Origin


class LinkState(enum.Enum):
    CONNECTING = "connecting"
    HELLO = "hello"
    BEATING = "beating"
    ENDED = "ended"


ALLOWED: Final = {
    LinkState.CONNECTING: frozenset({LinkState.HELLO, LinkState.BEATING, LinkState.ENDED}),
    LinkState.HELLO: frozenset({LinkState.BEATING, LinkState.ENDED}),
    LinkState.BEATING: frozenset({LinkState.ENDED}),
    LinkState.ENDED: frozenset[LinkState](),
}


class IllegalTransition(RuntimeError):
    """A bug of ours: the machine was asked to go where it cannot."""


@dataclass(frozen=True, slots=True)
class LinkRun:
    """``heard_at`` and the deadline are clock seconds; ``silence_s`` is how long nothing may be heard, and before the
    first heartbeat nothing need be heard until ``patient_until``.
    """

    silence_s: float
    heard_at: float
    state: LinkState = LinkState.CONNECTING
    patient_until: float = 0.0

    @property
    def deadline(self) -> float:
        """When the silence is too long."""
        is_beating = self.state is LinkState.BEATING
        return self.heard_at + self.silence_s if is_beating else max(self.heard_at + self.silence_s, self.patient_until)


@dataclass(frozen=True, slots=True)
class Connected:
    """The transport is up; for those without a connection of their own this never comes."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A hello, a heartbeat, a fresh file, a message: the endpoint lives. ``is_hello`` does not prove more than that.

    ``facts``: what it said of itself.
    """

    is_hello: bool = False
    facts: Mapping[str, Any] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Lost:
    """The transport ended or never came up."""

    text: str


@dataclass(frozen=True, slots=True)
class Looked:
    """Time to see whether it has been silent for too long."""


Event = Connected | Heard | Lost | Looked


@dataclass(frozen=True, slots=True)
class SayReady:
    pass


@dataclass(frozen=True, slots=True)
class LookAt:
    at_s: float


@dataclass(frozen=True, slots=True)
class Exit:
    reason: ExitReason


Effect = SayReady | LookAt | Exit


def begin(silence_s: float, now: float, start_period_s: float = 0.0) -> tuple[LinkRun, tuple[Effect, ...]]:
    """The first sign may take ``start_period_s`` seconds, when that is longer than ``silence_s``."""
    run = LinkRun(silence_s, now, patient_until=now + start_period_s)
    return run, (_look(run, now),)


def step(run: LinkRun, event: Event, now: float) -> tuple[LinkRun, tuple[Effect, ...]]:
    """Take one event at clock second ``now``; after the end nothing changes any more."""
    if run.state is LinkState.ENDED:
        return run, ()
    match event:
        case Connected() if run.state is LinkState.CONNECTING:
            return replace(_to(run, LinkState.HELLO), heard_at=now), ()
        case Connected():
            return run, ()
        case Heard(is_hello=True):
            return replace(run, heard_at=now), ()
        case Heard() if run.state is LinkState.BEATING:
            return replace(run, heard_at=now), ()
        case Heard():
            return replace(_to(run, LinkState.BEATING), heard_at=now), (SayReady(),)
        case Lost(text):
            return _to(run, LinkState.ENDED), (Exit(_fault(text)),)
        case Looked() if now >= run.deadline:
            return _to(run, LinkState.ENDED), (Exit(_fault(f"silent for {now - run.heard_at:.1f} s")),)
        case Looked():
            return run, (_look(run, now),)


def _look(run: LinkRun, now: float) -> LookAt:
    """Not later than a silence from now: the first heartbeat ends all patience."""
    return LookAt(min(run.deadline, now + run.silence_s))


def _to(run: LinkRun, state: LinkState) -> LinkRun:
    if state not in ALLOWED[run.state]:
        raise IllegalTransition(f"{run.state.value} -> {state.value}")
    return replace(run, state=state)


def _fault(text: str) -> ExitReason:
    return ExitReason(ExitKind.CRASHED, text, Origin.WORLD, {"failed": True})
