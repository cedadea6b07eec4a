"""Commands of runbooks to bridge endpoints: fulfils ``runbooks.ports.Bridges`` over whoever speaks for an endpoint.

Blocks; called on the I/O pool. A command is sent again, under its one name, until its end is heard: the endpoint keeps
a table of names and runs none twice. What nobody answered is never guessed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from actors.bridge_sessions import BridgeSessions, Session
from bridge_link.errors import WireError
from runbooks.ports import BridgeAnswer, BridgeRequest, BridgeState, BridgeView, BridgeWell, PortError

SEND_AGAIN_S: Final = 1.0
LEAST_S: Final = 1.0
MAX_TEXT_CHARS: Final = 4096
MOST_REMEMBERED: Final = 10_000
MAX_RESULT_CHARS: Final = 65536
YOUNG_S: Final = 10.0
"""So long after its start a daemon may not have heard an endpoint yet that is well, nor what it can do."""
HEALTH: Final = "health"
"""The command an endpoint is asked by how it is; its result says ``{"status": "healthy"}``, or what is wrong."""
_ENDS: Final = frozenset({BridgeState.DONE, BridgeState.FAILED, BridgeState.UNKNOWN, BridgeState.REFUSED})


@dataclass
class BridgeCommands:
    """``node_is_ready``: whether an endpoint's node is ready; None when there is no such node. ``services`` are those
    behind the endpoints, ``directories`` their folders, by the endpoint's name.
    """

    sessions: BridgeSessions
    node_is_ready: Callable[[str], bool | None]
    services: Mapping[str, str] = field(default_factory=dict)
    directories: Mapping[str, str] = field(default_factory=dict)
    _sent_to: dict[str, frozenset[str]] = field(default_factory=dict)
    _born_at: float = field(default_factory=time.monotonic)

    def is_ready(self, endpoint: str) -> bool | None:
        return self.node_is_ready(endpoint)

    def offered(self, endpoint: str) -> BridgeView | None:
        is_ready = self.node_is_ready(endpoint)
        if is_ready is None:
            return None
        session = self.sessions.session(endpoint)
        known = session.commands if session is not None else None
        state = BridgeWell.UNTOLD if is_ready else BridgeWell.SILENT
        return BridgeView(state, "", known or frozenset(), self.services.get(endpoint), self.directories.get(endpoint))

    def view(self, endpoint: str, request_id: str, timeout_s: float) -> BridgeView | None:
        shown, deadline = self.offered(endpoint), time.monotonic() + timeout_s
        if shown is not None and time.monotonic() - self._born_at < YOUNG_S:
            self.sessions.await_commands(endpoint, timeout_s)
            shown = self.offered(endpoint)
        if shown is None or HEALTH not in shown.commands:
            return shown
        try:
            left_s = max(min(LEAST_S, timeout_s), deadline - time.monotonic())
            answer = self.command(endpoint, HEALTH, {}, BridgeRequest(request_id), left_s)
        except PortError as trouble:
            return replace(shown, state=BridgeWell.SILENT, error=str(trouble))
        return replace(shown, **_wellness(answer))

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


def _wellness(answer: BridgeAnswer) -> dict[str, Any]:
    """What the answer to ``health`` says; whatever is not plainly ``healthy`` is not."""
    if answer.state is not BridgeState.DONE:
        return {"state": BridgeWell.UNHEALTHY, "error": answer.text or answer.state.value}
    said = answer.result
    status = said.get("status") if isinstance(said, Mapping) else said
    if status == "healthy":
        return {"state": BridgeWell.HEALTHY, "error": ""}
    why = said.get("error") if isinstance(said, Mapping) else None
    return {"state": BridgeWell.UNHEALTHY, "error": str(why or status)[:MAX_TEXT_CHARS]}


def read_reply(body: Mapping[str, Any]) -> BridgeAnswer | None:
    """What a REPLY says; None when it is none of ours, or the endpoint is too busy to begin."""
    try:
        state = BridgeState(body.get("state"))
    except ValueError:
        return None
    said = body.get("error") if state in (BridgeState.FAILED, BridgeState.REFUSED) else body.get("result")
    text = "" if said is None else str(said)[:MAX_TEXT_CHARS]
    return BridgeAnswer(state, text, _json(body.get("result")) if state is BridgeState.DONE else None)


def _json(result: Any) -> Any:
    """What a runbook may use of a result: JSON that is not too long; None otherwise."""
    try:
        said = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return json.loads(said) if len(said) <= MAX_RESULT_CHARS else None


def _plain(value: Any) -> Any:
    """Templates make tuples of lists; the wire knows lists."""
    match value:
        case Mapping():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _:
            return value
