"""The platform's own class by its own name: ``execute_recovery`` starts a runbook in the daemon.

``from guardian_link import AutomatedRecoverySystem`` is the one import a Guardian agent changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Self, Unpack

from guardian_link.as_alert import Issue, recovery_alert
from guardian_link.async_calls import AsyncCalls
from guardian_link.client import GuardianClient
from guardian_link.messages import Outcome
from guardian_link.settings import ClientSettings
from guardian_link.streams import EventStream


class AutomatedRecoverySystem:
    """Finds the daemon as ``GuardianClient`` does, when it is first needed. ``settings``: of ``GuardianClient``.

    ``execute_recovery`` is awaited, as the platform's own; all other calls are ordinary ones.
    """

    def __init__(self, address: str | None = None, **settings: Unpack[ClientSettings]) -> None:
        self._address = address
        self._settings = settings
        self._client: GuardianClient | None = None
        self._lock = threading.Lock()
        self._calls = AsyncCalls()

    async def execute_recovery(self, error_id: str, error_data: Issue) -> str | None:
        """The execution id, or None when recovery is off, nothing matches, or the decision did not come in time.

        ``error_id`` is the trouble's key, not the message's: the same one again is the same trouble. With an outbox
        each alert is on disk before any waits for its decision, however many are awaited at once, and who is cancelled
        meanwhile has kept it.

        Raises:
            GuardianError: the alert could not be handed over; with an outbox it is kept and goes on being sent.
            BadAlert: it is none.
        """
        alert, since_s = recovery_alert(error_id, error_data), time.monotonic()
        ack = await self._calls.decided(lambda: self._connected().begin_send(alert, since_s=since_s))
        return ack.execution_id

    def trigger_recovery(self, constraint_violation: object) -> str | None:
        """As ``execute_recovery``, for a violated constraint (a mapping, or an object with such attributes) and for
        callers without an event loop.
        """
        return self._connected().trigger_recovery(constraint_violation)

    def handle_constraint_violation(self, constraint_violation: object) -> str | None:
        """The same by the platform's other name."""
        return self.trigger_recovery(constraint_violation)

    def get_recovery_statistics(self) -> dict[str, Any]:
        """total_runbooks, total_executions, success_rate, active_executions, auto_execution_enabled."""
        return self._connected().get_recovery_statistics()

    def get_execution_status(self, execution_id: str) -> dict[str, Any] | None:
        return self._connected().get_execution_status(execution_id)

    def wait(self, execution_id: str, timeout_s: float = 60.0) -> Outcome:
        """As ``GuardianClient.wait``."""
        return self._connected().wait(execution_id, timeout_s)

    def subscribe(self, after: int | None = None, *, epoch: str = "", topics: Sequence[str] = ()) -> EventStream:
        """As ``GuardianClient.subscribe``."""
        return self._connected().subscribe(after, epoch=epoch, topics=topics)

    def close(self) -> None:
        """Alerts whose keeping was asked for are kept first."""
        with self._lock:
            calls, self._calls = self._calls, AsyncCalls()
        calls.close()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> GuardianClient:
        with self._lock:
            if self._client is None:
                self._client = GuardianClient(self._address, **self._settings)
            return self._client
