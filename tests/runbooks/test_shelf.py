"""Runbook files read again: each by itself, the last good version counts, what is the same stays the same object."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from runbooks.deciding.words import History, Outcome
from runbooks.matching import decide
from runbooks.shelf import SETTLES_NS, Shelf, differences, read_again
from tests.runbooks.files import GOOD, changed

NOW_NS = 1_800_000_000_000_000_000
ALERT = {"type": "service_failure", "service": "a", "severity": "high"}


def write(path: Path, raw: dict[str, Any] | str, age_s: float = 60.0) -> None:
    path.write_text(raw if isinstance(raw, str) else json.dumps(raw))
    changed_ns = NOW_NS - int(age_s * 1e9)
    os.utime(path, ns=(changed_ns, changed_ns))


def looked(folder: Path, before: Shelf, now_ns: int = NOW_NS) -> Shelf:
    return read_again((folder,), before, now_ns, is_patient=True)


def versions(shelf: Shelf) -> dict[str, str]:
    return {one.id: one.version for one in shelf.library.runbooks}


@pytest.fixture
def first(tmp_path: Path) -> Shelf:
    write(tmp_path / "a.json", GOOD)
    write(tmp_path / "b.json", changed("/id", "other"))
    return read_again((tmp_path,), Shelf(), NOW_NS)


def test_what_did_not_change_is_the_same_object(tmp_path: Path, first: Shelf) -> None:
    assert looked(tmp_path, first) is first
    assert read_again((tmp_path,), first, NOW_NS) is first
    write(tmp_path / "b.json", changed("/id", "other"), age_s=30)
    again = looked(tmp_path, first)
    assert again.library.runbooks is first.library.runbooks
    assert differences(first.library, again.library) == []


def test_changed_added_and_removed_files(tmp_path: Path, first: Shelf) -> None:
    write(tmp_path / "a.json", changed("/version", "2.0.0"), age_s=30)
    write(tmp_path / "c.json", changed("/id", "third"))
    (tmp_path / "b.json").unlink()
    missed = looked(tmp_path, first)
    assert versions(missed) == {"restart_it": "2.0.0", "other": "1.0.0", "third": "1.0.0"}, "it may come back"
    gone = looked(tmp_path, missed)
    assert versions(gone) == {"restart_it": "2.0.0", "third": "1.0.0"}
    assert [one.runbook_id for one in differences(first.library, gone.library)] == ["other", "restart_it", "third"]
    said = [str(one) for one in differences(first.library, gone.library)]
    assert said[0] == "runbook other is gone"
    assert said[1].startswith("runbook restart_it 1.0.0 (")
    assert gone.library.problems == ()


def test_one_that_is_gone_is_gone_at_once_when_it_is_applied(tmp_path: Path, first: Shelf) -> None:
    (tmp_path / "b.json").unlink()
    assert versions(read_again((tmp_path,), first, NOW_NS)) == {"restart_it": "1.0.0"}


@pytest.mark.parametrize("bad", ["", "{", json.dumps(GOOD)[:-9], json.dumps(changed("/actions", []))])
def test_a_bad_file_leaves_its_last_good_version_in_use_and_says_so(tmp_path: Path, first: Shelf, bad: str) -> None:
    write(tmp_path / "a.json", bad, age_s=30)
    write(tmp_path / "b.json", changed("/version", "3.0.0", changed("/id", "other")), age_s=30)
    again = looked(tmp_path, first)
    assert versions(again) == {"restart_it": "1.0.0", "other": "3.0.0"}
    problem = str(again.library.problems[0])
    assert str(tmp_path / "a.json") in problem
    assert "restart_it 1.0.0" in problem
    assert "stays in use" in problem
    assert looked(tmp_path, again) is again
    write(tmp_path / "a.json", changed("/version", "1.0.1"), age_s=20)
    mended = looked(tmp_path, again)
    assert versions(mended)["restart_it"] == "1.0.1"
    assert mended.library.problems == ()


def test_a_file_that_was_never_good_is_a_problem_and_nothing_else(tmp_path: Path, first: Shelf) -> None:
    write(tmp_path / "new.json", "{\n  broken", age_s=30)
    again = looked(tmp_path, first)
    assert versions(again) == versions(first)
    assert "stays in use" not in str(again.library.problems[0])
    assert "line 2" in str(again.library.problems[0])


def test_of_a_file_that_is_being_written_nothing_is_said_yet(tmp_path: Path, first: Shelf) -> None:
    write(tmp_path / "a.json", "{", age_s=0.1)
    assert looked(tmp_path, first).library.problems == ()
    late = looked(tmp_path, looked(tmp_path, first), NOW_NS + SETTLES_NS)
    assert len(late.library.problems) == 1
    assert versions(late) == versions(first)
    assert len(read_again((tmp_path,), first, NOW_NS).library.problems) == 1, "who applies is told at once"


def test_a_second_edit_within_one_tick_of_the_files_clock_is_seen(tmp_path: Path, first: Shelf) -> None:
    write(tmp_path / "a.json", changed("/version", "2.0.0"), age_s=0.0)
    between = looked(tmp_path, first)
    write(tmp_path / "a.json", changed("/version", "2.0.1"), age_s=0.0)
    assert versions(looked(tmp_path, between))["restart_it"] == "2.0.1"


def test_a_directory_that_cannot_be_read_keeps_what_it_had(tmp_path: Path) -> None:
    folder = tmp_path / "books"
    folder.mkdir()
    write(folder / "a.json", GOOD)
    first = read_again((folder, tmp_path / "never"), Shelf(), NOW_NS)
    assert "stays in use" not in str(first.library.problems)
    folder.rename(tmp_path / "away")
    again = looked(folder, first)
    assert versions(again) == {"restart_it": "1.0.0"}
    assert "what was read from it stays in use" in str(again.library.problems[0])


def test_a_later_directory_replaces_and_gives_back(tmp_path: Path) -> None:
    folders = (tmp_path / "one", tmp_path / "two")
    for number, folder in enumerate(folders):
        folder.mkdir()
        write(folder / "a.json", changed("/version", f"{number}.0.0"))
    first = read_again(folders, Shelf(), NOW_NS)
    assert versions(first) == {"restart_it": "1.0.0"}
    (folders[1] / "a.json").unlink()
    assert versions(read_again(folders, first, NOW_NS)) == {"restart_it": "0.0.0"}


def test_decisions_follow_and_mix_up_no_two_libraries(tmp_path: Path, first: Shelf) -> None:
    """Deciding remembers by identity: what it remembers must be of the library it is asked about."""
    shelf = first
    for number in range(40):
        (tmp_path / "b.json").unlink(missing_ok=True)
        write(tmp_path / "a.json", changed("/target", f"thing-{number}:{{service}}"))
        shelf = read_again((tmp_path,), shelf, NOW_NS)
        decision = decide(ALERT, shelf.library, History(), 1000.0)
        assert (decision.outcome, decision.target) == (Outcome.RUN, f"thing-{number}:a")
        assert decision.runbook is shelf.library.runbooks[0]
