"""What other actors tell a ``GuardianLinkActor``, and what they are told back. Pure data.

Each request may be written as a dictionary too: ``{"do": "execute_recovery", "error_id": ..., "error_data": ...,
"reply_to": ref, "tag": ...}``. A dictionary without ``do`` is an alert (``reply_to`` and ``tag`` may stand in it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from guardian_link.as_alert import Issue
from guardian_link.messages import Alert


class TellTo(Protocol):
    """Who is answered: an ``ActorRef``."""

    def tell(self, message: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class SendAlert:
    """Deliver it. The answer, if one is wanted, is the ``Ack``."""

    alert: Issue
    reply_to: TellTo | None = None
    tag: Any = None


@dataclass(frozen=True, slots=True)
class ExecuteRecovery:
    """The answer is the execution id, or None."""

    error_id: str
    error_data: Issue
    reply_to: TellTo | None = None
    tag: Any = None


@dataclass(frozen=True, slots=True)
class TriggerRecovery:
    """For a violated constraint. The answer is the execution id, or None."""

    constraint_violation: object
    reply_to: TellTo | None = None
    tag: Any = None


@dataclass(frozen=True, slots=True)
class GetExecutionStatus:
    """The answer is the execution in the shape of ``selfheal executions --json``, or None."""

    execution_id: str
    reply_to: TellTo
    tag: Any = None


@dataclass(frozen=True, slots=True)
class GetRecoveryStatistics:
    reply_to: TellTo
    tag: Any = None


@dataclass(frozen=True, slots=True)
class WaitForExecution:
    """The answer is the ``Outcome``."""

    execution_id: str
    reply_to: TellTo
    timeout_s: float = 60.0
    tag: Any = None


@dataclass(frozen=True, slots=True)
class Subscribe:
    """``reply_to`` is told each ``Event`` (and ``EventsLost``) until it is dead, or ``Unsubscribe``."""

    reply_to: TellTo
    after: int | None = None
    epoch: str = ""
    topics: Sequence[str] = ()
    tag: Any = None


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    reply_to: TellTo
    tag: Any = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The one answer to a request: its ``tag``, and the ``result`` or the ``error`` the client would have raised."""

    request: Any
    tag: Any = None
    result: Any = None
    error: Exception | None = None


AlertRequest = SendAlert | ExecuteRecovery | TriggerRecovery
Question = GetExecutionStatus | GetRecoveryStatistics | WaitForExecution
Request = AlertRequest | Question | Subscribe | Unsubscribe
_KINDS: Final[Mapping[str, type[Any]]] = {
    "send": SendAlert,
    "execute_recovery": ExecuteRecovery,
    "trigger_recovery": TriggerRecovery,
    "handle_constraint_violation": TriggerRecovery,
    "get_execution_status": GetExecutionStatus,
    "get_recovery_statistics": GetRecoveryStatistics,
    "wait": WaitForExecution,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
}


class BadRequest(ValueError):
    """A message that is no request; the text says why."""


def read_request(message: object) -> Request:
    """Raises BadRequest."""
    request = _made(message)
    reply_to = request.reply_to
    if reply_to is not None and not callable(getattr(reply_to, "tell", None)):
        raise BadRequest(f"reply_to: {reply_to!r:.80} cannot be told anything; give an ActorRef")
    return request


def _made(message: object) -> Request:
    if isinstance(message, Request):
        return message
    if isinstance(message, Alert):
        return SendAlert(message)
    if not isinstance(message, Mapping):
        raise BadRequest(f"{message!r:.200} is no alert and no request")
    facts = dict(message)
    if "do" not in facts:
        reply_to, tag = facts.pop("reply_to", None), facts.pop("tag", None)
        return SendAlert(facts, reply_to, tag)
    word = facts.pop("do")
    kind = _KINDS.get(word) if isinstance(word, str) else None
    if kind is None:
        raise BadRequest(f"do: {word!r:.80} is not one of {', '.join(_KINDS)}")
    try:
        made: Request = kind(**facts)
    except TypeError as error:
        raise BadRequest(f"{word}: {error}") from None
    return made
