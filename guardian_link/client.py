"""What a Guardian imports: send an alert and know that it is on disk, wait for its outcome, ask about executions.

Thread-safe. Sent alerts are sent again until they are acknowledged; the alert's id makes that harmless. With an outbox
that goes on after a restart of the sender, and the daemon need not be there yet.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Self

from bridge_link.channel import Answer
from bridge_link.client import find_address
from bridge_link.errors import LinkClosed, LinkError
from bridge_link.keys import find_key
from bridge_link.wire import Kind, Message, new_id
from guardian_link.as_alert import Issue, as_alert
from guardian_link.delivery import Delivery
from guardian_link.errors import (
    AlertRefused,
    DaemonUnreachable,
    GuardianError,
    OutboxFull,
    OutboxUnusable,
    OutcomeTimeout,
)
from guardian_link.events import Follower, Page
from guardian_link.exchanges import answer_to, begin_alerts
from guardian_link.late import OnLate
from guardian_link.messages import Ack, Alert, Outcome
from guardian_link.outbox import Outbox
from guardian_link.reach import Reach
from guardian_link.reader import EventReader
from guardian_link.recovery_words import RecoveryWords
from guardian_link.sending import SendDesk, Sending
from guardian_link.streams import EventStream

TERMINAL: Final = frozenset(
    {"succeeded", "failed", "rolled_back", "rollback_failed", "unknown", "rejected", "expired", "cancelled"}
)
MOST_POSTED: Final = 10_000
"""Without an outbox: so many alerts wait in memory."""
ASK_AGAIN_S: Final = 1.0
"""A pushed outcome may be lost: while waiting, the daemon is asked this often."""


class GuardianClient(RecoveryWords):
    """Finds the daemon by ``address``, `$SELFHEAL_GUARDIAN`, or the state directory. Wherever it takes an alert, any of
    the dictionaries ``Alert.from_mapping`` understands will do; one that is no alert raises BadAlert.

    Args:
        timeout_s: how long a question or ``send`` waits.
        outbox: a file (``guardian_link.outbox``) that keeps each alert from before it is sent until the daemon has it.
        on_late: with an outbox: called once, on a thread, with each alert the daemon does not have within a second.
        key_file: a client key file; else `$SELFHEAL_KEY`, else the local key in the state directory.

    Raises:
        BadAddress: nobody knows where the daemon is (with an outbox: it is found when it comes).
        KeyMissing, KeyRefused: there is no key to speak with (with an outbox: likewise).
        LinkUnusable: there are no descriptors for a connection (with an outbox: it is tried again).
        OutboxUnusable: the file cannot be used.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        state_dir: str | Path | None = None,
        timeout_s: float = 5.0,
        outbox: str | Path | None = None,
        on_late: OnLate | None = None,
        key_file: str | Path | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._reach = Reach(
            find=lambda: find_address("guardian", address, state_dir),
            find_key=lambda: find_key(key_file, state_dir),
            on_push=self._pushed,
            is_strict=outbox is not None,
        )
        self._desk = SendDesk(self._reach, self._settle)
        self._outcomes: dict[str, Outcome] = {}
        self._changed = threading.Condition()
        self._posted: set[str] = set()
        self._readers: weakref.WeakSet[EventReader] = weakref.WeakSet()
        self.outbox: Outbox | None = None
        self._delivery: Delivery | None = None
        if outbox is None:
            self._reach.channel()
        else:
            self.outbox = Outbox(outbox)
            self._delivery = Delivery(self.outbox, self._reach.find, find_key=self._reach.find_key, on_late=on_late)

    def send(self, alert: Issue, timeout_s: float | None = None) -> Ack:
        """Send and wait until the alert is on disk and decided. If only the first came in time, the decision is None.

        Raises:
            AlertRefused: it will never be taken; or (``key_refused``) not with this key: then it stays in the outbox.
            DaemonUnreachable: not acknowledged within ``timeout_s`` seconds; it is not sent again, but with an outbox.
            OutboxFull, OutboxUnusable: it is not kept and was not sent.
        """
        return self.begin_send(alert, timeout_s).result()

    def begin_send(self, alert: Issue, timeout_s: float | None = None, *, since_s: float | None = None) -> Future[Ack]:
        """As ``send``, without waiting: with an outbox it is on disk when this returns. The future fails with what
        ``send`` raises; what is known at once is raised. To cancel it, or to wait no more, ends nothing.

        Args:
            since_s: ``timeout_s`` counts from then (``time.monotonic``), not from now.
        """
        alert = as_alert(alert)
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        by_s = (time.monotonic() if since_s is None else since_s) + limit_s
        if self.outbox is None or self._delivery is None:
            return self._desk.take(alert, limit_s, by_s)
        self._delivery.hand_over(alert.id)
        try:
            self.outbox.put(alert)
            try:
                return self._desk.take(alert, limit_s, by_s)
            except AlertRefused as refused:
                self._bury(self.outbox, alert.id, refused)
                raise
        except BaseException:
            self._delivery.take_back([alert.id])
            raise

    def _settle(self, ended: Sequence[Sending]) -> None:
        """What was answered leaves the outbox, with one commit. What cannot be noted is sent, and answered, again."""
        box, delivery = self.outbox, self._delivery
        if box is None or delivery is None:
            return
        errors = {one.alert.id: one.result.exception() for one in ended}
        with suppress(OutboxUnusable):
            if stored := [message_id for message_id, error in errors.items() if error is None]:
                box.delivered(stored)
        for message_id, error in errors.items():
            if isinstance(error, AlertRefused):
                self._bury(box, message_id, error)
        delivery.take_back([one.alert.id for one in ended])

    @staticmethod
    def _bury(box: Outbox, message_id: str, refused: AlertRefused) -> None:
        if refused.is_final:
            with suppress(OutboxUnusable):
                box.bury(message_id, refused.code, str(refused))

    def post(self, alert: Issue) -> str:
        """Queue the alert and return its id at once; it is sent until acknowledged, as long as this client lives.

        With an outbox it is on disk when this returns, and is sent by whoever uses that outbox next.

        Raises:
            AlertRefused: it is too large to be sent.
            OutboxFull, OutboxUnusable: it is not kept.
            DaemonUnreachable: without an outbox: nobody knows where the daemon is.
        """
        alert = as_alert(alert)
        if self.outbox is not None and self._delivery is not None:
            self.outbox.put(alert)
            self._delivery.look()
        else:
            self._keep_sending([alert])
        return alert.id

    def post_all(self, alerts: Sequence[Issue]) -> list[str]:
        """As ``post``, for many, which go together: all or none of them are kept (with an outbox: with one commit)."""
        made = [as_alert(alert) for alert in alerts]
        if self.outbox is not None and self._delivery is not None:
            self.outbox.put_all(made)
            self._delivery.look()
            return [alert.id for alert in made]
        self._keep_sending(made)
        return [alert.id for alert in made]

    @property
    def trouble(self) -> str | None:
        """Why the outbox is not delivered, or no connection can be made, now; None when all is well."""
        return self._reach.trouble if self._delivery is None else self._delivery.trouble or self._reach.trouble

    def wait(self, execution_id: str, timeout_s: float = 60.0) -> Outcome:
        """Wait for the end of an execution.

        Raises:
            OutcomeTimeout: not within ``timeout_s`` seconds.
            DaemonUnreachable: this client is closed.
        """
        return self.wait_until(execution_id, timeout_s, time.monotonic() + timeout_s)

    def wait_until(self, execution_id: str, timeout_s: float, deadline: float) -> Outcome:
        """As ``wait``, whose ``timeout_s`` end at ``deadline`` (``time.monotonic``)."""
        while True:
            if self._reach.is_closed:
                raise DaemonUnreachable("this client is closed")
            left_s = deadline - time.monotonic()
            status = self._status_or_none(execution_id, max(0.05, min(self._timeout_s, left_s)))
            if status is not None and status.get("status") in TERMINAL:
                return Outcome(execution_id, str(status["status"]), str(status.get("detail") or ""))
            with self._changed:
                left_s = deadline - time.monotonic()
                self._changed.wait_for(
                    lambda: execution_id in self._outcomes or self._reach.is_closed, max(0.0, min(ASK_AGAIN_S, left_s))
                )
                if execution_id in self._outcomes:
                    return self._outcomes[execution_id]
            if time.monotonic() >= deadline:
                raise OutcomeTimeout(f"execution {execution_id} had not ended within {timeout_s:g} s")

    def execution_status(self, execution_id: str) -> Mapping[str, Any] | None:
        """The execution in the shape of ``selfheal executions --json``, or None. Raises DaemonUnreachable."""
        found = self._ask({"ask": "execution", "execution_id": execution_id})
        return found if isinstance(found, Mapping) else None

    def statistics(self) -> Mapping[str, Any]:
        """Figures of recovery. Raises DaemonUnreachable."""
        found = self._ask({"ask": "statistics"})
        return found if isinstance(found, Mapping) else {}

    def alerts(self, limit: int = 50) -> Sequence[Mapping[str, Any]]:
        """The last alerts, newest first. Raises DaemonUnreachable."""
        found = self._ask({"ask": "alerts", "limit": limit})
        return found if isinstance(found, list) else []

    def subscribe(self, after: int | None = None, *, epoch: str = "", topics: Sequence[str] = ()) -> EventStream:
        """``for event in guardian.subscribe(): ...``: what happens in the daemon, each event once and in order, through
        restarts of the daemon too.

        Args:
            after: begin behind this number (0: with the oldest there is); without it, with what happens from now on.
            epoch: the journal that number is of (``event.epoch``); when it was begun anew, EventsLost says so.
            topics: globs over event words (``execution_*``) or, with a slash, over paths (``root/services/*``).

        Raises:
            DaemonUnreachable: without ``after`` somebody must say where now is.
        """
        return EventStream(self.reader(after, epoch, topics))

    def events(self, after: int | None = None, limit: int = 500) -> Page:
        """One page of events behind ``after``, oldest first, with the bounds of what there is (``limit``: at most so
        many, and as many as fit). Without ``after`` the bounds only. Raises DaemonUnreachable.
        """
        question = {"ask": "events", "after": after, "limit": limit}
        return Page.from_answer(self._ask({key: value for key, value in question.items() if value is not None}))

    def reader(self, after: int | None, epoch: str, topics: Sequence[str]) -> EventReader:
        """What a stream takes its events from. Raises as ``subscribe``."""
        if after is None:
            page = self.events()
            follower = Follower(page.last, page.epoch)
        else:
            follower = Follower(after, epoch)
        wanted = (topics,) if isinstance(topics, str) else topics
        reader = EventReader(self._ask, follower, wanted, lambda: self._reach.host, self._reach.find_key)
        self._readers.add(reader)
        return reader

    def close(self) -> None:
        """What is in the outbox stays there; whoever waits is let go."""
        self._reach.shut()
        with self._changed:
            self._changed.notify_all()
        for reader in list(self._readers):
            reader.stop()
        self._reach.close()
        self._desk.close()
        if self._delivery is not None:
            self._delivery.close()
        if self.outbox is not None:
            self.outbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _keep_sending(self, alerts: Sequence[Alert]) -> None:
        """Until they are acknowledged; by a daemon that has moved once a later call has found it.

        Raises OutboxFull, and as ``begin_alerts``: then none is sent.
        """

        def look(alert: Alert, done: Future[Answer]) -> None:
            self._posted.discard(alert.id)
            if isinstance(done.exception(), LinkClosed) and not self._reach.is_closed:
                with suppress(GuardianError):  # too late: the client is being closed
                    self._keep_sending([alert])

        if len(self._posted) + len(alerts) > MOST_POSTED:
            raise OutboxFull(f"{len(self._posted)} alerts wait already; is the daemon running?")
        exchanges = begin_alerts(self._reach, alerts, is_patient=True)
        for alert, exchange in zip(alerts, exchanges, strict=True):
            self._posted.add(alert.id)
            exchange.answers[Kind.STORED].add_done_callback(partial(look, alert))

    @property
    def unacknowledged(self) -> int:
        """Alerts that were posted and are not known to be on the daemon's disk."""
        return len(self._posted) if self.outbox is None else len(self.outbox)

    def _ask(self, question: Mapping[str, Any], timeout_s: float | None = None) -> Any:
        try:
            exchange = self._reach.channel().begin(Message(Kind.QUERY, new_id(), question), (Kind.ANSWER,))
        except LinkError as error:
            raise DaemonUnreachable(str(error)) from None
        try:
            answer = answer_to(self._reach, exchange, Kind.ANSWER, self._timeout_s if timeout_s is None else timeout_s)
        finally:
            exchange.forget()
        return answer.get("result")

    def _status_or_none(self, execution_id: str, timeout_s: float) -> Mapping[str, Any] | None:
        """A daemon that restarts meanwhile answers later."""
        try:
            found = self._ask({"ask": "execution", "execution_id": execution_id}, timeout_s)
        except DaemonUnreachable:
            return None
        return found if isinstance(found, Mapping) else None

    def _pushed(self, message: Message) -> None:
        execution_id = message.body.get("execution_id")
        if message.kind is Kind.OUTCOME and isinstance(execution_id, str):
            outcome = Outcome(execution_id, str(message.body.get("status")), str(message.body.get("detail") or ""))
            with self._changed:
                self._outcomes[execution_id] = outcome
                while len(self._outcomes) > 10_000:
                    del self._outcomes[next(iter(self._outcomes))]
                self._changed.notify_all()
