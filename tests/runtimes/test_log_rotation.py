"""Rotation keeps the newest bytes whatever is written; deleted logs come back; a full disk is survived and told."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.keeper.kernel import cut_off_beginning
from actors.log_rotation import SLICE_BYTES, backup_path, finish, rescue, rotate_if_needed, rotation
from actors.runtimes.base import LaunchSpec, RestartAtOnce
from actors.service_logs import GAP, LINE_BYTES, follow, log_path, tail
from supervisors.log_keeper import LogKeeper
from tests.runtimes.worlds import LONG_S, Exits, KeptPlace
from tests.support.eventually import eventually
from tests.support.flood import LINE, flood_command, numbers_in

MAX = 64 * 1024


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rotation")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = log_path(tmp_path, "a")
    path.parent.mkdir()
    return path


@pytest.fixture
def keeping() -> Iterator[list[LogKeeper]]:
    """Log keepers put in here are closed at the end."""
    made: list[LogKeeper] = []
    yield made
    for one in made:
        one.close()


def parts_of(path: Path) -> list[bytes]:
    """The older files, oldest first, then the log."""
    numbers = sorted((int(one.suffix[1:]) for one in path.parent.glob(f"{path.name}.[0-9]*")), reverse=True)
    files = [*(backup_path(path, number) for number in numbers), path]
    return [one.read_bytes() for one in files if one.exists()]


def inode_of(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def can_cut_off(folder: Path) -> bool:
    """Whether this file system can remove a file's beginning."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(b"x" * 100_000)
        probe.flush()
        return cut_off_beginning(probe.fileno(), os.fstat(probe.fileno()).st_blksize)


