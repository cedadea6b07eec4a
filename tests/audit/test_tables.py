"""What the tables hold back and count agrees with the chain, also when somebody changes it while no daemon runs."""

# ruff: noqa: S608  names of ours
from __future__ import annotations

import json
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

import pytest

from actors.chain import place
from actors.chain.macs import BEGIN, Tip, key_id, mac_of, tip_text
from actors.journal import audit, events, holds, rows, runs
from actors.journal.alert_batches import new_alert, store_alerts
from actors.journal.journal import Journal
from actors.journal.retention import Retention
from actors.journal.schema import APPLICATION_ID, MIGRATIONS
from guardian_link import GuardianClient
from runbooks.approval import Say
from runbooks.deciding.timing import Moment
from tests.audit.chained import Chained, chained, found, tampered
from tests.recovery.place import Place, World, recovering
from tests.recovery.test_deciding import failure, own
from tests.runbooks.files import GOOD, changed
from tests.support.eventually import eventually

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("audit-tables")]
AGES: Final = 3600.0 * 24 * 400
LATER: Final = ("adopted", "latched", "released", "silenced", "unsilenced", "escalated", "bodies_forgotten")
"""Kinds of rows that a chain of before has none of."""
COPY: Final = """
INSERT INTO executions SELECT 'x-forged', alert_seq, runbook, source, sha256, target, parameters, fingerprint, severity,
  priority, '{}', '', 1.0, null, null, null, null, null, 0, 0, null FROM executions LIMIT 1
"""


def now() -> Moment:
    return Moment(time.time(), "boot", 1000.0)


def held_back(one: Chained) -> None:
    """Two latches and two silences that stand, and one of each that does not any more."""

    def write(db: sqlite3.Connection) -> None:
        for target in ("service:a", "service:b", "service:c"):
            runs.latch(db, target, "x-1", 1.0, "rolled back, not sure")
        runs.latch(db, "service:a", "x-2", 2.0, "once more")
        assert holds.release(db, "service:c", 3.0)
        assert not holds.release(db, "service:d", 3.0)
        for name in ("s-1", "s-2", "s-3"):
            silence = holds.StoredSilence(name, ("type=x",), "me", "why", now().wall_s, AGES, AGES)
            holds.add_silence(db, silence, now())
        assert holds.end_silence(db, "s-3", "you", now()) is not None
        holds.end_silence(db, "s-3", "again", now())

    one.journal.submit(write).result(30)
    one.until_anchored()


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("held")
    with chained(state) as one:
        held_back(one)
    assert found(state) == []
    return state


@pytest.fixture
def state(held: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(held, tmp_path / "state"))


