"""Nothing in the audit chain can be changed, removed, moved or cut without being found."""

# ruff: noqa: S608  numbers of ours
from __future__ import annotations

import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.chain import place
from actors.chain.checking import check
from actors.chain.macs import mac_of
from actors.journal import audit, rows
from actors.journal.retention import Retention
from tests.audit.chained import a_chain, chained, found, tampered
from tests.support.eventually import eventually

COUNT = 8


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("chain")
    a_chain(state, COUNT)
    assert check(state).is_whole
    return state


@pytest.fixture
def state(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "state"))


def dumped(journal: Path) -> object:
    db = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    try:
        return [tuple(row) for row in db.execute("SELECT * FROM audit ORDER BY seq")], rows.setting(db, "epoch")
    except (sqlite3.Error, ValueError, MemoryError):
        return None
    finally:
        db.close()


def test_a_chain_nobody_touched_is_whole(state: Path) -> None:
    verdict = check(state)
    assert (verdict.findings, verdict.rows, verdict.first, verdict.last) == ([], COUNT, 1, COUNT)


@pytest.mark.parametrize("row", range(1, COUNT + 1))
@pytest.mark.parametrize(
    "change", ["at = at + 0.001", "kind = kind || ' '", "body = replace(body, '}', ' }')", "mac = zeroblob(32)"]
)
def test_an_edited_row_is_named(state: Path, row: int, change: str) -> None:
    tampered(state, f"UPDATE audit SET {change} WHERE seq = {row}")
    assert any(text.startswith(f"row {row}: was changed") for text in found(state)), found(state)


@pytest.mark.parametrize("row", range(1, COUNT))
def test_a_removed_row_is_named(state: Path, row: int) -> None:
    tampered(state, f"DELETE FROM audit WHERE seq = {row}")
    said = found(state)
    assert said
    assert said[0].startswith(f"row {row + 1}: all rows before it were removed" if row == 1 else f"row {row}: was rem")


@pytest.mark.parametrize("row", range(2, COUNT))
def test_a_removed_row_is_found_when_the_others_are_numbered_anew(state: Path, row: int) -> None:
    tampered(state, f"DELETE FROM audit WHERE seq = {row}", f"UPDATE audit SET seq = seq - 1 WHERE seq > {row}")
    assert any(text.startswith(f"row {row}: was changed, moved") for text in found(state))


@given(st.lists(st.integers(1, COUNT), min_size=2, max_size=2, unique=True))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_swapped_rows_are_named(original: Path, tmp_path: Path, pair: list[int]) -> None:
    state = tmp_path / "-".join(map(str, pair))
    shutil.copytree(original, state, dirs_exist_ok=True)
    one, other = pair
    tampered(
        state,
        f"UPDATE audit SET seq = -1 WHERE seq = {one}",
        f"UPDATE audit SET seq = {one} WHERE seq = {other}",
        f"UPDATE audit SET seq = {other} WHERE seq = -1",
    )
    said = found(state)
    assert all(any(text.startswith(f"row {row}: ") for text in said) for row in pair), said


@pytest.mark.parametrize("kept", range(COUNT))
def test_a_cut_end_is_found_by_the_tip(state: Path, kept: int) -> None:
    tampered(state, f"DELETE FROM audit WHERE seq > {kept}")
    assert any(text.startswith(f"row {kept + 1}: the end was cut off") for text in found(state)), found(state)


