"""The same client for asyncio: nothing here holds up the event loop, or uses its default threads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack

from guardian_link.as_alert import Issue, as_alert, constraint_alert, recovery_alert
from guardian_link.async_calls import AsyncCalls, apart
from guardian_link.client import GuardianClient
from guardian_link.messages import Ack, Outcome
from guardian_link.settings import ClientSettings
from guardian_link.streams import AsyncEventStream


class AsyncGuardianClient:
    """``async with AsyncGuardianClient() as guardian: await guardian.send(alert)``.

    ``settings``: of ``GuardianClient``; each call does and raises what it does there. Alerts do not wait for each
    other's decisions; who is cancelled while an alert is kept has kept it. A ``timeout_s`` counts from the call.
    """

    def __init__(self, address: str | None = None, **settings: Unpack[ClientSettings]) -> None:
        self._client = GuardianClient(address, **settings)
        self._calls = AsyncCalls()

    async def send(self, alert: Issue, timeout_s: float | None = None) -> Ack:
        made, since_s = as_alert(alert), time.monotonic()
        return await self._calls.decided(lambda: self._client.begin_send(made, timeout_s, since_s=since_s))

    async def post(self, alert: Issue) -> str:
        return await self._calls.kept(lambda: self._client.post(alert))

    async def post_all(self, alerts: Sequence[Issue]) -> list[str]:
        return await self._calls.kept(lambda: self._client.post_all(alerts))

    async def execute_recovery(self, error_id: str, error_data: Issue, timeout_s: float | None = None) -> str | None:
        return (await self.send(recovery_alert(error_id, error_data), timeout_s)).execution_id

    async def trigger_recovery(self, constraint_violation: object, timeout_s: float | None = None) -> str | None:
        return (await self.send(constraint_alert(constraint_violation), timeout_s)).execution_id

    async def handle_constraint_violation(
        self, constraint_violation: object, timeout_s: float | None = None
    ) -> str | None:
        return await self.trigger_recovery(constraint_violation, timeout_s)

    async def wait(self, execution_id: str, timeout_s: float = 60.0) -> Outcome:
        by_s = time.monotonic() + timeout_s
        return await self._calls.waited(lambda: self._client.wait_until(execution_id, timeout_s, by_s))

    async def get_execution_status(self, execution_id: str) -> dict[str, Any] | None:
        return await self._calls.asked(lambda: self._client.get_execution_status(execution_id))

    async def get_recovery_statistics(self) -> dict[str, Any]:
        return await self._calls.asked(self._client.get_recovery_statistics)

    async def execution_status(self, execution_id: str) -> Mapping[str, Any] | None:
        return await self._calls.asked(lambda: self._client.execution_status(execution_id))

    async def statistics(self) -> Mapping[str, Any]:
        return await self._calls.asked(self._client.statistics)

    async def alerts(self, limit: int = 50) -> Sequence[Mapping[str, Any]]:
        return await self._calls.asked(lambda: self._client.alerts(limit))

    def subscribe(self, after: int | None = None, *, epoch: str = "", topics: Sequence[str] = ()) -> AsyncEventStream:
        """``async for event in guardian.subscribe(): ...``. Without ``after`` it begins when it is first waited for."""
        return AsyncEventStream(lambda: self._client.reader(after, epoch, topics))

    @property
    def trouble(self) -> str | None:
        """Why the outbox is not delivered now; None when all is well."""
        return self._client.trouble

    async def close(self) -> None:
        """As ``GuardianClient.close``. Alerts whose keeping was asked for are kept first."""
        await apart(self._close)

    def _close(self) -> None:
        self._calls.close()
        self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
