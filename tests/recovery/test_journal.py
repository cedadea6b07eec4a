"""The journal: what is acknowledged is on disk, whatever kills the writer; what cannot be written is said."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from actors.journal import journal as journal_module
from actors.journal import rows, runs
from actors.journal.alert_batches import NewDecision, new_alert, record_decisions, store_alerts
from actors.journal.events import ensure_epoch
from actors.journal.journal import Journal
from actors.journal.rows import AlertConflict
from actors.journal.schema import JournalTrouble
from runbooks.engine_words import Kind, Record
from runbooks.model import Status
from tests.support.eventually import eventually
from tests.system.small_disk import make_writable, needs_root, read_only

FACTS = {"type": "service_failure", "service": "a"}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.db")
    made.start()
    yield made
    made.close()


def store(journal: Journal, msg_id: str, **more: object) -> rows.StoredAlert:
    return journal.submit(lambda db: put(db, msg_id, FACTS | more)).result(10)


def put(db: sqlite3.Connection, msg_id: str, facts: Mapping[str, object] = FACTS) -> rows.StoredAlert:
    (stored,) = store_alerts(db, [new_alert("c", msg_id, facts, 1.0)])
    if isinstance(stored, AlertConflict):
        raise stored
    return stored


def test_it_promises_what_it_needs(journal: Journal) -> None:
    def pragmas(db: sqlite3.Connection) -> list[object]:
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "foreign_keys")]

    assert journal.submit(pragmas).result(10) == ["wal", 2, 1]
    assert (journal.path.stat().st_mode & 0o777) == 0o600


def test_an_alert_is_new_once_and_another_body_under_its_id_is_a_conflict(journal: Journal) -> None:
    first = store(journal, "alert-01")
    again = store(journal, "alert-01")
    assert (first.is_new, again.is_new, again.seq) == (True, False, first.seq)
    with pytest.raises(AlertConflict, match="alert-01"):
        store(journal, "alert-01", message="other")
    assert len(journal.read(lambda db: rows.alerts(db, 10))) == 1


def test_a_failing_work_takes_nothing_of_its_batch_along(journal: Journal) -> None:
    gate = threading.Event()
    held = journal.submit(lambda _db: gate.wait(10))  # so that the next three share a transaction
    good = journal.submit(lambda db: put(db, "alert-01"))

    def bad(db: sqlite3.Connection) -> None:
        put(db, "alert-02")
        raise ValueError("half done")

    failed = journal.submit(bad)
    last = journal.submit(lambda db: put(db, "alert-03"))
    gate.set()
    assert held.result(10)
    assert good.result(10).is_new
    assert last.result(10).is_new
    with pytest.raises(ValueError, match="half done"):
        failed.result(10)
    stored = [alert["msg_id"] for alert in journal.read(lambda db: rows.alerts(db, 10))]
    assert stored == ["alert-03", "alert-01"]


def test_what_was_decided_and_done_is_read_back(journal: Journal) -> None:
    seq = store(journal, "alert-01").seq
    execution = rows.Execution(
        "x-1", seq, "service_failure", b"{}", "sha", "service:a", {"service": "a"}, "f", "high", 50, Status.RUNNING, 2.0
    )
    body = {"outcome": "run", "reason": "matched", "runbook": "service_failure", "execution_id": "x-1"}
    assert [alert.seq for alert in journal.read(rows.undecided)] == [seq]
    decision = NewDecision(seq, body, execution, 2.0)
    journal.submit(lambda db: record_decisions(db, [decision])).result(10)
    assert journal.read(rows.undecided) == []
    second = {**body, "execution_id": "x-2"}
    other = dataclasses.replace(execution, id="x-2")
    decision = NewDecision(seq, second, other, 3.0)
    (stands,) = journal.submit(lambda db: record_decisions(db, [decision])).result(10)
    assert stands["execution_id"] == "x-1", "an alert is decided once"
    assert journal.read(lambda db: rows.execution(db, "x-2")) is None
    assert store(journal, "alert-01").decision == body
    record = Record(Kind.INTENT, 0, "restart", 1, snapshot={"a": {"run": 1}})
    assert journal.submit(lambda db: runs.claim(db, "root/runbooks/x-1", execution, 2.5)).result(10).epoch == 1
    journal.submit(lambda db: runs.add_record(db, "x-1", 1, record, 3.0)).result(10)
    assert journal.read(lambda db: rows.records(db, "x-1")) == [(3.0, record)]
    (open_one,) = journal.read(rows.unfinished)
    assert (open_one.id, open_one.started_at, open_one.parameters) == ("x-1", 2.5, {"service": "a"})
    journal.submit(lambda db: rows.finish_execution(db, "x-1", Status.SUCCEEDED, "well", 4.0)).result(10)
    assert journal.read(rows.unfinished) == []
    assert journal.read(rows.counts) == {"succeeded": 1}
    shown = journal.read(lambda db: rows.execution(db, "x-1"))
    assert shown is not None
    assert (shown["status"], shown["alert_id"], shown["ended_at"]) == ("succeeded", "alert-01", 4.0)


def test_events_of_a_node_and_all_below_it_newest_first(journal: Journal) -> None:
    for number, path in enumerate(("root/services/a", "root/services/ab", "root/services/a/x")):
        journal.submit(lambda db, n=number, p=path: rows.add_event(db, n, p, "e", str(n), {"n": n})).result(10)  # type: ignore[misc]
    found = journal.read(lambda db: rows.events(db, "root/services/a", 10))
    assert [event["text"] for event in found] == ["2", "0"]
    assert found[0]["evidence"] == {"n": 2}


def write_much(journal: Journal, word: str, times: int) -> None:
    for number in range(times):
        large = [new_alert("c", f"{word}-{number}-{n:03}", {"x": "y" * 8000}, 1.0) for n in range(100)]
        journal.submit(lambda db, a=large: store_alerts(db, a)).result(10)  # type: ignore[misc]


def test_trap_46_a_long_reader_holds_up_neither_the_writer_nor_the_log_for_ever(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a foreign reader holds is begun anew when it goes; our own readers are cut off in time."""
    log = journal.path.with_name("journal.db-wal")
    store(journal, "alert-first")
    reader = sqlite3.connect(f"file:{journal.path}?mode=ro", uri=True)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM alerts").fetchone()
    write_much(journal, "while", 60)
    grown = log.stat().st_size
    assert grown > 40 * 1024 * 1024, "the reader held it"
    assert reader.execute("SELECT count(*) FROM alerts").fetchone() == (1,)
    monkeypatch.setattr("actors.journal.journal.MOST_LOG_BYTES", grown // 2)
    eventually(lambda: "another program" in str(journal.trouble))
    reader.close()
    numbers = itertools.count()

    def is_begun_anew() -> bool:
        before = log.stat().st_size
        write_much(journal, f"after-{next(numbers)}", 5)
        return log.stat().st_size == before

    eventually(is_begun_anew, what="a log that is begun anew instead of going on")
    assert log.stat().st_size < 2 * grown
    monkeypatch.setattr("actors.journal.journal.READ_LIMIT_S", 0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(JournalTrouble, match="interrupted"):
        journal.read(lambda db: db.execute(endless).fetchone())


def test_settings_are_remembered_over_a_restart(tmp_path: Path) -> None:
    for expected in (None, {"enabled": False}):
        journal = Journal(tmp_path / "journal.db")
        journal.start()
        assert journal.read(lambda db: rows.setting(db, "recovery")) == expected
        journal.submit(lambda db: rows.set_setting(db, "recovery", {"enabled": False})).result(10)
        journal.close()


def test_after_the_close_nothing_is_taken(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.start()
    last = journal.submit(lambda db: put(db, "alert-01"))
    journal.close()
    assert last.result(0).is_new, "what was submitted before is written"
    with pytest.raises(JournalTrouble, match="closed"):
        store(journal, "alert-02")


def test_a_writer_that_died_leaves_nobody_waiting_and_can_be_started_again(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    with monkeypatch.context() as patch:
        patch.setattr("actors.journal.journal._attempt", die)
        with pytest.raises(JournalTrouble, match="a bug of ours"):
            store(journal, "alert-01")
    assert store(journal, "alert-02").is_new
    for _ in range(2):
        journal.close()
        journal.start()
        assert journal.is_open
    assert store(journal, "alert-03").is_new


@pytest.mark.parametrize("damage", ["garbage", "a page", "another program's"])
def test_trap_45_a_damaged_file_is_moved_aside_and_said(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.db"
    if damage == "another program's":
        other = sqlite3.connect(path)
        other.execute("PRAGMA application_id=12345")
        other.execute("CREATE TABLE t(x)")
        other.close()
    else:
        first = Journal(path)
        first.start()
        for number in range(200):
            first.submit(lambda db, n=number: put(db, f"alert-{n:04}")).result(10)  # type: ignore[misc]
        first.close()
        raw = bytearray(path.read_bytes())
        raw[0 if damage == "garbage" else 4096 : 8192] = b"\x5a" * (8192 - (0 if damage == "garbage" else 4096))
        path.write_bytes(raw)
    journal = Journal(path)
    journal.start()
    assert journal.trouble is not None
    assert "kept as journal.db.corrupt-" in journal.trouble
    assert len(list(tmp_path.glob("journal.db.corrupt-*"))) >= 1
    assert store(journal, "alert-new1").is_new
    journal.close()


WRITER = """
import sys
from pathlib import Path
from actors.journal.alert_batches import new_alert, store_alerts
from actors.journal.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.start()
number = int(sys.argv[2])
while True:
    futures = []
    for _ in range(20):
        number += 1
        name = f"alert-{number:08}"
        alert = new_alert("c", name, {"type": "t"}, 1.0)
        futures.append((name, journal.submit(lambda db, a=alert: store_alerts(db, [a]))))
    for name, future in futures:
        future.result()
        print(name, flush=True)
"""


def test_trap_1_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    acknowledged: list[str] = []
    for attempt in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(attempt * 1_000_000)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged += [writer.stdout.readline().strip() for _ in range(150 + attempt * 37)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
        writer.wait()
        writer.stdout.close()
    journal = Journal(path)
    journal.start()
    assert journal.trouble is None
    stored = {alert["msg_id"] for alert in journal.read(lambda db: rows.alerts(db, 100_000))}
    journal.close()
    assert len(acknowledged) > 600
    assert set(acknowledged) <= stored


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_trap_43_a_full_disk_is_said_and_writing_goes_on_when_there_is_room(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], check=True)
    journal = Journal(small / "journal.db")
    try:
        journal.start()
        ballast = small / "ballast"
        fill(ballast)
        with pytest.raises(JournalTrouble, match="full"):
            store_many(journal)
        assert journal.is_alive
        assert "full" in str(journal.trouble)
        before = len(journal.read(lambda db: rows.alerts(db, 10_000)))
        ballast.unlink()
        eventually(lambda: store(journal, "alert-after").is_new)
        assert journal.trouble is None
        assert len(journal.read(lambda db: rows.alerts(db, 10_000))) == before + 1
    finally:
        journal.close()
        subprocess.run(["umount", str(small)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 1024)


def store_many(journal: Journal) -> None:
    for number in range(1000):
        store(journal, f"alert-{number:04}", message="x" * 2000)


def test_a_journal_that_cannot_be_opened_takes_work_and_refuses_it_until_it_can(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.mkdir()
    journal = Journal(path)
    journal.start_anyway()
    try:
        assert journal.is_open
        with pytest.raises(JournalTrouble, match="cannot be opened"):
            store(journal, "alert-1")
        assert str(path) in str(journal.trouble)
        path.rmdir()
        eventually(lambda: journal.trouble is None)
        assert store(journal, "alert-1").is_new
    finally:
        journal.close()


def test_a_removed_file_is_put_back_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path)
    journal.start()
    store(journal, "alert-1")
    path.unlink()
    store(journal, "alert-2")  # not acknowledged before it is where the next daemon finds it
    stored = [alert["msg_id"] for alert in journal.read(lambda db: rows.alerts(db, 10))]
    assert sorted(stored) == ["alert-1", "alert-2"]
    assert "was removed" in str(journal.trouble)
    assert str(journal.trouble).endswith("told for 10 min")
    journal.close()


class Later:
    """The module ``time``, with a monotonic clock that can be put forward."""

    by_s = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() + self.by_s


def test_a_mended_journal_is_shown_as_such_for_ten_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = Later()
    monkeypatch.setattr(journal_module, "time", later)
    journal = Journal(tmp_path / "journal.db")
    journal.start()
    for number in range(2):
        journal.path.unlink()
        store(journal, f"alert-{number}")
        later.by_s += 540.0
        assert "was removed" in str(journal.trouble)
        later.by_s += 60.0
        assert journal.trouble is None
    journal.close()


def test_a_file_put_in_its_place_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path)
    journal.start()
    store(journal, "alert-1")
    (tmp_path / "other").write_text("a stranger's")
    (tmp_path / "other").replace(path)
    store(journal, "alert-2")
    (aside,) = [one for one in tmp_path.iterdir() if "replaced" in one.name and one.name.count("-") == 1]
    assert aside.read_text() == "a stranger's"
    assert len(journal.read(lambda db: rows.alerts(db, 10))) == 2
    journal.close()


def test_a_stranger_who_opens_and_closes_the_file_takes_nothing_away(journal: Journal) -> None:
    """With `sqlite3 journal.db`, say. The writer looks after its file all the time; that must not cost it its locks."""
    place = journal._place
    assert place is not None
    assert place.looked_into() is None
    look = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); print(*db.execute(sys.argv[2]).fetchone()); db.close()"
    )
    for number in range(1, 4):
        store(journal, f"alert-{number:02d}")
        words = [sys.executable, "-c", look, str(journal.path), "SELECT count(*) FROM alerts"]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        assert done.stdout.strip() == str(number)


def test_what_is_remembered_at_the_opening_may_fail_and_the_writer_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may become full between the opening and the first thing that is written."""
    monkeypatch.setattr("actors.journal.journal.LOOK_S", 0.05)
    tried: list[int] = []

    def on_open(_db: sqlite3.Connection) -> None:
        tried.append(len(tried))
        if len(tried) < 4:
            raise sqlite3.OperationalError("database or disk is full")

    made = Journal(tmp_path / "journal.db", on_open)
    made.start_anyway()
    try:
        assert made.trouble is not None
        assert "disk is full" in made.trouble
        eventually(lambda: made.trouble is None)
        assert store(made, "alert-01").is_new
        assert len(tried) == 4
    finally:
        made.close()


@needs_root
def test_a_journal_opened_at_the_last_moment_of_a_read_only_disk_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite opens a file for reading when it cannot for writing, and says nothing: nothing could ever be written."""
    monkeypatch.setattr("actors.journal.journal.LOOK_S", 0.05)
    made, folder = Journal(tmp_path / "lived" / "journal.db", _as_the_daemon_does), tmp_path / "killed"
    made.start()
    assert store(made, "alert-01").is_new
    shutil.copytree(made.path.parent, folder)  # with its write-ahead log, as a SIGKILL leaves it
    made.close()
    chmod = Path.chmod

    def chmod_of_a_disk_that_is_writable_again(path: Path, mode: int) -> None:
        make_writable(folder)
        chmod(path, mode)

    with read_only(folder):
        monkeypatch.setattr(Path, "chmod", chmod_of_a_disk_that_is_writable_again)
        made = Journal(folder / "journal.db", _as_the_daemon_does)
        made.start_anyway()
        try:
            assert eventually(lambda: _stored_or_none(made, "alert-02")).is_new
            assert made.trouble is None
        finally:
            made.close()


def _as_the_daemon_does(db: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.OperationalError):
        ensure_epoch(db)


def _stored_or_none(journal: Journal, msg_id: str) -> rows.StoredAlert | None:
    try:
        return store(journal, msg_id)
    except JournalTrouble:
        return None
