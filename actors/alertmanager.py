"""Where Alertmanager's notifications come in: from the HTTP interface to the journal, all of one or nothing.

``take`` runs on any thread and returns a future that completes after the commit. Nobody waits here for a decision: who
posts a notification only wants to know that it is kept. Must never import the HTTP interface.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final

from actors.clock import Clock
from actors.deciding.words import AlertsOver, AlertsStored
from actors.journal import firings
from actors.journal.firings import Ended, Firing
from actors.journal.journal import Journal
from actors.journal.rows import OpenAlert
from actors.journal.schema import JournalFull
from guardian_link.alertmanager import Notified, Words, alert_of, firing_id

CLIENT: Final = "alertmanager"
"""The sender's name in the journal, whatever a notification says of itself."""
EVENTS_PATH: Final = "root/links/alerts"
REPEAT_AFTER_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class AlertmanagerPlan:
    """What the configuration says. ``repeat_after_s``: see ``firings.is_repeat``."""

    words: Words = field(default_factory=Words)
    repeat_after_s: float = REPEAT_AFTER_S


@dataclass(frozen=True)
class AlertmanagerParts:
    """``hint`` tells the guardian actor; ``say`` tells people of the plain alert, needing neither journal nor runbooks;
    ``is_known`` knows the names of services.
    """

    journal: Journal
    clock: Clock
    hint: Callable[[AlertsStored | AlertsOver], object]
    say: Callable[[str, str, Mapping[str, Any]], object]
    is_known: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Taken:
    """One alert of a notification, on disk: ``stored``, ``duplicate`` (told again), ``resolved``, or ``over`` (nothing
    of it fired any more, or it is a firing that had ended before it was told). ``id`` is the alert's in the inbox.
    """

    id: str
    fingerprint: str
    status: str


@dataclass
class AlertmanagerIntake:
    """``plan`` may be set to another at any time: each notification is taken by one."""

    parts: AlertmanagerParts
    plan: AlertmanagerPlan = field(default_factory=AlertmanagerPlan)

    def take(self, notified: Sequence[Notified]) -> Future[tuple[Taken, ...]]:
        """All of them in one transaction. The future fails with JournalTrouble: then nothing was taken."""
        plan = self.plan
        entries = [self._entry(one, plan.words) for one in notified]
        now, repeat_after_s = self.parts.clock.wall(), plan.repeat_after_s
        future: Future[tuple[Taken, ...]] = Future()
        future.set_running_or_notify_cancel()  # who gives up waiting cannot take it back: it is being written
        if self.parts.journal.is_short:
            future.set_exception(JournalFull("the daemon's disk is nearly full"))
            return future

        def written(done: Future[list[tuple[Taken, OpenAlert | None]]]) -> None:
            """On the journal's thread, after the commit."""
            error = done.exception()
            if error is not None:
                future.set_exception(error)
                return
            future.set_result(tuple(taken for taken, _ in done.result()))
            fresh = tuple(one for _, one in done.result() if one is not None)
            if fresh:
                self.parts.hint(AlertsStored(fresh))
            if any(taken.status == "resolved" for taken, _ in done.result()):
                self.parts.hint(AlertsOver())

        work = self.parts.journal.submit(lambda db: [_write(db, one, now, repeat_after_s) for one in entries])
        work.add_done_callback(written)
        return future

    def _entry(self, one: Notified, words: Words) -> Firing | Ended:
        if one.ends_at is not None:
            return Ended(one.fingerprint, one.starts_at, one.ends_at, one.labels.get("alertname", ""))
        alert = alert_of(one, words, self.parts.is_known)
        facts = alert.to_body()
        self.parts.say(CLIENT, alert.id, facts)
        return Firing(one.fingerprint, one.starts_at, firing_id(one), facts)


def _write(
    db: sqlite3.Connection, entry: Firing | Ended, now: float, repeat_after_s: float
) -> tuple[Taken, OpenAlert | None]:
    if isinstance(entry, Ended):
        last = firings.end(db, entry, now, EVENTS_PATH)
        return Taken(last or "", entry.fingerprint, "over" if last is None else "resolved"), None
    kept = firings.keep(db, CLIENT, entry, now, repeat_after_s, may_be_late=True)
    status = "stored" if kept.is_new else "over" if kept.is_over else "duplicate"
    taken = Taken(kept.msg_id, entry.fingerprint, status)
    return taken, OpenAlert(kept.seq, kept.msg_id, entry.facts, CLIENT) if kept.is_new else None
