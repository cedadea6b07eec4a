"""Logs of services: rotation under a writer that holds the file, last lines, following."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.log_rotation import backup_path, rotate_if_needed
from actors.runtimes.base import LaunchSpec
from actors.service_logs import follow, log_path, tail
from tests.runtimes.worlds import LONG_S, Exits, ProcessPlace
from tests.support.eventually import eventually


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = log_path(tmp_path, "a")
    path.parent.mkdir()
    return path


def test_where_a_log_is(tmp_path: Path) -> None:
    assert log_path(tmp_path, "a") == tmp_path / "logs" / "a.log"


def test_a_short_or_missing_log_is_left_alone(log: Path) -> None:
    assert not rotate_if_needed(log, 10, 3)
    log.write_bytes(b"0123456789")
    assert not rotate_if_needed(log, 10, 3)
    assert log.read_bytes() == b"0123456789"


def test_the_newest_bytes_are_kept_in_as_many_files_as_asked(log: Path) -> None:
    for number in range(5):
        log.write_bytes(b"%d" % number * 11)
        assert rotate_if_needed(log, 10, 2)
        assert log.read_bytes() == b""
    assert backup_path(log, 1).read_bytes() == b"4" * 11
    assert backup_path(log, 2).read_bytes() == b"3" * 11
    assert not backup_path(log, 3).exists()


def test_of_a_log_that_ran_away_only_the_end_is_kept(log: Path) -> None:
    log.write_bytes(b"old" * 100 + b"new-bytes!")
    assert rotate_if_needed(log, 10, 1)
    assert backup_path(log, 1).read_bytes() == b"new-bytes!"


def test_no_backups_means_none(log: Path) -> None:
    log.write_bytes(b"x" * 100)
    assert rotate_if_needed(log, 10, 0)
    assert log.read_bytes() == b""
    assert [path.name for path in log.parent.iterdir()] == ["a.log"]


def test_a_running_service_writes_on_after_rotation(process_place: ProcessPlace, tmp_path: Path) -> None:
    path = log_path(tmp_path, "a")
    command = ("sh", "-c", "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; sleep 0.005; done")
    on_exit = Exits()
    process_place.daemon().launch(LaunchSpec("a", command, log_path=path), 1, on_exit)
    rotations = 0
    while not on_exit.seen:
        rotations += rotate_if_needed(path, 500, 100)
        eventually(lambda: on_exit.seen or path.stat().st_size > 500, within_s=LONG_S)
    assert rotations > 2
    numbers = sorted((int(path.suffix[1:]) for path in path.parent.glob("a.log.*")), reverse=True)
    parts = [backup_path(path, number).read_bytes() for number in numbers] + [path.read_bytes()]
    assert b"\0" not in b"".join(parts)  # an append, not a write at the old place
    lines = b"".join(parts).decode().splitlines()
    assert lines[-1] == "line 400"
    assert len(lines) > 350  # a line may fall between the last copy and the truncation, no more
    assert len(set(lines)) == len(lines)


def test_tail(log: Path) -> None:
    assert tail(log, 3) == []
    log.write_bytes(b"one\n\ntwo\nthree\nunfin")
    assert tail(log, 3) == ["two", "three", "unfin"]
    assert tail(log, 4) == ["", "two", "three", "unfin"]
    assert tail(log, 100) == ["one", "", "two", "three", "unfin"]
    assert tail(log, 0) == []


def test_tail_of_long_and_broken_text(log: Path) -> None:
    log.write_bytes(b"x" * 300_000 + b"\n" + b"\xff\xfe\n" + "grün\n".encode())
    assert tail(log, 2) == ["\ufffd\ufffd", "grün"]
    assert tail(log, 3)[0] == "x" * 8192 + " [... cut: a line of 300000 bytes]"


def test_tail_goes_on_into_the_rotated_file(log: Path) -> None:
    log.write_bytes(b"one\ntwo\nthree\n")
    assert rotate_if_needed(log, 10, 2)
    log.write_bytes(b"four\n")
    assert tail(log, 3) == ["two", "three", "four"]


class Following:
    """``follow`` on a thread of its own."""

    def __init__(self, path: Path, lines: int) -> None:
        self.lines: list[str] = []
        self.closed = threading.Event()
        self._source: Iterator[str] = follow(path, self.closed, lines=lines)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        for line in self._source:
            self.lines.append(line)

    def shows(self, *expected: str) -> None:
        eventually(lambda: self.lines == list(expected), within_s=LONG_S, what=f"{expected} (have {self.lines})")


@pytest.fixture
def following(log: Path) -> Iterator[Following]:
    log.write_text("old\nzero\none\nunfin")
    made = Following(log, 2)
    yield made
    made.closed.set()
    made.thread.join(LONG_S)
    assert not made.thread.is_alive()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_follow_shows_the_last_lines_then_the_new_ones_whole(following: Following, log: Path) -> None:
    following.shows("zero", "one")
    append(log, "ished\ntwo\nthr")
    following.shows("zero", "one", "unfinished", "two")
    append(log, "ee\n")
    following.shows("zero", "one", "unfinished", "two", "three")


def test_follow_survives_rotation_without_losing_a_line(following: Following, log: Path) -> None:
    following.shows("zero", "one")
    append(log, "ished\nbefore\n")
    assert rotate_if_needed(log, 20, 2)
    append(log, "after, and longer than what was there before the rotation took place\n")
    following.shows(
        "zero", "one", "unfinished", "before", "after, and longer than what was there before the rotation took place"
    )


def test_follow_survives_a_log_emptied_or_removed_by_hand(following: Following, log: Path) -> None:
    following.shows("zero", "one")
    log.write_text("")
    log.unlink()
    log.write_text("fresh\n")
    eventually(lambda: "fresh" in following.lines, within_s=LONG_S)


def test_an_empty_log_has_no_lines(log: Path) -> None:
    log.touch()
    assert tail(log, 10) == []
