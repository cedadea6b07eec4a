"""A journal with an audit chain and its tip, as a daemon keeps them, for tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from actors.chain import place
from actors.chain.anchor import Anchor, AnchorParts
from actors.chain.checking import check
from actors.chain.macs import read_tip
from actors.journal import audit, events
from actors.journal.journal import Journal
from actors.journal.retention import Retention
from tests.support.eventually import eventually

NOW = 1_800_000_000.0


@dataclass
class Chained:
    state: Path
    journal: Journal
    anchor: Anchor
    alarms: list[str] = field(default_factory=list)

    def note(self, kind: str, **body: object) -> None:
        self.journal.submit(lambda db: audit.note(db, NOW, kind, body)).result(30)

    def last(self) -> int:
        return self.journal.read(audit.last_row)[0]

    def until_anchored(self) -> None:
        """The tip is that of the newest row."""
        key = place.read_key(self.state)
        tip = place.own_tip(self.state)

        def look() -> bool:
            text = place.read_tip_file(tip)
            return text is not None and read_tip(key, text).seq == self.last() > 0

        eventually(look, within_s=30, what="the tip")


@contextmanager
def chained(state: Path, *, second: Path | None = None, retention: Retention | None = None) -> Iterator[Chained]:
    alarms: list[str] = []
    anchor = Anchor(AnchorParts(state, lambda: NOW, alarms.append, second))
    journal = Journal(
        state / "journal.db",
        events.ensure_epoch,
        retention=retention,
        audit_key=anchor.key,
        adopts=anchor.begins,
        on_sealed=anchor.wake,
    )
    journal.start()
    anchor.begin(journal)
    made = Chained(state, journal, anchor, alarms)
    try:
        yield made
    finally:
        journal.close()
        anchor.close()


def a_chain(state: Path, count: int = 8) -> None:
    """So many rows, anchored; nobody has the files open any more."""
    with chained(state) as one:
        one.until_anchored()
        for number in range(count - one.last()):
            one.note("command", path="root/links/alerts", text=f"recovery off by user:{number}")
        one.until_anchored()
    db = sqlite3.connect(state / "journal.db")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def found(state: Path, *tips: Path) -> list[str]:
    return [str(one) for one in check(state, tips).findings]


def tampered(state: Path, *statements: str) -> None:
    """What somebody with the file does to it."""
    db = sqlite3.connect(state / "journal.db", isolation_level=None)
    try:
        for one in statements:
            db.execute(one)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.close()
