"""Keeps the chain's tip outside the database, and says when the two do not agree.

One thread of its own, woken after a commit that sealed something; the journal's writer never waits for it. So a tip may
be a moment behind the chain, and is never ahead of it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from actors.chain import place
from actors.chain.macs import FOUND, BadTip, Tip, check_tip, key_id, read_tip, tip_text
from actors.journal import audit, rows
from actors.journal.events import EPOCH_KEY
from actors.journal.journal import Journal
from actors.journal.schema import JournalTrouble
from bridge_link.errors import KeyMissing, KeyTrouble

RETRY_S: Final = 1.0
BEGUN: Final = "begun"
"""The first row of a chain whose key was made by this very daemon."""


class _End(NamedTuple):
    """The chain as it is: the journal's identity, the newest row, and the mac at the row the old tip names."""

    epoch: str
    seq: int
    mac: bytes
    at_tip: bytes | None


@dataclass(frozen=True)
class AnchorParts:
    """``second``: where the tip goes too; ``say``: also told of each tip (the system's log); ``alarm``: told what was
    found (a text); both must only hand on.
    """

    state_dir: Path
    wall: Callable[[], float]
    alarm: Callable[[str], object]
    second: Path | None = None
    say: Callable[[str], object] | None = None


class Anchor:
    """``key`` is what the journal seals with; ``wake`` it after each commit; ``close`` writes the last tip.

    ``trouble`` says why key or tip cannot be kept.
    """

    def __init__(self, parts: AnchorParts) -> None:
        self._parts = parts
        self._journal: Journal | None = None
        self._key: bytes | None = None
        self._key_lock = threading.Lock()
        self._is_kept = False
        self._is_new = False
        self._unkept: str | None = None
        self._untipped: str | None = None
        self._tip: Tip | None = None
        self._is_loaded = False
        self._opening: list[str] = []
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def trouble(self) -> str | None:
        return self._unkept or self._untipped

    def begins(self) -> bool:
        """Whether no tip was ever written here; from the journal's thread."""
        return not place.own_tip(self._parts.state_dir).exists()

    def key(self) -> bytes | None:
        """The key; made when there is none. Where it cannot be written it is kept in memory until it can.

        A key that is there and must not be used (others may read it) seals nothing: a new one would hide that.
        """
        with self._key_lock:
            if self._key is None or not self._is_kept:
                self._key = self._kept_key()
            return self._key

    def _kept_key(self) -> bytes | None:
        try:
            try:
                key = place.read_key(self._parts.state_dir)
            except KeyMissing:
                key, self._is_new = self._key or place.new_key(), True
                place.write_key(self._parts.state_dir, key)
        except (KeyTrouble, OSError) as error:
            self._unkept = f"the audit chain's key cannot be kept: {error}"
            return self._key
        self._is_kept, self._unkept = True, None
        return key

    def begin(self, journal: Journal) -> None:
        self._journal = journal
        if self._thread is None or not self._thread.is_alive():
            self._closed.clear()
            self._thread = threading.Thread(target=self._run, name="audit-anchor", daemon=True)
            self._thread.start()
        self._wanted.set()

    def wake(self) -> None:
        """After a commit; from the journal's thread."""
        self._wanted.set()

    def close(self, timeout_s: float = 10.0) -> None:
        """After the journal's end: the last tip is written first."""
        self._closed.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            is_last = self._closed.is_set()
            self._wanted.clear()
            is_done = self._look()
            if is_last:
                return
            self._wanted.wait(None if is_done else RETRY_S)

    def _look(self) -> bool:
        """Whether all that is sealed is anchored; False: try again."""
        journal, key = self._journal, self.key()
        if journal is None or key is None:
            return key is not None
        self._load(key)
        try:
            end = journal.read(self._end)
        except JournalTrouble:
            return False  # said by the journal itself
        tip = self._tip
        if tip is not None and (found := check_tip(tip, end.epoch, end.seq, end.at_tip)) is not None:
            self._tip = None
            return self._tell(journal, str(found))
        if self._opening:
            return self._tell(journal, self._opening.pop(0))
        if end.seq == 0 or (tip is not None and tip.seq == end.seq and self._untipped is None):
            return True
        return self._write(key, Tip(end.epoch, end.seq, end.mac, key_id(key)))

    def _load(self, key: bytes) -> None:
        """The tip an earlier daemon left; whatever is wrong with it is told once."""
        if self._is_loaded:
            return
        self._is_loaded = True
        own = place.own_tip(self._parts.state_dir)
        troubles, missing = [], []
        for path in (own, *([self._parts.second] if self._parts.second is not None else [])):
            try:
                text = place.read_tip_file(path)
                tip = None if text is None else read_tip(key, text)
            except (OSError, BadTip) as error:
                troubles.append(f"{path}: {error}")
                continue
            if tip is None:
                missing.append(path)
            elif self._tip is None or tip.seq > self._tip.seq:
                self._tip = tip
        if self._tip is not None:
            self._opening = troubles + [f"{path} was not there" for path in missing if path == own]
        elif troubles or not self._is_new:
            self._opening = troubles or [f"{own} was not there: whether rows were cut off cannot be told"]
        else:
            self._opening = [BEGUN]

    def _end(self, db: sqlite3.Connection) -> _End:
        seq, mac = audit.last_row(db)
        at_tip = None if self._tip is None else audit.mac_at(db, self._tip.seq)
        return _End(str(rows.setting(db, EPOCH_KEY) or ""), seq, mac, at_tip)

    def _tell(self, journal: Journal, text: str) -> bool:
        """What was found goes into the chain itself: it cannot be taken back."""
        at, is_first = self._parts.wall(), text == BEGUN
        kind, body = (BEGUN, {}) if is_first else (FOUND, {"text": text})
        try:
            journal.submit(lambda db: audit.note(db, at, kind, body)).result(10.0)
        except (JournalTrouble, TimeoutError):
            self._opening.insert(0, text)
            return False
        if not is_first:
            structlog.get_logger().critical("the audit chain is not as it was left", found=text)
            self._parts.alarm(text)
        self._wanted.set()
        return True

    def _write(self, key: bytes, tip: Tip) -> bool:
        text = tip_text(key, tip)
        second = self._parts.second
        try:
            for path in (place.own_tip(self._parts.state_dir), *(() if second is None else (second,))):
                place.write_tip_file(path, text)
        except OSError as error:
            self._untipped = f"the tip of the audit chain cannot be written: {error}"
            return False
        self._tip, self._untipped = tip, None
        if self._parts.say is not None:
            self._parts.say(text)
        return True
