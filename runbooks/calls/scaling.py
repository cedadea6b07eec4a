"""How many replicas a service has, and what it uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runbooks.calls.amounts import number
from runbooks.calls.family import CallOutcome, CheckOutcome, Context, Family, yes_no
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType
from runbooks.ports import PortError, Scaling

MB: Final = 1024 * 1024
"""As in ``required_resources``."""


def _scaling(context: Context) -> Scaling:
    if context.ports.scaling is None:
        raise PortError("services cannot be scaled here")
    return context.ports.scaling


def _before(call: Call, context: Context) -> tuple[str, Any]:
    name = str(call.arguments["service"])
    scaling = _scaling(context)
    replicas = scaling.replicas(name)
    return name, None if replicas is None else {"replicas": replicas, "decided": scaling.decided(name)}


def _newly_decided(call: Call, context: Context, before: Mapping[str, Any]) -> str:
    """What a person has chosen since: it stands. "" when nobody has."""
    decided = _scaling(context).decided(str(call.arguments["service"]))
    return decided if decided != before.get("decided", "") else ""


def scale_back(call: Call, context: Context, before: Mapping[str, Any]) -> CallOutcome:
    """Raises PortError."""
    if decided := _newly_decided(call, context, before):
        return CallOutcome(ok=True, output=f"is left as it is: {decided}")
    return scale_to(call, context, before["replicas"])


def is_scaled_back(call: Call, context: Context, before: Mapping[str, Any]) -> CheckOutcome:
    """Raises PortError."""
    if decided := _newly_decided(call, context, before):
        return CheckOutcome(Answer.YES, decided)
    return is_scaled_to(call, context, before["replicas"])


def scale_to(call: Call, context: Context, wanted: float) -> CallOutcome:
    """Raises PortError."""
    name = str(call.arguments["service"])
    if wanted != int(wanted):
        raise PortError(f"{name}: {wanted:g} is no number of replicas")
    _scaling(context).scale(name, int(wanted), call.timeout_s)
    return CallOutcome(ok=True, output=f"{name} has {wanted:g} replicas", result={"replicas": int(wanted)})


def is_scaled_to(call: Call, context: Context, wanted: float) -> CheckOutcome:
    """Raises PortError."""
    name = str(call.arguments["service"])
    replicas = _scaling(context).replicas(name)
    if replicas is None:
        return CheckOutcome(Answer.NO, f"service {name!r} is not configured")
    return yes_no(replicas == wanted, f"{name} has {replicas} replicas, {wanted:g} wanted")


def _scale(call: Call, context: Context) -> CallOutcome:
    return scale_to(call, context, number(call.arguments["replicas"], "replicas"))


def _scaled(call: Call, context: Context) -> CheckOutcome:
    return is_scaled_to(call, context, number(call.arguments["replicas"], "replicas"))


def _usage_below(call: Call, context: Context) -> CheckOutcome:
    """One that does not run uses nothing, but that is not what was asked for."""
    if context.ports.usages is None:
        raise PortError("nobody measures services here")
    name = str(call.arguments["service"])
    most = {what: number(call.arguments[what], what) for what in ("cpu_percent", "memory_mb") if what in call.arguments}
    if not most:
        raise PortError("say cpu_percent or memory_mb")
    usage = context.ports.usages.usage(name, call.timeout_s)
    if usage is None:
        return CheckOutcome(Answer.UNKNOWN, f"service {name!r} does not run")
    is_now = {"cpu_percent": usage.cpu_percent, "memory_mb": usage.memory_bytes / MB}
    said = ", ".join(f"{what} {is_now[what]:.1f} (below {most[what]:g} wanted)" for what in most)
    return yes_no(all(is_now[what] < limit for what, limit in most.items()), f"{name}: {said}")


FAMILY: Final = Family(
    acts={CallType.SERVICE_SCALE: _scale},
    looks={CallType.SERVICE_SCALED: _scaled, CallType.SERVICE_USAGE_BELOW: _usage_below},
    befores={CallType.SERVICE_SCALE: _before},
)