CHANGES: Final = {
    "DELETE FROM latches WHERE target='service:a'": "the latch of service:a was removed, and nobody released it",
    "UPDATE latches SET why='x' WHERE target='service:b'": "the latch of service:b was changed",
    "UPDATE latches SET execution_id=NULL WHERE target='service:a'": "the latch of service:a was changed",
    "INSERT INTO latches VALUES ('service:c', 'x-1', 1.0, 'no')": "the latch of service:c was put in: nothing in the"
    " chain latched it",
    "DELETE FROM silences WHERE id='s-1'": "silence s-1 was removed from the journal",
    "INSERT INTO silences VALUES ('s-9','[\"type=~.*\"]','me','',9e9,'q/1',1e6,NULL,NULL)": "silence s-9 was put in:"
    " nobody is on record for it",
    "UPDATE silences SET for_s=9e9 WHERE id='s-2'": "silence s-2 was changed",
    "UPDATE silences SET mark='x/1' WHERE id='s-2'": "silence s-2 was changed",
    "UPDATE silences SET matchers='[\"type=~.*\"]' WHERE id='s-2'": "silence s-2 was changed",
    "UPDATE silences SET ended_at=NULL, ended_by=NULL WHERE id='s-3'": "silence s-3 was changed",
    "UPDATE silences SET ended_at=1.0, ended_by='me' WHERE id='s-1'": "silence s-1 was changed",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_latch_or_silence_is_found(state: Path, change: str) -> None:
    tampered(state, change)
    assert found(state) == [CHANGES[change]]
    with chained(state) as one:  # and the daemon that comes takes nothing of it over
        one.note("command", path="root", text="x")
        one.until_anchored()
    assert found(state) == [CHANGES[change]]


@pytest.mark.parametrize("change", [None, *CHANGES])
def test_it_is_found_when_the_rows_that_told_of_it_are_forgotten(state: Path, change: str | None) -> None:
    for _ in range(2):  # what was carried once is carried again
        forget_rows(state)
    tampered(state, "DELETE FROM silences WHERE id='s-3'", *([change] if change else []))
    said = CHANGES.get(change or "", "")
    assert found(state) == ([said] if said and "s-3" not in said else [])


def forget_rows(state: Path) -> None:
    """All rows that are there, by their number."""
    with chained(state, retention=Retention(audit=20)) as one:
        last = one.last()
        for _ in range(last // 10 + 6):
            for _ in range(10):
                one.note("command", path="root", text="x")
            one.until_anchored()  # the tip's row is not forgotten
        eventually(lambda: first_of(one.journal) > last, within_s=30, what="rows are forgotten")
        one.until_anchored()


def first_of(journal: Journal) -> int:
    return int(journal.read(lambda db: db.execute("SELECT min(seq) FROM audit").fetchone()[0]))


def as_before(state: Path) -> None:
    """The chain as a daemon left it that did not yet tell of all, with its tip."""
    key = place.read_key(state)
    db = sqlite3.connect(state / "journal.db", isolation_level=None)
    before, seq = BEGIN, 0
    old = db.execute("SELECT at, kind, body FROM audit ORDER BY seq").fetchall()
    db.execute("DELETE FROM audit")
    for at, kind, text in old:
        if kind not in LATER:
            body = {name: one for name, one in json.loads(text).items() if name not in ("mark", "answer")}
            row = (seq := seq + 1, at, kind, json.dumps(body))
            before = mac_of(key, before, row)
            db.execute("INSERT INTO audit VALUES (?,?,?,?,?)", (*row, before))
    epoch = str(rows.setting(_mapped(db), "epoch"))
    db.close()
    place.write_tip_file(place.own_tip(state), tip_text(key, Tip(epoch, seq, before, key_id(key))))


def _mapped(db: sqlite3.Connection) -> sqlite3.Connection:
    db.row_factory = sqlite3.Row
    return db


def test_a_chain_of_before_begins_to_tell_of_them_with_the_first_start(state: Path) -> None:
    with chained(state) as one:
        one.note("command", path="root", text="x")
        one.until_anchored()
    as_before(state)
    assert found(state) == []
    for _ in range(2):
        with chained(state) as one:
            one.note("command", path="root", text="x")
            one.until_anchored()
        assert found(state) == []
    tampered(state, "DELETE FROM latches", "DELETE FROM silences")
    assert len(found(state)) == 2 + 3


def test_a_journal_that_was_lost_is_missed_and_nothing_else(state: Path) -> None:
    for file in state.glob("journal.db*"):
        file.unlink()
    with chained(state) as one:
        held_back(one)
        one.until_anchored()
    said = found(state)
    assert said
    assert all("the daemon found: the journal the tip knows" in text for text in said), said


# -- runs -------------------------------------------------------------------------------------------------------------

CAREFUL: Final = {**changed("/id", "careful"), "approval": {"timeout": "10m"}}


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state with one run, ``careful``, that awaits approval."""
    folder = tmp_path_factory.mktemp("waiting")
    with begun(folder) as place_, GuardianClient(place_.address) as guardian:
        assert guardian.send(failure()).execution_id is not None
        eventually(lambda: "plan" in place_.recovery.approvals.waiting()[0], within_s=30, what="it is asked for")
    assert found(folder / "state") == []
    return folder


def begun(folder: Path, world: World | None = None) -> Any:
    return recovering(folder / "state", world, runbooks=own(folder / "books", CAREFUL))


@pytest.fixture
def folder(waiting: Path, tmp_path: Path) -> Path:
    copy = shutil.copytree(waiting, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
    return Path(copy)


def status_of(one: Place, name: str) -> str:
    return str((one.recovery.records.execution(name) or {})["status"])


def told_of(one: Place) -> str:
    """What people are told of runs that came to no good end."""
    return " ".join(alert["message"] for alert in one.recovery.records.alerts(9) if alert["type"] == "recovery_failed")


NEVER: Final = "not carried out: no row of the audit chain says that it was decided"


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_run_that_was_put_in_is_found_and_not_carried_out(folder: Path, status: str) -> None:
    state = folder / "state"
    tampered(state, COPY.format(status))
    stranger = "execution x-forged is not in the chain: it was put in, or the chain was begun anew"
    assert found(state) == [stranger]
    with begun(folder) as one:
        eventually(lambda: status_of(one, "x-forged") == "rejected", within_s=30, what="it is refused")
        eventually(lambda: NEVER in told_of(one), within_s=30, what="the alert")
        assert one.world.restarts == []
    said = found(state)
    assert stranger in said
    assert any(text.endswith(f"the daemon found: execution x-forged is {NEVER}") for text in said), said


GOES: Final = "status='queued', started_mark=NULL"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (f"UPDATE executions SET {GOES}", "nobody approved it"),
        (f"""UPDATE executions SET {GOES}, parameters='{{"service":"b"}}'""", "it is not what was decided"),
        (f"UPDATE executions SET {GOES}, target='service:b'", "it is not what was decided"),
        (f"UPDATE executions SET {GOES}, source=CAST(replace(source, '5s', '6s') AS BLOB)", "it is not what was"),
    ],
)
def test_a_run_that_was_changed_is_not_carried_out(folder: Path, change: str, why: str) -> None:
    state = folder / "state"
    tampered(state, change)
    assert found(state)
    with begun(folder) as one:
        eventually(lambda: one.recovery.records.executions(1)[0]["status"] == "rejected", within_s=30, what="refused")
        assert why in one.recovery.records.executions(1)[0]["detail"]
        assert one.world.restarts == []


def test_a_row_without_a_seal_vouches_for_nothing(folder: Path) -> None:
    state = folder / "state"
    tampered(
        state,
        COPY.format("queued"),
        "INSERT INTO audit SELECT (SELECT max(seq) FROM audit) + 1, at, kind, replace(replace(body, execution_id,"
        " 'x-forged'), 'awaiting_approval', 'run'), zeroblob(32) FROM audit, (SELECT id AS execution_id FROM executions"
        " WHERE id <> 'x-forged') WHERE kind='decided'",
    )
    with begun(folder) as one:
        eventually(lambda: status_of(one, "x-forged") == "rejected", within_s=30, what="it is refused")
        assert one.world.restarts == []


def test_a_run_that_waits_is_carried_out_when_the_row_of_its_decision_is_forgotten(folder: Path) -> None:
    state = folder / "state"
    forget_rows(state)
    assert found(state) == []
    with begun(folder) as again:
        (asked,) = again.recovery.approvals.waiting()
        name = asked["execution_id"]
        again.recovery.approvals.vote(name, "user:ann", Say.APPROVE, asked["plan"], "it is well")
        eventually(lambda: status_of(again, name) == "succeeded", within_s=30, what="it is carried out")
    assert found(state) == []


@pytest.mark.parametrize(
    ("steps", "end", "latched"), [("", "rejected", []), ("WHERE 0", "unknown", ["service:a"])], ids=["none", "some"]
)
def test_an_ended_run_that_is_opened_again_is_not_carried_out_twice(
    tmp_path: Path, steps: str, end: str, latched: list[str]
) -> None:
    with recovering(tmp_path) as one, GuardianClient(one.address) as guardian:
        name = guardian.send(failure()).execution_id or ""
        eventually(lambda: status_of(one, name) == "succeeded", within_s=30)
    assert found(tmp_path) == []
    tampered(tmp_path, f"UPDATE executions SET {GOES}, ended_at=NULL, started_at=NULL", f"DELETE FROM steps {steps}")
    assert found(tmp_path)
    with recovering(tmp_path) as again:
        eventually(lambda: status_of(again, name) == end, within_s=30, what="it is refused")
        assert again.world.restarts == []
        assert [one["target"] for one in again.recovery.held.latches()] == latched


def test_a_run_put_in_as_ended_long_ago_is_counted(folder: Path) -> None:
    """No time that is written of it makes it older than a chain that was begun with an empty journal."""
    tampered(folder / "state", COPY.format("succeeded"), "UPDATE executions SET ended_at=2.0 WHERE id='x-forged'")
    assert found(folder / "state") == ["row 1: runs older than the chain: 1, and it began with 0: some were put in"]


def old_journal(state: Path) -> None:
    """One of the version before there was a chain, with a run that has ended and one that has not begun."""
    state.mkdir()
    source = json.dumps(GOOD).encode()
    db = sqlite3.connect(state / "journal.db", isolation_level=None)
    at = time.time() - 1000
    db.executescript(f"{MIGRATIONS[1]}; {MIGRATIONS[2]}; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=2")
    facts = {"type": "service_failure", "service": "a"}
    store_alerts(db, [new_alert("local", f"alert-{n}", facts, at) for n in range(2)])
    for number, (status, ended_at) in enumerate((("succeeded", at + 2), ("queued", None)), 1):
        values = (f"x-{number}", number, "restart_it", source, audit.digest(source), "service:a", '{"service":"a"}')
        db.execute(
            "INSERT INTO executions VALUES (?,?,?,?,?,?,?,'f','high',50,?,'',?,NULL,?)", (*values, status, at, ended_at)
        )
        db.execute(
            "UPDATE alerts SET outcome='run', execution_id=?, decided_at=2.0 WHERE seq=?", (f"x-{number}", number)
        )
    db.close()


def test_a_journal_of_before_the_chain_goes_on_and_is_whole(tmp_path: Path) -> None:
    state = tmp_path / "state"
    old_journal(state)
    with recovering(state) as one:
        eventually(lambda: status_of(one, "x-2") == "succeeded", within_s=30, what="the run of before")
        assert one.world.restarts == ["a"]
    assert found(state) == []
    with recovering(state):
        pass
    assert found(state) == []
    tampered(state, COPY.format("succeeded"), "UPDATE executions SET ended_at=2.0 WHERE id='x-forged'")
    assert found(state) == ["row 1: runs older than the chain: 2, and it began with 1: some were put in"]


def test_nothing_is_taken_over_when_a_chain_is_taken_away(tmp_path: Path) -> None:
    state = tmp_path / "state"
    old_journal(state)
    tip = state / place.TIP_NAME
    tip.write_text("there was one")
    with recovering(state) as one:
        eventually(lambda: status_of(one, "x-2") == "rejected", within_s=30, what="it is refused")
        assert one.world.restarts == []


# -- what counts, and what was answered -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state with a run that failed, and its ladder."""
    folder = tmp_path_factory.mktemp("climbed")
    first = {**GOOD, "id": "first", "escalate": [{"runbook": "second", "after": "100ms"}, {"notify": "call somebody"}]}
    second = {**changed("/id", "second"), "match": {"field": "/type", "op": "eq", "value": "never"}}
    books = own(folder / "books", first, second)
    with (
        recovering(folder / "state", World(refused={"a"}), runbooks=books) as one,
        GuardianClient(one.address) as guardian,
    ):
        guardian.send(failure())
        told = 'SELECT count(*) FROM alerts WHERE body LIKE \'%"type":"escalation"%\''
        eventually(
            lambda: one.recovery._journal.read(lambda db: db.execute(told).fetchone()[0]) == 1,
            within_s=60,
            what="the ladder's end",
        )
    assert found(folder / "state") == []
    return folder / "state"


@pytest.fixture
def after(climbed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(climbed, tmp_path / "state", ignore=shutil.ignore_patterns("*.sock")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE executions SET decided_mark='q/1'", "its marks are not what the chain says"),
        ("UPDATE executions SET started_mark=NULL", "its marks are not what the chain says"),
        ("UPDATE executions SET ended_mark='zz/0'", "its marks are not what the chain says"),
        ("UPDATE alerts SET body='' WHERE execution_id IS NOT NULL", "the alert it answers was changed"),
        ("UPDATE alerts SET outcome='no_match' WHERE execution_id IS NOT NULL", "it is not what was decided"),
        ("UPDATE alerts SET execution_id=NULL WHERE execution_id IS NOT NULL", "it is not what was decided"),
        ("DELETE FROM escalations", "its ladder is not what the chain says"),
        ("DELETE FROM escalations WHERE rung=1", "its ladder is not what the chain says"),
        ("UPDATE escalations SET at=at-9", "its ladder is not what the chain says"),
        ("UPDATE escalations SET rung=rung+9", "its ladder is not what the chain says"),
        (
            "INSERT INTO escalations SELECT root, 7, at, mark, NULL, '' FROM escalations",
            "its ladder is not what the chain says",
        ),
    ],
)
def test_what_counts_and_what_was_answered_cannot_be_changed(after: Path, change: str, said: str) -> None:
    tampered(after, change.replace("INSERT", "INSERT OR IGNORE"))
    texts = found(after)
    assert texts
    assert all(text.endswith(said) for text in texts), texts


def test_a_chain_of_before_says_nothing_of_them_and_is_whole(after: Path) -> None:
    as_before(after)
    assert found(after) == []
    with chained(after) as one:
        one.note("command", path="root", text="x")
        one.until_anchored()
    assert found(after) == []
    tampered(after, "UPDATE executions SET ended_mark='zz/0'", "DELETE FROM escalations")
    assert found(after) == [], "rows without them are taken as they are"


def test_bodies_that_are_forgotten_by_age_are_missed_by_nobody(after: Path) -> None:
    def bodies(journal: Journal) -> int:
        return int(journal.read(lambda db: db.execute("SELECT count(*) FROM alerts WHERE body<>''").fetchone()[0]))

    with chained(after, retention=Retention(bodies=1)) as one:
        eventually(lambda: bodies(one.journal) == 1, within_s=30, what="bodies are forgotten")
        one.until_anchored()
    assert found(after) == []
    forget_rows(after)
    assert found(after) == []


def test_a_journal_without_a_chain_refuses_no_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", events.ensure_epoch)
    journal.start()
    try:
        assert journal.submit(lambda db: audit.why_not_ours(db, "x-1", "t", b"", "{}")).result(30) is None
    finally:
        journal.close()
