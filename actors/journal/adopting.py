"""How a chain begins to tell of tables that were there before it: once, before any other work on the journal."""

from __future__ import annotations

import sqlite3
from typing import Any

from actors.journal import attested, audit, happened, retention, rows


def adopt(db: sqlite3.Connection, now: float, *, is_first: bool) -> None:
    """Seal what the tables hold, unless it was done. Only at a chain's very beginning are open runs of before taken
    over, those that were decided by a version that had no chain; ``ended`` says how many others there are.

    Args:
        now: Unix seconds.
        is_first: no chain was ever begun here, as far as can be told from outside the database.
    """
    if audit.is_adopted(db):
        return
    facts: dict[str, Any] = {
        "latches": attested.latches(db),
        "silences": attested.silences(db),
        "bodies_to": int(rows.setting(db, retention.FORGOTTEN_TO) or 0),
    }
    is_new = audit.last_row(db)[0] == 0
    if is_new:
        facts["ended"] = db.execute("SELECT count(*) FROM executions WHERE ended_at IS NOT NULL").fetchone()[0]
    audit.note(db, now, audit.ADOPTED, facts)
    if is_new and is_first:
        for row in db.execute("SELECT * FROM executions WHERE ended_at IS NULL AND decided_mark IS NULL").fetchall():
            happened.decided(db, row["decided_at"], rows.execution_of(row), row["status"])
            if row["started_at"] is not None:
                audit.note(db, row["started_at"], "started", {"execution_id": row["id"], "sha256": row["sha256"]})
            for at, record in db.execute(
                "SELECT at, record FROM steps WHERE execution_id=? ORDER BY seq", (row["id"],)
            ):
                audit.note(db, at, "step", {"execution_id": row["id"], "sha256": audit.digest(record)})
