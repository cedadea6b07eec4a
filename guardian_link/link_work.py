"""What stands behind a ``GuardianLinkActor``: threads that wait, so that the actor never does.

* ``keep`` (one thread): alerts, in the order they were told. With an outbox they are on disk before anything else is
  done with them. No thread waits for their decisions.
* ``ask`` (a few): questions. ``tell`` (one): tells decisions to those who asked.
* one thread for each execution that is waited for, and for each subscriber; bounded.

All queues are bounded; what finds no room is answered so. Each request is answered once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from bridge_link.errors import LinkError
from guardian_link.as_alert import as_alert, constraint_alert, recovery_alert
from guardian_link.bounded import BoundedCalls
from guardian_link.client import GuardianClient
from guardian_link.errors import DaemonUnreachable, EventsLost, GuardianError, LinkBusy
from guardian_link.lane import Lane
from guardian_link.link_messages import (
    AlertRequest,
    ExecuteRecovery,
    GetExecutionStatus,
    GetRecoveryStatistics,
    Question,
    Reply,
    Request,
    SendAlert,
    Subscribe,
    TellTo,
    TriggerRecovery,
    Unsubscribe,
    WaitForExecution,
)
from guardian_link.messages import Ack, Alert
from guardian_link.streams import EventStream

LOG: Final = logging.getLogger("guardian_link")
MOST_ALERTS: Final = 10_000
MOST_QUESTIONS: Final = 1_000
MOST_DECISIONS: Final = 1_000
ASKERS: Final = 4
MOST_WAITS: Final = 64
MOST_SUBSCRIBERS: Final = 64
STOP_S: Final = 5.0
"""How long a stop takes at most to put what was told into the outbox."""
RETRY_S: Final = 1.0

Connect = Callable[[], GuardianClient]


class LinkWork:
    """``take`` hands a request on and returns at once. ``connect`` makes the client, when it is first needed."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._client: GuardianClient | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._keep = Lane("guardian-link-keep", MOST_ALERTS, 1)
        self._ask = Lane("guardian-link-ask", MOST_QUESTIONS, ASKERS)
        self._tell = Lane("guardian-link-tell", MOST_DECISIONS, 1)
        self._decisions = threading.Semaphore(MOST_DECISIONS)
        self._waits = BoundedCalls("guardian-link-wait", MOST_WAITS)
        self._followers: list[_Follow] = []
        self._keep.put(self._begin)

    def take(self, request: Request) -> str | None:
        """The alert's id, if it is one. Raises BadAlert, LinkBusy."""
        match request:
            case SendAlert() | ExecuteRecovery() | TriggerRecovery():
                return self._take_alert(request, _alert_of(request))
            case Subscribe():
                self._follow(request)
            case Unsubscribe():
                self._unfollow(request.reply_to)
                answer(request)
            case WaitForExecution():
                if self._waits.start(lambda: self._answer(request), by_s=0.0) is None:
                    raise LinkBusy(f"{MOST_WAITS} executions are waited for already")
            case _:
                if not self._ask.put(lambda: self._answer(request)):
                    raise LinkBusy(f"{MOST_QUESTIONS} questions wait already, or the link is stopping")
        return None

    def close(self) -> None:
        """Keep what was told, answer what is open, end."""
        undone = self._keep.close(STOP_S)
        self._stopping.set()
        for follow in list(self._followers):
            follow.stop()
        with self._lock:
            client = self._client
        if client is not None:
            undone += client.unacknowledged if client.outbox is None else 0
            client.close()
        self._tell.close(1.0)
        self._ask.close(1.0)
        if undone:
            LOG.error("the guardian link was stopped with %d alerts that are not known to be delivered", undone)

    def _begin(self) -> None:
        """What an earlier one left in the outbox is delivered without waiting for the first request."""
        try:
            self._connected()
        except LinkError:  # nobody knows yet where the daemon is: it is asked for with each request
            return
        except GuardianError:
            LOG.exception("the guardian link cannot begin")

    # -- alerts -----------------------------------------------------------------------------------------------------

    def _take_alert(self, request: AlertRequest, alert: Alert) -> str:
        told_s = time.monotonic()
        if not self._keep.put(lambda: self._keep_alert(request, alert, told_s)):
            raise LinkBusy(f"{MOST_ALERTS} alerts wait already, or the link is stopping; alert {alert.id} is not kept")
        return alert.id

    def _keep_alert(self, request: AlertRequest, alert: Alert, told_s: float) -> None:
        """On the keeping thread: nothing here waits for the daemon."""
        try:
            client = self._connected()
            if request.reply_to is None:
                client.post(alert)
            elif self._decisions.acquire(blocking=False):
                self._send(request, alert, client, told_s)
            else:
                if client.outbox is not None:
                    client.post(alert)
                kept = "; it is kept and goes on being sent" if client.outbox is not None else ""
                raise LinkBusy(f"alert {alert.id}: {MOST_DECISIONS} decisions are waited for already{kept}")
        except Exception as error:
            answer(request, error=error)

    def _send(self, request: AlertRequest, alert: Alert, client: GuardianClient, told_s: float) -> None:
        """Its time counts from when it was told."""

        def decided(sent: Future[Ack]) -> None:
            if not self._tell.put(lambda: tell_it(sent)):  # it is closed: the link has been stopped
                tell_it(sent)

        def tell_it(sent: Future[Ack]) -> None:
            self._decisions.release()
            _answer_with(request, sent)

        try:
            client.begin_send(alert, since_s=told_s).add_done_callback(decided)
        except BaseException:
            self._decisions.release()
            raise

    # -- questions --------------------------------------------------------------------------------------------------

    def _answer(self, request: Question) -> None:
        try:
            result = _asked(self._connected(), request)
        except Exception as error:
            answer(request, error=error)
        else:
            answer(request, result)

    def _connected(self) -> GuardianClient:
        """Raises LinkError while nobody knows where the daemon is, OutboxUnusable."""
        with self._lock:
            if self._stopping.is_set():
                raise DaemonUnreachable("the guardian link is stopped")
            if self._client is None:
                self._client = self._connect()
            return self._client

    # -- subscribers ------------------------------------------------------------------------------------------------

    def _follow(self, request: Subscribe) -> None:
        self._followers = [one for one in self._followers if one.is_alive]
        if len(self._followers) >= MOST_SUBSCRIBERS:
            raise LinkBusy(f"{MOST_SUBSCRIBERS} subscribers are served already")
        self._followers.append(_Follow(request, self._connected))

    def _unfollow(self, reply_to: TellTo) -> None:
        for follow in self._followers:
            if follow.request.reply_to == reply_to:
                follow.stop()


