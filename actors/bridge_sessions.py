"""Who speaks for which bridge endpoint now, and what they answer: between the link's pump and the rest of the daemon.

Any thread. The authenticated name of a sender counts, never what a body says: an endpoint belongs to one client at a
time. A newer session of that client takes its place; another client's only when the first has been silent for a while,
unless it is named like the endpoint. What is no endpoint of the link is spoken for by nobody on it.
Must never import runbooks or supervisors.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from actors.endpoints.beats import BeatBoard
from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message, nack

HELD_S: Final = 10.0
"""A session not heard for so long no longer keeps others out."""
ELSEWHERE: Final[Mapping[str, str]] = {"tcp": "a TCP peer", "fifo": "a named pipe", "spool": "a folder"}
"""Kinds of endpoints that are heard by other means than the link, and by what."""
MOST_SESSIONS: Final = 1000
MOST_RETIRED: Final = 1000
MOST_WAITING: Final = 1000

Say = Callable[[str, Mapping[str, Any]], object]
"""Sends a command (request id, body) to where the session is, in the encoding of its last HELLO or HB; from any thread.
Raises WireError for one that cannot be sent so.
"""
Answer = Callable[[Message], object]


class NotYours(Exception):
    """Somebody else speaks for this endpoint. The text says who."""


@dataclass(slots=True)
class Session:
    """One process that speaks for an endpoint. ``commands``: those it knows; None when it has not said."""

    endpoint: str
    client: str
    id: str
    say: Say
    commands: frozenset[str] | None = None
    heard_at: float = 0.0
    held_s: float = HELD_S


@dataclass
class BridgeSessions:
    """``beats`` tells the endpoint's actor what was heard; ``may_answer``: whether a client may have commands now;
    ``kinds``: the kind of each configured endpoint, there are sessions of no others (None: of whatever comes).
    """

    beats: BeatBoard = field(default_factory=BeatBoard)
    now: Callable[[], float] = time.monotonic
    may_answer: Callable[[str], bool] = lambda _client: True
    kinds: Mapping[str, str] | None = None
    _sessions: dict[str, Session] = field(default_factory=dict)
    _retired: dict[str, None] = field(default_factory=dict)
    _replies: dict[str, tuple[str, list[Mapping[str, Any]]]] = field(default_factory=dict)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    # -- from the link --------------------------------------------------------------------------------------------

    def take(self, incoming: Incoming, answer: Answer) -> None:
        """A HELLO, HB or REPLY, on the pump's thread."""
        message, client = incoming.message, incoming.client
        match message.kind:
            case Kind.HELLO:
                answer(self._hello(message, client, answer))
            case Kind.HEARTBEAT:
                self._beat(message.body, client, answer)
            case _:
                self.replied(client, message.id, message.body)

    def _hello(self, message: Message, client: str, answer: Answer) -> Message:
        body = message.body
        name, session_id = body.get("name"), body.get("session")
        if not isinstance(name, str) or not name or not isinstance(session_id, str) or not session_id:
            return nack(message.id, "malformed", "a HELLO has name and session, both texts", permanent=True)
        try:
            self._check_kind(name)
            if self._is_known(name):
                self.opened(name, client, session_id, _sayer(answer), body)
        except NotYours as refused:
            return nack(message.id, "conflict", str(refused), permanent=True)
        is_awaited = self.beats.beat(name, _facts(body))
        is_configured = is_awaited or (self.kinds is not None and name in self.kinds)
        return Message(Kind.ANSWER, message.id, {"ok": True, "result": {"is_configured": is_configured}})

    def _beat(self, body: Mapping[str, Any], client: str, answer: Answer) -> None:
        """A beat may be the first that is heard of a session: of one that outlived a daemon."""
        name, session_id = str(body.get("name", "")), body.get("session")
        if isinstance(session_id, str) and session_id:
            try:
                self._check_kind(name)
                if self._is_known(name):
                    self.opened(name, client, session_id, _sayer(answer), None)
            except NotYours:
                return
        elif not self._may_beat(name, client):
            return
        self.beats.beat(name, _facts(body))

    def _is_known(self, name: str) -> bool:
        return self.kinds is None or name in self.kinds

    def _check_kind(self, name: str) -> None:
        """Raises NotYours: no client of the link speaks for this one."""
        kind = (self.kinds or {}).get(name, "")
        if kind in ELSEWHERE:
            text = f"{ELSEWHERE[kind]} speaks for it, no client of this link"
            raise NotYours(f"endpoint {name!r} is of kind {kind}: {text}")

    def _may_beat(self, name: str, client: str) -> bool:
        """One that names no session only says that it lives."""
        with self._changed:
            held = self._sessions.get(name)
            return held is None or held.client == client or not self._is_fresh(held)

    # -- sessions -------------------------------------------------------------------------------------------------

    def opened(
        self,
        endpoint: str,
        client: str,
        session_id: str,
        say: Say,
        hello: Mapping[str, Any] | None,
        held_s: float = HELD_S,
    ) -> Session:
        """Somebody speaks for the endpoint, and does so until ``held_s`` seconds after it was last heard.

        ``hello`` is None for a mere sign of life: it takes nobody's place.

        Raises:
            NotYours: the endpoint is another client's, or a newer session's.
        """
        with self._changed:
            held = self._sessions.get(endpoint)
            if held is not None and (held.id, held.client) == (session_id, client):
                session = held
            else:
                if held is not None:
                    self._check_takeover(held, client, session_id, is_hello=hello is not None)
                session = self._replace(held, Session(endpoint, client, session_id, say, held_s=held_s))
            session.say, session.heard_at = say, self.now()
            if hello is not None:
                commands = hello.get("commands")
                session.commands = frozenset(map(str, commands)) if isinstance(commands, list) else None
            self._changed.notify_all()
            return session

    def heard(self, endpoint: str, session_id: str) -> None:
        """It gave some other sign of life."""
        with self._changed:
            held = self._sessions.get(endpoint)
            if held is not None and held.id == session_id:
                held.heard_at = self.now()

    def ended(self, endpoint: str, session_id: str) -> None:
        """Its connection is gone."""
        with self._changed:
            held = self._sessions.get(endpoint)
            if held is not None and held.id == session_id:
                del self._sessions[endpoint]
                self._changed.notify_all()

    def session(self, endpoint: str) -> Session | None:
        """Who speaks for the endpoint now: heard lately, and its key is still good."""
        with self._changed:
            held = self._sessions.get(endpoint)
            return held if held is not None and self._is_fresh(held) and self.may_answer(held.client) else None

    def await_session(self, endpoint: str, timeout_s: float) -> Session | None:
        """Who speaks for the endpoint; None when nobody has come within ``timeout_s`` seconds. Blocks."""
        with self._changed:
            return self._changed.wait_for(lambda: self.session(endpoint), timeout_s)

    def await_commands(self, endpoint: str, timeout_s: float) -> None:
        """Until whoever speaks for the endpoint has said what it can do; at most ``timeout_s`` seconds. Blocks."""
        with self._changed:
            self._changed.wait_for(
                lambda: (held := self.session(endpoint)) is not None and held.commands is not None, timeout_s
            )

    def _check_takeover(self, held: Session, client: str, session_id: str, *, is_hello: bool) -> None:
        if not self._is_fresh(held):
            return
        if client not in (held.client, held.endpoint):
            raise NotYours(f"client {held.client!r} speaks for endpoint {held.endpoint!r}")
        if held.client == client and (session_id in self._retired or not is_hello):
            raise NotYours(f"a newer session of client {client!r} speaks for endpoint {held.endpoint!r}")

    def _replace(self, held: Session | None, session: Session) -> Session:
        if held is not None:
            self._retired[held.id] = None
            _bound(self._retired, MOST_RETIRED)
            structlog.get_logger().info(
                "endpoint has a new session", endpoint=session.endpoint, client=session.client, before=held.client
            )
        self._retired.pop(session.id, None)
        self._sessions[session.endpoint] = session
        _bound(self._sessions, MOST_SESSIONS)
        return session

    def _is_fresh(self, session: Session) -> bool:
        return self.now() - session.heard_at <= session.held_s

    # -- commands -------------------------------------------------------------------------------------------------

    def expect(self, request_id: str, client: str) -> None:
        """From now on this client's answers under ``request_id`` are kept."""
        with self._changed:
            _, known = self._replies.pop(request_id, ("", []))
            self._replies[request_id] = (client, known)
            _bound(self._replies, MOST_WAITING)

    def forget(self, request_id: str) -> None:
        with self._changed:
            self._replies.pop(request_id, None)

    def replied(self, client: str, request_id: str, body: Mapping[str, Any]) -> None:
        """An answer came. One that was not asked for, or not of the client that was asked, is dropped."""
        with self._changed:
            asked, replies = self._replies.get(request_id, (None, []))
            if asked == client:
                replies.append(body)
                self._changed.notify_all()

    def await_reply(self, request_id: str, session: Session, timeout_s: float) -> Mapping[str, Any] | None:
        """The next answer; None when there is none in time, or another session has taken over. Blocks."""
        with self._changed:

            def came() -> bool:
                _, replies = self._replies.get(request_id, ("", []))
                return bool(replies) or self._sessions.get(session.endpoint) is not session

            self._changed.wait_for(came, timeout_s)
            _, replies = self._replies.get(request_id, ("", []))
            return replies.pop(0) if replies else None


def _sayer(answer: Answer) -> Say:
    return lambda request_id, body: answer(Message(Kind.COMMAND, request_id, body))


def _facts(body: Mapping[str, Any]) -> dict[str, Any]:
    """What an endpoint says of itself, without what is for us."""
    inner = body.get("facts")
    outer = {key: value for key, value in body.items() if key not in ("name", "session", "facts", "commands")}
    return outer | (dict(inner) if isinstance(inner, Mapping) else {})


def _bound(kept: dict[str, Any], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]
