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
from operator import attrgetter
from typing import Any, Final, NamedTuple

import structlog

from actors.access.book import Judge, JudgeAlerts, unjudged, unjudged_alerts
from actors.access.rules import Denied
from actors.alert_frames import PlainAlerts
from actors.answers import Asker, Pump, Refusal, Replies
from actors.clock import Clock
from actors.deciding.words import DECIDER_PATH, INSIDE, OPERATOR, AlertsStored, Decided, LookAgain
from actors.fitting import fitted
from actors.iopool import IoPool
from actors.journal import happened
from actors.journal.alert_batches import NewAlert, Stored, new_alert
from actors.journal.journal import Journal
from actors.journal.rows import AlertConflict, OpenAlert
from actors.journal.schema import JournalFull
from actors.questions import Questions
from actors.runbook import ExecutionFinished
from actors.saying import Sayer
from bridge_link.batch import alerts_of
from bridge_link.errors import WireError
from bridge_link.pump import Incoming
from bridge_link.wire import Kind, Message, nack, new_id
from guardian_link.messages import Alert, BadAlert, facts_of, have_known_names

MAX_WAITING: Final = 10_000
"""Senders remembered for an answer that is still to come; older ones ask again."""
MAX_IN_FLIGHT: Final = 4096
"""Alerts handed to the journal and not committed; beyond that the sender is told to wait."""
MAX_TOLD: Final = 10_000
"""Alerts the decider was told of and has not decided; beyond that it reads them from the journal."""
MAX_ASKED: Final = 100
"""Wishes of operators whose answer is still to come."""
MAX_CONFLICTS_TOLD: Final = 20
"""A second: of alerts with another body under a known id; the others are summed up."""
BUSY_MS: Final = 200
FULL_MS: Final = 5000


Answer = Callable[[Message], object]
"""Sends a message back to the peer it belongs to, in the encoding it spoke; from any thread. Raises WireError for one
that cannot be sent so; an ANSWER always can.
"""


@dataclass(frozen=True)
class IntakeParts:
    """``hint`` tells the guardian actor; ``ask`` answers a query (blocking, on the I/O pool); ``bridge`` takes
    what the clients of endpoints send: HELLO, HB, REPLY (with the way back); ``judge`` and
    ``judge_alerts`` say what an authenticated client may not, ``may_answer`` whether one may answer commands, and so
    speak for an endpoint.
    """

    journal: Journal
    io: IoPool
    clock: Clock
    hint: Callable[[AlertsStored | LookAgain], object]
    ask: Callable[[Mapping[str, Any]], Any]
    bridge: Callable[[Incoming, Answer], object]
    judge: Judge = unjudged
    judge_alerts: JudgeAlerts = unjudged_alerts
    may_answer: Callable[[str], bool] = lambda _client: True
    say: Callable[[str, Sequence[tuple[str, Mapping[str, Any]]]], object] = lambda _client, _alerts: None
    """Tells people of a client's alerts (id, facts) before anything else is done with them; it must only hand over."""
    foregone: Callable[[str], Mapping[str, Any] | None] = lambda _type: None
    """What is decided about every client's alert of a type now (the wire's DECIDED), whatever was before; None: the
    guardian actor decides.
    """


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


@dataclass(slots=True)
class _Taken:
    """The alerts of one message on their way into the journal. ``asker``: of the message; None for the daemon's own;
    ``decision``: what is decided about all of them already, if that is one.
    """

    asker: Asker | None
    rows: list[NewAlert]
    facts: list[Mapping[str, Any]]
    decision: Mapping[str, Any] | None = None

    def asker_of(self, row: NewAlert) -> Asker | None:
        return None if self.asker is None else self.asker.about(row.msg_id)


class _Told(NamedTuple):
    """One decision about alerts of one message."""

    asker: Asker
    ids: list[str]
    body: Mapping[str, Any]


