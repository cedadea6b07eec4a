"""The guardian takes up edited runbooks: one that looks further back than any before knows what happened then."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from guardian_link import Alert, GuardianClient
from tests.recovery.place import Place, recovering
from tests.runbooks.files import GOOD
from tests.support.eventually import eventually

DAY_S = 86400.0


def write(folder: Path, **more: Any) -> None:
    folder.mkdir(exist_ok=True)
    raw = {**GOOD, "match": {"field": "/type", "op": "eq", "value": "mine"}, **more}
    (folder / "mine.json").write_text(json.dumps(raw))


def outcome(place: Place) -> str:
    with GuardianClient(place.address) as guardian:
        decision = guardian.send(Alert(type="mine", service="a"), timeout_s=30).decision
        assert decision is not None
        if decision.execution_id is not None:
            guardian.wait(decision.execution_id, timeout_s=30)
        return str(decision.outcome)


def three_days_older(folder: Path) -> None:
    older = (
        "UPDATE executions SET decided_at=decided_at-:by, started_at=started_at-:by, ended_at=ended_at-:by,"
        " decided_mark=NULL, started_mark=NULL, ended_mark=NULL"
    )
    with closing(sqlite3.connect(folder / "journal.db")) as db:
        db.execute(older, {"by": 3 * DAY_S})
        db.commit()


def test_a_limit_that_looks_further_back_counts_what_was_not_looked_at_before(tmp_path: Path) -> None:
    state, books = tmp_path / "state", tmp_path / "books"
    write(books)
    with recovering(state, runbooks=(books,)) as place:
        assert outcome(place) == "run"
        ran = place.world.runs["a"]
    three_days_older(state)
    write(books, enabled=False)
    with recovering(state, runbooks=(books,)) as place:
        before = place.world.runs["a"]
        assert outcome(place) == "no_match"
        write(books, limits={"max_runs": [{"count": 1, "per": "7d", "scope": "target"}]})
        (said,) = place.recovery.runbook_files.reread("test")
        assert said.startswith("runbook restart_it 1.0.0 (")
        eventually(lambda: outcome(place) != "no_match", within_s=20, every_s=0.1)
        assert outcome(place) == "limited"
        assert (ran, place.world.runs["a"]) == (before + 1, before), "not once more"
