"""The recovery switch counts before it is remembered, and is remembered wherever there is room."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from actors.journal import rows
from actors.journal.journal import Journal
from actors.runbook import StopPolicy, StopRun
from supervisors.recovery_switch import FILE_NAME, RecoverySwitch


@dataclass
class Desk:
    journal: Journal
    switch: RecoverySwitch
    heard: list[tuple[bool, StopRun | None]] = field(default_factory=list)


@contextmanager
def desk(folder: Path, *, by_file: bool = True) -> Iterator[Desk]:
    heard: list[tuple[bool, StopRun | None]] = []

    def heed(enabled: bool, stop: StopRun | None) -> None:
        heard.append((enabled, stop))

    switches: list[RecoverySwitch] = []
    journal = Journal(folder / "journal.db", lambda db: switches[-1].journal_opened(db))  # noqa: PLW0108  made below
    switches.append(RecoverySwitch(folder, journal, time.time, by_file, StopPolicy.FINISH, heed))
    journal.start()
    try:
        yield Desk(journal, switches[0], heard)
    finally:
        journal.close()


def test_it_counts_at_once_while_the_journal_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisors.recovery_switch.JOURNAL_S", 0.2)
    gate, held = threading.Event(), threading.Event()

    def hold(_db: object) -> None:
        held.set()
        gate.wait(30)

    with desk(tmp_path) as one:
        one.journal.submit(hold)
        assert held.wait(30)
        try:
            one.switch.switch(enabled=False, by="ann")
            assert not one.switch.is_on
            (enabled, stop) = one.heard[0]
            assert (enabled, stop is not None and stop.policy) == (False, StopPolicy.FINISH)
            assert "not in the journal" in str(one.switch.trouble)
            assert FILE_NAME in str(one.switch.trouble)
        finally:
            gate.set()
        one.switch.switch(enabled=True, by="ann")
        assert one.switch.trouble is None


def test_a_switch_without_a_journal_outlives_the_daemon_and_the_journal_learns_it(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        one.switch.switch(enabled=True, by="ann")
        one.journal.close()
        one.switch.switch(enabled=False, by="bob")
        assert one.switch.trouble is not None
    with desk(tmp_path) as one:
        assert (one.switch.is_on, one.switch.by["by"], one.switch.trouble) == (False, "bob", None)
    (tmp_path / FILE_NAME).unlink()
    with desk(tmp_path) as one:
        assert not one.switch.is_on, "the journal was told when it could be opened again"
        told = one.journal.read(lambda db: rows.events(db, "root/links/alerts", 10))
        assert [(event["text"], event["evidence"]["by"]) for event in told] == [
            ("recovery off by bob", "bob"),
            ("recovery on by ann", "ann"),
        ], "each switch once"


def test_with_neither_journal_nor_file_it_is_kept_in_memory_and_says_so(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        one.journal.close()
        (tmp_path / f"{FILE_NAME}.new").mkdir()
        (tmp_path / FILE_NAME).with_suffix(".new").mkdir(exist_ok=True)
        one.switch.switch(enabled=False, by="bob")
        assert not one.switch.is_on
        assert "in memory only" in str(one.switch.trouble)


def test_the_newer_word_counts_of_a_lost_file_and_of_a_lost_journal(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        one.switch.switch(enabled=False, by="ann")
    for file in tmp_path.glob("journal.db*"):
        file.unlink()
    with desk(tmp_path) as one:
        assert not one.switch.is_on
    (tmp_path / FILE_NAME).write_text("{")
    with desk(tmp_path) as one:
        assert not one.switch.is_on


def test_what_the_file_says_anew_is_newer_than_a_person_and_the_same_again_is_not(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        one.switch.switch(enabled=False, by="ann")
        assert not one.switch.configured(enabled=True, policy=StopPolicy.FINISH, by="SIGHUP"), "it said so before"
        assert not one.switch.is_on
        one.switch.switch(enabled=True, by="ann")
        assert one.switch.configured(enabled=False, policy=StopPolicy.ROLLBACK, by="SIGHUP")
        assert not one.switch.is_on
        assert one.heard[-1][1] == StopRun(StopPolicy.ROLLBACK, "recovery was switched off by SIGHUP")
    with desk(tmp_path, by_file=True) as one:
        assert one.switch.is_on, "it was the file's word, not a person's: the file counts again"
