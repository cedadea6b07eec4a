"""Where alerts come in: from a link's pump thread to the journal, and back to the sender.

``take`` and ``drained`` run on a pump thread and must be quick: what came with one poll goes to the journal as one
work. STORED goes out after the commit (on the journal's thread), DECIDED and OUTCOME when they are known. Nothing here
is the only copy of anything: a sender that missed an answer sends again and is answered again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from actors.access.book import Judge, unjudged
from actors.access.rules import Denied
from actors.answers import Asker, Pump, Refusal, Replies
from actors.clock import Clock
from actors.deciding.words import INSIDE, OPERATOR, AlertsStored, Decided, LookAgain
from actors.fitting import fitted
from actors.iopool import IoPool
from actors.journal.alert_batches import NewAlert, Stored, new_alert, store_alerts
from actors.journal.journal import Journal
from actors.journal.rows import AlertConflict, OpenAlert
from actors.journal.schema import JournalFull
from actors.questions import Questions
from actors.runbook import ExecutionFinished
from bridge_link.batch import alerts_of
from bridge_link.errors import WireError
from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message, nack, new_id
from guardian_link.messages import Alert, BadAlert, facts_of

MAX_WAITING: Final = 10_000
"""Senders remembered for an answer that is still to come; older ones ask again."""
MAX_IN_FLIGHT: Final = 4096
"""Alerts handed to the journal and not committed; beyond that the sender is told to wait."""
MAX_TOLD: Final = 10_000
"""Alerts the decider was told of and has not decided; beyond that it reads them from the journal."""
MAX_ASKED: Final = 100
"""Wishes of operators whose answer is still to come."""
BUSY_MS: Final = 200
FULL_MS: Final = 5000


Answer = Callable[[Message], object]
"""Sends a message back to the peer it belongs to, in the encoding it spoke; from any thread. Raises WireError for one
that cannot be sent so; an ANSWER always can.
"""


@dataclass(frozen=True)
class IntakeParts:
    """``hint`` tells the guardian actor; ``ask`` answers a query (blocking, on the I/O pool); ``bridge`` takes
    what the clients of endpoints send: HELLO, HB, REPLY (with the way back); ``judge`` says what an authenticated
    client may not, ``may_answer`` whether one may answer commands, and so speak for an endpoint.
    """

    journal: Journal
    io: IoPool
    clock: Clock
    hint: Callable[[AlertsStored | LookAgain], object]
    ask: Callable[[Mapping[str, Any]], Any]
    bridge: Callable[[Incoming, Answer], object]
    judge: Judge = unjudged
    may_answer: Callable[[str], bool] = lambda _client: True
    say: Callable[[str, str, Mapping[str, Any]], object] = lambda _client, _msg_id, _facts: None
    """Tells people of an alert (client, id, facts) before anything else is done with it; it must only hand over."""


@dataclass(slots=True)
class IntakeCounters:
    """Alerts since the daemon began: each received one is stored, a duplicate, or refused."""

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    malformed: int = 0
    conflicts: int = 0
    denied: int = 0
    busy: int = 0
    disk_full: int = 0


class _Arrival(NamedTuple):
    """An alert on its way into the journal. ``asker``: None for the daemon's own."""

    row: NewAlert
    facts: Mapping[str, Any]
    asker: Asker | None


class _Here(threading.local):
    """What a pump's thread has taken since it last handed on."""

    def __init__(self) -> None:
        self.arrived: list[_Arrival] = []
        self.replies = Replies()


