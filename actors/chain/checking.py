"""Checks the audit chain of a state directory, with a daemon or without: every row, the tip, and the tables it attests.

Opens the journal for reading only. Any thread; it may take seconds for millions of rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from actors.chain import place
from actors.chain.macs import BadTip, Finding, Walk, check_tip, read_tip
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
        verdict.findings += _limited(_check_tables(db))
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


# -- the tables the chain attests -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Attested:
    """What the chain says of one execution. ``row``: where it was decided."""

    row: int
    sha256: str
    parameters: str
    steps: list[str] = field(default_factory=list)
    votes: list[str] = field(default_factory=list)
    end: tuple[str, str] | None = None


def _check_tables(db: sqlite3.Connection) -> Iterator[Finding]:
    """An execution, its steps or its votes that are not what the chain says."""
    began_at = db.execute("SELECT min(at) FROM audit").fetchone()[0]
    if began_at is None:
        return
    known = _attested(db)
    executions = "SELECT id, source, sha256, parameters, status, detail, decided_at, ended_at FROM executions"
    for row in db.execute(executions).fetchall():
        said = known.get(row["id"])
        if said is None:
            if row["decided_at"] > began_at:
                yield Finding(None, f"execution {row['id']} is not in the chain: it was put in")
            continue
        for what in _differences(db, row, said):
            yield Finding(said.row, f"execution {row['id']}: {what} what the chain says")


def _attested(db: sqlite3.Connection) -> dict[str, _Attested]:
    known: dict[str, _Attested] = {}
    query = "SELECT seq, kind, body FROM audit WHERE kind IN ('decided', 'step', 'vote', 'ended') ORDER BY seq"
    for seq, kind, text in db.execute(query):
        body: dict[str, Any] = json.loads(text)
        about = str(body.get("execution_id"))
        if kind == "decided":
            known[about] = _Attested(seq, str(body["sha256"]), str(body["parameters"]))
        elif about not in known:
            continue  # its beginning was forgotten
        elif kind == "step":
            known[about].steps.append(str(body["sha256"]))
        elif kind == "vote":
            known[about].votes.append(str(body["sha256"]))
        else:
            known[about].end = (str(body["status"]), str(body["detail"]))
    return known


def _differences(db: sqlite3.Connection, row: sqlite3.Row, said: _Attested) -> Iterator[str]:
    if {row["sha256"], audit.digest(bytes(row["source"]))} != {said.sha256}:
        yield "its runbook is not"
    if audit.digest(row["parameters"]) != said.parameters:
        yield "its parameters are not"
    end = None if row["ended_at"] is None else (row["status"], audit.digest(row["detail"]))
    if end != said.end:
        yield "its end is not"
    steps = db.execute("SELECT record FROM steps WHERE execution_id=? ORDER BY seq", (row["id"],))
    if [audit.digest(one[0]) for one in steps] != said.steps:
        yield "its steps are not"
    votes = db.execute(
        "SELECT plan_hash, who, what, at, why FROM approvals WHERE execution_id=? ORDER BY seq", (row["id"],)
    )
    if [audit.digest(rows.dump(list(one))) for one in votes] != said.votes:
        yield "its votes are not"
