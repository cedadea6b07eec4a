"""Makes the calls of runbooks, each by its family, through the ports. Blocking: runs on the I/O pool.

Nothing here raises: a call's failure is its answer, and what nobody can tell is ``Answer.UNKNOWN``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from runbooks.calls import (
    alerts,
    bridges,
    cleanup,
    custom,
    databases,
    files,
    hosts,
    net,
    notify,
    programs,
    scaling,
    services,
    waiting,
)
from runbooks.calls.family import Act, Before, CallOutcome, CheckOutcome, Context, Family, Look
from runbooks.catalogue import SECRET, is_secret
from runbooks.engine_words import Answer, Snapshot, Try
from runbooks.model import Call, CallType
from runbooks.ports import PortError, Ports, Untouched
from runbooks.secret_files import redacted

FAMILIES: Final[tuple[Family, ...]] = (
    services.FAMILY,
    programs.FAMILY,
    net.FAMILY,
    bridges.FAMILY,
    alerts.FAMILY,
    hosts.FAMILY,
    scaling.FAMILY,
    files.FAMILY,
    cleanup.FAMILY,
    notify.FAMILY,
    custom.FAMILY,
    databases.FAMILY,
    waiting.FAMILY,
)
_ACTS: Final[dict[CallType, Act]] = {kind: act for family in FAMILIES for kind, act in family.acts.items()}
_LOOKS: Final[dict[CallType, Look]] = {kind: look for family in FAMILIES for kind, look in family.looks.items()}
_BEFORES: Final[dict[CallType, Before]] = {kind: tell for family in FAMILIES for kind, tell in family.befores.items()}


def make_call(call: Call, snapshot: Snapshot | None, ports: Ports, token: str, of: Try | None = None) -> CallOutcome:
    """Make one acting call of attempt ``of``. ``token`` marks what it starts, so that it can be found again."""
    secrets: dict[str, str] = {}
    try:
        plain = _revealed(call, ports, secrets)
        made = _ACTS[call.type](plain, Context(snapshot or {}, ports, token, of, bool(secrets)))
    except PortError as error:
        is_untouched = isinstance(error, Untouched)
        made = CallOutcome(ok=False, error=str(error), trouble=error.trouble, is_untouched=is_untouched)
    except Exception as error:  # a port that breaks is a failed call, never a crashed run
        made = CallOutcome(ok=False, error=f"{type(error).__name__}: {error}")
    return made if not secrets else _redacted(made, secrets)


def make_check(call: Call, snapshot: Snapshot | None, ports: Ports, token: str, of: Try | None = None) -> CheckOutcome:
    """Make one reading call, about attempt ``of``."""
    secrets: dict[str, str] = {}
    try:
        plain = _revealed(call, ports, secrets)
        made = _LOOKS[call.type](plain, Context(snapshot or {}, ports, token, of, bool(secrets)))
    except PortError as error:
        made = CheckOutcome(Answer.UNKNOWN, str(error))
    except Exception as error:
        made = CheckOutcome(Answer.UNKNOWN, f"{type(error).__name__}: {error}")
    return replace(made, detail=redacted(made.detail, secrets), seen=redacted(made.seen, secrets))


def take_snapshot(calls: Iterable[Call], ports: Ports, token: str) -> Snapshot:
    """What is now, of everything ``calls`` (of one action, the action's own first) touch or compare with.

    Of two that are about the same thing the first counts: it knows what is to be done.

    Raises:
        PortError: nobody can tell.
    """
    context, taken, secrets = Context({}, ports, token), dict[str, Any](), dict[str, str]()
    for call in calls:
        try:
            name, value = _BEFORES[call.type](_revealed(call, ports, secrets), context)
        except PortError as error:
            raise PortError(redacted(str(error), secrets)) from None
        except Exception as error:  # as for a call: never a crashed run
            raise PortError(redacted(f"{type(error).__name__}: {error}", secrets)) from None
        if taken.get(name) is None:
            taken[name] = value
    return taken


# -- secrets ----------------------------------------------------------------------------------------------------------


def _revealed(call: Call, ports: Ports, secrets: dict[str, str]) -> Call:
    """The call with the values of the secrets it names, which are put into ``secrets`` too. Raises PortError."""

    def reveal(value: Any) -> Any:
        if is_secret(value):
            name = value[SECRET]
            if ports.secrets is None:
                raise Untouched(f"secret {name!r}: there are no secrets here")
            secrets[name] = ports.secrets.value(name)
            return secrets[name]
        match value:
            case Mapping():
                return {key: reveal(one) for key, one in value.items()}
            case list() | tuple():
                return type(value)(reveal(one) for one in value)
            case _:
                return value

    arguments = {name: value if name == "argv" else reveal(value) for name, value in call.arguments.items()}
    return replace(call, arguments=arguments)


def _redacted(made: CallOutcome, secrets: Mapping[str, str]) -> CallOutcome:
    said = {name: redacted(getattr(made, name), secrets) for name in ("output", "error", "result")}
    return replace(made, **said)
