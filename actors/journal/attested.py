"""What the chain says of the tables that hold something back, latches and silences: replayed from its rows.

Rows that are forgotten leave what they said in the row that says so (``carried``), so that the rest still tells all.
Pure, but for ``latches``, ``silences`` and ``state_before``, which read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from actors.chain.macs import FORGOTTEN
from actors.journal import audit

KINDS: Final = (
    "decided",
    "ended",
    "latched",
    "released",
    "silenced",
    "unsilenced",
    audit.ADOPTED,
    audit.BODIES_FORGOTTEN,
)


@dataclass(slots=True)
class Held:
    """``latches``: digests by target; ``silences``: by id; ``open_runs``: decided, and not ended; ``bodies_to``: up to
    here bodies of alerts were forgotten by age. ``is_known``: False before the first row that told of all this.
    """

    latches: dict[str, str] = field(default_factory=dict)
    silences: dict[str, dict[str, Any]] = field(default_factory=dict)
    open_runs: set[str] = field(default_factory=set)
    bodies_to: int = 0
    is_known: bool = False

    def take(self, kind: str, body: Mapping[str, Any]) -> None:
        match kind:
            case "decided":
                self.open_runs.add(str(body["execution_id"]))
            case "ended":
                self.open_runs.discard(str(body["execution_id"]))
            case "latched":
                self.latches[str(body["target"])] = str(body["sha256"])
            case "released":
                self.latches.pop(str(body["target"]), None)
            case "silenced":
                self.silences[str(body["silence"])] = {"sha256": body["sha256"], "until": body["until"]}
            case "unsilenced":
                self.silences.setdefault(str(body["silence"]), {})["ended"] = body["sha256"]
            case audit.BODIES_FORGOTTEN:
                self.bodies_to = max(self.bodies_to, int(body["to"]))
            case audit.ADOPTED:
                self.begin(body)

    def carried(self, to_at: float) -> dict[str, Any]:
        """What is left when the rows up to one of ``to_at`` (Unix seconds) are forgotten; of silences those that may
        still be on.
        """
        facts = {"runs": sorted(self.open_runs), "to_at": to_at}
        if not self.is_known:
            return facts
        lasting = {name: one for name, one in self.silences.items() if "ended" not in one and one["until"] >= to_at}
        return facts | {"latches": self.latches, "silences": lasting, "bodies_to": self.bodies_to}

    def begin(self, body: Mapping[str, Any]) -> None:
        """With what a row says of all that was before."""
        self.open_runs |= set(body.get("runs", ()))
        if "latches" in body:
            self.latches, self.silences = dict(body["latches"]), dict(body["silences"])
            self.bodies_to, self.is_known = int(body["bodies_to"]), True


def state_before(db: sqlite3.Connection) -> tuple[Held, float | None]:
    """What the forgotten rows said, and the time (Unix seconds) of the last of them; None: that is not said."""
    held = Held()
    query = f"SELECT body FROM audit WHERE {audit.OF_FEW} AND kind=? ORDER BY seq DESC LIMIT 1"  # noqa: S608
    text = db.execute(query, (FORGOTTEN,)).fetchone()
    body = {} if text is None else json.loads(text[0])
    if "to_at" not in body:
        return held, None
    held.begin(body)
    return held, float(body["to_at"])


def latches(db: sqlite3.Connection) -> dict[str, str]:
    """Digests by target, as the table has them."""
    return {str(row["target"]): latch_digest(row) for row in db.execute("SELECT * FROM latches ORDER BY target")}


def latch_digest(row: sqlite3.Row) -> str:
    return audit.digest(json.dumps([row["execution_id"], row["at"], row["why"]]))


def silences(db: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """By id, as the table has them."""
    return {str(row["id"]): silence_facts(row) for row in db.execute("SELECT * FROM silences ORDER BY id")}


def silence_facts(row: sqlite3.Row) -> dict[str, Any]:
    said = [row[name] for name in ("matchers", "by", "why", "at", "mark", "for_s")]
    facts = {"sha256": audit.digest(json.dumps(said)), "until": row["at"] + row["for_s"]}
    if row["ended_at"] is not None or row["ended_by"] is not None:
        facts["ended"] = audit.digest(json.dumps([row["ended_at"], row["ended_by"]]))
    return facts


def rung_digest(row: sqlite3.Row) -> str:
    return audit.digest(json.dumps([row["at"], row["mark"], row["execution_id"], row["text"]]))


def answer_digest(outcome: str | None, execution_id: str | None, runbook: str | None) -> str:
    """Of what is written of an alert that began a run."""
    return audit.digest(json.dumps([outcome, execution_id, runbook]))


def note_rung(db: sqlite3.Connection, at: float, root: str, rung: int) -> None:
    """As it stands in the table now."""
    row = db.execute("SELECT * FROM escalations WHERE root=? AND rung=?", (root, rung)).fetchone()
    audit.note(db, at, "escalated", {"execution_id": root, "rung": rung, "sha256": rung_digest(row)})


def note_latch(db: sqlite3.Connection, at: float, target: str) -> None:
    """As it stands in the table now."""
    row = db.execute("SELECT * FROM latches WHERE target=?", (target,)).fetchone()
    facts = {"target": row["target"], "execution_id": row["execution_id"], "sha256": latch_digest(row)}
    audit.note(db, at, "latched", facts)


def note_silence(db: sqlite3.Connection, at: float, silence_id: str) -> None:
    """As it stands in the table now: begun, or ended."""
    row = db.execute("SELECT * FROM silences WHERE id=?", (silence_id,)).fetchone()
    facts = silence_facts(row)
    if "ended" in facts:
        audit.note(db, at, "unsilenced", {"silence": row["id"], "sha256": facts["ended"]})
    else:
        audit.note(db, at, "silenced", {"silence": row["id"]} | facts)


def carried(db: sqlite3.Connection, due: int) -> Mapping[str, Any]:
    """For ``audit.forget``: what the rows up to ``due`` said."""
    held, _ = state_before(db)
    marks = ",".join("?" * len(KINDS))
    query = f"SELECT kind, body FROM audit WHERE seq <= ? AND kind IN ({marks}) ORDER BY seq"  # noqa: S608
    for kind, body in db.execute(query, (due, *KINDS)):
        held.take(str(kind), json.loads(body))
    to_at = float(db.execute("SELECT at FROM audit WHERE seq=?", (due,)).fetchone()[0])
    return held.carried(to_at)
