"""The folder that stands for a library: each file has exactly one outcome, and a bad one keeps no other."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from guardian_link import Ack, Alert
from tests.senders.held_answers import HeldAnswers
from tests.senders.programs import FOLDER, all_ids, stored
from tests.support.eventually import eventually
from tests.system.running import Running

pytestmark = pytest.mark.xdist_group("senders")
EXAMPLE = (FOLDER / "filedrop" / "example.json").read_bytes()


@contextmanager
def sidecar(folder: Path, place: Running, *more: str) -> Iterator[subprocess.Popen[str]]:
    words = (str(FOLDER / "filedrop" / "selfheal_filedrop.py"), str(folder), "--state", str(place.state), *more)
    process = subprocess.Popen([sys.executable, *words, "--every-s", "0.05"], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def drop(folder: Path, name: str, content: bytes) -> None:
    (folder / f"{name}.tmp").write_bytes(content)
    (folder / f"{name}.tmp").rename(folder / f"{name}.json")


def names(folder: Path) -> list[str]:
    return sorted(path.name.partition("-")[2] for path in folder.glob("*"))


def test_dropped_files_are_stored_and_bad_ones_are_refused(place: Running, tmp_path: Path) -> None:
    drop(tmp_path, "bad", b"{no json")
    os.utime(tmp_path / "bad.json", (1, 1))
    drop(tmp_path, "nameless", b'{"severity": "high"}')
    os.utime(tmp_path / "nameless.json", (2, 2))
    drop(tmp_path, "good", EXAMPLE)
    drop(tmp_path, "wide", EXAMPLE.decode().encode("utf-16"))
    with sidecar(tmp_path, place) as process:
        eventually(lambda: names(tmp_path / "done") == ["good.json", "wide.json"], within_s=20)
        wanted = ["bad.json", "bad.json.reason", "nameless.json", "nameless.json.reason"]
        eventually(lambda: names(tmp_path / "refused") == wanted, within_s=20)
        reasons = [path.read_text() for path in sorted((tmp_path / "refused").glob("*.reason"))]
        assert reasons[0].startswith("malformed: it is no JSON")
        assert reasons[1] == "malformed: type: is missing\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stdout is not None
        lines = [line.split() for line in process.stdout.read().splitlines() if line.startswith("stored")]
    for _, _, message_id, outcome in lines:
        (alert,) = stored(place, message_id)
        assert alert["body"]["message"] == "OrderSend failed: error 130 \u2013 Übung"
        assert alert["outcome"] == outcome
    assert len(lines) == 2


def test_a_file_that_was_stored_and_not_moved_has_one_outcome(place: Running, tmp_path: Path) -> None:
    """As after a kill between the daemon's answer and the move."""
    drop(tmp_path, "once", EXAMPLE)
    with sidecar(tmp_path, place) as first:
        eventually(lambda: names(tmp_path / "done") == ["once.json"], within_s=20)
        first.kill()
        assert first.stdout is not None
        message_id = first.stdout.read().split()[2]
    (moved,) = (tmp_path / "done").iterdir()
    moved.rename(tmp_path / "sending" / moved.name)
    with sidecar(tmp_path, place) as second:
        eventually(lambda: names(tmp_path / "done") == ["once.json"], within_s=20)
        second.kill()
        assert second.stdout is not None
        assert second.stdout.read().split()[2] == message_id
    assert len(stored(place, message_id)) == 1


def test_a_sidecar_killed_in_the_middle_of_sending_leaves_one_alert(place: Running, tmp_path: Path) -> None:
    """Killed after the file was taken and the alert was stored, before the sidecar could hear so."""
    before = all_ids(place)
    held = HeldAnswers(lambda: urlsplit((place.state / "guardian.address").read_text().strip()).port or 0)
    try:
        drop(tmp_path, "killed", EXAMPLE)
        with sidecar(tmp_path, place, "--address", held.address) as first:
            eventually(lambda: all_ids(place) - before, within_s=20)
            assert first.poll() is None
            first.kill()
            first.wait()
    finally:
        held.close()
    (once,) = all_ids(place) - before
    assert names(tmp_path / "sending") == ["killed.json"], "it was killed in the middle"
    with sidecar(tmp_path, place):
        eventually(lambda: names(tmp_path / "done") == ["killed.json"], within_s=20)
    assert all_ids(place) - before == {once}
    assert len(stored(place, once)) == 1


