"""Who asked for a run, by the journal: read on a connection, anew whenever it matters.

That is whoever sent its alert, and all whose alerts were answered with it: repeats, and those of its group. A run on a
rung was asked for by whoever asked for the root of the ladder; what an alert of the daemon's own about a run leads to,
by whoever asked for that run.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from actors.deciding.words import ESCALATED_FROM, INSIDE, OPERATOR
from runbooks.asking import REQUESTED_BY
from runbooks.choosing import fingerprint
from runbooks.deciding.holding import group_key
from runbooks.model import Runbook
from runbooks.parse import BadRunbook, parse

UNKNOWN: Final = "?"
"""Instead of a name: somebody asked, and the record that says who is forgotten."""
MOST_DEEP: Final = 20
"""Runs for alerts about runs, one after the other: who asked for what is further back counts as forgotten."""
_ABOUT: Final = ("execution", "execution_id")
"""The run an alert of the daemon's own is about, in its labels."""
_LINKED: Final = (
    "SELECT seq, client FROM alerts WHERE execution_id=:id UNION SELECT seq, client FROM alerts WHERE seq=:own"
)
_SENDERS: Final = f"SELECT client, max(seq = :own) AS is_own FROM ({_LINKED}) GROUP BY client"  # noqa: S608  constants
_BODIES: Final = f"SELECT seq, client, body FROM alerts WHERE seq IN (SELECT seq FROM ({_LINKED}))"  # noqa: S608
_OURS: Final = f"{_BODIES} AND client IN (:inside, :operator)"
_BEFORE: Final = "SELECT seq FROM alerts WHERE seq < ? AND received_at < ? ORDER BY seq DESC LIMIT 1"
_FOLDED: Final = (
    "SELECT seq, client, body FROM alerts"
    " WHERE seq > ? AND runbook=? AND outcome='duplicate' AND execution_id IS NULL ORDER BY seq"
)


class Asked(NamedTuple):
    """Authenticated names with their kind. ``own``: who asked for the run itself; ``others``: whose alerts were
    answered with it.
    """

    own: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def everyone(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.own, *self.others)))


def asked(db: sqlite3.Connection, execution_id: str, local_user: str, *, with_waiting: bool = False) -> Asked:
    """Who has asked for a run by now.

    Args:
        local_user: whose programs hold the local key.
        with_waiting: also those whose alerts were folded into it while it waited to be decided (a group). They are
            found by what they say, so it costs a look at every alert since; ask when the run has just been decided.
    """
    return _Search(db, local_user, with_waiting).of(execution_id)


