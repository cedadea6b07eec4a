"""The agent's own alerting: a plain alert is told by the user's callable, or by the log where that fails.

The callable may raise, block or be slow: it runs on threads of its own, a bounded number at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from guardian_link.bounded import BoundedCalls
from guardian_link.messages import Alert

Alerting = Callable[[Alert], object]
"""Tells people of an alert: a page, a mail, a line in a log."""
AT_ONCE: Final = 8
LOG: Final = logging.getLogger("guardian_link")


def log_alert(alert: Alert) -> None:
    """The alerting of who has none."""
    LOG.warning(
        "ALERT %s severity=%s service=%s id=%s: %s", alert.type, alert.severity, alert.service, alert.id, alert.message
    )


class PlainAlerts:
    """Tells plain alerts. ``trouble`` says what is wrong with the callable, in one line."""

    def __init__(self, alerting: Alerting) -> None:
        self._alerting = alerting
        self._calls = BoundedCalls("alerting", AT_ONCE)
        self.trouble: str | None = None

    def tell(self, alert: Alert, *, by_s: float) -> None:
        """Begin to tell; at ``by_s`` (``time.monotonic``) the latest, and then to the log."""
        told = self._calls.start(lambda: self._alerting(alert), by_s=by_s)
        if told is None:
            self._failed(alert, f"{AT_ONCE} calls of the alerting are under way and none has returned")
        else:
            told.add_done_callback(lambda done: self._told(alert, done))

    def _told(self, alert: Alert, done: Future[object]) -> None:
        error = done.exception()
        if error is None:
            self.trouble = None
        else:
            self._failed(alert, f"the alerting failed: {type(error).__name__}: {error}")

    def _failed(self, alert: Alert, why: str) -> None:
        self.trouble = f"alert {alert.id}: {why}"
        LOG.error("%s; the alert goes to the log", self.trouble)
        log_alert(alert)
