"""The record of a real daemon: what people did is in it, and no value of it can be changed without being found."""

# ruff: noqa: S608  names of ours
from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from actors.chain.checking import check
from actors.journal.retention import Retention
from supervisors.cli import main
from tests.audit.chained import chained, found
from tests.audit.recorded import Recorded, record
from tests.links.guarded import add_client, revoke
from tests.recovery.place import recovering
from tests.support.eventually import eventually

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("audit-record")]
WHOLLY: Final = ("audit", "steps", "approvals", "approval_requests", "silences", "latches", "escalations")
"""Tables of which every column is on record."""
RUNS: Final = (
    "id", "alert_seq", "runbook", "source", "sha256", "target", "parameters", "fingerprint", "severity", "priority",
    "status", "detail", "decided_at", "started_at", "ended_at",
)  # fmt: skip
"""Columns of ``executions``; the others are the daemon's own notes of how far it is."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def state(recorded: Recorded, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded.state, tmp_path / "state", ignore=shutil.ignore_patterns("*.sock")))


def opened(state: Path) -> sqlite3.Connection:
    db = sqlite3.connect(state / "journal.db", isolation_level=None)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA synchronous=0")
    return db


def rows_of(state: Path, kind: str) -> list[dict[str, Any]]:
    db = opened(state)
    try:
        found = db.execute("SELECT at, body FROM audit WHERE kind=? ORDER BY seq", (kind,))
        return [{**json.loads(row["body"]), "at": row["at"]} for row in found]
    finally:
        db.close()


def test_every_act_is_on_record_with_who_when_and_why(recorded: Recorded) -> None:
    assert found(recorded.state) == []
    commands = rows_of(recorded.state, "command")
    for act in recorded.acts:
        said = [(one["by"], one.get("proven", ""), one.get("why", "")) for one in commands if act.text in one["text"]]
        assert (act.by, act.proven, act.why) in said, (act, said)
    others = [one["by"] for one in commands if not any(act.text in one["text"] for act in recorded.acts)]
    assert others == ["runbook"] * 2, others


def test_votes_and_ends_are_on_record(recorded: Recorded) -> None:
    votes = {one["execution_id"]: one for one in rows_of(recorded.state, "vote")}
    runs = recorded.runs
    approved, rejected = votes[runs["approved"]], votes[runs["rejected"]]
    assert (approved["who"], approved["says"], approved["why"]) == ("token:ann", "approve", "seen it")
    assert (rejected["says"], rejected["why"]) == ("reject", "not now")
    ends = {one["execution_id"]: one["status"] for one in rows_of(recorded.state, "ended")}
    assert {what: ends[run] for what, run in runs.items()} == {
        "failed": "rollback_failed",
        "approved": "succeeded",
        "rejected": "rejected",
        "cancelled": "cancelled",
        "asked for": "succeeded",
    }


def test_who_may_speak_to_the_daemon_is_on_record(recorded: Recorded) -> None:
    first, added, revoked = rows_of(recorded.state, "keys_changed")
    assert (first["added"], list(first["clients"])) == (["local"], ["local"])
    assert (added["added"], sorted(added["clients"])) == (["desk-1"], ["desk-1", "local"])
    assert (revoked["revoked"], "changed" in revoked, "added" in revoked) == (["desk-1"], False, False)


def values(db: sqlite3.Connection) -> Iterator[tuple[str, int, str, Any]]:
    for table in (*WHOLLY, "executions"):
        row_id = "seq" if table == "audit" else "rowid"
        for row in db.execute(f"SELECT {row_id} AS n, * FROM {table}").fetchall():
            for column in RUNS if table == "executions" else row.keys()[1:]:
                if column != "seq" or table == "audit":  # of the others only the order means something
                    yield table, row["n"], column, row[column]
    for row in db.execute("SELECT seq, body FROM alerts WHERE seq IN (SELECT alert_seq FROM executions)").fetchall():
        yield "alerts", row["seq"], "body", row["body"]


def another(column: str, value: Any) -> Any:
    """A value like it that is another one, where it is one at all."""
    match value:
        case None:
            return 1_700_000_000.0 if column.endswith("_at") else "x"
        case bytes():
            return value[:-1] + bytes([value[-1] ^ 1])
        case int() | float():
            return value + 1_000_000
        case _ if value.startswith("{") and column in {"body", "record", "parameters", "detail"}:
            return value + " "
        case _:
            return value + "x" if column not in {"asked_by", "readings"} else json.dumps([*json.loads(value), "x"])


def test_every_changed_value_of_every_row_is_found(state: Path) -> None:
    db = opened(state)
    db.execute("PRAGMA foreign_keys=0")
    seen: set[tuple[str, str]] = set()
    for table, row, column, value in list(values(db)):
        db.execute("BEGIN")
        db.execute(
            f"UPDATE {table} SET {column}=? WHERE {'seq' if table in ('audit', 'alerts') else 'rowid'}=?",
            (another(column, value), row),
        )
        db.execute("COMMIT")
        said = found(state)
        assert said, (table, row, column, value)
        if table == "audit" and column != "seq":
            assert said[0].startswith(f"row {row}: was changed"), (column, said)
        _put_back(db, table, row, column, value)
        seen.add((table, column))
    db.close()
    assert found(state) == []
    assert len(seen) > 35, sorted(seen)


def _put_back(db: sqlite3.Connection, table: str, row: int, column: str, value: Any) -> None:
    is_key = column == "seq"
    number = another(column, value) if is_key else row
    by = "seq" if table in ("audit", "alerts") else "rowid"
    db.execute(f"UPDATE {table} SET {column}=? WHERE {by}=?", (value, number))


def test_every_removed_row_is_found(state: Path) -> None:
    db = opened(state)
    db.execute("PRAGMA foreign_keys=0")
    for table in (*WHOLLY, "executions"):
        for row in db.execute(f"SELECT rowid AS n, * FROM {table}").fetchall():
            db.execute(f"DELETE FROM {table} WHERE rowid=?", (row["n"],))
            said = found(state)
            assert said, (table, dict(row))
            names = row.keys()[1:]
            marks = ",".join("?" * (len(names) + 1))
            db.execute(f"INSERT INTO {table}(rowid,{','.join(names)}) VALUES ({marks})", tuple(row))
    db.close()
    assert found(state) == []


def test_an_execution_that_was_put_in_or_let_go_without_a_word_is_found(recorded: Recorded, state: Path) -> None:
    db = opened(state)
    columns = [row["name"] for row in db.execute("PRAGMA table_info(executions)")]
    others = ",".join(one for one in columns if one != "id")
    db.execute(f"INSERT INTO executions(id,{others}) SELECT 'x-new',{others} FROM executions LIMIT 1")
    assert any(text.startswith("execution x-new is not in the chain: it was put in") for text in found(state))
    db.execute("DELETE FROM executions WHERE id='x-new'")
    name = recorded.runs["cancelled"]
    db.execute("UPDATE executions SET status='queued', detail='', ended_at=NULL WHERE id=?", (name,))
    db.close()
    assert any(text.endswith(f"execution {name}: it went on although nobody approved it") for text in found(state))


def test_runs_that_the_daemon_forgets_by_age_are_missed_by_nobody(recorded: Recorded, state: Path) -> None:
    with chained(state, retention=Retention(ids=1, bodies=1)) as one:

        def left() -> int:
            return int(one.journal.read(lambda db: db.execute("SELECT count(*) FROM executions").fetchone()[0]))

        eventually(lambda: left() == 1, within_s=30, what="runs are forgotten")
        one.until_anchored()
    assert len(recorded.runs) > 1
    assert found(state) == []


def test_keys_changed_while_no_daemon_runs_are_on_record(tmp_path: Path) -> None:
    state = tmp_path / "state"

    def changes(text: str) -> int:
        return sum(text in json.dumps(one) for one in rows_of(state, "keys_changed"))

    with recovering(state):
        eventually(lambda: changes("local") == 1, within_s=20)
    add_client(state, "desk-2")
    revoke(state, "desk-2")
    with recovering(state):
        eventually(lambda: changes('"added": ["desk-2"]') == 1, within_s=20)
    with recovering(state):  # nothing is said again
        eventually(lambda: not (check(state).findings), within_s=20)
    assert len(rows_of(state, "keys_changed")) == 2


def put_back(recorded: Recorded, state: Path, copy: Path) -> Path:
    """The state with the whole database of before in the place of the present one."""
    shutil.copytree(state, copy)
    for file in copy.glob("journal.db*"):
        file.unlink()
    shutil.copy(recorded.older, copy / "journal.db")
    return copy


def len_of(journal: Path) -> int:
    db = sqlite3.connect(journal)
    try:
        return int(db.execute("SELECT count(*) FROM audit").fetchone()[0])
    finally:
        db.close()


def test_a_daemon_that_is_given_an_older_database_says_so_and_goes_on(
    recorded: Recorded, state: Path, tmp_path: Path
) -> None:
    old = put_back(recorded, state, tmp_path / "old")
    with chained(old) as one:
        eventually(lambda: one.alarms, within_s=30)
        assert "the end was cut off" in one.alarms[0]
        one.until_anchored()
    assert any("the daemon found: row" in text and "the end was cut off" in text for text in found(old))


def test_a_chain_taken_away_with_its_key_and_tip_leaves_runs_that_are_in_none(recorded: Recorded, state: Path) -> None:
    db = opened(state)
    db.execute("DELETE FROM audit")
    db.close()
    (state / "audit.tip").unlink()
    (state / "keys" / "audit.key").unlink()
    with chained(state) as one:
        one.until_anchored()
        assert one.alarms == [], "there is no chain, no key and no tip: as at a first start"
    said = found(state)
    assert len(said) == len(recorded.runs), said
    assert all("the chain was begun anew" in text for text in said), said


def verified(capsys: pytest.CaptureFixture[str], state: Path) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(("audit", "verify", "--state", str(state)))
    return int(ended.value.code or 0), capsys.readouterr().err


def test_the_command_says_what_it_finds_and_ends_with_3(
    recorded: Recorded, state: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SELFHEAL_CONFIG", raising=False)
    assert verified(capsys, state) == (0, "")
    last = check(state).last or 0

    def after(name: str, *statements: str) -> str:
        copy = Path(shutil.copytree(state, tmp_path / name))
        db = opened(copy)
        for one in statements:
            db.execute(one)
        db.close()
        code, said = verified(capsys, copy)
        assert code == 3, (name, said)
        return said

    assert "row 5: was changed" in after("edit", "UPDATE audit SET at = at + 1 WHERE seq = 5")
    assert "row 5: was removed" in after("delete", "DELETE FROM audit WHERE seq = 5")
    swap = [f"UPDATE audit SET seq = {new} WHERE seq = {old}" for old, new in ((5, -1), (6, 5), (-1, 6))]
    assert "row 5: was changed, moved or put in" in after("swap", *swap)
    assert f"the end was cut off: rows {last - 1} to {last} are missing" in after(
        "tail", f"DELETE FROM audit WHERE seq > {last - 2}"
    )
    assert "row 4: all rows before it were removed, and not by the daemon" in after(
        "head", "DELETE FROM audit WHERE seq < 4"
    )
    old = put_back(recorded, state, tmp_path / "old")
    first = (len_of(recorded.older) or 0) + 1
    code, said = verified(capsys, old)
    assert (code, f"rows {first} to {last} are missing, the tip knows them" in said) == (3, True), said
    foreign = Path(shutil.copytree(state, tmp_path / "foreign"))
    shutil.copy(other_key(tmp_path), foreign / "keys" / "audit.key")
    code, said = verified(capsys, foreign)
    assert (code, "made with another key" in said) == (3, True), said
    (state / "audit.tip").unlink()
    code, said = verified(capsys, state)
    assert (code, "audit.tip is not there" in said) == (3, True), said


def other_key(folder: Path) -> Path:
    key = folder / "other.key"
    key.touch(0o600)
    key.write_text("ab" * 32 + "\n")
    return key
