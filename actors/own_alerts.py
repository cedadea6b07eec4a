"""Alerts the daemon raises by itself and takes back: they begin, are told again while they go on, and end.

They enter the same inbox as all others, as firings, so that whoever waits for one to be over can ask the journal. Any
thread. What is told goes out before it is stored, and is stored also when little room is left: nobody else would send
it again.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import structlog

from actors.clock import Clock
from actors.deciding.words import AlertsOver, AlertsStored
from actors.journal import firings
from actors.journal.firings import EVER, Ended, Firing, Kept
from actors.journal.journal import Journal
from actors.journal.rows import OpenAlert
from guardian_link.messages import Alert

SOURCE: Final = "selfheal"
CLIENT: Final = "selfheal"
"""The daemon itself as a sender; no client is named so."""
EVENTS_PATH: Final = "root/links/alerts"
REPEAT_AFTER_S: Final = 3600.0
"""What still fires so long after it was taken is taken anew (``firings.is_repeat``)."""


@dataclass(frozen=True)
class OwnAlerts:
    """``hint`` tells the guardian actor; ``say`` tells people, needing neither journal nor runbooks."""

    journal: Journal
    clock: Clock
    hint: Callable[[AlertsStored | AlertsOver], object]
    say: Callable[[str, str, Mapping[str, Any]], object]
    repeat_after_s: float = REPEAT_AFTER_S

    def fires(self, fingerprint: str, starts_at: float, alert: Mapping[str, Any]) -> None:
        """It began at ``starts_at`` (Unix seconds), or goes on. ``alert``: fields of ``Alert`` but id and source.

        Raises:
            BadAlert: naming the field.
        """
        made = Alert(**alert, source=SOURCE, dedup_key=fingerprint, id=firing_id(fingerprint, starts_at))
        facts, now = made.to_body(), self.clock.wall()
        self.say(CLIENT, made.id, facts)

        def write(db: sqlite3.Connection) -> Kept:
            began = _known_start(db, fingerprint) or starts_at
            return firings.keep(db, CLIENT, Firing(fingerprint, began, made.id, facts), now, self.repeat_after_s)

        def written(done: Future[Kept]) -> None:
            error = done.exception()
            if error is not None:  # it is told again while it goes on
                structlog.get_logger().warning("own alert not stored", alert=made.id, error=str(error))
            elif done.result().is_new:
                kept = done.result()
                self.hint(AlertsStored((OpenAlert(kept.seq, kept.msg_id, facts, CLIENT),)))

        self.journal.submit(write).add_done_callback(written)

    def is_over(self, fingerprint: str) -> Future[str | None]:
        """It fires no longer. The future has the id of the alert that is over, None when none fired any more.

        What counts is the order in the journal: the clock may have been set back since it began.
        """
        ended = Ended(fingerprint, EVER, self.clock.wall(), fingerprint)
        ending = self.journal.submit(lambda db: firings.end(db, ended, ended.ended_at, EVENTS_PATH))
        ending.add_done_callback(self._tell_over)
        return ending

    def _tell_over(self, ending: Future[str | None]) -> None:
        if ending.exception() is None and ending.result() is not None:
            self.hint(AlertsOver())

    def firing(self) -> dict[str, float]:
        """What fires now, as the journal has it, with the Unix seconds it began at. Blocks. Raises JournalTrouble."""
        return self.journal.read(_firing)


def firing_id(fingerprint: str, starts_at: float) -> str:
    """The same for every telling of one firing."""
    return f"self-{hashlib.sha256(fingerprint.encode()).hexdigest()[:16]}-{round(starts_at * 1000)}"


def _known_start(db: sqlite3.Connection, fingerprint: str) -> float | None:
    row = db.execute(
        "SELECT starts_at FROM firings WHERE fingerprint=? AND resolved_at IS NULL ORDER BY alert_seq DESC LIMIT 1",
        (fingerprint,),
    ).fetchone()
    return None if row is None else float(row["starts_at"])


def _firing(db: sqlite3.Connection) -> dict[str, float]:
    rows = db.execute(
        "SELECT f.fingerprint, f.starts_at FROM firings f JOIN alerts a ON a.seq=f.alert_seq"
        " WHERE a.client=? AND f.resolved_at IS NULL ORDER BY f.alert_seq",
        (CLIENT,),
    )
    return {str(row["fingerprint"]): float(row["starts_at"]) for row in rows}
