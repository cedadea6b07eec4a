"""Where alerts come in: from a link's pump thread to the journal, and back to the sender.

``take`` runs on a pump thread and must be quick: it hands the alert to the journal and returns. STORED goes out after
the commit (on the journal's thread), DECIDED and OUTCOME when they are known. Nothing here is the only copy of
anything: a sender that missed an answer sends again and is answered again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import structlog

from actors.access.book import Judge, unjudged
from actors.access.rules import Denied
from actors.clock import Clock
from actors.guardian import AlertStored, Decided
from actors.iopool import IoPool
from actors.journal import rows
from actors.journal.journal import Journal
from actors.journal.rows import AlertConflict, OpenAlert, StoredAlert
from actors.runbook import ExecutionFinished
from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message, nack, new_id
from guardian_link.messages import Alert, BadAlert

MAX_WAITING: Final = 10_000
"""Senders remembered for an answer that is still to come; older ones ask again."""
INSIDE: Final = "selfheal"
"""The daemon itself as a sender; no client is named so."""

Answer = Callable[[Message], object]
"""Sends a message back to the peer it belongs to; from any thread."""


class Pump(Protocol):
    def send(self, peer: bytes, message: Message) -> None: ...


@dataclass(frozen=True)
class IntakeParts:
    """``hint`` tells the guardian actor; ``ask`` answers a query (blocking, on the I/O pool); ``bridge`` takes
    what the clients of endpoints send: HELLO, HB, REPLY (with the way back); ``judge`` says what an authenticated
    client may not.
    """

    journal: Journal
    io: IoPool
    clock: Clock
    hint: Callable[[AlertStored], object]
    ask: Callable[[Mapping[str, Any]], Any]
    bridge: Callable[[Incoming, Answer], object]
    judge: Judge = unjudged


@dataclass
class AlertIntake:
    """One for all links."""

    parts: IntakeParts
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _by_alert: dict[int, list[tuple[str, Answer]]] = field(default_factory=dict)
    _by_execution: dict[str, list[Answer]] = field(default_factory=dict)
    _said: dict[tuple[str, str], None] = field(default_factory=dict)

    # -- from the links -----------------------------------------------------------------------------------------------

    def take(self, pump: Pump, incoming: Incoming) -> None:
        """One message of a peer, on the pump's thread."""
        message = incoming.message

        def answer(reply: Message) -> None:
            pump.send(incoming.peer, reply)

        if message.kind is not Kind.ALERT:  # of an alert its type counts too
            denied = self.parts.judge(incoming.client, message.kind, None)
            if denied is not None:
                answer(_refusal(message.id, denied))
                return
        match message.kind:
            case Kind.ALERT:
                self._alert(incoming.client, message, answer)
            case Kind.QUERY:
                self.parts.io.run(lambda: answer(self._answered(message)))
            case Kind.HELLO | Kind.HEARTBEAT | Kind.REPLY:
                self._bridge(incoming, answer)
            case _:
                text = f"a daemon takes no {message.kind.name} message"
                answer(nack(message.id, "malformed", text, permanent=True))

    def _bridge(self, incoming: Incoming, answer: Answer) -> None:
        """Only who may answer a command may speak for an endpoint: a heartbeat of others says nothing about one."""
        denied = self.parts.judge(incoming.client, Kind.REPLY, None)
        if denied is None:
            self.parts.bridge(incoming, answer)
        elif incoming.message.kind is Kind.HELLO:
            answer(_refusal(incoming.message.id, denied))

    def take_mapping(self, raw: Mapping[str, Any]) -> str:
        """An alert from inside the daemon (a bridge endpoint's error); returns its message id. Raises BadAlert."""
        alert = Alert.from_mapping(raw)
        self._store(INSIDE, alert, lambda _reply: None)
        return alert.id

    def _alert(self, client: str, message: Message, answer: Answer) -> None:
        try:
            alert = Alert.from_mapping(message.body, id=message.id)
        except BadAlert as bad:
            answer(nack(message.id, "malformed", str(bad), permanent=True))
            return
        denied = self.parts.judge(client, Kind.ALERT, alert.type)
        if denied is not None:
            answer(_refusal(message.id, denied))
            return
        self._store(client, alert, answer)

    def _store(self, client: str, alert: Alert, answer: Answer) -> None:
        self.say_once(client, alert)
        facts, at = alert.to_body(), self.parts.clock.wall()
        future = self.parts.journal.submit(lambda db: rows.store_alert(db, client, alert.id, facts, at))
        future.add_done_callback(lambda done: self._stored(done, alert.id, facts, answer))

    def say_once(self, client: str, alert: Alert) -> None:
        """The alert as people always had it: said first, needing neither journal nor runbooks."""
        with self._lock:
            is_new = (client, alert.id) not in self._said
            self._said[client, alert.id] = None
            _bound(self._said)
        if is_new:
            structlog.get_logger().warning(
                "ALERT",
                alert=alert.id,
                type=alert.type,
                service=alert.service,
                severity=alert.severity,
                message=alert.message,
                source=alert.source,
                client=client,
            )

    def _stored(self, done: Future[StoredAlert], msg_id: str, facts: Mapping[str, Any], answer: Answer) -> None:
        """On the journal's thread, after the commit."""
        error = done.exception()
        if isinstance(error, AlertConflict):
            answer(nack(msg_id, "conflict", str(error), permanent=True))
            return
        if error is not None:
            answer(nack(msg_id, "busy", str(error), permanent=False, retry_after_ms=1000))
            return
        stored = done.result()
        if stored.decision is None:
            self._remember(stored.seq, msg_id, answer)
        answer(Message(Kind.STORED, msg_id, {"status": "stored" if stored.is_new else "duplicate"}))
        if stored.decision is not None:
            self._tell_decision(msg_id, stored.decision, answer)
        elif stored.is_new:
            self.parts.hint(AlertStored(OpenAlert(stored.seq, msg_id, facts)))

    # -- back to the senders ------------------------------------------------------------------------------------------

    def decided(self, decided: Decided) -> None:
        """From the guardian actor: the decision is on disk."""
        with self._lock:
            waiting = self._by_alert.pop(decided.alert.seq, [])
        for msg_id, answer in waiting:
            self._tell_decision(msg_id, decided.body, answer)

    def finished(self, finished: ExecutionFinished) -> None:
        """From the guardian actor: the end is on disk."""
        with self._lock:
            waiting = self._by_execution.pop(finished.execution_id, [])
        body = {
            "execution_id": finished.execution_id,
            "status": finished.status.value,
            "detail": finished.detail[:500],
        }
        for answer in waiting:
            answer(Message(Kind.OUTCOME, new_id(), body))

    def _tell_decision(self, msg_id: str, body: Mapping[str, Any], answer: Answer) -> None:
        execution_id = body.get("execution_id")
        if isinstance(execution_id, str):
            self._wait_for_end(execution_id, answer)
        answer(Message(Kind.DECIDED, msg_id, {key: value for key, value in body.items() if value is not None}))

    def _remember(self, seq: int, msg_id: str, answer: Answer) -> None:
        with self._lock:
            self._by_alert.setdefault(seq, []).append((msg_id, answer))
            _bound(self._by_alert)

    def _wait_for_end(self, execution_id: str, answer: Answer) -> None:
        with self._lock:
            self._by_execution.setdefault(execution_id, []).append(answer)
            _bound(self._by_execution)

    # -- questions ----------------------------------------------------------------------------------------------------

    def _answered(self, message: Message) -> Message:
        """On the I/O pool."""
        try:
            return Message(Kind.ANSWER, message.id, {"ok": True, "result": self.parts.ask(message.body)})
        except (ValueError, KeyError) as error:
            return nack(message.id, "malformed", str(error), permanent=True)
        except Exception as error:  # the journal is away for a moment: the client asks again
            return nack(message.id, "busy", str(error), permanent=False, retry_after_ms=1000)


def _refusal(message_id: str, denied: Denied) -> Message:
    return nack(message_id, denied.code, denied.text, permanent=denied.permanent, retry_after_ms=denied.retry_after_ms)


def _bound(waiting: dict[Any, Any]) -> None:
    while len(waiting) > MAX_WAITING:
        del waiting[next(iter(waiting))]
