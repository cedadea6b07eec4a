"""What happened, in order: the journal's events as a stream with numbers. Runs on the writer thread, or a reader's own.

A number (``seq``) is given once and never again while the journal lives; the journal's identity (``epoch``) tells when
it was begun anew. Only the oldest events are ever removed (``retention``).
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from actors.journal import rows

EPOCH_KEY: Final = "epoch"


@dataclass(frozen=True, slots=True)
class Page:
    """Events behind a number, and the bounds of what there is. With nothing there ``first`` is ``last`` + 1."""

    epoch: str
    first: int
    last: int
    events: tuple[Mapping[str, Any], ...] = ()


def ensure_epoch(db: sqlite3.Connection) -> None:
    """A journal gets its identity once, when it is begun."""
    if rows.setting(db, EPOCH_KEY) is None:
        rows.set_setting(db, EPOCH_KEY, uuid.uuid4().hex)


def add(db: sqlite3.Connection, at: float, path: str, event: str, text: str, evidence: Mapping[str, Any]) -> None:
    rows.add_event(db, at, path, event, text, evidence)


def page(db: sqlite3.Connection, after: int | None, limit: int) -> Page:
    """At most ``limit`` events with seq > ``after``, in order; with None none, but where the stream ends now."""
    db.execute("BEGIN")
    try:
        bounds = db.execute("SELECT min(seq) AS first, max(seq) AS last FROM events").fetchone()
        found = () if after is None else _behind(db, after, limit)
        epoch = str(rows.setting(db, EPOCH_KEY) or "")
    finally:
        db.execute("COMMIT")
    last = bounds["last"] or 0
    return Page(epoch, bounds["first"] or last + 1, last, found)


def _behind(db: sqlite3.Connection, after: int, limit: int) -> tuple[Mapping[str, Any], ...]:
    found = db.execute("SELECT * FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
    return tuple({**dict(row), "evidence": json.loads(row["evidence"])} for row in found)
