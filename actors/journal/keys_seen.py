"""Changes of the table of clients, in the audit chain: those made while no daemon ran, too. Runs on the writer thread.

What the chain says last is what the table is held against, so nothing else has to remember it. Who made a change is not
known here: the table belongs to the daemon's own user, and only he and root can write it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Final

from actors.access.table import REVOKED
from actors.journal import audit, events

EVENT: Final = "keys_changed"
MOST_TEXT: Final = 1000
_LAST: Final = "SELECT body FROM audit WHERE kind=? ORDER BY seq DESC LIMIT 1"


def note(db: sqlite3.Connection, at: float, path: str, marks: Mapping[str, str]) -> bool:
    """Note ``marks`` (a digest of each client's line, by name) when they are not those the chain knows; whether so."""
    found = db.execute(_LAST, (EVENT,)).fetchone()
    known: Mapping[str, str] = {} if found is None else json.loads(found[0]).get("clients", {})
    if found is not None and known == marks:
        return False
    others = sorted(name for name in marks.keys() & known.keys() if marks[name] != known[name])
    revoked = [name for name in others if marks[name].endswith(REVOKED) and not known[name].endswith(REVOKED)]
    changes = {
        "added": sorted(marks.keys() - known.keys()),
        "revoked": revoked,
        "changed": [name for name in others if name not in revoked],
        "removed": sorted(known.keys() - marks.keys()),
    }
    said = {what: names for what, names in changes.items() if names}
    text = "; ".join(f"{what}: {', '.join(names)}" for what, names in said.items()) or "no client has a key"
    events.add(db, at, path, EVENT, text[:MOST_TEXT], said)
    audit.note(db, at, EVENT, {"path": path, "clients": dict(marks), **said})
    return True