@dataclass
class AlertIntake:
    """One for all links."""

    parts: IntakeParts
    counters: IntakeCounters = field(default_factory=IntakeCounters)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _here: _Here = field(default_factory=_Here)
    _in_flight: int = 0
    _bytes_in_flight: int = 0
    _told: set[int] = field(default_factory=set)
    _is_untold: bool = False
    _asked: dict[str, Future[Mapping[str, Any]]] = field(default_factory=dict)
    _by_alert: OrderedDict[int, list[Asker]] = field(default_factory=OrderedDict)
    _by_execution: OrderedDict[str, list[Asker]] = field(default_factory=OrderedDict)
    _questions: Questions = field(init=False)

    def __post_init__(self) -> None:
        self._questions = Questions(self.parts.io, self.parts.ask)

    # -- from the links -----------------------------------------------------------------------------------------------

    def take(self, pump: Pump, incoming: Incoming) -> None:
        """One message of a peer, on the pump's thread."""
        message, peer = incoming.message, incoming.peer
        if message.kind is Kind.ALERT:  # what its type is counts too
            asker = Asker(pump, peer, message.id, encoding=message.content_type)
            self._take_alert(incoming.client, asker, message.body)
            return
        if message.kind is Kind.ALERTS:
            self._take_alerts(pump, incoming)
            return

        def answer(reply: Message) -> None:
            pump.send_frames([(peer, fitted(replace(reply, content_type=message.content_type)))])

        denied = self.parts.judge(incoming.client, message.kind, None)
        if denied is not None:
            answer(_refusal(message.id, denied))
            return
        match message.kind:
            case Kind.QUERY:
                self._questions.take(incoming.client, message, answer)
            case Kind.HELLO | Kind.HEARTBEAT | Kind.REPLY:
                if self.parts.may_answer(incoming.client):  # a heartbeat of others says nothing about an endpoint
                    self.parts.bridge(incoming, answer)
            case _:
                text = f"a daemon takes no {message.kind.name} message"
                answer(nack(message.id, "malformed", text, permanent=True))

    def drained(self) -> None:
        """For now nothing more has come: all that was taken goes to the journal. On the pump's thread."""
        here = self._here
        arrived, here.arrived = here.arrived, []
        replies, here.replies = here.replies, Replies()
        if arrived:
            replies.send_singles()
            self._store(arrived, replies)
        else:
            replies.send()

    def take_mapping(self, raw: Mapping[str, Any], client: str = INSIDE) -> str:
        """An alert from inside the daemon (a bridge endpoint's error); returns its message id. Raises BadAlert.

        It is taken also when little room is left: nobody would send it again.
        """
        alert = Alert.from_mapping(raw)
        facts = alert.to_body()
        self.parts.say(client, alert.id, facts)
        row = new_alert(client, alert.id, facts, self.parts.clock.wall())
        self._store([_Arrival(row, facts, None)], Replies())
        return alert.id

    def take_asked(self, raw: Mapping[str, Any]) -> tuple[str, Future[Mapping[str, Any]]]:
        """An operator's wish for a run: its message id, and what will have been decided. Raises BadAlert."""
        alert_id, decided = new_id(), Future[Mapping[str, Any]]()
        with self._lock:
            self._asked[alert_id] = decided
            while len(self._asked) > MAX_ASKED:
                self._asked.pop(next(iter(self._asked)))
        self.take_mapping({**raw, "id": alert_id}, OPERATOR)
        return alert_id, decided

    @property
    def bytes_in_flight(self) -> int:
        """About what the alerts take that were handed to the journal and not committed: text and facts."""
        return 4 * self._bytes_in_flight

    def _take_alerts(self, pump: Pump, incoming: Incoming) -> None:
        message, peer = incoming.message, incoming.peer
        try:
            alerts = alerts_of(message.body)
        except WireError as error:
            refusal = nack(message.id, error.code, error.text, permanent=True)
            pump.send(peer, replace(refusal, content_type=message.content_type))
            return
        for msg_id, body in alerts.items():
            self._take_alert(incoming.client, Asker(pump, peer, msg_id, message.id, message.content_type), body)

    def _take_alert(self, client: str, asker: Asker, body: Any) -> None:
        self.counters.received += 1
        here = self._here
        try:
            facts = facts_of(body)
        except BadAlert as bad:
            self.counters.malformed += 1
            here.replies.refused(asker, Refusal("malformed", str(bad), permanent=True))
            return
        denied = self.parts.judge(client, Kind.ALERT, facts["type"])
        if denied is not None:
            self.counters.denied += 1
            refusal = Refusal(denied.code, denied.text, denied.permanent, denied.retry_after_ms)
            here.replies.refused(asker, refusal)
            return
        self.parts.say(client, asker.msg_id, facts)
        no_room = self._no_room(len(here.arrived))
        if no_room is not None:
            here.replies.refused(asker, no_room)
            return
        row = new_alert(client, asker.msg_id, facts, self.parts.clock.wall())
        here.arrived.append(_Arrival(row, facts, asker))

    def _no_room(self, taken: int) -> Refusal | None:
        """Before harm: what cannot be kept is not taken, and its sender knows at once."""
        if self.parts.journal.is_short:
            self.counters.disk_full += 1
            return Refusal("disk_full", "the daemon's disk is nearly full", retry_after_ms=FULL_MS)
        if self._in_flight + taken >= MAX_IN_FLIGHT:
            self.counters.busy += 1
            return Refusal("busy", f"{MAX_IN_FLIGHT} alerts wait for the disk", retry_after_ms=BUSY_MS)
        return None

    # -- to the journal and back --------------------------------------------------------------------------------------

    def _store(self, arrived: list[_Arrival], replies: Replies) -> None:
        rows = [one.row for one in arrived]
        size = sum(len(row.body) for row in rows)
        with self._lock:
            self._in_flight += len(arrived)
            self._bytes_in_flight += size
        future = self.parts.journal.submit(lambda db: store_alerts(db, rows), is_simple=True)
        future.add_done_callback(lambda done: self._stored(done, arrived, replies, size))

    def _stored(self, done: Future[list[Stored]], arrived: list[_Arrival], replies: Replies, size: int) -> None:
        """On the journal's thread, after the commit."""
        with self._lock:
            self._in_flight -= len(arrived)
            self._bytes_in_flight -= size
        error = done.exception()
        if error is None:
            self._answer(arrived, done.result(), replies)
            return
        is_full = isinstance(error, JournalFull)
        refusal = Refusal("disk_full" if is_full else "busy", str(error), retry_after_ms=FULL_MS if is_full else 1000)
        self.counters.disk_full += len(arrived) if is_full else 0
        self.counters.busy += 0 if is_full else len(arrived)
        for one in arrived:
            if one.asker is not None:
                replies.refused(one.asker, refusal)
            asked = self._asked.pop(one.row.msg_id, None)
            if asked is not None:
                asked.set_exception(error)
        replies.send()

    def _answer(self, arrived: list[_Arrival], stored: list[Stored], replies: Replies) -> None:
        waiting: list[OpenAlert] = []
        decided: list[tuple[Asker, Mapping[str, Any]]] = []
        with self._lock:
            for one, came in zip(arrived, stored, strict=True):
                self._count(came)
                if isinstance(came, AlertConflict):
                    if one.asker is not None:
                        replies.refused(one.asker, Refusal("conflict", str(came), permanent=True))
                    continue
                if came.decision is None:
                    waiting.append(OpenAlert(came.seq, one.row.msg_id, one.facts, one.row.client))
                if one.asker is None:
                    continue
                replies.stored(one.asker, is_new=came.is_new)
                if came.decision is not None:
                    decided.append((one.asker, came.decision))
                else:
                    self._by_alert.setdefault(came.seq, []).append(one.asker)
            _bound(self._by_alert)
        try:
            replies.send()
            self._tell_decisions(decided)
        finally:  # they are stored: whatever becomes of answers, they are decided
            self._hint(waiting)

    def _count(self, came: Stored) -> None:
        if isinstance(came, AlertConflict):
            self.counters.conflicts += 1
        elif came.is_new:
            self.counters.stored += 1
        else:
            self.counters.duplicates += 1

    def _hint(self, waiting: list[OpenAlert]) -> None:
        if not waiting:
            return
        with self._lock:
            self._is_untold = self._is_untold or len(self._told) > MAX_TOLD
            if self._is_untold:
                return
            self._told.update(one.seq for one in waiting)
        self.parts.hint(AlertsStored(tuple(waiting)))

    # -- back to the senders ------------------------------------------------------------------------------------------

    def decider_began(self) -> None:
        """From the guardian actor: an incarnation that knows nothing of what was told, and reads what is undecided."""
        with self._lock:
            self._told.clear()
            self._is_untold = False

    def decided(self, decided: Sequence[Decided]) -> None:
        """From the guardian actor: the decisions are on disk."""
        told: list[tuple[Asker, Mapping[str, Any]]] = []
        asked: list[tuple[Future[Mapping[str, Any]], Mapping[str, Any]]] = []
        with self._lock:
            for one in decided:
                if one.alert.client == OPERATOR and (wish := self._asked.pop(one.alert.msg_id, None)) is not None:
                    asked.append((wish, one.body))
                told += [(asker, one.body) for asker in self._by_alert.pop(one.alert.seq, ())]
                self._told.discard(one.alert.seq)
            look_again = self._is_untold and len(self._told) < MAX_TOLD // 2
            self._is_untold = self._is_untold and not look_again
        self._tell_decisions(told)
        for wish, body in asked:
            wish.set_result(body)
        if look_again:
            self.parts.hint(LookAgain())

    def finished(self, finished: ExecutionFinished) -> None:
        """From the guardian actor: the end is on disk."""
        with self._lock:
            waiting = self._by_execution.pop(finished.execution_id, [])
        body = {
            "execution_id": finished.execution_id,
            "status": finished.status.value,
            "detail": finished.detail[:500],
        }
        for asker in waiting:
            asker.pump.send(asker.peer, Message(Kind.OUTCOME, new_id(), body, asker.encoding))

    def _tell_decisions(self, decided: Iterable[tuple[Asker, Mapping[str, Any]]]) -> None:
        replies = Replies()
        for asker, body in decided:
            execution_id = body.get("execution_id")
            if isinstance(execution_id, str):
                self._wait_for_end(execution_id, asker)
            replies.decided(asker, body)
        replies.send()

    def _wait_for_end(self, execution_id: str, asker: Asker) -> None:
        with self._lock:
            self._by_execution.setdefault(execution_id, []).append(asker)
            _bound(self._by_execution)


def _refusal(message_id: str, denied: Denied) -> Message:
    return nack(message_id, denied.code, denied.text, permanent=denied.permanent, retry_after_ms=denied.retry_after_ms)


def _bound(waiting: OrderedDict[Any, Any]) -> None:
    while len(waiting) > MAX_WAITING:
        waiting.popitem(last=False)