class _Search:
    def __init__(self, db: sqlite3.Connection, local_user: str, with_waiting: bool) -> None:
        self._db = db
        self._local = ("key:local", f"user:{local_user}")
        self._with_waiting = with_waiting
        self._known: dict[str, Asked] = {}
        self._deep = 0

    def of(self, execution_id: str) -> Asked:
        known = self._known.get(execution_id)
        if known is not None:
            return known
        if self._deep >= MOST_DEEP:
            return Asked((UNKNOWN,))
        self._known[execution_id] = Asked()  # one that leads to itself has no more askers for that
        self._deep += 1
        known = self._known[execution_id] = self._looked_up(execution_id)
        self._deep -= 1
        return known

    def _looked_up(self, execution_id: str) -> Asked:
        query = "SELECT id, alert_seq, runbook, source FROM executions WHERE id=?"
        run = self._db.execute(query, (execution_id,)).fetchone()
        if run is None:
            return Asked((UNKNOWN,))
        own, others = self._of_alerts(run)
        for row in self._db.execute("SELECT root FROM escalations WHERE execution_id=?", (execution_id,)).fetchall():
            others += self.of(row["root"]).everyone
        if self._with_waiting:
            others += self._of_waiting(run)
        return Asked(tuple(dict.fromkeys(own)), tuple(dict.fromkeys(others)))

    def _of_alerts(self, run: sqlite3.Row) -> tuple[list[str], list[str]]:
        own: list[str] = []
        others: list[str] = []
        which = {"id": run["id"], "own": run["alert_seq"], "inside": INSIDE, "operator": OPERATOR}
        for row in self._db.execute(_SENDERS, which).fetchall():
            if row["client"] not in (INSIDE, OPERATOR):  # what they are called says who they are
                (own if row["is_own"] else others).extend(self._of_client(row["client"]))
        for row in self._db.execute(_OURS, which).fetchall():
            found = self._of_alert(row)
            if row["seq"] == run["alert_seq"]:
                own += found.own
                others += found.others
            else:
                others += found.everyone
        return own, others

    def _of_client(self, client: str) -> tuple[str, ...]:
        return self._local if client == "local" else (f"key:{client}",)

    def _of_alert(self, row: sqlite3.Row) -> Asked:
        if row["client"] not in (INSIDE, OPERATOR):
            return Asked(self._of_client(row["client"]))
        if not row["body"]:
            return Asked((UNKNOWN,))
        labels = json.loads(row["body"]).get("labels")
        labels = labels if isinstance(labels, Mapping) else {}
        if row["client"] == OPERATOR:
            by = labels.get(REQUESTED_BY)
            return Asked((by,) if isinstance(by, str) and by else (UNKNOWN,))
        # the ladder's alerts have other senders' labels too: of those only the ladder's own counts
        names = (ESCALATED_FROM,) if ESCALATED_FROM in labels else _ABOUT
        about = next((labels[name] for name in names if isinstance(labels.get(name), str)), None)
        return Asked() if about is None else self.of(about)

    # -- what was folded into it before it was decided ----------------------------------------------------------------

    def _of_waiting(self, run: sqlite3.Row) -> Iterable[str]:
        try:
            runbook = parse(run["source"], run["runbook"])
        except BadRunbook:
            return (UNKNOWN,)
        if runbook.for_s <= 0 and runbook.group is None and not runbook.inhibited_by:
            return ()
        linked = self._db.execute(_BODIES, {"id": run["id"], "own": run["alert_seq"]}).fetchall()
        known = {key for row in linked if row["body"] for key in _keys(runbook, json.loads(row["body"]))}
        found: list[str] = []
        left = self._folded(runbook, run, min((row["seq"] for row in linked), default=run["alert_seq"]))
        while True:  # what was folded into one of these may have others folded into it
            joined = [row for row, keys in left if not keys or keys & known]
            if not joined:
                return found
            known |= {key for _, keys in left if keys & known for key in keys}
            taken = {row["seq"] for row in joined}
            left = [(row, keys) for row, keys in left if row["seq"] not in taken]
            for row in joined:
                found += self._of_alert(row).everyone

    def _folded(self, runbook: Runbook, run: sqlite3.Row, first: int) -> list[tuple[sqlite3.Row, set[str]]]:
        """Alerts folded into one that waited, from the time of the first on; without keys when their body is gone."""
        began = self._db.execute("SELECT received_at FROM alerts WHERE seq=?", (first,)).fetchone()
        before = None
        if began is not None:  # one that waits longer for the same may have come earlier
            wait_s = 2 * runbook.for_s + (runbook.group.wait_s if runbook.group is not None else 0.0)
            before = self._db.execute(_BEFORE, (first, began["received_at"] - wait_s)).fetchone()
        after = 0 if before is None else before["seq"]
        rows = self._db.execute(_FOLDED, (after, run["runbook"])).fetchall()
        return [(row, _keys(runbook, json.loads(row["body"])) if row["body"] else set()) for row in rows]


def _keys(runbook: Runbook, facts: Mapping[str, Any]) -> set[str]:
    """Alerts that have one of these in common are answered together."""
    keys = {fingerprint(runbook, facts)} if runbook.for_s > 0 or runbook.inhibited_by else set()
    return keys | ({group_key(runbook, facts)} if runbook.group is not None else set())
