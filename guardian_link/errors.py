"""What can go wrong between a Guardian and the daemon."""

from __future__ import annotations


class GuardianError(Exception):
    """Any of the below."""


class DaemonUnreachable(GuardianError):
    """The daemon did not acknowledge in time; the alert is not known to be on disk."""


class AlertRefused(GuardianError):
    """The daemon will never take this alert. ``code``: malformed, too_large, conflict, ..."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class OutboxUnusable(GuardianError):
    """The outbox cannot be read or written; the text names the file and why. Nothing was kept."""


class OutboxFull(GuardianError):
    """So many alerts wait already that no more are kept."""


class OutcomeTimeout(GuardianError):
    """The execution had not ended in time."""
