"""A Guardian agent's base: issues from the threshold up start recovery; what is not recovered is still told to people.

``on_issue`` may be called from any thread and returns within a second, whatever the daemon, the outbox or the alerting
do meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self, Unpack

from bridge_link.errors import LinkError
from guardian_link.alerting import Alerting, PlainAlerts, log_alert
from guardian_link.as_alert import Issue, as_alert
from guardian_link.async_calls import ended
from guardian_link.bounded import BoundedCalls
from guardian_link.client import GuardianClient
from guardian_link.errors import GuardianError
from guardian_link.messages import Ack, Alert, Severity
from guardian_link.settings import ClientSettings

DECISION_S: Final = 0.6
"""How long the daemon may take to decide before people are told."""
TOLD_S: Final = 0.9
"""An issue that nobody recovers is handed to the alerting within this time."""
JUDGED_S: Final = 0.8
"""Undecided by then, it is told."""
AT_ONCE: Final = 32
"""Issues that are being kept at the same time."""
RECOVERING: Final = frozenset({"run", "queued", "duplicate"})
_ORDER: Final = tuple(one.value for one in Severity)


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of an issue.

    Args:
        alert: as which it was handled.
        is_told: people were told by the agent's own alerting.
        outcome: the daemon's decision (``run``, ``recovery_off``, ...); None when there was none.
        execution_id: the recovery that was started.
        why: why people were told; empty when a recovery runs.
    """

    alert: Alert
    is_told: bool
    outcome: str | None = None
    execution_id: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Begun:
    """An issue that is being kept and sent."""

    alert: Alert
    decision: Future[Ack]
    by_s: float


class GuardianAgent:
    """Subclass it and override nothing, or ``map_issue``; then call ``on_issue``.

    Args:
        alerting: called with each alert that no recovery answers: below the threshold, or the daemon is away, recovery
            is switched off, nothing matches, or it refuses. Logs by default.
        severity_threshold: from here up recovery is started: low, medium, high or critical.
        settings: of ``GuardianClient``. With an ``outbox`` an alert the daemon did not take is kept and sent later.

    Raises:
        ValueError: the threshold is no severity.
        OutboxUnusable: the outbox cannot be opened.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        alerting: Alerting = log_alert,
        severity_threshold: str = "medium",
        **settings: Unpack[ClientSettings],
    ) -> None:
        if severity_threshold not in _ORDER:
            raise ValueError(f"severity_threshold: {severity_threshold!r} is not one of {', '.join(_ORDER)}")
        self._threshold = _ORDER.index(severity_threshold)
        self._plain = PlainAlerts(alerting)
        self._sends = BoundedCalls("guardian-agent", AT_ONCE)
        self._threads = ThreadPoolExecutor(AT_ONCE, "guardian-agent-async")
        self._lock = threading.Lock()
        self._where = (address, settings)
        self._client: GuardianClient | None = None
        if settings.get("outbox") is not None:  # else the daemon need not be there yet
            self._connected()

    def map_issue(self, issue: Issue) -> Issue:
        """The issue as an alert or one of the dictionaries an alert is made of. Override it for your own shapes."""
        return issue

    def on_issue(self, issue: Issue) -> Handled:
        """Recover it or tell it. Raises nothing: what cannot be read is told as it is."""
        since_s = time.monotonic()
        begun = self._begin(issue, since_s)
        if isinstance(begun, Handled):
            return begun
        wait_for((begun.decision,), since_s + JUDGED_S - time.monotonic())
        return self._judge(begun)

    async def handle_issue(self, issue: Issue) -> Handled:
        """``on_issue`` for asyncio: the loop stays free, and no thread waits for a decision. Its second counts from the
        call, however many are handled at once.
        """
        since_s, loop = time.monotonic(), asyncio.get_running_loop()
        begun = await loop.run_in_executor(self._threads, self._begin, issue, since_s)
        if isinstance(begun, Handled):
            return begun
        with suppress(TimeoutError):
            await asyncio.wait_for(ended(begun.decision), max(0.0, since_s + JUDGED_S - time.monotonic()))
        return await loop.run_in_executor(self._threads, self._judge, begun)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the alerting or the outbox; None when all is well."""
        client = self._client
        troubles = [self._plain.trouble, None if client is None else client.trouble]
        return "; ".join(one for one in troubles if one) or None

    def close(self) -> None:
        """What is in the outbox stays there."""
        self._threads.shutdown(wait=False)
        with self._lock:
            if self._client is not None:
                self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _connected(self) -> GuardianClient:
        with self._lock:
            if self._client is None:
                address, settings = self._where
                self._client = GuardianClient(address, **settings)
            return self._client

    def _begin(self, issue: Issue, since_s: float) -> Handled | _Begun:
        """Tell it, or have it kept and sent."""
        by_s = since_s + TOLD_S
        try:
            alert = as_alert(self.map_issue(issue))
        except Exception as error:  # the user's mapping, or the user's data
            return self._tell(_unreadable(issue, error), by_s, why=f"it is no alert: {error}")
        if _ORDER.index(alert.severity) < self._threshold:
            return self._tell(alert, by_s, why=f"below the threshold {_ORDER[self._threshold]}")
        decision: Future[Ack] = Future()
        if self._sends.start(lambda: self._send(alert, since_s, decision), by_s=since_s + DECISION_S) is None:
            return self._tell(alert, by_s, why=f"{AT_ONCE} issues are on their way already; this one was not kept")
        return _Begun(alert, decision, by_s)

    def _send(self, alert: Alert, since_s: float, decision: Future[Ack]) -> None:
        """On a thread that the outbox may hold up."""

        def pass_on(done: Future[Ack]) -> None:
            if (error := done.exception()) is not None:
                decision.set_exception(error)
            else:
                decision.set_result(done.result())

        try:
            self._connected().begin_send(alert, DECISION_S, since_s=since_s).add_done_callback(pass_on)
        except Exception as error:
            decision.set_exception(error)

    def _judge(self, begun: _Begun) -> Handled:
        alert, by_s = begun.alert, begun.by_s
        try:
            decision = begun.decision.result(0.0).decision
        except FutureTimeout:
            return self._tell(alert, by_s, why="the alert could not be handed over in time")
        except (GuardianError, LinkError) as error:
            return self._tell(alert, by_s, why=str(error))
        except Exception as error:  # whatever it is, people hear of the issue
            return self._tell(alert, by_s, why=f"{type(error).__name__}: {error}")
        if decision is None:
            return self._tell(alert, by_s, why="the daemon has it and did not decide in time")
        if decision.outcome in RECOVERING:
            return Handled(alert, False, decision.outcome, decision.execution_id)
        why = f"{decision.outcome}: {decision.reason}" if decision.reason else decision.outcome
        return self._tell(alert, by_s, decision.outcome, why=why)

    def _tell(self, alert: Alert, by_s: float, outcome: str | None = None, *, why: str) -> Handled:
        self._plain.tell(alert, by_s=by_s)
        return Handled(alert, True, outcome, None, why)


def _unreadable(issue: object, error: Exception) -> Alert:
    facts = issue if isinstance(issue, Mapping) else {}
    message = f"{type(error).__name__}: {error}: {_shown(issue)}".replace("\0", " ")
    severity = str(facts.get("severity", "high")).lower()
    return Alert("unreadable_issue", None, severity if severity in _ORDER else "high", message[:8000], "guardian-agent")


def _shown(issue: Any) -> str:
    try:
        return repr(issue)
    except Exception as error:
        return f"(cannot be shown: {error})"
