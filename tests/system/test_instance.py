"""The state directory's own name is the same for every daemon, whether or not it could be written."""

from __future__ import annotations

from pathlib import Path

from supervisors.instance import instance_of


def test_a_written_name_is_kept(tmp_path: Path) -> None:
    (tmp_path / "instance").write_text("0123456789abcdef" * 2 + "\n")
    assert instance_of(tmp_path) == "0123456789abcdef" * 2


def test_a_name_lost_or_half_written_is_the_same_again(tmp_path: Path) -> None:
    first = instance_of(tmp_path)
    assert (tmp_path / "instance").read_text() == first + "\n"
    for left in ("", "0123"):
        (tmp_path / "instance").write_text(left)
        assert instance_of(tmp_path) == first
    (tmp_path / "instance").unlink()
    (tmp_path / "instance").mkdir()  # it cannot be written at all
    assert instance_of(tmp_path) == first


def test_two_directories_have_two_names(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert instance_of(tmp_path) != instance_of(tmp_path / "other")
