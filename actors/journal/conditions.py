"""Whether the condition behind an execution's alert goes on, by the records: what has come in, and what was resolved.

Fulfils ``runbooks.ports.Alerts``. Blocks; called on the I/O pool.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from actors.clock import Clock
from actors.journal.journal import Journal
from actors.journal.schema import JournalTrouble
from runbooks.ports import PortError

MOST_WATCHED: Final = 1000
_ALIKE: Final = """
WITH own AS (SELECT rowid AS n, fingerprint FROM executions WHERE id = :id)
SELECT a.seq, a.msg_id, a.received_at, f.alert_seq IS NOT NULL AS is_firing, f.resolved_at FROM alerts a
LEFT JOIN firings f ON f.alert_seq = a.seq
WHERE a.execution_id IN (SELECT e.id FROM executions e, own WHERE e.fingerprint = own.fingerprint AND e.rowid >= own.n)
ORDER BY a.seq
"""
"""The alert an execution answers, and all that came since and are one with it."""
_VERIFIED: Final = "SELECT max(at) FROM steps WHERE execution_id = :id AND json_extract(record, '$.kind') = 'verified'"


class _Seen(NamedTuple):
    """Of the alerts alike: the last one's number, and when (clock seconds) it was there first."""

    seq: int
    at: float


class _Found(NamedTuple):
    firing: str
    last_seq: int
    last_at: float
    verified_at: float


@dataclass
class JournalAlerts:
    """Remembers when it saw each execution's last alert, so that a clock that is set changes nothing."""

    journal: Journal
    clock: Clock
    _seen: OrderedDict[str, _Seen] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def going_on(self, execution_id: str, quiet_s: float) -> str:
        """Why the condition is not gone; "" when it is.

        An alert that begins and ends (``firings``) is over when it was said to be. Of any other kind it is over when no
        further one has come since the last action was verified, or none within the last ``quiet_s`` seconds.

        Raises:
            PortError: the records cannot be read.
        """
        try:
            found = self.journal.read(lambda db: _looked_up(db, execution_id))
        except JournalTrouble as trouble:
            raise PortError(str(trouble)) from trouble
        if found.firing:
            return f"{found.firing} fires still"
        if not found.last_seq:
            return ""
        age_s = self._age_s(execution_id, found)
        return f"it was told again {age_s:.0f} s ago" if age_s < quiet_s else ""

    def _age_s(self, execution_id: str, found: _Found) -> float:
        """Seconds since the last alert that counts was seen here."""
        now = self.clock.now()
        with self._lock:
            seen = self._seen.get(execution_id)
            if seen is None:
                is_later = found.last_at > found.verified_at
                seen = _Seen(found.last_seq, now if is_later else float("-inf"))
            elif found.last_seq > seen.seq:
                seen = _Seen(found.last_seq, now)
            self._seen[execution_id] = seen
            self._seen.move_to_end(execution_id)
            while len(self._seen) > MOST_WATCHED:
                self._seen.popitem(last=False)
        return now - seen.at


def _looked_up(db: sqlite3.Connection, execution_id: str) -> _Found:
    alike = db.execute(_ALIKE, {"id": execution_id}).fetchall()
    firing = next((row["msg_id"] for row in alike if row["is_firing"] and row["resolved_at"] is None), "")
    others = [row for row in alike if not row["is_firing"]]
    verified_at = db.execute(_VERIFIED, {"id": execution_id}).fetchone()[0]
    if not others:
        return _Found(firing, 0, 0.0, 0.0)
    since = others[0]["received_at"] if verified_at is None else verified_at
    return _Found(firing, others[-1]["seq"], others[-1]["received_at"], since)
