"""Calls to bridge endpoints: a command that takes effect at most once, and whether it did.

A step's request is named by execution, step and attempt, so the endpoint knows a repeated one again, whichever daemon
sends it; and a later attempt names the earlier ones, so that a late one of those is not run any more.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import Final

from runbooks.calls.family import CallOutcome, CheckOutcome, Context, Family
from runbooks.engine_words import Answer, Try
from runbooks.model import Call, CallType, Trouble
from runbooks.ports import BridgeAnswer, BridgeRequest, Bridges, BridgeState, BridgeView, BridgeWell, PortError, Ports

MAX_ID_CHARS: Final = 64
_ANSWERS: Final = {
    BridgeState.DONE: Answer.YES,
    BridgeState.FAILED: Answer.NO,
    BridgeState.NEVER: Answer.NO,
    BridgeState.REFUSED: Answer.NO,
    BridgeState.BEGUN: Answer.UNKNOWN,
    BridgeState.UNKNOWN: Answer.UNKNOWN,
}
_UNTOUCHED: Final = frozenset({BridgeState.NEVER, BridgeState.REFUSED})
"""The command was not begun; one that failed may have been half done."""
_WORDS: Final = {
    BridgeState.DONE: "done",
    BridgeState.FAILED: "failed",
    BridgeState.NEVER: "was never heard of",
    BridgeState.REFUSED: "refused",
    BridgeState.BEGUN: "is being done",
    BridgeState.UNKNOWN: "may have been done: the endpoint cannot tell",
}


def request_of(execution_id: str, of: Try | None) -> BridgeRequest:
    """The request of an attempt.

    Raises:
        ValueError: the call belongs to no step.
    """
    if of is None:
        raise ValueError("a bridge command belongs to a step; here is none")
    return BridgeRequest(
        _name(execution_id, of.step, of.attempt),
        tuple(_name(execution_id, of.step, earlier) for earlier in range(1, of.attempt)),
    )


def _name(execution_id: str, step: str, attempt: int) -> str:
    name = f"{execution_id}.{step}.{attempt}"
    if len(name) <= MAX_ID_CHARS:
        return name
    return f"{execution_id[:32]}.{hashlib.sha256(name.encode()).hexdigest()[:24]}.{attempt}"


def command(call: Call, ports: Ports, request: BridgeRequest) -> BridgeAnswer:
    """What the endpoint says of it. Raises PortError."""
    given = call.arguments
    parameters = given.get("parameters", {})
    return _bridges(ports).command(given["endpoint"], given["command"], parameters, request, call.timeout_s)


def is_done(call: Call, ports: Ports, request: BridgeRequest) -> CheckOutcome:
    """Whether the endpoint did this step's command. Raises PortError."""
    answer = _bridges(ports).asked(call.arguments["endpoint"], request, call.timeout_s)
    said = f"command {request.id} {_said(answer.state, answer.text)}"
    return CheckOutcome(_ANSWERS[answer.state], said, is_untouched=answer.state in _UNTOUCHED)


def is_ready(call: Call, ports: Ports) -> tuple[Answer, str]:
    """Whether the endpoint is heard."""
    name = call.arguments["endpoint"]
    is_ready = _bridges(ports).is_ready(name)
    if is_ready is None:
        return Answer.NO, _not_there(name)
    return (Answer.YES if is_ready else Answer.NO), f"bridge {name!r} is {'' if is_ready else 'not '}ready"


def view(call: Call, ports: Ports) -> BridgeView | None:
    """How the endpoint is. A question is no command of a step: each has a name of its own. Raises PortError."""
    return _bridges(ports).view(call.arguments["endpoint"], f"ask.{uuid.uuid4().hex}", call.timeout_s)


def is_healthy(call: Call, ports: Ports) -> tuple[Answer, str]:
    """Whether the endpoint says it is well; of one that cannot be asked, whether it is heard. Raises PortError."""
    name = call.arguments["endpoint"]
    found = view(call, ports)
    if found is None:
        return Answer.NO, _not_there(name)
    told = f"bridge {name!r} {_STATES[found.state]}" + (f": {found.error}" if found.error else "")
    return (Answer.YES if found.state in (BridgeWell.HEALTHY, BridgeWell.UNTOLD) else Answer.NO), told


