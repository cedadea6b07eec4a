"""Calls to bridge endpoints: a command that takes effect at most once, and whether it did.

A step's request is named by execution, step and attempt, so the endpoint knows a repeated one again, whichever daemon
sends it; and a later attempt names the earlier ones, so that a late one of those is not run any more.
"""

from __future__ import annotations

import hashlib
from typing import Final

from runbooks.engine_words import Answer, Try
from runbooks.model import Call
from runbooks.ports import BridgeRequest, Bridges, BridgeState, PortError, Ports

MAX_ID_CHARS: Final = 64
_ANSWERS: Final = {
    BridgeState.DONE: Answer.YES,
    BridgeState.FAILED: Answer.NO,
    BridgeState.NEVER: Answer.NO,
    BridgeState.REFUSED: Answer.NO,
    BridgeState.BEGUN: Answer.UNKNOWN,
    BridgeState.UNKNOWN: Answer.UNKNOWN,
}
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


def command(call: Call, ports: Ports, request: BridgeRequest) -> tuple[bool, str]:
    """Whether it was done, and what the endpoint says. Raises PortError."""
    given = call.arguments
    parameters = given.get("parameters", {})
    answer = _bridges(ports).command(given["endpoint"], given["command"], parameters, request, call.timeout_s)
    return answer.state is BridgeState.DONE, _said(answer.state, answer.text)


def is_done(call: Call, ports: Ports, request: BridgeRequest) -> tuple[Answer, str]:
    """Whether the endpoint did this step's command. Raises PortError."""
    answer = _bridges(ports).asked(call.arguments["endpoint"], request, call.timeout_s)
    return _ANSWERS[answer.state], f"command {request.id} {_said(answer.state, answer.text)}"


def is_ready(call: Call, ports: Ports) -> tuple[Answer, str]:
    """Whether the endpoint is heard."""
    name = call.arguments["endpoint"]
    is_ready = _bridges(ports).is_ready(name)
    if is_ready is None:
        return Answer.NO, f"bridge {name!r} is not configured"
    return (Answer.YES if is_ready else Answer.NO), f"bridge {name!r} is {'' if is_ready else 'not '}ready"


def _bridges(ports: Ports) -> Bridges:
    if ports.bridges is None:
        raise PortError("there are no bridges here; nothing was sent")
    return ports.bridges


def _said(state: BridgeState, text: str) -> str:
    return f"{_WORDS[state]}: {text}" if text else _WORDS[state]
