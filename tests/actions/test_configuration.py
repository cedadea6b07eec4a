"""configuration_change on real files: whole or not at all, within its roots, undone to the very bytes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from runbooks import config_files
from runbooks.beneath import folder_beneath
from runbooks.engine_words import Answer
from runbooks.model import Call, CallType
from runbooks.ports import PortError
from tests.actions.place import Step, ports_of

UNIT = b"[Service]\nExecStart=/bin/a\nCPUQuota=50%\n"


def step(root: Path, file: Path | str, **change: Any) -> Step:
    given = {"file": str(file), **(change or {"set": {"Service.CPUQuota": "80%"}, "format": "systemd"})}
    only = {"file": str(file)}
    return Step(
        ports_of(root.parent / "state", file_roots=(root,)),
        Call(CallType.CONFIGURATION_CHANGE, given),
        Call(CallType.CONFIGURATION_IS, given),
        Call(CallType.CONFIGURATION_RESTORE, only),
        Call(CallType.CONFIGURATION_RESTORED, only),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path / "etc"


@pytest.fixture
def unit(root: Path) -> Path:
    (root / "a.service").write_bytes(UNIT)
    (root / "a.service").chmod(0o640)
    return root / "a.service"


def test_changed_and_brought_back(root: Path, unit: Path) -> None:
    change = step(root, unit)
    change.take()
    assert change.is_done().answer is Answer.NO
    assert change.is_undone().answer is Answer.YES
    assert change.do().ok
    assert unit.read_bytes() == UNIT.replace(b"50%", b"80%")
    assert stat.S_IMODE(unit.stat().st_mode) == 0o640
    assert change.is_done().answer is Answer.YES
    assert change.is_undone().answer is Answer.NO
    for _ in range(3):
        assert change.roll_back().ok
        assert unit.read_bytes() == UNIT
        assert stat.S_IMODE(unit.stat().st_mode) == 0o640
        assert change.is_undone().answer is Answer.YES
    assert list(root.iterdir()) == [unit], "nothing is left lying about"


def test_done_twice_is_done_once(root: Path, unit: Path) -> None:
    change = step(root, unit)
    change.take()
    assert change.do().result["changed"] is True
    assert change.do().result["changed"] is False
    assert unit.read_bytes().count(b"80%") == 1


def test_a_file_that_was_not_there_is_gone_again(root: Path) -> None:
    file = root / "new.json"
    change = step(root, file, set={"a": 1})
    change.take()
    assert change.do().ok
    assert change.is_done().answer is Answer.YES
    assert change.roll_back().ok
    assert not file.exists()
    assert change.is_undone().answer is Answer.YES


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_new_file_is_its_folders_owners(root: Path) -> None:
    """A service that may write in its folder may go on changing what was made for it there."""
    os.chown(root, 12345, 23456)
    file = root / "new.json"
    change = step(root, file, set={"a": 1})
    change.take()
    before = os.umask(0o077)
    try:
        assert change.do().ok
    finally:
        os.umask(before)
    status = file.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o644)
    assert change.roll_back().ok
    assert not file.exists()


def test_the_targets_of_links_are_changed_and_links_stay(root: Path, unit: Path) -> None:
    link = root / "link.service"
    link.symlink_to(unit.name)
    change = step(root, link)
    change.take()
    assert change.do().ok
    assert link.is_symlink()
    assert b"80%" in unit.read_bytes()
    assert change.roll_back().ok
    assert (link.is_symlink(), unit.read_bytes()) == (True, UNIT)


@pytest.mark.parametrize("how", ["outside", "dots", "link", "folder link", "relative", "root itself"])
def test_nothing_outside_the_roots_is_read_or_written(tmp_path: Path, root: Path, how: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.service").write_bytes(UNIT)
    (root / "link.service").symlink_to(outside / "a.service")
    (root / "away").symlink_to(outside)
    file = {
        "outside": str(outside / "a.service"),
        "dots": f"{root}/../outside/a.service",
        "link": str(root / "link.service"),
        "folder link": str(root / "away" / "a.service"),
        "relative": "a.service",
        "root itself": str(root),
    }[how]
    change = step(root, file)
    with pytest.raises(PortError):
        change.take()
    assert not change.do().ok
    assert change.is_done().answer is Answer.UNKNOWN
    assert (outside / "a.service").read_bytes() == UNIT


def test_without_roots_nothing_may_be_changed(tmp_path: Path, unit: Path) -> None:
    change = step(unit.parent, unit)
    change.ports = ports_of(tmp_path / "state")
    with pytest.raises(PortError, match=r"name those that are in runbooks\.files\.roots"):
        change.take()


def test_a_link_that_appears_on_the_way_is_not_followed(tmp_path: Path, root: Path) -> None:
    """Between the look at the path and the opening."""
    inside, outside = root / "d", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "a.service").write_bytes(UNIT)
    (outside / "a.service").write_bytes(UNIT)
    inside.rename(root / "was")
    inside.symlink_to(outside)
    with pytest.raises(OSError), folder_beneath(root, inside):
        pass


def test_somebody_elses_edit_is_not_run_over(root: Path, unit: Path) -> None:
    change = step(root, unit)
    change.take()
    unit.write_bytes(UNIT + b"Nice=5\n")
    refused = change.do()
    assert "changed by somebody else" in refused.error
    assert unit.read_bytes() == UNIT + b"Nice=5\n"
    unit.write_bytes(UNIT)
    assert change.do().ok
    unit.write_bytes(unit.read_bytes() + b"Nice=5\n")
    assert "not put back over that" in change.roll_back().error
    assert change.is_undone().answer is Answer.NO
    assert unit.read_bytes().endswith(b"Nice=5\n")


def test_a_change_of_mode_is_seen_and_brought_back(root: Path, unit: Path) -> None:
    change = step(root, unit)
    change.take()
    assert change.do().ok
    unit.chmod(0o666)
    assert change.roll_back().ok
    assert stat.S_IMODE(unit.stat().st_mode) == 0o640


@pytest.mark.parametrize("kind", ["fifo", "folder", "hard link", "too long"])
def test_only_ordinary_files_are_changed(root: Path, kind: str) -> None:
    file = root / "x.service"
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "hard link":
            (root / "y").write_bytes(UNIT)
            file.hardlink_to(root / "y")
        case _:
            file.write_bytes(UNIT + b"#" * config_files.MAX_FILE_BYTES)
    with pytest.raises(PortError):
        step(root, file).take()


def test_a_file_that_cannot_be_read_is_left(root: Path) -> None:
    file = root / "a.json"
    file.write_bytes(b'{"a": 1, "a": 2}')
    change = step(root, file, set={"a": 3})
    with pytest.raises(PortError, match="the key 'a' stands there twice"):
        change.take()
    assert change.is_done().answer is Answer.UNKNOWN
    assert file.read_bytes() == b'{"a": 1, "a": 2}'


def test_a_death_leaves_the_old_file_or_the_new(root: Path, unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is taken over in one stroke, by a file that is on disk: what a death leaves beside it is removed."""
    order: list[str] = []
    real_fsync = os.fsync

    def fsync(fd: int) -> None:
        order.append("fsync")
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync)

    def die(*_: object, **__: object) -> None:
        order.append("death")
        raise KeyboardInterrupt

    change = step(root, unit)
    change.take()
    monkeypatch.setattr(os, "rename", die)
    monkeypatch.setattr(os, "unlink", lambda *_, **__: None)  # the dead tidy nothing
    with pytest.raises(KeyboardInterrupt):
        change.do()
    assert order == ["fsync", "death"]
    assert unit.read_bytes() == UNIT
    assert len(list(root.iterdir())) == 2
    monkeypatch.undo()
    assert change.is_done().answer is Answer.NO
    assert change.do().ok
    assert list(root.iterdir()) == [unit]


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_owner_and_attributes_stay(root: Path, unit: Path) -> None:
    os.chown(unit, 12345, 23456)
    os.setxattr(unit, "user.note", b"kept")
    change = step(root, unit)
    change.take()
    assert change.do().ok
    status = unit.stat()
    assert (status.st_uid, status.st_gid, os.getxattr(unit, "user.note")) == (12345, 23456, b"kept")
    assert change.roll_back().ok
    assert unit.stat().st_uid == 12345
