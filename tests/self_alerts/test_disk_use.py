"""What a service's own files take, and the alert that says so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from config import load_config
from supervisors import disk_use
from supervisors.disk_use import DiskUse, taken_bytes
from supervisors.self_measures import Measures, Sources
from supervisors.self_words import DISK, SERVICE_SCOPE, Subject, alert_of
from tests.approval.desks import HandClock
from tests.system.small_disk import needs_root, small_disk

MIB = 2**20


def fill(path: Path, mib: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(int(mib * MIB)))
    return path


def in_mib(*places: Path) -> int:
    return round(taken_bytes(places) / MIB)


def test_each_file_counts_once_and_what_lies_elsewhere_not_at_all(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    first = fill(own / "a" / "b" / "data", 3)
    fill(other / "data", 5)
    (own / "link").symlink_to(other)
    (own / "loop").symlink_to(own)
    os.link(first, own / "again")
    assert in_mib(own) == 3
    assert in_mib(own, own / "a", first) == 3, "places that lie in each other"
    assert in_mib(own, other) == 8
    assert in_mib(tmp_path / "not there", own) == 3
    with (own / "hole").open("wb") as file:
        file.truncate(100 * MIB)
    assert in_mib(own) == 3, "what counts is what is taken of the disk"


@needs_root
def test_another_file_system_is_not_entered(tmp_path: Path) -> None:
    fill(tmp_path / "data", 3)
    with small_disk(tmp_path / "other", "8m") as other:
        fill(other / "data", 5)
        assert in_mib(tmp_path) == 3
        assert in_mib(tmp_path, other) == 8


def test_a_folder_with_too_many_files_is_not_walked_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        fill(tmp_path / str(number))
    monkeypatch.setattr(disk_use, "MOST_ENTRIES", 11)
    assert in_mib(tmp_path) == 10  # and the folder itself


def test_a_folder_is_walked_once_a_minute(tmp_path: Path) -> None:
    clock = HandClock()
    use = DiskUse(clock)
    fill(tmp_path / "one")
    first = use.of("a", [tmp_path])
    fill(tmp_path / "two")
    clock.pass_s(59)
    assert use.of("a", [tmp_path]) == first
    clock.pass_s(1)
    assert round(use.of("a", [tmp_path]) / MIB) == 2
    use.forget_all_but([])
    fill(tmp_path / "three")
    assert round(use.of("a", [tmp_path]) / MIB) == 3


def test_working_directory_and_logs_are_held_against_the_limit(tmp_path: Path) -> None:
    state, own = tmp_path / "state", tmp_path / "srv"
    fill(own / "cache", 3)
    fill(state / "logs" / "a.log", 1)
    fill(state / "logs" / "a.log.1", 1)
    fill(state / "logs" / "ab.log", 7)
    config = tmp_path / "selfheal.yaml"
    config.write_text(
        f"""
version: 1
services:
  a: {{command: [/bin/true], working_dir: {own}, required_resources: {{disk_mb: 4}}}}
  b: {{command: [/bin/true], working_dir: {own}}}
""",
        encoding="utf-8",
    )
    loaded = load_config(config, {})
    measures = Measures(Sources(lambda: loaded, lambda _name: True, dict, state, HandClock()))
    found = measures.measure()
    assert Subject(DISK, SERVICE_SCOPE, "b") not in found
    subject = Subject(DISK, SERVICE_SCOPE, "a")
    figure = found[subject]
    assert figure.value is not None
    assert round(figure.value) == 5
    assert figure.limit.most == 4
    alert: dict[str, Any] = alert_of(subject, figure)
    assert (alert["type"], alert["service"], alert["labels"]["path"]) == ("disk_space_low", "a", str(own))
    assert "its files take 5 MiB" in alert["message"]
