"""The closed set of messages between actors. Frozen facts and requests; pure.

Every message about a child carries the child's incarnation: a late one of an older run is dropped by whoever gets it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.spec import ChildSpec, ExitReason


class StopMode(enum.Enum):
    """What happens to the thing an actor stands for when the actor is stopped.

    TERMINATE takes it along (a strategy, the operator). DETACH leaves it running, to be adopted by the next
    incarnation (our own faults, an upgrade). END_OF_DAEMON takes along what this daemon created and leaves what it
    only attached to.
    """

    TERMINATE = "terminate"
    DETACH = "detach"
    END_OF_DAEMON = "end_of_daemon"


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """``setup`` of a child returned (OTP: its start function said ok)."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class ChildIgnored:
    """A child declined to start (OTP ``ignore``): not an error."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class ChildStartFailed:
    """``setup`` of a child raised."""

    id: str
    incarnation: int
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class ChildReady:
    """A child does its work now (beyond OTP); sent at most once an incarnation.

    ``since``: clock seconds from which it has been doing so, when that was before this incarnation (an adopted run).
    """

    id: str
    incarnation: int
    since: float | None = None


@dataclass(frozen=True, slots=True)
class ChildExited:
    """A started child is gone. Sent exactly once an incarnation, last of all."""

    id: str
    incarnation: int
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class StopYourself:
    """A request to end, from the supervisor (or from outside the tree for the root)."""

    reason: ExitReason
    mode: StopMode = StopMode.TERMINATE


@dataclass(frozen=True, slots=True)
class ExitNow:
    """End by yourself with this reason, as if your own code had decided it. For tests and tools."""

    reason: ExitReason


@dataclass(frozen=True, slots=True)
class Suspend:
    """Keep messages unhandled until ``Resume`` (OTP ``sys:suspend``)."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Handle what was kept, then go on."""


@dataclass(frozen=True, slots=True)
class AreYouThere:
    """Asked of any actor: it calls ``here`` on its own thread, and so proves that it takes messages."""

    here: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Wake:
    """A deadline asked for by the receiver has come. ``token`` is the receiver's own."""

    token: object


@dataclass(frozen=True, slots=True)
class IoDone:
    """A job given to the I/O pool ended: ``result``, or ``error`` when it raised."""

    tag: object
    result: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class DependencyChanged:
    """A node somebody waits for became ready, or stopped being it. ``name`` is the service's name."""

    name: str
    ready: bool


@dataclass(frozen=True, slots=True)
class AddChild:
    """Start one more child under a supervisor (OTP ``start_child``); nobody waits for the answer."""

    spec: ChildSpec


@dataclass(frozen=True, slots=True)
class SpecReplaced:
    """From its supervisor: the child's spec is another from now on; the present run goes on."""

    spec: ChildSpec


@dataclass(frozen=True, slots=True)
class RestartPermit:
    """From its supervisor: whether a crash of the service's run may be answered by its restart at once."""

    at_once: bool
