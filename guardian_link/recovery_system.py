"""The platform's own class by its own name: ``execute_recovery`` starts a runbook in the daemon.

``from guardian_link import AutomatedRecoverySystem`` is the one import a Guardian agent changes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from guardian_link.client import GuardianClient
from guardian_link.mapping import TYPE_OF_CONSTRAINT
from guardian_link.messages import Alert

_FACTS: Final = ("type", "constraint_type", "severity", "message", "description", "service", "service_name", "id")


class AutomatedRecoverySystem:
    """Finds the daemon as ``GuardianClient`` does, when it is first needed."""

    def __init__(
        self,
        address: str | None = None,
        *,
        state_dir: str | Path | None = None,
        timeout_s: float = 5.0,
        key_file: str | Path | None = None,
    ) -> None:
        self._where = (address, state_dir, timeout_s, key_file)
        self._client: GuardianClient | None = None
        self._lock = threading.Lock()

    async def execute_recovery(self, error_id: str, error_data: Mapping[str, Any]) -> str | None:
        """The execution id, or None when recovery is off or nothing matches.

        ``error_id`` is the trouble's key, not the message's: the same one again is the same trouble.

        Raises:
            GuardianError: the alert could not be handed over.
        """
        return await asyncio.to_thread(self._recover, {**error_data, "error_id": error_id})

    def trigger_recovery(self, constraint_violation: object) -> str | None:
        """As ``execute_recovery``, for a violated constraint (a mapping, or an object with such attributes) and for
        callers without an event loop.
        """
        return self._recover(constraint_alert(constraint_violation))

    def handle_constraint_violation(self, constraint_violation: object) -> str | None:
        """The same by the platform's other name."""
        return self.trigger_recovery(constraint_violation)

    def get_recovery_statistics(self) -> dict[str, Any]:
        """total_runbooks, total_executions, success_rate, active_executions, auto_execution_enabled."""
        return dict(self._connected().statistics())

    def get_execution_status(self, execution_id: str) -> dict[str, Any] | None:
        found = self._connected().execution_status(execution_id)
        return None if found is None else dict(found)

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _recover(self, data: Mapping[str, Any]) -> str | None:
        return self._connected().send(Alert.from_mapping(data)).execution_id

    def _connected(self) -> GuardianClient:
        with self._lock:
            if self._client is None:
                address, state_dir, timeout_s, key_file = self._where
                self._client = GuardianClient(address, state_dir=state_dir, timeout_s=timeout_s, key_file=key_file)
            return self._client


def constraint_alert(violation: object) -> dict[str, Any]:
    """A violated constraint as an alert. Pure. A type that is not in the table stays itself."""
    facts = dict(violation) if isinstance(violation, Mapping) else _attributes(violation)
    kind = str(facts.pop("constraint_type", None) or facts.pop("type", None) or "")
    description, key = facts.pop("description", None), facts.pop("id", None)
    alert: dict[str, Any] = {"type": TYPE_OF_CONSTRAINT.get(kind, kind), "constraint_type": kind, **facts}
    if description is not None:
        alert.setdefault("message", str(description))
    if key is not None:
        alert["error_id"] = str(key)
    return alert


def _attributes(violation: object) -> dict[str, Any]:
    return {name: getattr(violation, name) for name in _FACTS if getattr(violation, name, None) is not None}