class _Here(threading.local):
    """What a pump's thread has taken since it last handed on."""

    def __init__(self) -> None:
        self.arrived: list[_Taken] = []
        self.count = 0
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
    _sayer: Sayer = field(init=False)
    _conflicts: Sayer = field(init=False)

    def __post_init__(self) -> None:
        self._questions = Questions(self.parts.io, self.parts.ask)
        self._sayer = Sayer(_sum_up)
        self._conflicts = Sayer(self._sum_up_conflicts, MAX_CONFLICTS_TOLD)

    # -- from the links -----------------------------------------------------------------------------------------------

    def take(self, pump: Pump, incoming: Incoming) -> None:
        """One message of a peer, on the pump's thread."""
        message, peer = incoming.message, incoming.peer
        if message.kind is Kind.ALERT:  # what its type is counts too
            asker = Asker(pump, peer, message.id, encoding=message.content_type)
            self._take_some(incoming.client, asker, {message.id: message.body}, _texts(message))
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
        arrived, here.arrived, here.count = here.arrived, [], 0
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
        self.parts.say(client, [(alert.id, facts)])
        row = new_alert(client, alert.id, facts, self.parts.clock.wall())
        self._store([_Taken(None, [row], [facts])], Replies())
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
            alerts = message.body["alerts"] if isinstance(message, PlainAlerts) else alerts_of(message.body)
        except WireError as error:
            refusal = nack(message.id, error.code, error.text, permanent=True)
            pump.send(peer, replace(refusal, content_type=message.content_type))
            return
        asker = Asker(pump, peer, "", message.id, message.content_type)
        self._take_some(incoming.client, asker, alerts, _texts(message))

    def _take_some(self, client: str, asker: Asker, alerts: Mapping[str, Any], texts: Mapping[str, str]) -> None:
        """The alerts of one message, by their ids; ``texts``: those that are plain, as JSON."""
        self.counters.received += len(alerts)
        heard = self._heard(client, asker, self._checked(asker, alerts, is_plain=bool(texts)))
        if not heard:
            return
        self.parts.say(client, heard)
        here, room = self._here, self._room(self._here.count)
        for msg_id, _facts in heard[room:]:
            here.replies.refused(asker.about(msg_id), self._no_room())
        if room:
            here.arrived.append(self._taken(client, asker, heard[:room], texts))
            here.count += min(room, len(heard))

    def _checked(self, asker: Asker, alerts: Mapping[str, Any], *, is_plain: bool) -> list[tuple[str, dict[str, Any]]]:
        """Those that are good, with their facts; the others are refused."""
        if is_plain and have_known_names(alerts.values()):
            return list(alerts.items())
        good: list[tuple[str, dict[str, Any]]] = []
        for msg_id, body in alerts.items():
            try:
                good.append((msg_id, facts_of(body)))
            except BadAlert as bad:
                self.counters.malformed += 1
                self._here.replies.refused(asker.about(msg_id), Refusal("malformed", str(bad), permanent=True))
        return good

    def _heard(
        self, client: str, asker: Asker, alerts: list[tuple[str, dict[str, Any]]]
    ) -> list[tuple[str, dict[str, Any]]]:
        """Those the client may send; the others are refused."""
        denials = self.parts.judge_alerts(client, [facts["type"] for _, facts in alerts])
        if not any(denials):
            return alerts
        heard: list[tuple[str, dict[str, Any]]] = []
        for one, denied in zip(alerts, denials, strict=True):
            if denied is None:
                heard.append(one)
                continue
            self.counters.denied += 1
            refusal = Refusal(denied.code, denied.text, denied.permanent, denied.retry_after_ms)
            self._here.replies.refused(asker.about(one[0]), refusal)
        return heard

    def _taken(
        self, client: str, asker: Asker, heard: list[tuple[str, dict[str, Any]]], texts: Mapping[str, str]
    ) -> _Taken:
        at = self.parts.clock.wall()
        foregone: dict[str, Mapping[str, Any] | None] = {}  # of this message: what is switched or edited counts at once
        rows: list[NewAlert] = []
        for msg_id, facts in heard:
            kind = facts["type"]
            if kind not in foregone:
                foregone[kind] = self.parts.foregone(kind)
            rows.append(new_alert(client, msg_id, facts, at, foregone[kind], texts.get(msg_id)))
        alike = next(iter(foregone.values())) if len(foregone) == 1 else None
        return _Taken(asker, rows, [facts for _, facts in heard], alike)

    def _room(self, taken: int) -> int:
        """How many more alerts can be kept: what cannot is not taken, and its sender knows at once."""
        return 0 if self.parts.journal.is_short else max(0, MAX_IN_FLIGHT - self._in_flight - taken)

    def _no_room(self) -> Refusal:
        if self.parts.journal.is_short:
            self.counters.disk_full += 1
            return Refusal("disk_full", "the daemon's disk is nearly full", retry_after_ms=FULL_MS)
        self.counters.busy += 1
        return Refusal("busy", f"{MAX_IN_FLIGHT} alerts wait for the disk", retry_after_ms=BUSY_MS)

    # -- to the journal and back --------------------------------------------------------------------------------------

    def _store(self, arrived: list[_Taken], replies: Replies) -> None:
        rows = [row for taken in arrived for row in taken.rows]
        facts = [one for taken in arrived for one in taken.facts]
        size = sum(len(row.body) for row in rows)
        with self._lock:
            self._in_flight += len(rows)
            self._bytes_in_flight += size
        future = self.parts.journal.submit(
            lambda db: happened.take_alerts(db, DECIDER_PATH, rows, facts), is_simple=True
        )
        future.add_done_callback(lambda done: self._stored(done, arrived, replies, (len(rows), size)))

    def _stored(
        self, done: Future[list[Stored]], arrived: list[_Taken], replies: Replies, size: tuple[int, int]
    ) -> None:
        """On the journal's thread, after the commit. ``size``: how many they are, and how long."""
        with self._lock:
            self._in_flight -= size[0]
            self._bytes_in_flight -= size[1]
        error = done.exception()
        self._conflicts.look()
        if error is None:
            self._answer(arrived, done.result(), replies)
            return
        is_full = isinstance(error, JournalFull)
        refusal = Refusal("disk_full" if is_full else "busy", str(error), retry_after_ms=FULL_MS if is_full else 1000)
        self.counters.disk_full += size[0] if is_full else 0
        self.counters.busy += 0 if is_full else size[0]
        for taken in arrived:
            for row in taken.rows:
                if (asker := taken.asker_of(row)) is not None:
                    replies.refused(asker, refusal)
                asked = self._asked.pop(row.msg_id, None)
                if asked is not None:
                    asked.set_exception(error)
        replies.send()

    def _answer(self, arrived: list[_Taken], stored: list[Stored], replies: Replies) -> None:
        waiting: list[OpenAlert] = []
        askers: list[tuple[int, Asker]] = []
        told: list[_Told] = []
        foregone: list[tuple[Mapping[str, Any], list[str]]] = []
        conflicts: dict[str, list[str]] = {}
        at = 0
        for taken in arrived:
            asker, first, at = taken.asker, at, at + len(taken.rows)
            if taken.decision is not None and asker is not None and all(map(_is_new, stored[first:at])):
                new = [row.msg_id for row in taken.rows]  # as below, for what most messages are
                self.counters.stored += len(new)
                replies.all_stored(asker, new, is_new=True)
                told.append(_Told(asker, new, taken.decision))
                foregone.append((taken.decision, new))
                continue
            ids: tuple[list[str], list[str]] = ([], [])
            by_decision: dict[int, tuple[Mapping[str, Any], list[str]]] = {}
            for row, facts, came in zip(taken.rows, taken.facts, stored[first:at], strict=True):
                if isinstance(came, AlertConflict):
                    self.counters.conflicts += 1
                    conflicts.setdefault(row.client, []).append(row.msg_id)
                    if asker is not None:
                        refusal = Refusal("conflict", str(came), permanent=True)
                        replies.refused(asker.about(row.msg_id), refusal)
                    continue
                seq, is_new, decision = came
                ids[is_new].append(row.msg_id)
                if decision is None:
                    waiting.append(OpenAlert(seq, row.msg_id, facts, row.client))
                    if asker is not None:
                        askers.append((seq, asker.about(row.msg_id)))
                    continue
                if (alike := by_decision.get(id(decision))) is None:
                    alike = by_decision[id(decision)] = (decision, [])
                    if is_new:
                        foregone.append(alike)
                alike[1].append(row.msg_id)
            self.counters.duplicates += len(ids[False])
            self.counters.stored += len(ids[True])
            if asker is not None:
                replies.all_stored(asker, ids[True], is_new=True)
                replies.all_stored(asker, ids[False], is_new=False)
                told += [_Told(asker, some, decision) for decision, some in by_decision.values()]
        self._await_decisions(askers)
        try:
            self._tell_decisions(told, replies)
            self._log(foregone)
            self._tell_conflicts(conflicts)
        finally:  # they are stored: whatever becomes of answers, they are decided
            self._hint(waiting)

    def _await_decisions(self, askers: list[tuple[int, Asker]]) -> None:
        if not askers:
            return
        with self._lock:
            for seq, asker in askers:
                self._by_alert.setdefault(seq, []).append(asker)
            _bound(self._by_alert)

    def _log(self, foregone: list[tuple[Mapping[str, Any], list[str]]]) -> None:
        """As the guardian actor logs what it decides. Of each decision the ids it is about."""
        for decision, ids in foregone:
            for msg_id in ids[: self._sayer.may_say_some(str(decision.get("outcome")), len(ids))]:
                structlog.get_logger().info("alert decided", alert=msg_id, **decision)

    def _tell_conflicts(self, conflicts: Mapping[str, list[str]]) -> None:
        """For security: who does so may speak with another's key."""
        for client, ids in conflicts.items():
            if told := ids[: self._conflicts.may_say_some(client, len(ids))]:
                self._record_conflicts(client, len(told), told)

    def _sum_up_conflicts(self, _count: int, by_client: Mapping[str, int]) -> None:
        for client, count in by_client.items():
            self._record_conflicts(client, count, [])

    def _record_conflicts(self, client: str, count: int, ids: list[str]) -> None:
        structlog.get_logger().warning("alerts with another body under a known id", client=client, count=count, ids=ids)
        at = self.parts.clock.wall()
        self.parts.journal.submit(lambda db: happened.conflicted(db, at, DECIDER_PATH, client, count, ids))

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
        told: list[_Told] = []
        asked: list[tuple[Future[Mapping[str, Any]], Mapping[str, Any]]] = []
        with self._lock:
            for one in decided:
                if one.alert.client == OPERATOR and (wish := self._asked.pop(one.alert.msg_id, None)) is not None:
                    asked.append((wish, one.body))
                askers = self._by_alert.pop(one.alert.seq, ())
                told += [_Told(asker, [asker.msg_id], one.body) for asker in askers]
                self._told.discard(one.alert.seq)
            look_again = self._is_untold and len(self._told) < MAX_TOLD // 2
            self._is_untold = self._is_untold and not look_again
        self._tell_decisions(told, Replies())
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

    def _tell_decisions(self, told: Iterable[_Told], replies: Replies) -> None:
        """After what is in ``replies`` already."""
        for asker, ids, body in told:
            execution_id = body.get("execution_id")
            if isinstance(execution_id, str):
                for msg_id in ids:
                    self._wait_for_end(execution_id, asker.about(msg_id))
            replies.all_decided(asker, ids, body)
        replies.send()

    def _wait_for_end(self, execution_id: str, asker: Asker) -> None:
        with self._lock:
            self._by_execution.setdefault(execution_id, []).append(asker)
            _bound(self._by_execution)


_is_new: Final = attrgetter("is_new")


def _texts(message: Message) -> Mapping[str, str]:
    return message.texts if isinstance(message, PlainAlerts) else {}


def _refusal(message_id: str, denied: Denied) -> Message:
    return nack(message_id, denied.code, denied.text, permanent=denied.permanent, retry_after_ms=denied.retry_after_ms)


def _sum_up(count: int, outcomes: Mapping[str, int]) -> None:
    structlog.get_logger().info("alerts decided", more=count, outcomes=dict(outcomes))


def _bound(waiting: OrderedDict[Any, Any]) -> None:
    while len(waiting) > MAX_WAITING:
        waiting.popitem(last=False)
