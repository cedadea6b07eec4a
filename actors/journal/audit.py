"""Rows of the audit chain, written in the same transaction as what they attest. Runs on the writer thread.

A connection without a key (a test's, a reader's) seals nothing and writes no row: the daemon's journal always has one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, Final

from actors.chain.macs import BEGIN, FORGOTTEN, Row, mac_of
from runbooks.model import Status
from runbooks.plain_text import storable

AT_ONCE: Final = 500
RUNS_FORGOTTEN: Final = "runs_forgotten"
"""A row of this kind names executions that are old enough to be removed from the tables."""
BODIES_FORGOTTEN: Final = "bodies_forgotten"
"""A row of this kind says up to which alert (``to``) bodies were old enough to be forgotten."""
ADOPTED: Final = "adopted"
"""A row of this kind stands once in each chain: what the tables held when it began to tell of them."""
OF_FEW: Final = "kind IN ('decided','granted','ended','adopted','forgotten')"
"""The rows that are looked for by what they are about, as the index ``audit_of`` has it, word for word."""
RUN_OF: Final = "CASE WHEN json_valid(body) THEN json_extract(body,'$.execution_id') END"
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


def is_adopted(db: sqlite3.Connection) -> bool:
    """Whether the chain tells of all the tables already, or can tell nothing."""
    if not isinstance(db, SealingConnection) or db.audit_key is None:
        return True
    if db.execute(f"SELECT 1 FROM audit WHERE {OF_FEW} AND kind=?", (ADOPTED,)).fetchone() is not None:  # noqa: S608
        return True
    last = _last_forgotten(db)
    return last is not None and "latches" in _facts(last.body)


def why_not_ours(db: sqlite3.Connection, execution_id: str, target: str, source: bytes, parameters: str) -> str | None:
    """Why a run must not be carried out: the chain does not say, by rows that bear its seal, that it was decided so,
    that it has not ended, and that it was approved where it had to be. None: it does, or there is no key to tell by.

    Args:
        parameters: as they are stored.
    """
    if not isinstance(db, SealingConnection) or db.audit_key is None:
        return None
    query = f"SELECT seq, at, kind, body, mac FROM audit WHERE {OF_FEW} AND kind IN ('decided','granted','ended')"  # noqa: S608
    found = db.execute(f"{query} AND {RUN_OF}=? ORDER BY seq", (execution_id,)).fetchall()
    rows = [row for row in (Row(*one) for one in found) if _is_sealed(db, db.audit_key, row)]
    said = {row.kind: json.loads(row.body) for row in rows}
    if "ended" in said:
        return "it has ended, by the audit chain"
    decided = said.get("decided")
    if decided is None:
        is_open = _was_open(db, db.audit_key, execution_id)
        return None if is_open else "no row of the audit chain says that it was decided"
    was = [storable(str(decided["target"])), decided["sha256"], decided["parameters"]]
    if was != [storable(target), digest(source), digest(parameters)]:
        return "it is not what was decided, by the audit chain"
    if decided["outcome"] == Status.AWAITING_APPROVAL.value and "granted" not in said:
        return "nobody approved it, by the audit chain"
    return None


def _was_open(db: sqlite3.Connection, key: bytes, execution_id: str) -> bool:
    """Whether it was open when the row that decided it was forgotten."""
    row = _last_forgotten(db)
    return row is not None and _is_sealed(db, key, row) and execution_id in json.loads(row.body).get("runs", ())


def _last_forgotten(db: sqlite3.Connection) -> Row | None:
    query = f"SELECT seq, at, kind, body, mac FROM audit WHERE {OF_FEW} AND kind=? ORDER BY seq DESC LIMIT 1"  # noqa: S608
    found = db.execute(query, (FORGOTTEN,)).fetchone()
    return None if found is None else Row(*found)


def _is_sealed(db: sqlite3.Connection, key: bytes, row: Row) -> bool:
    """By the row before it, or what is known of that one."""
    before = BEGIN if row.seq == 1 else mac_at(db, row.seq - 1)
    if before is None:
        last = _last_forgotten(db)
        facts = {} if last is None or last.seq == row.seq else _facts(last.body)
        if facts.get("to") != row.seq - 1:
            return False
        before = _bytes(str(facts.get("mac")))
    return hmac.compare_digest(row.mac, mac_of(key, before, row[:4]))


def _facts(body: str) -> Mapping[str, Any]:
    """Of a row that anybody may have put in."""
    try:
        facts = json.loads(body)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return BEGIN


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


def forget(
    db: sqlite3.Connection,
    keep: int,
    before: float,
    now: float,
    carried: Callable[[sqlite3.Connection, int], Mapping[str, Any]] = lambda _db, _due: {},
) -> int:
    """Forget the oldest rows beyond ``keep``, or older than ``before``; returns how many. A row says what was
    forgotten and what the rest begins after, so the chain stays whole. Without a key nothing is forgotten.

    Args:
        carried: what the row is to say of those that go, up to a number.
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
    facts = {"to": due, "mac": "" if mac is None else mac.hex(), "first": first}
    note(db, now, FORGOTTEN, {**facts, **carried(db, due)})
    return db.execute("DELETE FROM audit WHERE seq <= ?", (due,)).rowcount
