"""Calls about services of the tree, through the service port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runbooks.calls import scaling
from runbooks.calls.family import CallOutcome, CheckOutcome, Context, Family, yes_no
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType, Trouble
from runbooks.ports import PortError, ServiceView

STOPPED: Final = "stopped"
PAUSED: Final = "paused"
DOWN: Final = (STOPPED, "failed")
"""There is no run, and nothing begins one."""


def _before(call: Call, context: Context) -> tuple[str, Any]:
    name = str(call.arguments["service"])
    view = context.ports.services.status(name)
    if view is None:
        return name, None
    return name, {
        "run": view.run,
        "state": view.state,
        "ready": view.ready,
        "wanted": view.is_wanted,
        "decided": view.decided,
    }


def _newly_decided(before: Mapping[str, Any], view: ServiceView | None) -> str:
    """What a person has decided since: it stands, whatever this run did or would undo. "" when nobody has."""
    return view.decided if view is not None and view.decided != before.get("decided", "") else ""


# -- acting -----------------------------------------------------------------------------------------------------------


def _restart(call: Call, context: Context) -> CallOutcome:
    view = context.ports.services.status(call.arguments["service"])
    if view is not None and view.decided:
        said = f"service {view.name!r} is not restarted: {view.decided}"
        return CallOutcome(ok=False, error=said, trouble=Trouble.PERMANENT, is_untouched=True)
    run = context.ports.services.restart(call.arguments["service"], call.timeout_s)
    return CallOutcome(ok=True, output=f"run {run.run}", result={"run": run.run})


def _start(call: Call, context: Context) -> CallOutcome:
    run = context.ports.services.start(call.arguments["service"], call.timeout_s)
    return CallOutcome(ok=True, output=f"run {run.run}", result={"run": run.run})


def _stop(call: Call, context: Context) -> CallOutcome:
    context.ports.services.stop(call.arguments["service"], call.timeout_s)
    return CallOutcome(ok=True)


def _restore(call: Call, context: Context) -> CallOutcome:
    """A run that ended cannot come back; whether the service is to run can."""
    before = context.snapshot.get(call.arguments["service"])
    if before is None:
        return CallOutcome(ok=False, error="it is not known what the service was before")
    if "replicas" in before:
        return scaling.scale_back(call, context, before)
    view = context.ports.services.status(call.arguments["service"])
    if decided := _newly_decided(before, view):
        return CallOutcome(ok=True, output=f"is left as it is: {decided}")
    if before["wanted"] and before["state"] != PAUSED:
        return _start_again(call, context, before)
    if view is not None and _is_as_before(before, view):
        return CallOutcome(ok=True, output=f"is {view.state}, as before")
    return _stop(call, context)  # one that was paused, too: what it was frozen in is gone


def _start_again(call: Call, context: Context, before: Mapping[str, Any]) -> CallOutcome:
    """Unless a person decides otherwise at this very moment."""
    name = call.arguments["service"]
    try:
        run = context.ports.services.start(name, call.timeout_s, before.get("decided", ""))
    except PortError:
        if decided := _newly_decided(before, context.ports.services.status(name)):
            return CallOutcome(ok=True, output=f"is left as it is: {decided}")
        raise
    return CallOutcome(ok=True, output=f"run {run.run}", result={"run": run.run})


# -- looking ----------------------------------------------------------------------------------------------------------


def _exists(call: Call, context: Context) -> CheckOutcome:
    name = call.arguments["service"]
    is_known = context.ports.services.status(name) is not None
    return yes_no(is_known, f"service {name!r} is {'' if is_known else 'not '}configured")


def _wanted(call: Call, context: Context) -> CheckOutcome:
    """What a person stopped, or paused, only a person starts."""
    name = call.arguments["service"]
    view = context.ports.services.status(name)
    if view is None:
        return CheckOutcome(Answer.NO, f"service {name!r} is not configured")
    return yes_no(
        view.is_wanted, f"service {name!r} is {view.state}, {'wanted' if view.is_wanted else 'stopped by hand'}"
    )


def _ready(call: Call, context: Context) -> CheckOutcome:
    name = call.arguments["service"]
    view = context.ports.services.status(name)
    if view is None:
        return CheckOutcome(Answer.NO, f"service {name!r} is not configured")
    return yes_no(view.ready, f"service {name!r} is {view.state} (run {view.run})")


def _generation(call: Call, context: Context) -> CheckOutcome:
    """Yes when the service has a newer run than before. Who started it does not matter: it was restarted."""
    name = call.arguments["service"]
    before, view = context.snapshot.get(name), context.ports.services.status(name)
    if before is None or view is None:
        return CheckOutcome(Answer.UNKNOWN, f"service {name!r}: its run {'now' if before else 'before'} is not known")
    return yes_no(view.run > before["run"], f"service {name!r}: run {before['run']} before, {view.run} now")


def _is_as_before(before: Mapping[str, Any], view: ServiceView) -> bool:
    """Ready again if it was, frozen if it was, down and left alone if it was; and never put down and forgotten."""
    if before["state"] == PAUSED:
        return view.state == PAUSED
    if not before["wanted"]:
        return not view.is_wanted and view.state == STOPPED
    is_up = view.ready if before["ready"] else before["state"] in DOWN or view.state != STOPPED
    return view.is_wanted and is_up


def _restored(call: Call, context: Context) -> CheckOutcome:
    name = call.arguments["service"]
    before = context.snapshot.get(name)
    if before is not None and "replicas" in before:
        return scaling.is_scaled_back(call, context, before)
    view = context.ports.services.status(name)
    if before is None or view is None:
        return CheckOutcome(Answer.UNKNOWN, f"service {name!r}: its state {'now' if before else 'before'} is not known")
    if decided := _newly_decided(before, view):
        return CheckOutcome(Answer.YES, f"service {name!r} is {view.state}: {decided}")
    was = "ready" if before["ready"] else before["state"]
    said = f"service {name!r} was {was}, and is {view.state}, {'wanted' if view.is_wanted else 'not wanted'}"
    return yes_no(_is_as_before(before, view), said)


FAMILY: Final = Family(
    acts={
        CallType.SERVICE_RESTART: _restart,
        CallType.SERVICE_START: _start,
        CallType.SERVICE_STOP: _stop,
        CallType.SERVICE_RESTORE: _restore,
    },
    looks={
        CallType.SERVICE_EXISTS: _exists,
        CallType.SERVICE_WANTED: _wanted,
        CallType.SERVICE_READY: _ready,
        CallType.SERVICE_GENERATION: _generation,
        CallType.SERVICE_RESTORED: _restored,
    },
    befores=dict.fromkeys(
        (CallType.SERVICE_GENERATION, CallType.SERVICE_RESTORE, CallType.SERVICE_RESTORED),
        _before,
    ),
)