class _Follow:
    """One subscriber: a thread that tells it each event, until it is dead or stopped."""

    def __init__(self, request: Subscribe, connected: Connect) -> None:
        self.request = request
        self._connected = connected
        self._stopping = threading.Event()
        self._stream: EventStream | None = None
        self._thread = threading.Thread(target=self._run, name="guardian-link-events", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._stopping.set()
        stream = self._stream
        if stream is not None:
            stream.stop()

    def _run(self) -> None:
        try:
            stream = self._begun()
            if stream is None:
                return
            answer(self.request)
            with stream:
                self._tell_all(stream)
        except Exception as error:  # refused, or whatever it is: the subscriber must know that nothing comes any more
            answer(self.request, error=error)

    def _begun(self) -> EventStream | None:
        """Waits for the daemon."""
        wanted = self.request
        while not self._stopping.is_set():
            try:
                client = self._connected()
                self._stream = client.subscribe(wanted.after, epoch=wanted.epoch, topics=wanted.topics)
            except (DaemonUnreachable, LinkError):
                self._stopping.wait(RETRY_S)
            else:
                return self._stream
        return None

    def _tell_all(self, stream: EventStream) -> None:
        while not self._stopping.is_set():
            found: object
            try:
                found = stream.get()
            except EventsLost as lost:
                found = lost
            if found is None or self._stopping.is_set() or not tell(self.request.reply_to, found):
                return


def answer(request: Any, result: object = None, error: Exception | None = None) -> None:
    """Tell who asked; an error nobody asked for is logged."""
    if request.reply_to is not None:
        tell(request.reply_to, Reply(request, request.tag, result, error))
    elif error is not None:
        LOG.error("%s was not done: %s: %s", request, type(error).__name__, error)


def _answer_with(request: AlertRequest, sent: Future[Ack]) -> None:
    error = sent.exception()
    if isinstance(error, Exception):
        answer(request, error=error)
        return
    ack = sent.result()
    answer(request, ack if isinstance(request, SendAlert) else ack.execution_id)


def tell(reply_to: TellTo, message: object) -> bool:
    """False: it is dead."""
    try:
        reply_to.tell(message)
    except Exception as error:  # pykka's ActorDeadError, or another's
        LOG.info("nobody took %r: %s", message, error)
        return False
    return True


def _alert_of(request: AlertRequest) -> Alert:
    """Raises BadAlert."""
    match request:
        case SendAlert(alert):
            return as_alert(alert)
        case ExecuteRecovery(error_id, error_data):
            return recovery_alert(error_id, error_data)
        case TriggerRecovery(violation):
            return as_alert(constraint_alert(violation))


def _asked(client: GuardianClient, request: Question) -> object:
    match request:
        case GetExecutionStatus(execution_id):
            return client.get_execution_status(execution_id)
        case GetRecoveryStatistics():
            return client.get_recovery_statistics()
        case WaitForExecution(execution_id, _, timeout_s):
            return client.wait(execution_id, timeout_s)
