"""The same client for asyncio: every wait happens on a thread, the event loop stays free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self, TypeVar, Unpack

from guardian_link.as_alert import Issue
from guardian_link.client import GuardianClient
from guardian_link.messages import Ack, Outcome
from guardian_link.settings import ClientSettings
from guardian_link.streams import AsyncEventStream

T = TypeVar("T")
AT_ONCE: Final = 32
"""Calls that wait at the same time; further ones wait for their turn."""


class AsyncGuardianClient:
    """``async with AsyncGuardianClient() as guardian: await guardian.send(alert)``.

    ``settings``: of ``GuardianClient``; each call does and raises what it does there.
    """

    def __init__(self, address: str | None = None, **settings: Unpack[ClientSettings]) -> None:
        self._client = GuardianClient(address, **settings)
        self._threads = ThreadPoolExecutor(AT_ONCE, "guardian-async")

    async def send(self, alert: Issue, timeout_s: float | None = None) -> Ack:
        return await self._run(lambda: self._client.send(alert, timeout_s))

    async def post(self, alert: Issue) -> str:
        return await self._run(lambda: self._client.post(alert))

    async def post_all(self, alerts: Sequence[Issue]) -> list[str]:
        return await self._run(lambda: self._client.post_all(alerts))

    async def execute_recovery(self, error_id: str, error_data: Issue, timeout_s: float | None = None) -> str | None:
        return await self._run(lambda: self._client.execute_recovery(error_id, error_data, timeout_s))

    async def trigger_recovery(self, constraint_violation: object, timeout_s: float | None = None) -> str | None:
        return await self._run(lambda: self._client.trigger_recovery(constraint_violation, timeout_s))

    async def handle_constraint_violation(
        self, constraint_violation: object, timeout_s: float | None = None
    ) -> str | None:
        return await self.trigger_recovery(constraint_violation, timeout_s)

    async def wait(self, execution_id: str, timeout_s: float = 60.0) -> Outcome:
        return await self._run(lambda: self._client.wait(execution_id, timeout_s))

    async def get_execution_status(self, execution_id: str) -> dict[str, Any] | None:
        return await self._run(lambda: self._client.get_execution_status(execution_id))

    async def get_recovery_statistics(self) -> dict[str, Any]:
        return await self._run(self._client.get_recovery_statistics)

    async def execution_status(self, execution_id: str) -> Mapping[str, Any] | None:
        return await self._run(lambda: self._client.execution_status(execution_id))

    async def statistics(self) -> Mapping[str, Any]:
        return await self._run(self._client.statistics)

    async def alerts(self, limit: int = 50) -> Sequence[Mapping[str, Any]]:
        return await self._run(lambda: self._client.alerts(limit))

    def subscribe(self, after: int | None = None, *, epoch: str = "", topics: Sequence[str] = ()) -> AsyncEventStream:
        """``async for event in guardian.subscribe(): ...``. Without ``after`` it begins when it is first waited for."""
        return AsyncEventStream(lambda: self._client.reader(after, epoch, topics))

    @property
    def trouble(self) -> str | None:
        """Why the outbox is not delivered now; None when all is well."""
        return self._client.trouble

    async def close(self) -> None:
        await self._run(self._client.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, call: Callable[[], T]) -> T:
        """On threads of its own: the loop's default ones are few, and other people's."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