def offers(call: Call, ports: Ports) -> tuple[Answer, str]:
    """Whether there is anything to mend the endpoint with: one of the commands, or a service to restart."""
    name, wanted = call.arguments["endpoint"], call.arguments["commands"]
    found = _bridges(ports).offered(name)
    if found is None:
        return Answer.NO, _not_there(name)
    known = sorted(found.commands & set(wanted))
    if known:
        return Answer.YES, f"bridge {name!r} offers {', '.join(known)}"
    said = f"bridge {name!r} offers none of {', '.join(wanted)}"
    if not call.arguments.get("or_restart", False):
        return Answer.NO, f"{said}: nothing else can mend this"
    if found.service is None:
        return Answer.NO, f"{said}, and its configuration names no service to restart (bridges.{name}.service)"
    return Answer.YES, f"{said}; service {found.service!r} is behind it"


def _not_there(name: str) -> str:
    return f"bridge {name!r} is not configured"


def _bridges(ports: Ports) -> Bridges:
    if ports.bridges is None:
        raise PortError("there are no bridges here; nothing was sent")
    return ports.bridges


def _said(state: BridgeState, text: str) -> str:
    return f"{_WORDS[state]}: {text}" if text else _WORDS[state]


_STATES: Final = {
    BridgeWell.HEALTHY: "says that it is well",
    BridgeWell.UNHEALTHY: "says that it is not well",
    BridgeWell.UNTOLD: "is heard, and has no command 'health'",
    BridgeWell.SILENT: "does not answer",
}


def _command(call: Call, context: Context) -> CallOutcome:
    answer = command(call, context.ports, request_of(context.token, context.of))
    said = _said(answer.state, answer.text)
    if answer.state is BridgeState.DONE:
        return CallOutcome(ok=True, output=said, result=answer.result)
    return CallOutcome(ok=False, error=said, trouble=Trouble.REFUSED)


def _health(call: Call, context: Context) -> CallOutcome:
    found = view(call, context.ports)
    name = call.arguments["endpoint"]
    if found is None:
        return CallOutcome(ok=False, error=_not_there(name), trouble=Trouble.PERMANENT)
    behind = None if found.service is None else context.ports.services.status(found.service)
    result = {
        "state": found.state.value,
        "error": found.error,
        "commands": dict.fromkeys(sorted(found.commands), True),
        "service": found.service,
        "service_wanted": behind.is_wanted if behind is not None else None,
        "directory": found.directory,
    }
    return CallOutcome(ok=True, output=f"bridge {name!r} {_STATES[found.state]}", result=result)


def _exists(call: Call, context: Context) -> CheckOutcome:
    name = call.arguments["endpoint"]
    if _bridges(context.ports).offered(name) is None:
        return CheckOutcome(Answer.NO, f"{_not_there(name)}: name it under bridges")
    return CheckOutcome(Answer.YES, f"bridge {name!r} is configured")


def _is_done(call: Call, context: Context) -> CheckOutcome:
    return is_done(call, context.ports, request_of(context.token, context.of))


def _is_ready(call: Call, context: Context) -> CheckOutcome:
    return CheckOutcome(*is_ready(call, context.ports))


def _is_healthy(call: Call, context: Context) -> CheckOutcome:
    return CheckOutcome(*is_healthy(call, context.ports))


def _offers(call: Call, context: Context) -> CheckOutcome:
    return CheckOutcome(*offers(call, context.ports))


FAMILY: Final = Family(
    acts={CallType.BRIDGE_COMMAND: _command, CallType.BRIDGE_HEALTH: _health},
    looks={
        CallType.BRIDGE_DONE: _is_done,
        CallType.BRIDGE_EXISTS: _exists,
        CallType.BRIDGE_READY: _is_ready,
        CallType.BRIDGE_HEALTHY: _is_healthy,
        CallType.BRIDGE_OFFERS: _offers,
    },
)
