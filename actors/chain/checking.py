"""Checks the audit chain of a state directory, with a daemon or without: every row, the tip, and the tables it attests.

Opens the journal for reading only. Any thread; it may take seconds for millions of rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from actors.chain import place
from actors.chain.macs import BadTip, Finding, Walk, check_tip, read_tip
from actors.chain.tables import different
from actors.journal import audit, rows
from actors.journal.events import EPOCH_KEY
from actors.journal.schema import JournalTrouble, open_reader
from bridge_link.errors import KeyTrouble

AT_ONCE: Final = 5000
MOST_FINDINGS: Final = 1000


@dataclass(slots=True)
class Verdict:
    """``rows`` were looked at, ``first`` to ``last``; the chain is whole when there are no findings."""

    rows: int = 0
    first: int | None = None
    last: int | None = None
    tips: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        return not self.findings


def check(state_dir: Path, more_tips: Sequence[Path] = ()) -> Verdict:
    """Look at the key, the tips, the chain and what it attests. Never raises for what it finds."""
    verdict = Verdict()
    try:
        key = place.read_key(state_dir)
    except (KeyTrouble, OSError) as error:
        verdict.findings.append(Finding(None, f"without the key nothing can be checked: {error}"))
        return verdict
    texts = _tip_texts(state_dir, more_tips, verdict)  # before the rows: the daemon may go on meanwhile
    journal = state_dir / "journal.db"
    try:
        _check_journal(journal, key, texts, verdict)
    except (
        JournalTrouble,
        sqlite3.Error,
        UnicodeDecodeError,
        MemoryError,
    ) as error:  # a damaged length asks for too much
        verdict.findings.append(Finding(None, f"{journal} cannot be read: {error!r}"))
    except (ValueError, TypeError) as error:
        verdict.findings.append(Finding(None, f"{journal} holds what no daemon wrote: {error}"))
    return verdict


def _tip_texts(state_dir: Path, more: Sequence[Path], verdict: Verdict) -> dict[Path, str]:
    texts: dict[Path, str] = {}
    for path in dict.fromkeys((place.own_tip(state_dir), *more)):
        try:
            text = place.read_tip_file(path)
        except OSError as error:
            verdict.findings.append(Finding(None, f"{path} cannot be read: {error.strerror}"))
            continue
        if text is None:
            verdict.findings.append(Finding(None, f"{path} is not there: whether the end was cut off cannot be told"))
        else:
            texts[path] = text
    return texts


def _check_journal(journal: Path, key: bytes, texts: Mapping[Path, str], verdict: Verdict) -> None:
    if not journal.exists():
        verdict.findings.append(Finding(None, f"there is no {journal}"))
        return
    db = open_reader(journal)
    try:
        db.execute("BEGIN")  # one state of the file for all that follows
        _walk(db, key, verdict)
        _check_tips(db, key, texts, verdict)
        verdict.findings += _limited(different(db))
        del verdict.findings[MOST_FINDINGS:]
    finally:
        db.close()


def _walk(db: sqlite3.Connection, key: bytes, verdict: Verdict) -> None:
    walk, after = Walk(key), -(2**62)
    while part := audit.rows_from(db, after, AT_ONCE):
        verdict.findings += walk.take(part)
        after = part[-1].seq
        if len(verdict.findings) > MOST_FINDINGS:
            break
    verdict.findings += walk.end()
    verdict.rows, verdict.first = walk.count, walk.first
    verdict.last = None if walk.last is None else walk.last.seq


def _check_tips(db: sqlite3.Connection, key: bytes, texts: Mapping[Path, str], verdict: Verdict) -> None:
    epoch = str(rows.setting(db, EPOCH_KEY) or "")
    for path, text in texts.items():
        verdict.tips.append(str(path))
        try:
            tip = read_tip(key, text)
        except BadTip as bad:
            verdict.findings.append(Finding(None, f"{path}: {bad}"))
            continue
        found = check_tip(tip, epoch, verdict.last or 0, audit.mac_at(db, tip.seq))
        if found is not None:
            verdict.findings.append(Finding(found.row, f"{found.text} ({path})"))


def _limited(findings: Iterator[Finding]) -> list[Finding]:
    return [finding for finding, _ in zip(findings, range(MOST_FINDINGS), strict=False)]