def test_the_same_name_within_one_tick_of_the_clock_are_two_alerts(place: Running, tmp_path: Path) -> None:
    """As on FAT and SMB, whose clock ticks every two seconds. Taken while the daemon cannot be reached."""
    bodies = [EXAMPLE.replace(b"OrderSend", name) for name in (b"First", b"Second", b"Third")]
    with sidecar(tmp_path, place, "--address", "tcp://127.0.0.1:1", "--timeout-s", "0.1"):
        for number, body in enumerate(bodies, 1):
            (tmp_path / "alert.tmp").write_bytes(body)
            os.utime(tmp_path / "alert.tmp", (1000, 1000))
            (tmp_path / "alert.tmp").rename(tmp_path / "alert.json")
            eventually(lambda wanted=number: len(names(tmp_path / "sending")) == wanted, within_s=20)  # type: ignore[misc]
    with sidecar(tmp_path, place):
        eventually(lambda: names(tmp_path / "done") == ["alert.json"] * 3, within_s=20)
    assert {path.read_bytes() for path in (tmp_path / "done").iterdir()} == set(bodies)


def test_whatever_a_file_is_called_or_does_the_others_are_sent(place: Running, tmp_path: Path) -> None:
    drop(tmp_path, "\udcff\udcfe", EXAMPLE)
    drop(tmp_path, "x" * 240, EXAMPLE)
    drop(tmp_path, "\udcff-bad", b'{"severity": "\\ud800", "type": "x"}')
    os.utime(tmp_path / "\udcff-bad.json", (1, 1))
    drop(tmp_path, "good", EXAMPLE)
    with sidecar(tmp_path, place) as process:
        wanted = sorted(["\udcff\udcfe.json", f"{'x' * 175}.json", "good.json"])
        eventually(lambda: names(tmp_path / "done") == wanted, within_s=20)
        eventually(lambda: names(tmp_path / "refused") == ["\udcff-bad.json", "\udcff-bad.json.reason"], within_s=20)
        assert process.poll() is None


def test_a_file_that_fails_as_nobody_foresaw_is_set_aside_and_keeps_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER / "filedrop"))
    module = importlib.import_module("selfheal_filedrop")
    sent: list[str] = []

    class Guardian:
        def send(self, alert: Alert, timeout_s: float) -> Ack:
            del timeout_s
            if alert.message == "bad":
                raise KeyError("nobody foresaw this")
            sent.append(alert.message)
            return Ack(alert.id, "stored")

    box = module.Sidecar(tmp_path, Guardian(), 1.0)
    drop(tmp_path, "a-bad", b'{"type": "x", "message": "bad"}')
    for number in range(module.TRIES):
        drop(tmp_path, f"good-{number}", b'{"type": "x", "message": "good"}')
        box.turn()
    assert len(sent) == module.TRIES
    assert names(tmp_path / "refused") == ["a-bad.json", "a-bad.json.reason"]
    (reason,) = (tmp_path / "refused").glob("*.reason")
    assert reason.read_text() == "unforeseen: KeyError: 'nobody foresaw this'\n"


def test_a_namesake_among_the_done_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken by an earlier version, whose names had no mark."""
    monkeypatch.syspath_prepend(str(FOLDER / "filedrop"))
    module = importlib.import_module("selfheal_filedrop")

    class Guardian:
        def send(self, alert: Alert, timeout_s: float) -> Ack:
            del timeout_s
            return Ack(alert.id, "stored")

    box = module.Sidecar(tmp_path, Guardian(), 1.0)
    for text in ("first", "second"):
        (tmp_path / "sending" / "1000-alert.json").write_text(f'{{"type": "x", "message": "{text}"}}')
        box.turn()
    assert len(names(tmp_path / "done")) == 2
