"""resource_cleanup on real files and small file systems: what goes, what stays, and that all of it comes back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors.clock import SystemClock
from runbooks.cleaning import LocalCleanups
from runbooks.deciding.timing import Moment
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType
from runbooks.ports import Cleaning, PortError
from runbooks.quarantine import Quarantine
from tests.actions.place import Step, answer, look, ports_of
from tests.system.small_disk import needs_root, small_disk

OLD_S = 3 * 86400
MB = 1024 * 1024


def old(file: Path, content: bytes = b"x", age_s: float = OLD_S) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    at = file.stat().st_mtime - age_s
    os.utime(file, (at, at))
    return file


def step(root: Path, quarantine: Path | None = None, **wanted: Any) -> Step:
    only = {"root": str(root)}
    ports = ports_of(root.parent / "state", cleanup_roots=(root,), quarantine=quarantine)
    return Step(
        ports,
        Call(CallType.RESOURCE_CLEANUP, {**only, **wanted}),
        Call(CallType.CLEANUP_DONE, only),
        Call(CallType.CLEANUP_RESTORE, only),
        Call(CallType.CLEANUP_RESTORED, only),
    )


def chosen(clean: Step) -> list[str]:
    clean.take()
    (manifest,) = clean.snapshot.values()
    return sorted(row[0] for row in manifest["files"])


def content(root: Path) -> dict[str, tuple[bytes, int, int]]:
    """Name -> content, mode, time of change."""
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "8m") as folder:
        yield folder


def test_put_aside_and_back_three_times(root: Path) -> None:
    for number in range(4):
        old(root / f"d{number % 2}" / f"a.{number}.log", b"line\n" * number).chmod(0o640)
    old(root / "keep.txt")
    before = content(root)
    clean = step(root, patterns=["*.log"], older_than="1d")
    clean.take()
    assert clean.is_done().answer is Answer.NO
    assert clean.is_undone().answer is Answer.YES
    done = clean.do()
    assert (done.ok, done.result["moved"], done.result["skipped"]) == (True, 4, 0)
    assert sorted(content(root)) == ["keep.txt"]
    assert clean.is_done().answer is Answer.YES
    assert clean.is_undone().answer is Answer.NO
    for _ in range(3):
        assert clean.roll_back().ok
        assert content(root) == before
        assert clean.is_undone().answer is Answer.YES
        assert clean.is_done().answer is Answer.NO


def test_what_is_chosen(root: Path) -> None:
    old(root / "old.log", b"x" * 2000, 5 * 86400)
    old(root / "small.log", b"x", 4 * 86400)
    old(root / "new.log", b"x" * 2000, 10)
    old(root / "sub" / "deep.log", b"x" * 2000, 6 * 86400)
    old(root / "other.txt", b"x" * 2000, 5 * 86400)
    assert chosen(step(root, patterns=["*.log"], older_than="3d")) == ["old.log", "small.log", "sub/deep.log"]
    assert chosen(step(root, patterns=["*.log"], older_than="3d", larger_than="1kB")) == ["old.log", "sub/deep.log"]
    assert chosen(step(root, patterns=["sub/*"])) == ["sub/deep.log"]
    assert chosen(step(root, patterns=["*.log"], keep_newest=2)) == ["old.log", "sub/deep.log"]
    assert chosen(step(root, most_files=2)) == ["old.log", "sub/deep.log"]
    assert chosen(step(root, older_than="30d")) == []


def test_links_other_names_other_file_systems_and_open_files_stay(tmp_path: Path, root: Path) -> None:
    outside = old(tmp_path / "outside" / "a.log")
    (root / "link.log").symlink_to(outside)
    (root / "away").symlink_to(outside.parent)
    os.link(old(root / "twice.log"), root / "again.log")
    os.mkfifo(root / "pipe.log")
    old(root / "free.log")
    with old(root / "open.log").open("rb"):
        assert chosen(step(root)) == ["free.log"]
        assert chosen(step(root, open_files=True)) == ["free.log", "open.log"]
    assert outside.exists()


@needs_root
def test_another_file_system_below_the_root_is_not_entered(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    old(root / "a.log")
    with small_disk(root / "mounted") as mounted:
        old(mounted / "b.log")
        assert chosen(step(root)) == ["a.log"]


def test_a_file_opened_or_changed_meanwhile_stays(root: Path) -> None:
    old(root / "a.log")
    old(root / "b.log")
    old(root / "c.log")
    clean = step(root)
    clean.take()
    with (root / "a.log").open("rb"):
        (root / "b.log").write_bytes(b"more")
        done = clean.do()
    assert (done.result["moved"], done.result["skipped"]) == (1, 2)
    assert "a.log: is open" in done.output
    assert "b.log: changed or gone" in done.output
    assert clean.is_done().answer is Answer.YES
    assert clean.roll_back().ok
    assert (root / "b.log").read_bytes() == b"more"
    assert clean.is_undone().answer is Answer.YES


def test_nothing_to_do_is_no_failure_and_nothing_possible_is(root: Path) -> None:
    clean = step(root)
    clean.take()
    assert clean.do().result["moved"] == 0
    assert clean.is_done().answer is Answer.YES
    old(root / "a.log")
    clean.take()
    (root / "a.log").unlink()
    assert "nothing could be put aside" in clean.do().error
    assert clean.is_done().answer is Answer.NO
    assert clean.is_undone().answer is Answer.YES


@pytest.mark.parametrize("how", ["outside", "above", "dots", "link"])
def test_only_allowed_roots_are_cleaned(tmp_path: Path, root: Path, how: str) -> None:
    outside = old(tmp_path / "outside" / "a.log").parent
    (root / "link").symlink_to(outside)
    asked = {
        "outside": str(outside),
        "above": str(tmp_path),
        "dots": f"{root}/../outside",
        "link": str(root / "link"),
    }[how]
    clean = step(root)
    clean.act = Call(CallType.RESOURCE_CLEANUP, {"root": asked})
    with pytest.raises(PortError, match=r"runbooks.cleanup.roots|without '\.\.'"):
        clean.take()


def test_a_root_that_is_not_allowed_any_more_is_left(tmp_path: Path, root: Path) -> None:
    old(root / "a.log")
    clean = step(root)
    clean.take()
    clean.ports = ports_of(tmp_path / "state", cleanup_roots=(tmp_path / "other",))
    assert not clean.do().ok
    assert (root / "a.log").exists()


def test_a_file_of_the_same_name_is_not_run_over(root: Path) -> None:
    old(root / "a.log", b"old")
    old(root / "b.log", b"old")
    clean = step(root)
    clean.take()
    assert clean.do().ok
    (root / "a.log").write_bytes(b"new")
    refused = clean.roll_back()
    assert "a.log: there is another file of that name by now" in refused.error
    assert (root / "a.log").read_bytes() == b"new"
    assert (root / "b.log").read_bytes() == b"old"
    assert clean.is_undone().answer is Answer.NO


# -- what was lost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["all", "its folder", "one file", "its folder and a new file of the name"])
def test_an_undoing_says_which_files_are_nowhere(tmp_path: Path, root: Path, how: str) -> None:
    base = tmp_path / "state" / "quarantine"
    old(root / "a.log", b"one")
    old(root / "b.log", b"other", 2 * OLD_S)
    clean = step(root)
    clean.take()
    assert clean.do().ok
    if how == "all":
        shutil.rmtree(base)
    elif how == "one file":
        next(base.glob("*/*/00001")).unlink()
    else:
        shutil.rmtree(next(base.glob("*/*")))
    if how.endswith("name"):
        (root / "a.log").write_bytes(b"begun anew")
    for _ in range(2):
        undone = clean.roll_back()
        assert not undone.ok
        assert "a.log is at neither place" in undone.error
        seen = clean.is_undone()
        assert seen.answer is Answer.NO
        assert "a.log is at neither place" in seen.detail
        assert ("b.log" in seen.detail) == (how != "one file")


def test_what_its_owner_removed_before_it_went_is_not_lost(root: Path) -> None:
    for number in range(4):
        old(root / f"{number}.log", b"x", OLD_S - number)
    clean = step(root)
    clean.take()
    (root / "1.log").unlink()
    with (root / "2.log").open("rb"):
        assert clean.do().result["moved"] == 2
    (root / "2.log").unlink()
    assert clean.is_undone().answer is Answer.NO, "two are aside"
    assert clean.roll_back().result["restored"] == 2
    assert clean.is_undone().answer is Answer.YES


# -- room -------------------------------------------------------------------------------------------------------------


@needs_root
def test_until_enough_is_free_and_not_a_file_more(tmp_path: Path, small: Path) -> None:
    for number in range(6):
        old(small / "logs" / f"{number}.log", os.urandom(MB), OLD_S - number)
    clean = step(small / "logs", tmp_path / "aside", until_free="4MiB")
    before = content(small / "logs")
    assert answer(clean.ports, CallType.DISK_FREE, path=str(small), at_least="4MiB") is Answer.NO
    clean.take()
    done = clean.do()
    assert (done.ok, done.result["moved"]) == (True, 2)
    assert sorted(content(small / "logs")) == ["2.log", "3.log", "4.log", "5.log"], "the oldest went"
    assert answer(clean.ports, CallType.DISK_FREE, path=str(small), at_least="50%") is Answer.YES
    assert clean.roll_back().ok
    assert content(small / "logs") == before
    assert clean.is_undone().answer is Answer.YES


@needs_root
def test_on_its_own_file_system_room_is_made_by_compressing(small: Path) -> None:
    """A rename would free nothing."""
    for number in range(3):
        old(small / "logs" / f"{number}.log", b"the same line\n" * (2 * MB // 14), OLD_S - number)
    (small / "logs" / "0.log").chmod(0o640)
    before = content(small / "logs")
    clean = step(small / "logs", small / "aside", until_free="5MiB")
    clean.take()
    done = clean.do()
    assert (done.result["moved"], done.result["freed_bytes"] > 3 * MB) == (2, True)
    assert answer(clean.ports, CallType.DISK_FREE, path=str(small), at_least="5MiB") is Answer.YES
    for _ in range(3):
        assert clean.roll_back().ok
        assert content(small / "logs") == before


@needs_root
def test_what_cannot_be_compressed_is_not_put_beside_itself(small: Path) -> None:
    old(small / "logs" / "a.gz", os.urandom(MB))
    clean = step(small / "logs", small / "aside", until_free="100%")
    clean.take()
    assert "would free nothing" in clean.do().error
    assert (small / "logs" / "a.gz").exists()
    assert list((small / "aside").glob("*/*/0*")) == []


@needs_root
def test_a_full_quarantine_stops_the_move_and_loses_nothing(tmp_path: Path) -> None:
    root = tmp_path / "logs"
    for number in range(6):
        old(root / f"{number}.log", os.urandom(MB), OLD_S - number)
    before = content(root)
    with small_disk(tmp_path / "aside", "4m") as aside:
        clean = step(root, aside, until_free="100%")
        clean.take()
        done = clean.do()
        assert 0 < done.result["moved"] < 6
        assert "the quarantine takes no more" in done.output
        assert clean.is_done().answer is Answer.YES
        assert clean.roll_back().ok
        assert content(root) == before


def test_more_than_the_quarantine_may_hold_stays(tmp_path: Path, root: Path) -> None:
    for number in range(4):
        old(root / f"{number}.log", os.urandom(MB), OLD_S - number)
    only = {"root": str(root)}
    clean = step(root)
    clean.ports = ports_of(tmp_path / "state", cleanup_roots=(root,), most_bytes=MB + MB // 2)
    clean.act = Call(CallType.RESOURCE_CLEANUP, {**only, "until_free": "100%"})
    clean.take()
    assert clean.snapshot[f"cleanup:{root}"]["method"] == "gzip"
    assert "free nothing" in clean.do().error


# -- how long it is kept ----------------------------------------------------------------------------------------------

DAY_S = 86400.0


@dataclass
class Machine:
    """Its clocks, and which runs are under way on it."""

    up_s: float = 1000.0
    boot: str = "first"
    wall_s: float = 0.0
    open_runs: Collection[str] | None = ()

    def moment(self) -> Moment:
        return Moment(self.wall_s, self.boot, self.up_s)

    def passes(self, seconds: float) -> None:
        self.up_s += seconds
        self.wall_s += seconds

    def quarantine(self, base: Path, keep_s: float = 7 * DAY_S, most_bytes: int = 10**9) -> Quarantine:
        return Quarantine(base, keep_s, most_bytes, self.moment, lambda: self.open_runs)


def put_aside(at: Quarantine, root: Path, run: str, content: bytes = b"x", /, **wanted: Any) -> Mapping[str, Any]:
    old(root / f"{run}.log", content)
    cleanups = LocalCleanups((root,), at)
    manifest = cleanups.choose(Cleaning(str(root), (f"{run}.log",), **wanted), run)
    assert cleanups.move(manifest, 30).moved == 1
    return manifest


def runs_in(base: Path) -> list[str]:
    return sorted(file.parent.parent.name for file in base.glob("*/*/manifest.json"))


def test_the_quarantine_forgets_what_is_old(tmp_path: Path, root: Path) -> None:
    base, machine = tmp_path / "aside", Machine()
    quarantine = machine.quarantine(base)
    put_aside(quarantine, root, "x-1")
    assert quarantine.purge() == 0
    machine.passes(3 * DAY_S)
    put_aside(quarantine, root, "x-2")
    machine.passes(4 * DAY_S - 1)
    assert machine.quarantine(base).purge() == 0, "a second daemon counts on"
    machine.passes(2)
    assert machine.quarantine(base).purge() == 1
    assert runs_in(base) == ["x-2"]
    machine.passes(3 * DAY_S)
    assert quarantine.purge() == 1
    assert list(base.glob("x-*")) == []


@pytest.mark.parametrize("boots", [False, True])
def test_setting_the_clock_throws_nothing_away(tmp_path: Path, root: Path, boots: bool) -> None:
    base, machine = tmp_path / "aside", Machine()
    quarantine = machine.quarantine(base)
    manifest = put_aside(quarantine, root, "x-1")
    quarantine.purge()
    machine.passes(6 * DAY_S)
    quarantine.purge()
    machine.wall_s += 365 * DAY_S
    os.utime(next(base.glob("*/*/manifest.json")), (1, 1))
    if boots:
        machine.boot, machine.up_s = "second", 10 * DAY_S
    assert quarantine.purge() == 0
    machine.passes(DAY_S - 1)
    assert quarantine.purge() == 0
    assert quarantine.progress(manifest).aside == 1
    machine.passes(1)
    assert quarantine.purge() == 1, "what it was kept on the boot before counts"


def test_what_a_run_may_want_back_is_kept_whatever_is_said(tmp_path: Path, root: Path) -> None:
    base, machine = tmp_path / "aside", Machine()
    quarantine = machine.quarantine(base, keep_s=1.0, most_bytes=0)
    first = put_aside(quarantine, root, "x-1")
    machine.passes(3599)
    assert quarantine.purge() == 0, "nobody is asked within the first hour"
    machine.passes(365 * DAY_S)
    for number, machine.open_runs in enumerate((["x-1"], None)):
        assert quarantine.purge() == 0
        put_aside(quarantine, root, f"x-more-{number}")
        assert "x-1" in runs_in(base)
    assert quarantine.restore(first, 1e12) == 1
    assert (root / "x-1.log").exists()
    machine.open_runs = ()
    assert quarantine.purge() == 1


def test_what_was_kept_longest_goes_first_until_the_rest_fits(tmp_path: Path, root: Path) -> None:
    base, machine = tmp_path / "aside", Machine()
    quarantine = machine.quarantine(base, most_bytes=10**9)
    for number in range(4):
        put_aside(quarantine, root, f"x-{number}", b"x" * 10_000)
        quarantine.purge()
        machine.passes(3600)
    machine.open_runs = ["x-0"]
    small = machine.quarantine(base, most_bytes=25_000)
    assert small.purge() == 2
    assert runs_in(base) == ["x-0", "x-3"]


@pytest.mark.parametrize("where", ["logs/aside", "aside/sub"])
def test_a_quarantine_that_a_runbook_names_is_purged_by_the_same_rules(tmp_path: Path, root: Path, where: str) -> None:
    base, named, machine = tmp_path / "aside", tmp_path / where, Machine()
    quarantine = machine.quarantine(base, most_bytes=25_000)
    for number in range(3):
        put_aside(quarantine, root, f"x-{number}", b"x" * 10_000, quarantine=str(named))
        machine.passes(3600)
    again = machine.quarantine(base, most_bytes=25_000)
    machine.open_runs = ["x-0"]
    assert again.purge() == 1
    assert runs_in(named) == ["x-0", "x-2"]
    machine.open_runs = ()
    machine.passes(8 * DAY_S)
    assert again.purge() == 2
    assert runs_in(named) == []
    shutil.rmtree(named)
    assert again.purge() == 0


def test_a_named_quarantine_holds_no_more_than_it_may(tmp_path: Path, root: Path) -> None:
    """What is there counts, not what is in the configured one."""
    machine = Machine()
    quarantine = machine.quarantine(tmp_path / "aside", most_bytes=7 * MB // 2)
    more: dict[str, Any] = {"quarantine": str(root / "named"), "until_free_bytes": 2**62}
    text = os.urandom(2 * MB).hex().encode()  # about half as long when it is compressed
    put_aside(quarantine, root, "x-1", text, **more)
    cleanups = LocalCleanups((root,), quarantine)
    old(root / "x-2.log", text)
    manifest = cleanups.choose(Cleaning(str(root), ("x-2.log",), **more), "x-2")
    with pytest.raises(PortError, match="as much as it may"):
        cleanups.move(manifest, 30)


@pytest.mark.parametrize("how", ["a link", "another folder", "others may write"])
def test_a_named_quarantine_that_was_replaced_is_left_and_told(tmp_path: Path, root: Path, how: str) -> None:
    """Whoever may write where it lies does not choose what the daemon removes."""
    base, named, machine = tmp_path / "aside", root / "named", Machine()
    quarantine = machine.quarantine(base)
    put_aside(quarantine, root, "x-1", quarantine=str(named))
    machine.passes(8 * DAY_S)
    elsewhere = tmp_path / "elsewhere"
    if how == "others may write":
        named.chmod(0o777)
    else:
        named.rename(elsewhere)
        shutil.copytree(elsewhere, tmp_path / "copy")
        if how == "a link":
            named.symlink_to(elsewhere)
        else:
            (elsewhere / ".selfheal-quarantine").unlink()
            elsewhere.rename(named)
    with pytest.raises(OSError, match=r"not the quarantine any more|[Nn]ot a directory"):
        quarantine.purge()
    assert len(list(tmp_path.rglob("x-1/*/00000"))) == (1 if how == "others may write" else 2)


# -- a quarantine is never cleaned -------------------------------------------------------------------------------------


def takes(cleanups: LocalCleanups, folder: Path, **wanted: Any) -> list[str]:
    return sorted(row[0] for row in cleanups.choose(Cleaning(str(folder), **wanted), "x-takes")["files"])


@pytest.mark.parametrize("how", ["itself", "a run", "a cleanup", "by a link"])
def test_a_root_in_a_quarantine_is_refused(tmp_path: Path, root: Path, how: str) -> None:
    """An alert may name the root: what runs put aside is not put aside again."""
    base = root / "aside"
    cleanups = LocalCleanups((root,), Quarantine(base, DAY_S, 10**9, SystemClock().moment))
    with pytest.raises(PortError, match="is in the quarantine"):
        takes(cleanups, base)
    put_aside(Quarantine(base, DAY_S, 10**9, SystemClock().moment), root, "x-1")
    (root / "link").symlink_to(base)
    asked = {"itself": base, "a run": base / "x-1", "a cleanup": next(base.glob("x-1/*")), "by a link": root / "link"}
    with pytest.raises(PortError, match="is in the quarantine"):
        takes(cleanups, asked[how])


@pytest.mark.parametrize("deep", ["", "sub/deeper"])
def test_nothing_is_taken_from_any_quarantine_below_the_root(tmp_path: Path, root: Path, deep: str) -> None:
    """The configured one, those that runbooks named, and one that nobody remembers any more."""
    (root / deep).mkdir(parents=True, exist_ok=True)
    (tmp_path / "link").symlink_to(root / deep)
    configured, named, forgotten = root / deep / "aside", root / deep / "named", root / deep / "forgotten"
    quarantine = Quarantine(tmp_path / "link" / "aside", DAY_S, 10**9, SystemClock().moment)
    put_aside(Quarantine(forgotten, DAY_S, 10**9, SystemClock().moment), root, "x-0")
    put_aside(quarantine, root, "x-1")
    put_aside(quarantine, root, "x-2", quarantine=str(named))
    old(root / "a.log")
    for name in (configured, named, forgotten):
        assert (name / ".selfheal-quarantine").is_file()
    again = LocalCleanups((root,), Quarantine(tmp_path / "link" / "aside", DAY_S, 10**9, SystemClock().moment))
    assert takes(again, root) == ["a.log"]
    for name in (configured, named):
        (name / ".selfheal-quarantine").unlink()  # the mark and what is remembered hold each by itself
    assert takes(again, root) == ["a.log"]


def test_a_move_is_refused_when_its_root_has_become_a_quarantine(tmp_path: Path, root: Path) -> None:
    old(root / "a.log")
    quarantine = Quarantine(tmp_path / "aside", DAY_S, 10**9, SystemClock().moment)
    cleanups = LocalCleanups((root,), quarantine)
    manifest = cleanups.choose(Cleaning(str(root)), "x-1")
    (root / ".selfheal-quarantine").touch()
    with pytest.raises(PortError, match="is in the quarantine"):
        cleanups.move(manifest, 30)
    assert (root / "a.log").exists()


def test_what_was_put_aside_is_no_place_for_a_quarantine(tmp_path: Path, root: Path) -> None:
    base = root / "aside"
    quarantine = Quarantine(base, DAY_S, 10**9, SystemClock().moment)
    put_aside(quarantine, root, "x-1")
    inside = next(base.glob("x-1/*")) / "more"
    with pytest.raises(PortError, match="inside what was put aside"):
        takes(LocalCleanups((root,), quarantine), root, quarantine=str(inside))


@needs_root
def test_a_quarantine_that_is_mounted_a_second_time_is_no_root(tmp_path: Path, root: Path) -> None:
    base, second = tmp_path / "aside", root / "second"
    quarantine = Quarantine(base, DAY_S, 10**9, SystemClock().moment)
    put_aside(quarantine, root, "x-1")
    old(root / "a.log")
    second.mkdir()
    subprocess.run(["mount", "--bind", str(base), str(second)], check=True)
    try:
        cleanups = LocalCleanups((root,), quarantine)
        assert takes(cleanups, root) == ["a.log"]
        with pytest.raises(PortError, match="is in the quarantine"):
            takes(cleanups, second / "x-1")
    finally:
        subprocess.run(["umount", "-l", str(second)], check=True)


def test_what_cannot_be_thrown_away_is_told_and_the_rest_goes(tmp_path: Path, root: Path) -> None:
    base, machine = tmp_path / "aside", Machine()
    quarantine = machine.quarantine(base)
    put_aside(quarantine, root, "x-1")
    put_aside(quarantine, root, "x-2")
    quarantine.purge()
    (next(base.glob("x-1/*")) / "somebody's").mkdir()
    machine.passes(8 * DAY_S)
    with pytest.raises(OSError, match="directory"):
        quarantine.purge()
    assert runs_in(base) == ["x-1"]


def test_disk_free_tells_the_truth(tmp_path: Path) -> None:
    ports = ports_of(tmp_path / "state")
    at = os.statvfs(tmp_path)
    free = at.f_bavail * at.f_frsize
    assert answer(ports, CallType.DISK_FREE, path=str(tmp_path), at_least=1) is Answer.YES
    assert answer(ports, CallType.DISK_FREE, path=str(tmp_path), at_least=2 * free) is Answer.NO
    assert answer(ports, CallType.DISK_FREE, path=str(tmp_path), at_least="100%") is Answer.NO
    gone = look(ports, CallType.DISK_FREE, path=str(tmp_path / "gone"), at_least="1%")
    assert gone.answer is Answer.UNKNOWN
    assert "No such file" in gone.detail


@needs_root
@pytest.mark.timeout(180)
def test_killed_at_every_point_no_file_is_lost_or_doubled(tmp_path: Path) -> None:
    with small_disk(tmp_path / "home", "8m") as home, small_disk(tmp_path / "other", "8m") as other:
        done = subprocess.run(
            [sys.executable, "-m", "tests.actions.dying", str(home), str(other)],
            check=False,
            capture_output=True,
            text=True,
            timeout=150,
        )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"(\d+) points (\d+) wrong", done.stdout)
    assert len(rows) == 6
    assert all(int(points) > 20 and wrong == "0" for points, wrong in rows), done.stdout
