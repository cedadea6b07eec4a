"""Room on the journal's disk: refused before harm, what matters still written, and all as before when there is room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.board import NodeState, NodeStatus
from actors.journal.journal import Journal
from actors.journal.room import MIB, Disk, Room, RoomLimits
from guardian_link import Alert, DaemonUnreachable, GuardianClient
from tests.recovery.place import Place, recovering
from tests.recovery.test_journal import store
from tests.support.eventually import eventually
from tests.system.small_disk import fill, make_room, needs_root, small_disk

LIMITS = RoomLimits(ballast_bytes=MIB, min_free_bytes=4 * MIB)


@dataclass
class Figures:
    """What the disk is said to have free, in MiB."""

    free: float = 100

    def __call__(self, _: Path) -> Disk:
        return Disk(round(self.free * MIB), 1000 * MIB)


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
def room(tmp_path: Path, figures: Figures) -> Iterator[Room]:
    made = Room(tmp_path, LIMITS, figures)
    made.look()
    yield made
    made.close()
    assert not made.ballast.exists()


def test_the_ballast_is_real_blocks_of_its_owner_only(room: Room) -> None:
    found = room.ballast.stat()
    assert found.st_blocks * 512 >= MIB
    assert found.st_mode & 0o777 == 0o600
    assert (room.is_short, room.trouble) == (False, None)


def test_refused_from_the_floor_on_given_up_at_a_quarter_of_it_and_taken_back(room: Room, figures: Figures) -> None:
    """(free MiB, new alerts are refused, the ballast is there), one look after the other."""
    for free, is_short, is_there in (
        (4.5, False, True),
        (3.9, True, True),
        (4.5, True, True),  # a little more than the floor: still closed
        (5.1, False, True),
        (0.9, True, False),
        (1.9, True, False),  # that is the ballast's own room
        (4.9, True, False),
        (5.1, False, True),
    ):
        figures.free = free
        room.look()
        assert (room.is_short, room.ballast.exists()) == (is_short, is_there), free
        assert (room.trouble is not None) == is_short


def test_what_a_killed_daemon_left_is_ballast_again(room: Room, figures: Figures, tmp_path: Path) -> None:
    figures.free = 2
    second = Room(tmp_path, LIMITS, figures)
    second.look()
    assert second.is_short
    assert second.give_up(), "there was some to give"
    assert not second.give_up()
    assert "given up" not in str(second.trouble)
    second.look()
    assert "given up" in str(second.trouble)


def test_on_a_small_disk_both_are_small() -> None:
    limits = RoomLimits().on(Disk(MIB, 16 * MIB))
    assert limits == RoomLimits(MIB, MIB)


@needs_root
def test_trap_43_what_was_to_be_written_when_the_disk_filled_is_written_into_the_ballasts_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "4m") as small:
        room = Room(small, RoomLimits())
        journal = Journal(small / "journal.db", room=room)
        journal.start()
        try:
            store(journal, "alert-before")
            eventually(room.ballast.exists)
            fill(small)
            for number in range(10):
                assert store(journal, f"alert-{number:04}", message="x" * 2000).is_new, "not one was refused"
            assert journal.is_short
            assert not room.ballast.exists()
            make_room(small)
            eventually(lambda: not journal.is_short and room.ballast.exists())
            assert journal.trouble is None
        finally:
            journal.close()


def shown(place: Place, words: str) -> NodeStatus | None:
    node = place.system.board.get("root/journal")
    return node if node is not None and words in str(node.detail) else None


@needs_root
def test_trap_43_a_sender_hears_that_the_disk_is_full_and_is_served_when_there_is_room(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "state", "4m") as state,
        recovering(state) as place,
        GuardianClient(place.address, outbox=tmp_path / "outbox.db") as guardian,
    ):
        assert guardian.send(Alert(type="noise")).status == "stored"
        eventually((state / "ballast").exists)
        fill(state)
        journal = place.recovery._journal
        eventually(lambda: journal.is_short)
        with pytest.raises(DaemonUnreachable):
            guardian.send(Alert(type="noise"), timeout_s=0.3)
        late = guardian.post(Alert(type="noise"))
        eventually(lambda: place.recovery.statistics()["intake"]["disk_full"] >= 2)
        node = eventually(lambda: shown(place, "nearly full"))
        assert node.state is NodeState.DEGRADED
        make_room(state)
        eventually(lambda: journal.trouble is None)
        box = guardian.outbox
        assert box is not None
        eventually(lambda: len(box) == 0, within_s=20)
        stored = {one["id"]: one["type"] for one in place.recovery.records.alerts(10)}
        assert late in stored
        assert "records_trouble" in stored.values(), "the trouble was alerted"
