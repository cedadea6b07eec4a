"""Makes the calls of runbooks, each by its family, through the ports. Blocking: runs on the I/O pool.

Nothing here raises: a call's failure is its answer, and what nobody can tell is ``Answer.UNKNOWN``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from runbooks.calls import alerts, bridges, databases, net, programs, services, waiting
from runbooks.calls.family import Act, Before, CallOutcome, CheckOutcome, Context, Family, Look
from runbooks.engine_words import Answer, Snapshot, Try
from runbooks.model import Call, CallType
from runbooks.ports import PortError, Ports

FAMILIES: Final[tuple[Family, ...]] = (
    services.FAMILY,
    programs.FAMILY,
    net.FAMILY,
    bridges.FAMILY,
    alerts.FAMILY,
    databases.FAMILY,
    waiting.FAMILY,
)
_ACTS: Final[dict[CallType, Act]] = {kind: act for family in FAMILIES for kind, act in family.acts.items()}
_LOOKS: Final[dict[CallType, Look]] = {kind: look for family in FAMILIES for kind, look in family.looks.items()}
_BEFORES: Final[dict[CallType, Before]] = {kind: tell for family in FAMILIES for kind, tell in family.befores.items()}


def make_call(call: Call, snapshot: Snapshot | None, ports: Ports, token: str, of: Try | None = None) -> CallOutcome:
    """Make one acting call of attempt ``of``. ``token`` marks what it starts, so that it can be found again."""
    try:
        return _ACTS[call.type](call, Context(snapshot or {}, ports, token, of))
    except PortError as error:
        return CallOutcome(ok=False, error=str(error), trouble=error.trouble)
    except Exception as error:  # a port that breaks is a failed call, never a crashed run
        return CallOutcome(ok=False, error=f"{type(error).__name__}: {error}")


def make_check(call: Call, snapshot: Snapshot | None, ports: Ports, token: str, of: Try | None = None) -> CheckOutcome:
    """Make one reading call, about attempt ``of``."""
    try:
        return _LOOKS[call.type](call, Context(snapshot or {}, ports, token, of))
    except PortError as error:
        return CheckOutcome(Answer.UNKNOWN, str(error))
    except Exception as error:
        return CheckOutcome(Answer.UNKNOWN, f"{type(error).__name__}: {error}")


def take_snapshot(calls: Iterable[Call], ports: Ports, token: str) -> Snapshot:
    """What is now, of everything ``calls`` (of one action) touch or compare with.

    Raises:
        PortError: nobody can tell.
    """
    context = Context({}, ports, token)
    return dict(_BEFORES[call.type](call, context) for call in calls)
