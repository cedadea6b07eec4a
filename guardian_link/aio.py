"""The same client for asyncio: every wait happens on a thread, the event loop stays free."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from guardian_link.client import GuardianClient
from guardian_link.delivery import OnLate
from guardian_link.messages import Ack, Alert, Outcome


class AsyncGuardianClient:
    """``async with AsyncGuardianClient() as guardian: await guardian.send(alert)``. Raises as ``GuardianClient``."""

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
        self._client = GuardianClient(
            address, state_dir=state_dir, timeout_s=timeout_s, outbox=outbox, on_late=on_late, key_file=key_file
        )

    async def send(self, alert: Alert, timeout_s: float | None = None) -> Ack:
        return await asyncio.to_thread(self._client.send, alert, timeout_s)

    async def post(self, alert: Alert) -> str:
        return await asyncio.to_thread(self._client.post, alert)

    async def wait(self, execution_id: str, timeout_s: float = 60.0) -> Outcome:
        return await asyncio.to_thread(self._client.wait, execution_id, timeout_s)

    async def execution_status(self, execution_id: str) -> Mapping[str, Any] | None:
        return await asyncio.to_thread(self._client.execution_status, execution_id)

    async def statistics(self) -> Mapping[str, Any]:
        return await asyncio.to_thread(self._client.statistics)

    async def alerts(self, limit: int = 50) -> Sequence[Mapping[str, Any]]:
        return await asyncio.to_thread(self._client.alerts, limit)

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
