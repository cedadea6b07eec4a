"""Rows of the audit chain, written in the same transaction as what they attest. Runs on the writer thread.

A connection without a key (a test's, a reader's) seals nothing and writes no row: the daemon's journal always has one.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from actors.chain.macs import BEGIN, FORGOTTEN, Row, mac_of
from runbooks.plain_text import storable

AT_ONCE: Final = 500
RUNS_FORGOTTEN: Final = "runs_forgotten"
"""A row of this kind names executions that are old enough to be removed from the tables."""
_LAST: Final = "SELECT seq, mac FROM audit ORDER BY seq DESC LIMIT 1"


class SealingConnection(sqlite3.Connection):
    """The journal's writing connection. ``audit_key``: what its audit rows are sealed with; ``has_sealed`` is set by
    each row and taken back by whoever writes the tip. A text that SQLite does not take, because it is not all of
    characters, is written as ``plain_text`` has it, wherever it comes from.
    """

    audit_key: bytes | None = None
    has_sealed: bool = False

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        try:
            return super().execute(sql, parameters)
        except UnicodeEncodeError:  # while it was bound: nothing is done yet
            return super().execute(sql, _storable(parameters))


def _storable(parameters: Any) -> Any:
    if isinstance(parameters, Mapping):
        return {name: storable(one) if isinstance(one, str) else one for name, one in parameters.items()}
    return tuple(storable(one) if isinstance(one, str) else one for one in parameters)


def note(db: sqlite3.Connection, at: float, kind: str, body: Mapping[str, Any]) -> None:
    """Seal one row. ``at``: Unix seconds."""
    if not isinstance(db, SealingConnection) or db.audit_key is None:
        return
    found = db.execute(_LAST).fetchone()
    before, seq = (BEGIN, 1) if found is None else (bytes(found[1]), int(found[0]) + 1)
    text = json.dumps(dict(body), separators=(",", ":"), sort_keys=True, default=str)
    mac = mac_of(db.audit_key, before, (seq, float(at), kind, text))
    db.execute("INSERT INTO audit(seq, at, kind, body, mac) VALUES (?,?,?,?,?)", (seq, float(at), kind, text, mac))
    db.has_sealed = True


def digest(text: str | bytes) -> str:
    """What a row says of a longer text it attests."""
    raw = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    return hashlib.sha256(raw).hexdigest()


def rows_from(db: sqlite3.Connection, after: int, limit: int) -> list[Row]:
    found = db.execute("SELECT seq, at, kind, body, mac FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
    return [Row(int(seq), float(at), str(kind), str(body), bytes(mac)) for seq, at, kind, body, mac in found]


def last_row(db: sqlite3.Connection) -> tuple[int, bytes]:
    """Number and mac of the newest; (0, zeros) when there is none."""
    found = db.execute(_LAST).fetchone()
    return (0, BEGIN) if found is None else (int(found[0]), bytes(found[1]))


def mac_at(db: sqlite3.Connection, seq: int) -> bytes | None:
    found = db.execute("SELECT mac FROM audit WHERE seq=?", (seq,)).fetchone()
    return None if found is None else bytes(found[0])


def forget(db: sqlite3.Connection, keep: int, before: float, now: float) -> int:
    """Forget the oldest rows beyond ``keep``, or older than ``before``; returns how many. A row says what was
    forgotten and what the rest begins after, so the chain stays whole. Without a key nothing is forgotten.
    """
    if not isinstance(db, SealingConnection) or db.audit_key is None:
        return 0
    first, last = db.execute("SELECT (SELECT min(seq) FROM audit), (SELECT max(seq) FROM audit)").fetchone()
    if first is None:
        return 0
    most = min(first + AT_ONCE - 1, last - 1)
    due = db.execute(
        "SELECT max(seq) FROM audit WHERE seq <= ? AND (at < ? OR seq <= ?)", (most, before, last - keep)
    ).fetchone()[0]
    if due is None or due - first + 1 < min(AT_ONCE, keep):  # each time costs a row: not for a few
        return 0
    mac = mac_at(db, due)
    note(db, now, FORGOTTEN, {"to": due, "mac": "" if mac is None else mac.hex(), "first": first})
    return db.execute("DELETE FROM audit WHERE seq <= ?", (due,)).rowcount
