"""The platform's own words for recovery, on a client that waits for the answer."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

from guardian_link.as_alert import Issue, constraint_alert, recovery_alert
from guardian_link.messages import Ack


class RecoveryWords(abc.ABC):
    """Each call raises what ``GuardianClient.send`` raises, and BadAlert for what is no alert."""

    @abc.abstractmethod
    def send(self, alert: Issue, timeout_s: float | None = None) -> Ack: ...

    @abc.abstractmethod
    def execution_status(self, execution_id: str) -> Mapping[str, Any] | None: ...

    @abc.abstractmethod
    def statistics(self) -> Mapping[str, Any]: ...

    def execute_recovery(self, error_id: str, error_data: Issue, timeout_s: float | None = None) -> str | None:
        """The execution id, or None when recovery is off, nothing matches, or the decision did not come in time.

        ``error_id`` is the trouble's key, not the message's: the same one again is the same trouble.
        """
        return self.send(recovery_alert(error_id, error_data), timeout_s).execution_id

    def trigger_recovery(self, constraint_violation: object, timeout_s: float | None = None) -> str | None:
        """As ``execute_recovery``, for a violated constraint: a mapping, or an object with such attributes."""
        return self.send(constraint_alert(constraint_violation), timeout_s).execution_id

    def handle_constraint_violation(self, constraint_violation: object, timeout_s: float | None = None) -> str | None:
        """The same by the platform's other name."""
        return self.trigger_recovery(constraint_violation, timeout_s)

    def get_execution_status(self, execution_id: str) -> dict[str, Any] | None:
        """The execution in the shape of ``selfheal executions --json``, or None."""
        found = self.execution_status(execution_id)
        return None if found is None else dict(found)

    def get_recovery_statistics(self) -> dict[str, Any]:
        """total_runbooks, total_executions, success_rate, active_executions, auto_execution_enabled."""
        return dict(self.statistics())
