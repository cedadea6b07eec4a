"""The machine dies between the write of a commit and its flush: the last commit is lost, or torn. Nothing that was
acknowledged is lost, and no step is made twice.

The journal's own files are copied on its writer's thread, at each commit before anybody is told of it, with what the
world was then; the tail of the write-ahead log is cut off or spoilt, and the recovery is begun on them.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from actors.chain.place import read_key, write_key
from actors.failpoints import reached
from actors.journal.checkpointing import Checkpointer
from actors.journal.journal import COMMITTED
from guardian_link import Alert, GuardianClient
from tests.recovery.place import World, recovering
from tests.recovery.test_deciding import own
from tests.runbooks.files import changed
from tests.support.eventually import eventually

BOOK = changed("/actions/0/probe/within", "300ms")
HEADER, FRAME = 32, 24
"""Bytes of the headers of a write-ahead log and of each of its frames: https://www.sqlite.org/fileformat2.html#walformat"""


@dataclass(frozen=True)
class Cut:
    """The files and the world at one commit. ``ends``: where each transaction in the log ends, in bytes."""

    database: bytes
    log: bytes
    runs: dict[str, int]
    restarts: list[str]
    is_acknowledged: bool

    @property
    def ends(self) -> list[int]:
        return [HEADER, *_commits(self.log)]

    def kept(self) -> bytes:
        """It was written, and the daemon died before it was told."""
        return self.log

    def dropped(self) -> bytes:
        return self.log[: self.ends[-2]]

    def torn(self) -> bytes:
        begin, end = self.ends[-2:]
        return self.log[: (begin + end) // 2 + 7]

    def spoilt(self) -> bytes:
        """All of its length is there; the sectors of its second half never arrived."""
        begin, end = self.ends[-2:]
        middle = (begin + end) // 2
        return self.log[:middle] + bytes(end - middle)


def _commits(log: bytes) -> Iterator[int]:
    (page_size,), salts = struct.unpack(">I", log[8:12]), log[16:24]
    at = HEADER
    while at + FRAME + page_size <= len(log) and log[at + 8 : at + 16] == salts:
        (size_after_commit,) = struct.unpack(">I", log[at + 4 : at + 8])
        at += FRAME + page_size
        if size_after_commit:
            yield at


def begin_on(folder: Path, cut: Cut, log: bytes, books: tuple[Path, ...], world: World) -> str | None:
    """How the run ended; None: nothing is known of its alert."""
    folder.mkdir()
    (folder / "journal.db").write_bytes(cut.database)
    (folder / "journal.db-wal").write_bytes(log)
    write_key(folder, read_key(folder.parent / "whole"))  # a run that its chain does not vouch for is not carried out
    with recovering(folder, world, runbooks=books) as place:
        records = place.recovery.records
        assert "corrupt" not in str(place.recovery._journal.trouble)
        if not [one for one in records.alerts(9) if one["service"] == "a"]:
            return None
        runs = eventually(
            lambda: [one for one in records.executions(9) if one.get("ended_at")], within_s=40, what="the end"
        )
        return str(runs[0]["status"])


@pytest.fixture
def cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Cut], tuple[Path, ...]]:
    """One whole run, cut at each commit."""
    state, world, made = tmp_path / "whole", World(), list[Cut]()
    books, acknowledged = own(tmp_path / "books", BOOK), list[str]()

    def copied(point: str) -> None:
        log = state / "journal.db-wal"
        if point == COMMITTED and log.exists():  # the log first: what is in it is in no later file
            parts = log.read_bytes(), (state / "journal.db").read_bytes()
            made.append(Cut(parts[1], parts[0], dict(world.runs), list(world.restarts), bool(acknowledged)))
        reached(point)

    monkeypatch.setattr("actors.journal.journal.reached", copied)
    monkeypatch.setattr(Checkpointer, "kick", lambda *_, **__: None)  # which flushes the log before it goes on
    with recovering(state, world, runbooks=books) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(Alert("service_failure", "a"))
        acknowledged.append(ack.id)
        eventually(lambda: [one for one in place.recovery.records.executions(9) if one["status"] == "succeeded"])
    assert world.restarts == ["a"]
    monkeypatch.undo()
    return made, books


WAYS = (Cut.kept, Cut.dropped, Cut.torn, Cut.spoilt)


def test_a_commit_that_never_reached_the_disk(tmp_path: Path, cuts: tuple[list[Cut], tuple[Path, ...]]) -> None:
    made, books = cuts
    ends: dict[str | None, int] = {}
    for number, (cut, way) in enumerate(product(made, WAYS)):
        world = World(dict(cut.runs), restarts=list(cut.restarts))
        end = begin_on(tmp_path / f"cut-{number}", cut, way(cut), books, world)
        assert not (end is None and cut.is_acknowledged), "an acknowledged alert is gone"
        assert world.restarts == ([] if end is None else ["a"]), (number, way, end)
        ends[end] = ends.get(end, 0) + 1
    print(f"{len(made)} commits, each kept, dropped, torn and spoilt: {ends}")
    assert set(ends) == {None, "succeeded"}
    assert any(not cut.restarts for cut in made)
    assert any(cut.restarts for cut in made)


def test_what_was_done_and_not_recorded_is_not_done_again_when_nobody_can_tell(
    tmp_path: Path, cuts: tuple[list[Cut], tuple[Path, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record that it is done is lost, and the service is not there to be asked: unknown, and its target latched."""
    monkeypatch.setattr("runbooks.engine_asks.PROBE_PATIENCE_S", 0.3)
    made, books = cuts
    first = next(cut for cut in made if cut.restarts)  # nothing is written between the restart and this commit
    for number, way in enumerate((Cut.dropped, Cut.torn, Cut.spoilt)):
        world = World({"b": 1}, restarts=list(first.restarts))
        assert begin_on(tmp_path / f"cut-{number}", first, way(first), books, world) == "unknown"
        assert world.restarts == ["a"]
        with sqlite3.connect(tmp_path / f"cut-{number}" / "journal.db") as db:
            assert db.execute("SELECT target FROM latches").fetchall() == [("service:a",)]
        db.close()