# -- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1, 1000], ids=["truncated", "cut-off"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    acts=st.lists(st.one_of(st.integers(0, 350), st.just("rotate")), max_size=30),
    backups=st.integers(0, 4),
    most=st.integers(10, 90),
)
def test_what_is_kept_is_the_newest_without_a_hole(
    shared_folder: Path, unit: int, acts: list[int | str], backups: int, most: int
) -> None:
    """Files of less than a block are truncated; of longer ones the beginning is cut off where that can be done."""
    max_bytes, block = most * unit, 4096 if unit > 1 else 0
    folder = Path(tempfile.mkdtemp(dir=shared_folder))
    path, written = folder / "a.log", b""
    path.touch()
    for act in acts:
        if isinstance(act, int):
            more = b"".join(b"%05d\n" % (len(written) // 6 + number) for number in range(act * unit // 6))
            written += more
            with path.open("ab") as file:
                file.write(more)
            continue
        was_too_long = path.stat().st_size > max_bytes
        assert rotate_if_needed(path, max_bytes, backups) is was_too_long
        *older, current = parts_of(path)
        assert written.endswith(b"".join((*older, current)))
        assert len(current) <= max(max_bytes, block)
        assert len(older) <= backups
        assert all(len(part) < 2 * max_bytes for part in older)
        if backups and len(written) > max_bytes:
            assert not was_too_long or len(older[-1]) >= max_bytes - block
    assert not list(folder.glob("*.rotating*"))


def test_a_log_that_ran_away_fills_all_older_files_with_its_end(log: Path) -> None:
    backup_path(log, 1).write_bytes(b"older than all")
    log.write_bytes(b"".join(b"%09d\n" % number for number in range(1000)))
    assert rotate_if_needed(log, 1000, 3)
    kept = b"".join(parts_of(log))
    assert kept == b"".join(b"%09d\n" % number for number in range(700, 1000))


@pytest.mark.parametrize(("mode", "of_older"), [(0o640, 0o640), (0o600, 0o600), (0o666, 0o640)])
@pytest.mark.parametrize("has_room", [True, False])
def test_nobody_may_read_an_older_file_who_may_not_read_the_log(
    log: Path, mode: int, of_older: int, has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_bytes(b"".join(b"%09d\n" % number for number in range(1000)))
    log.chmod(mode)
    if not has_room:
        monkeypatch.setattr("actors.log_rotation._copy_and_truncate", no_room)
    before = os.umask(0)
    try:
        if has_room:
            assert rotate_if_needed(log, 1000, 2)
        else:
            with pytest.raises(OSError, match="No space left"):
                rotate_if_needed(log, 1000, 2)
    finally:
        os.umask(before)
    older = sorted(log.parent.glob(f"{log.name}.*"))
    assert [one.name for one in older] == [f"{log.name}.{number}" for number in (range(1, 3) if has_room else (1,))]
    assert {stat.S_IMODE(one.stat().st_mode) for one in older} == {of_older}


def no_room(*_: object) -> Iterator[None]:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_older_files_the_newest_half_stays(log: Path) -> None:
    log.write_bytes(b"".join(b"%09d\n" % number for number in range(5000)))
    written = log.read_bytes()
    assert rotate_if_needed(log, 40_000, 0)
    kept = log.read_bytes()
    assert written.endswith(kept)
    assert len(kept) <= 40_000
    assert not can_cut_off(log.parent) or len(kept) >= 20_000


def test_a_log_emptied_in_the_middle_of_its_rotation_loses_nothing_new(log: Path) -> None:
    log.write_bytes(b"old\n" * SLICE_BYTES)
    steps = rotation(log, SLICE_BYTES * 3, 2)
    for _ in range(3):
        next(steps)
    log.write_bytes(b"new\n")
    finish_of(steps)
    assert log.read_bytes() == b"new\n"
    assert backup_path(log, 1).read_bytes().startswith(b"old\n" * 1000)


def test_the_work_is_cut_into_slices(log: Path) -> None:
    """What the keeper does between two looks for deaths is a copy of one slice."""
    log.write_bytes(b"x" * (20 * SLICE_BYTES + 7))
    steps = rotation(log, 20 * SLICE_BYTES, 2)
    assert next(steps, "end") is None
    for number in range(19):
        assert next(steps, "end") is None
        copied = sum(path.stat().st_size for path in log.parent.glob("*.rotating*"))
        assert copied <= (number + 1) * SLICE_BYTES
    finish_of(steps)
    assert b"".join(parts_of(log)) == b"x" * (20 * SLICE_BYTES + 7)
    assert log.stat().st_size < SLICE_BYTES


def finish_of(steps: Iterator[None]) -> int:
    return sum(1 for _ in steps)


def test_a_rotation_that_was_left_in_the_middle_is_done_anew(log: Path) -> None:
    """A keeper stops in the middle when a daemon comes, or is killed."""
    log.write_bytes(bytes(range(256)) * 8192)
    whole = log.read_bytes()
    log.with_name("a.log.rotating50").write_bytes(b"left by a rotation with more pieces")
    abandoned = rotation(log, MAX, 100)
    for _ in range(4):
        next(abandoned)
    del abandoned
    assert rotate_if_needed(log, MAX, 100)
    assert b"".join(parts_of(log)) == whole
    assert not list(log.parent.glob("*.rotating*"))


# -- a flood ----------------------------------------------------------------------------------------------------------


def test_after_a_flood_the_files_hold_its_end_and_are_small(
    kept_place: KeptPlace, keeping: list[LogKeeper], log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody holds the child up: it writes at its own speed into a file; what the file grows to is bounded."""
    lines = 2_000_000
    max_bytes, backups = 4 * 1024 * 1024, 3
    on_exit = Exits()
    kept_place.daemon().launch(LaunchSpec("a", flood_command(lines), log_path=log), 1, on_exit)
    keeping.append(LogKeeper({log: (max_bytes, backups)}, look_s=0.05))
    keeping[0].start()
    biggest = rotations = 0
    newest = None
    while not on_exit.seen:
        size = log.stat().st_size
        biggest = max(biggest, size)
        now = inode_of(backup_path(log, 1))
        rotations, newest = rotations + (now != newest), now
    assert on_exit.one().code == 0
    keeping[0].close()
    keeping[0].look()
    *older, current = parts_of(log)
    kept = numbers_in(b"".join((*older, current)))
    written = lines * LINE
    missing = (kept[-1] - kept[0] + 1) - len(kept)
    with capsys.disabled():
        print(
            f"\nflood of {written >> 20} MiB: {rotations} rotations seen, log at most {biggest >> 20} MiB, kept ",
            end="",
        )
        print(f"{len(kept) * LINE >> 20} MiB in {len(older)} older files, {missing} lines missing in between")
    assert rotations >= 2
    assert biggest < written / 2
    assert len(current) <= max_bytes
    assert len(older) <= backups
    assert len(kept) * LINE >= max_bytes
    assert kept == sorted(kept)
    if can_cut_off(log.parent):  # elsewhere the moments of truncation are missing
        last_ones = kept[-(max_bytes // LINE) :]  # before, it may have outrun the copying
        assert last_ones == list(range(lines - len(last_ones), lines))


def test_exits_and_restarts_are_seen_while_another_service_floods(
    kept_place: KeptPlace, keeping: list[LogKeeper], log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime, flooding, quiet = kept_place.daemon(), Exits(), Exits()
    flood = runtime.launch(LaunchSpec("a", flood_command(10**12), log_path=log), 1, flooding)
    keeping.append(LogKeeper({log: (MAX * 16, 3)}, look_s=0.1))
    keeping[0].start()
    eventually(backup_path(log, 1).exists, within_s=LONG_S)
    births = kept_place.folder / "births"
    spec = kept_place.spec("b", ("sh", "-c", f"echo $$ >> {births}; exec sleep 1000"))
    handle = runtime.launch(spec, 1, quiet)
    runtime.arm(handle, RestartAtOnce)
    eventually(lambda: births.exists() and births.read_text().endswith("\n"), within_s=LONG_S)
    began = time.monotonic()
    os.kill(handle.pid, signal.SIGKILL)
    eventually(lambda: len(births.read_text().splitlines()) == 2, within_s=LONG_S, every_s=0.002)
    restarted_s = time.monotonic() - began
    quiet.one()
    assert runtime.adopt(spec, Exits()) is not None
    assert not flooding.seen  # it floods all the while
    began = time.monotonic()
    os.kill(flood.pid, signal.SIGKILL)
    assert flooding.one().signal == signal.SIGKILL
    with capsys.disabled():
        print(f"\nunder a flood: restarted after {restarted_s * 1e3:.1f} ms, ", end="")
        print(f"the flooding one's end seen after {(time.monotonic() - began) * 1e3:.1f} ms")


# -- long lines -------------------------------------------------------------------------------------------------------


def test_lines_of_ten_megabytes_are_cut_and_cost_no_memory(log: Path) -> None:
    with log.open("wb") as file:
        for number in range(5):
            file.write(b"%d" % number + b"x" * 10_000_000 + b"\n")
        file.write(b"short\n" + b"y" * 10_000_000)
    tracemalloc.start()
    try:
        lines = tail(log, 4)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [line[LINE_BYTES:] for line in lines[:2]] == [" [... cut: a line of 10000001 bytes]"] * 2
    assert [line[0] for line in lines] == ["3", "4", "s", "y"]
    assert lines[3].endswith("[... cut: a line of 10000000 bytes]")
    assert all(len(line) < LINE_BYTES + 100 for line in lines)
    assert peak_bytes < 2_000_000


def test_of_a_file_without_line_ends_only_the_end_is_looked_at(log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(500_000_000)
    (line,) = tail(log, 3)
    assert line.endswith("bytes]")
    assert len(line) < LINE_BYTES + 100


def test_following_cuts_long_lines_too(log: Path) -> None:
    log.write_bytes(b"one\n")
    closed = threading.Event()
    source = follow(log, closed, lines=1)
    assert next(source) == "one"
    with log.open("ab") as file:
        file.write(b"z" * 10_000_000 + b"\nafter\n")
    assert next(source) == "z" * LINE_BYTES + " [... cut: a line of 10000000 bytes]"
    assert next(source) == "after"
    closed.set()


@pytest.mark.parametrize("more", [0, 3000])
def test_who_follows_sees_each_line_once_over_a_rotation_that_cuts_off_the_beginning(log: Path, more: int) -> None:
    """The rest of the last block stays in the log: it was read already, or not."""
    lines = [f"{number:099d}" for number in range(130)]
    log.write_text("".join(f"{line}\n" for line in lines))
    closed = threading.Event()
    source = follow(log, closed, lines=1)
    assert next(source) == lines[-1]
    unread = [f"unread {number}" for number in range(more // 10)]
    with log.open("a") as file:
        file.write("".join(f"{line}\n" for line in unread))
    assert rotate_if_needed(log, 10_000, 3)
    with log.open("a") as file:
        file.write("after\n")
    assert [next(source) for _ in range(len(unread) + 1)] == [*unread, "after"]
    closed.set()


def test_who_follows_too_slowly_is_told_of_the_gap(log: Path) -> None:
    log.write_bytes(b"one\n")
    closed = threading.Event()
    source = follow(log, closed, lines=1)
    assert next(source) == "one"
    for text in (b"two\n" * 10, b"three\n" * 10):
        with log.open("ab") as file:
            file.write(text)
        assert rotate_if_needed(log, 20, 1)
    log.write_bytes(b"four\n")
    assert [next(source), next(source)] == [GAP, "four"]
    closed.set()


# -- deleted and moved ------------------------------------------------------------------------------------------------

TALKS = ("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done")


def spoken(*paths: Path) -> list[int]:
    return [int(line) for path in paths if path.exists() for line in path.read_text().split("\n")[:-1]]


def last_of(path: Path) -> int:
    return (spoken(path) or [0])[-1]


def watch_over(place: KeptPlace, keeping: list[LogKeeper], log: Path) -> int:
    """A talking service and a log keeper that looks after it; the service's pid."""
    handle = place.daemon().launch(LaunchSpec("a", TALKS, log_path=log), 1, Exits())
    keeping.append(LogKeeper({log: (MAX, 2)}, lambda: {log: handle.pid}, look_s=0.1))
    keeping[0].start()
    eventually(lambda: keeping[0]._files.get(log) is not None, within_s=LONG_S)
    return handle.pid


def test_a_deleted_log_comes_back_and_takes_no_room_unseen(
    kept_place: KeptPlace, keeping: list[LogKeeper], log: Path
) -> None:
    pid = watch_over(kept_place, keeping, log)
    eventually(lambda: last_of(log) > 5, within_s=LONG_S)
    before = last_of(log)
    log.unlink()
    eventually(lambda: log.exists() and len(spoken(log)) > 50, within_s=LONG_S)
    found = spoken(log)
    assert found == list(range(found[0], found[-1] + 1))
    assert found[0] <= before + 100  # nothing but what was there at the last look is gone
    held = Path(f"/proc/{pid}/fd/1").stat()
    assert (held.st_nlink, held.st_size < 1000) == (0, True)  # the file nobody sees stays small


def test_a_log_that_was_moved_away_stays_what_it_was(
    kept_place: KeptPlace, keeping: list[LogKeeper], log: Path
) -> None:
    pid = watch_over(kept_place, keeping, log)
    eventually(lambda: last_of(log) > 5, within_s=LONG_S)
    moved = log.with_name("moved-away")
    log.rename(moved)
    eventually(lambda: log.exists() and len(spoken(log)) > 50, within_s=LONG_S)
    os.kill(pid, signal.SIGSTOP)
    keeping[0].close()
    keeping[0].look()
    assert len(spoken(moved)) < len(spoken(log))
    assert spoken(moved, log) == list(range(1, last_of(log) + 1))


def test_a_deleted_log_comes_back_while_no_daemon_lives(kept_place: KeptPlace, log: Path) -> None:
    kept_place.daemon().launch(LaunchSpec("a", TALKS, log_path=log), 1, Exits())
    eventually(lambda: last_of(log) > 5, within_s=LONG_S)
    kept_place.nurseries[-1].close()
    log.unlink()
    eventually(lambda: log.exists() and len(spoken(log)) > 20, within_s=LONG_S)
    runtime = kept_place.daemon()
    assert runtime.adopt(LaunchSpec("a", TALKS, log_path=log), Exits()) is not None


def test_the_output_of_a_service_that_writes_elsewhere_is_left_alone(log: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with other.open("ab") as file:
        child = subprocess.Popen(["sleep", "1000"], stdout=file, stderr=file)
    try:
        other.write_bytes(b"mine")
        other.rename(tmp_path / "moved")
        assert finish(rescue(log, child.pid, None, MAX)) is None
        assert (tmp_path / "moved").read_bytes() == b"mine"
        assert not log.exists()
    finally:
        child.kill()
        child.wait()


def test_the_log_keeper_takes_another_set_of_logs(keeping: list[LogKeeper], log: Path) -> None:
    other = log.with_name("b.log")
    for path in (log, other):
        path.write_bytes(b"x" * 100)
    keeping.append(LogKeeper({log: (1000, 1)}, look_s=0.02))
    keeping[0].start()
    keeping[0].update({other: (10, 1)})
    eventually(backup_path(other, 1).exists, within_s=LONG_S)
    assert not backup_path(log, 1).exists()


# -- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


WRITER = """
import os, sys
from time import sleep
failed = 0
while True:
    try:
        os.write(1, b"y" * 999 + b"\\n")
    except OSError as error:
        failed += 1
        if failed == 1:
            open(sys.argv[1], "w").write(f"{error.errno}\\n")
    sleep(0.0002)
"""


def test_a_full_disk_blocks_nobody_and_is_told(
    kept_place: KeptPlace, keeping: list[LogKeeper], small_disk: Path, tmp_path: Path
) -> None:
    """A stranger's file fills the disk: the service gets the error itself, and rotation goes on once there is room."""
    log, seen = small_disk / "a.log", tmp_path / "seen"
    (small_disk / "stranger").write_bytes(b"s" * 6 * 1024 * 1024)
    runtime, on_exit = kept_place.daemon(), Exits()
    spec = LaunchSpec("a", (sys.executable, "-c", WRITER, str(seen)), log_path=log)
    handle = runtime.launch(spec, 1, on_exit)
    max_bytes = 1536 * 1024  # the log alone is no runaway, and there is no room for a copy of it
    eventually(lambda: seen.exists() and seen.read_text().endswith("\n"), within_s=LONG_S, what="ENOSPC in the child")
    keeping.append(LogKeeper({log: (max_bytes, 2)}, look_s=0.05))
    keeping[0].start()
    eventually(lambda: keeping[0].trouble, within_s=LONG_S, what="the trouble")
    assert keeping[0].trouble == f"cannot rotate log {log}: No space left on device"
    os.kill(handle.pid, signal.SIGKILL)
    assert on_exit.one().signal == signal.SIGKILL
    seen.unlink()
    again = runtime.launch(spec, 2, Exits())
    eventually(seen.exists, within_s=LONG_S, what="the second run at work")
    (small_disk / "stranger").unlink()
    eventually(lambda: keeping[0].trouble is None, within_s=LONG_S, what="the end of the trouble")
    eventually(backup_path(log, 1).exists, within_s=LONG_S, what="a rotation")
    assert kept_place.is_alive(again)
    assert not list(small_disk.glob("*.rotating*"))


def test_a_log_that_filled_the_disk_itself_makes_room_again(
    kept_place: KeptPlace, keeping: list[LogKeeper], small_disk: Path, tmp_path: Path
) -> None:
    log, seen = small_disk / "a.log", tmp_path / "seen"
    spec = LaunchSpec("a", (sys.executable, "-c", WRITER, str(seen)), log_path=log)
    handle = kept_place.daemon().launch(spec, 1, Exits())
    eventually(lambda: seen.exists() and seen.read_text().endswith("\n"), within_s=LONG_S, what="ENOSPC in the child")
    keeping.append(LogKeeper({log: (2 * 1024 * 1024, 3)}, look_s=0.05))
    keeping[0].start()
    eventually(lambda: log.stat().st_size < 4 * 1024 * 1024, within_s=LONG_S, what="room")
    eventually(lambda: keeping[0].trouble is None, within_s=LONG_S, what="the end of the trouble")
    eventually(backup_path(log, 1).exists, within_s=LONG_S, what="a backup")  # shifted on by the next rotation
    assert kept_place.is_alive(handle)


def test_a_launch_needs_no_log(kept_place: KeptPlace, small_disk: Path) -> None:
    log = small_disk / "logs" / "a.log"
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    handle = kept_place.daemon().launch(replace(kept_place.spec("a", ("sleep", "1000")), log_path=log), 1, Exits())
    assert kept_place.is_alive(handle)


def test_the_keeper_restarts_at_once_while_it_rotates_a_flood_itself(
    kept_place: KeptPlace, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No daemon lives: the keeper's one thread does both, a slice of the copy at a time."""
    runtime, births = kept_place.daemon(), kept_place.folder / "births"
    flood = LaunchSpec("a", flood_command(10**12), log_path=log, log_max_bytes=8 * 1024 * 1024, log_backups=3)
    quiet = kept_place.spec("b", ("sh", "-c", f"echo $$ >> {births}; exec sleep 1000"))
    runtime.launch(flood, 1, Exits())
    handle = runtime.launch(quiet, 1, Exits())
    runtime.arm(handle, RestartAtOnce)
    eventually(lambda: births.exists() and births.read_text().endswith("\n"), within_s=LONG_S)
    kept_place.nurseries[-1].close()
    eventually(backup_path(log, 1).exists, within_s=LONG_S, what="a rotation by the keeper")
    began = time.monotonic()
    os.kill(handle.pid, signal.SIGKILL)
    eventually(lambda: len(births.read_text().splitlines()) == 2, within_s=LONG_S, every_s=0.002)
    with capsys.disabled():
        print(f"\nno daemon, the keeper rotates a flood: restarted after {(time.monotonic() - began) * 1e3:.1f} ms")
    again = kept_place.daemon()
    for spec in (flood, quiet):
        assert again.adopt(spec, Exits()) is not None
