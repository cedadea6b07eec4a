"""Commands of runbooks to bridge endpoints: fulfils ``runbooks.ports.Bridges`` over whoever speaks for an endpoint.

Blocks; called on the I/O pool. A command is sent again, under its one name, until its end is heard: the endpoint keeps
a table of names and runs none twice. What nobody answered is never guessed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from actors.bridge_sessions import BridgeSessions, Session
from bridge_link.errors import WireError
from runbooks.ports import BridgeAnswer, BridgeRequest, BridgeState, PortError

SEND_AGAIN_S: Final = 1.0
MAX_TEXT_CHARS: Final = 4096
MOST_REMEMBERED: Final = 10_000
_ENDS: Final = frozenset({BridgeState.DONE, BridgeState.FAILED, BridgeState.UNKNOWN, BridgeState.REFUSED})


@dataclass
class BridgeCommands:
    """``node_is_ready``: whether an endpoint's node is ready; None when there is no such node."""

    sessions: BridgeSessions
    node_is_ready: Callable[[str], bool | None]
    _sent_to: dict[str, frozenset[str]] = field(default_factory=dict)

    def is_ready(self, endpoint: str) -> bool | None:
        return self.node_is_ready(endpoint)

    def command(
        self, endpoint: str, name: str, parameters: Mapping[str, Any], request: BridgeRequest, timeout_s: float
    ) -> BridgeAnswer:
        body = {"command": name, "parameters": _plain(parameters), "instead_of": list(request.instead_of)}
        with _Talk(self.sessions, endpoint, request, timeout_s) as talk:
            while True:
                session = talk.partner()
                if session.commands is not None and name not in session.commands:
                    known = ", ".join(sorted(session.commands)) or "none"
                    raise PortError(f"bridge {endpoint!r} has no command {name!r}; it has {known}")
                before = self._sent_to.get(request.id, frozenset())
                self._remember(request.id, before | {session.id})
                try:
                    session.say(request.id, body | {"asked_before": bool(before - {session.id})})
                except WireError as error:
                    self._remember(request.id, before)
                    raise PortError(f"bridge {endpoint!r}: {name!r} cannot be sent to it: {error.text}") from None
                answer = talk.answer(session, lambda state: state in _ENDS)
                if answer is not None:
                    return answer

    def asked(self, endpoint: str, request: BridgeRequest, timeout_s: float) -> BridgeAnswer:
        with _Talk(self.sessions, endpoint, request, timeout_s) as talk:
            while True:
                session = talk.partner()
                before = self._sent_to.get(request.id)
                is_sure = before is not None and before <= {session.id}
                session.say(request.id, {"ask": True, "asked_before": not is_sure})
                answer = talk.answer(session, lambda _state: True)
                if answer is not None:
                    if answer.state is BridgeState.NEVER:  # so what is sent now is the first it hears of it
                        self._remember(request.id, frozenset())
                    return answer

    def _remember(self, request_id: str, sessions: frozenset[str]) -> None:
        self._sent_to[request_id] = sessions
        while len(self._sent_to) > MOST_REMEMBERED:
            self._sent_to.pop(next(iter(self._sent_to)), None)


class _Talk:
    """One question and its answers, until a deadline."""

    def __init__(self, sessions: BridgeSessions, endpoint: str, request: BridgeRequest, timeout_s: float) -> None:
        self._sessions = sessions
        self._endpoint = endpoint
        self._request = request
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._was_sent = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sessions.forget(self._request.id)

    def partner(self) -> Session:
        """Whoever speaks for the endpoint now. Raises PortError when the time is over."""
        left_s = self._deadline - time.monotonic()
        session = self._sessions.await_session(self._endpoint, max(0.0, left_s))
        if session is None or (left_s <= 0 and self._was_sent):
            said = "no end of it was heard" if self._was_sent else "nobody speaks for it; nothing was sent"
            raise PortError(f"bridge {self._endpoint!r}: {said} within {self._timeout_s:g} s")
        self._was_sent = True
        self._sessions.expect(self._request.id, session.client)
        return session

    def answer(self, session: Session, is_wanted: Callable[[BridgeState], bool]) -> BridgeAnswer | None:
        """The wanted answer; None when it is time to send again."""
        until = min(self._deadline, time.monotonic() + SEND_AGAIN_S)
        while True:
            body = self._sessions.await_reply(self._request.id, session, max(0.0, until - time.monotonic()))
            if body is None:
                return None
            answer = read_reply(body)
            if answer is not None and is_wanted(answer.state):
                return answer


def read_reply(body: Mapping[str, Any]) -> BridgeAnswer | None:
    """What a REPLY says; None when it is none of ours, or the endpoint is too busy to begin."""
    try:
        state = BridgeState(body.get("state"))
    except ValueError:
        return None
    said = body.get("error") if state in (BridgeState.FAILED, BridgeState.REFUSED) else body.get("result")
    return BridgeAnswer(state, "" if said is None else str(said)[:MAX_TEXT_CHARS])


def _plain(value: Any) -> Any:
    """Templates make tuples of lists; the wire knows lists."""
    match value:
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _:
            return value