def test_the_oldest_rows_are_not_removed_by_others(state: Path) -> None:
    tampered(state, "DELETE FROM audit WHERE seq <= 3")
    assert found(state)[0].startswith("row 4: all rows before it were removed, and not by the daemon")


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_of_the_file_that_changes_the_chain_is_found(
    original: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Bytes between the rows mean nothing; all that reads differently, or cannot be read, is found."""
    state = tmp_path / "flipped"
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(original, state)
    journal = state / "journal.db"
    raw = bytearray(journal.read_bytes())
    places = [at for at in range(len(raw)) if raw[at]]
    at, bit = data.draw(st.sampled_from(places)), data.draw(st.integers(0, 7))
    before = dumped(journal)
    raw[at] ^= 1 << bit
    journal.write_bytes(raw)
    if dumped(journal) != before:
        assert found(state), f"byte {at}"


@given(row=st.integers(1, COUNT), at=st.integers(0, 31), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bit_of_a_mac_counts(original: Path, tmp_path: Path, row: int, at: int, bit: int) -> None:
    state = tmp_path / "mac"
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(original, state)
    db = sqlite3.connect(state / "journal.db")
    mac = bytearray(db.execute("SELECT mac FROM audit WHERE seq = ?", (row,)).fetchone()[0])
    mac[at] ^= 1 << bit
    db.execute("UPDATE audit SET mac = ? WHERE seq = ?", (bytes(mac), row))
    db.commit()
    db.close()
    assert any(text.startswith(f"row {row}: ") for text in found(state))


def test_another_key_is_found(state: Path) -> None:
    place.key_file(state).unlink()
    place.write_key(state, place.new_key())
    said = found(state)
    assert any("the tip was made with another key" in text for text in said)
    assert any(text.startswith("row 1: was changed") for text in said)


def test_rows_sealed_with_another_key_are_found(state: Path) -> None:
    """Who may write the database, and has no key, cannot go on with the chain."""
    db = sqlite3.connect(state / "journal.db")
    seq, before = db.execute("SELECT seq, mac FROM audit ORDER BY seq DESC").fetchone()
    row = (seq + 1, 1.0, "command", "{}")
    db.execute("INSERT INTO audit VALUES (?,?,?,?,?)", (*row, mac_of(bytes(32), before, row)))
    db.commit()
    db.close()
    assert found(state) == [f"row {seq + 1}: was changed, moved or put in: it does not fit to the row before it"]


def test_an_edited_tip_and_an_older_one_are_found(state: Path) -> None:
    tip = place.own_tip(state)
    old = tip.read_text()
    with chained(state) as one:
        one.note("command", text="one more")
        one.until_anchored()
    new = tip.read_text()
    tip.write_text(new.replace(f'"seq": {COUNT + 1}', f'"seq": {COUNT}'))
    assert any("the tip was changed" in text for text in found(state))
    tip.write_text(old)  # an older one fits to any longer chain: only a second place tells
    second = state / "elsewhere.tip"
    second.write_text(new)
    assert found(state, second) == []
    tampered(state, f"DELETE FROM audit WHERE seq > {COUNT}")
    assert any("the end was cut off" in text and "elsewhere" in text for text in found(state, second))


def test_a_missing_tip_or_key_is_no_whole_chain(state: Path) -> None:
    place.own_tip(state).unlink()
    assert any("whether the end was cut off cannot be told" in text for text in found(state))
    place.key_file(state).unlink()
    assert any("without the key nothing can be checked" in text for text in found(state))


def test_the_key_is_private_and_not_in_the_database(state: Path) -> None:
    file = place.key_file(state)
    key = place.read_key(state)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    raw = (state / "journal.db").read_bytes()
    assert key not in raw
    assert key.hex().encode() not in raw
    file.chmod(0o640)
    assert any("may be used by others" in text for text in found(state))


def test_the_next_daemon_finds_the_cut_says_it_and_it_stays_on_record(state: Path) -> None:
    tampered(state, f"DELETE FROM audit WHERE seq > {COUNT - 3}")
    with chained(state) as one:
        eventually(lambda: one.alarms, within_s=30)
        assert "the end was cut off" in one.alarms[0]
        one.until_anchored()
        one.note("command", text="later")
        one.until_anchored()
    assert any("the daemon found: row 6: the end was cut off" in text for text in found(state)), found(state)


def test_a_journal_that_was_taken_away_is_found(state: Path) -> None:
    for file in state.glob("journal.db*"):
        file.unlink()
    with chained(state) as one:
        eventually(lambda: one.alarms, within_s=30)
        one.until_anchored()
    assert any("the daemon found" in text and "begun anew" in text for text in found(state)), found(state)


def test_rows_and_tip_taken_away_together_are_found(state: Path) -> None:
    tampered(state, "DELETE FROM audit")
    place.own_tip(state).unlink()
    with chained(state) as one:
        eventually(lambda: one.alarms, within_s=30)
        one.until_anchored()
    assert any("the daemon found" in text for text in found(state))


def test_a_cut_while_the_daemon_runs_is_found_at_the_next_row(state: Path) -> None:
    with chained(state) as one:
        one.until_anchored()
        tampered(state, f"DELETE FROM audit WHERE seq > {COUNT - 2}")
        one.note("command", text="after the cut")
        eventually(lambda: one.alarms, within_s=30)
        one.until_anchored()
    assert any("the daemon found" in text for text in found(state))


def test_a_second_place_is_written_too(tmp_path: Path) -> None:
    second = tmp_path / "other" / "tip"
    second.parent.mkdir()
    with chained(tmp_path / "state", second=second) as one:
        one.note("command", text="x")
        one.until_anchored()
        eventually(lambda: second.exists() and second.read_text() == place.own_tip(one.state).read_text(), within_s=30)
    assert found(tmp_path / "state", second) == []
    assert one.alarms == []


def test_what_was_forgotten_on_purpose_leaves_a_whole_chain(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with chained(state, retention=Retention(audit=10)) as one:
        for number in range(60):
            one.note("command", text=str(number))

        def first() -> int:
            return int(one.journal.read(lambda db: db.execute("SELECT min(seq) FROM audit").fetchone()[0]))

        eventually(lambda: first() > 30, within_s=30, what="rows are forgotten")
        one.until_anchored()
        began = first()
    assert found(state) == []
    tampered(state, f"DELETE FROM audit WHERE seq = {began}")
    assert any("all rows before it were removed, and not by the daemon" in text for text in found(state))


def test_work_that_failed_leaves_no_row(tmp_path: Path) -> None:

    def half(db: sqlite3.Connection) -> None:
        audit.note(db, 1.0, "command", {"text": "never"})
        raise ValueError("no")

    with chained(tmp_path / "state") as one:
        one.until_anchored()
        before = one.last()
        with pytest.raises(ValueError, match="no"):
            one.journal.submit(half).result(30)
        one.note("command", text="next")
        assert one.last() == before + 1
        one.until_anchored()
    assert found(tmp_path / "state") == []
