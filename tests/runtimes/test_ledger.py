"""The ledger: what survives a kill, a torn line, garbage, a full disk."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

import actors
from actors.keeper.record import Record, intent
from actors.ledger import LAST_S, SHORTEN_BYTES, Ledger, ManualStop, Phase, Scaled, ServiceRecord, fold


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.jsonl"


def trouble(ledger: Ledger) -> str | None:
    return ledger.trouble


def story(ledger: Ledger) -> None:
    ledger.intent("a", 1, "process", "t1")
    ledger.launched("a", 1, {"pid": 5}, 10.0)
    ledger.exited("a", 1, {"code": 3})
    ledger.restarted("a")
    ledger.intent("a", 2, "process", "t2")
    ledger.launched("a", 2, {"pid": 6}, 20.0)
    ledger.stopped_by("b", ManualStop("alice", 30.0, "maintenance"))


def test_everything_is_there_again_after_reopening(path: Path) -> None:
    ledger = Ledger(path)
    story(ledger)
    before = ledger.records()
    ledger.close()
    for _ in range(2):  # the second time from the shortened file
        ledger = Ledger(path)
        assert ledger.records() == before
        assert ledger.trouble is None
        ledger.close()
    record = before["a"]
    assert (record.run, record.phase, record.token, record.identity) == (2, Phase.LAUNCHED, "t2", {"pid": 6})
    assert (record.restarts, record.last_exit, record.started_at) == (1, {"code": 3}, 20.0)
    assert before["b"].stopped == ManualStop("alice", 30.0, "maintenance")


def test_the_restart_after_a_run_is_counted_once_whoever_counts_it(path: Path) -> None:
    ledger = Ledger(path)
    story(ledger)  # the daemon that saw run 1 end has counted it
    assert ledger.restarted("a", 1) == 1
    ledger.close()
    later = Ledger(path)
    assert later.restarted("a", 1) == 1, "its successor hears of that end too"
    assert later.restarted("a", 2) == 2
    assert later.restarted("a") == 3, "a try that started nothing counts as before"


def test_opening_shortens_to_one_line_a_service(path: Path) -> None:
    ledger = Ledger(path)
    for run in range(1, 200):
        ledger.intent("a", run, "process", f"t{run}")
    ledger.close()
    assert len(path.read_bytes().splitlines()) == 199
    Ledger(path).close()
    assert len(path.read_bytes().splitlines()) == 1


def test_a_manual_stop_can_be_taken_back(path: Path) -> None:
    ledger = Ledger(path)
    ledger.stopped_by("a", ManualStop("bob", 1.0))
    ledger.stopped_by("a", None)
    ledger.close()
    reopened = Ledger(path)
    assert reopened.record("a").stopped is None
    reopened.close()


def test_a_late_exit_of_an_older_run_changes_nothing() -> None:
    record = ServiceRecord("a", run=2, phase=Phase.LAUNCHED, identity={"pid": 6})
    assert fold(record, {"is": "exited", "run": 1, "exit": {"code": 1}}) == record
    assert fold(record, {"is": "launched", "run": 1, "identity": {}, "started_at": 0}) == record


def test_an_end_that_is_written_before_its_launch_is_an_end() -> None:
    record = fold(ServiceRecord("a"), {"is": "intent", "run": 1, "runtime": "process", "token": "t"})
    record = fold(record, {"is": "exited", "run": 1, "exit": {"code": 0}})
    record = fold(record, {"is": "launched", "run": 1, "identity": {"pid": 6}, "started_at": 5})
    assert (record.phase, record.identity, record.started_at) == (Phase.EXITED, {"pid": 6}, 5.0)
    record = fold(record, {"is": "intent", "run": 2, "runtime": "process", "token": "u"})
    record = fold(record, {"is": "launched", "run": 2, "identity": {"pid": 7}, "started_at": 6})
    assert record.phase is Phase.LAUNCHED


def test_a_rest_lasts_until_the_next_run(path: Path) -> None:
    ledger = Ledger(path)
    story(ledger)
    ledger.rested()
    assert not ledger.record("a").is_rested, "it has not ended"
    ledger.exited("a", 2, {"code": 0})
    ledger.rested()
    ledger.close()
    later = Ledger(path)
    assert later.record("a").is_rested
    later.intent("a", 3, "process", "t3")
    assert not later.record("a").is_rested
    later.close()


def test_a_torn_last_line_is_no_corruption_and_costs_only_itself(path: Path) -> None:
    ledger = Ledger(path)
    story(ledger)
    ledger.close()
    with path.open("ab") as file:
        file.write(b'{"is":"intent","service":"a","ru')
    ledger = Ledger(path)
    assert ledger.record("a").run == 2
    assert ledger.corrupt_lines == 0
    ledger.intent("a", 3, "process", "t3")
    ledger.close()
    reopened = Ledger(path)
    assert (reopened.record("a").run, reopened.corrupt_lines) == (3, 0)
    reopened.close()


def test_corrupt_lines_are_counted_and_kept_aside(path: Path) -> None:
    ledger = Ledger(path)
    story(ledger)
    ledger.close()
    good = path.read_bytes().splitlines(keepends=True)
    bad = [b"\xff\xfe\n", b'{"is":"unknown","service":"a"}\n', b"[1]\n", b'{"is":"intent","service":"a"}\n']
    path.write_bytes(b"".join([*good[:2], *bad, *good[2:]]))
    ledger = Ledger(path)
    assert ledger.corrupt_lines == len(bad)
    assert ledger.record("a").run == 2
    assert path.with_name("ledger.jsonl.corrupt").read_bytes() == b"".join(bad)
    ledger.close()
    again = Ledger(path)
    assert again.corrupt_lines == 0
    again.close()


def test_a_full_disk_is_told_and_stops_nobody(path: Path) -> None:
    ledger = Ledger(path)
    ledger.intent("a", 1, "process", "t")
    assert ledger._fd is not None
    kept = os.dup(ledger._fd)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, ledger._fd)
    ledger.intent("a", 2, "process", "t2")
    assert trouble(ledger) == f"cannot write {path}: No space left on device"
    assert ledger.record("a").run == 2
    os.dup2(kept, ledger._fd)
    ledger.intent("a", 3, "process", "t3")
    assert trouble(ledger) is None
    ledger.close()
    os.close(kept)
    os.close(full)


def test_a_place_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ledger = Ledger(tmp_path / "file" / "ledger.jsonl")
    ledger.intent("a", 1, "process", "t")
    assert ledger.record("a").phase is Phase.INTENT
    assert "cannot" in (ledger.trouble or "")
    ledger.close()


WRITER = """
import sys
from pathlib import Path
from actors.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
run = 0
while True:
    run += 1
    ledger.intent("a", run, "process", "t")
    print(run, flush=True)
"""


def test_what_was_written_survives_a_kill(path: Path) -> None:
    root = Path(actors.__file__).parent.parent
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=root)
    assert writer.stdout is not None
    for _ in range(500):
        told = int(writer.stdout.readline())
    writer.kill()
    writer.wait()
    writer.stdout.close()
    ledger = Ledger(path)
    assert ledger.record("a").run >= told
    assert ledger.corrupt_lines == 0
    ledger.close()


FILLER = """
import resource, sys
from pathlib import Path
from actors.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.intent("a", 1, "process", "t")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (Path(sys.argv[1]).stat().st_size + 20, hard))
ledger.intent("a", 2, "process", "t")
assert "disk full" in ledger.trouble, ledger.trouble
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
ledger.intent("a", 3, "process", "t")
assert ledger.trouble is None, ledger.trouble
"""


def test_a_line_cut_short_by_a_full_disk_costs_only_itself(path: Path) -> None:
    root = Path(actors.__file__).parent.parent
    subprocess.run([sys.executable, "-c", FILLER, str(path)], check=True, cwd=root)
    ledger = Ledger(path)
    assert (ledger.record("a").run, ledger.corrupt_lines) == (3, 1)
    ledger.close()


def test_many_threads_write_whole_lines(path: Path) -> None:
    ledger = Ledger(path)

    def work(service: str) -> None:
        for _ in range(200):
            ledger.restarted(service)

    threads = [threading.Thread(target=work, args=(f"s{number % 2}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert all(json.loads(line)["is"] == "restarted" for line in path.read_bytes().splitlines())
    reopened = Ledger(path)
    assert {name: record.restarts for name, record in reopened.records().items()} == {"s0": 600, "s1": 600}
    reopened.close()


def test_a_forgotten_service_is_gone_after_reopening(path: Path) -> None:
    ledger = Ledger(path)
    story(ledger)
    ledger.forget("a")
    ledger.close()
    reopened = Ledger(path)
    assert set(reopened.records()) == {"b"}
    reopened.close()


def test_a_scale_is_remembered_and_taken_back(path: Path) -> None:
    ledger = Ledger(path)
    ledger.scaled_by("a", Scaled(3, "ann", 5.0, "load"))
    ledger.scaled_by("b", Scaled(2, "ann", 5.0))
    ledger.scaled_by("b", None)
    ledger.close()
    for _ in range(2):  # the second time from the shortened file
        ledger = Ledger(path)
        assert ledger.record("a").scaled == Scaled(3, "ann", 5.0, "load")
        assert ledger.record("b").scaled is None
        ledger.close()


def test_a_ledger_of_before_there_were_scales_is_read(path: Path) -> None:
    path.parent.mkdir(parents=True)
    record = {"service": "a", "run": 4, "phase": "exited", "runtime": "process", "token": "t", "restarts": 2}
    path.write_text(json.dumps({"is": "record", "service": "a", "record": record}) + "\n")
    ledger = Ledger(path)
    assert ledger.corrupt_lines == 0
    assert (ledger.record("a").run, ledger.record("a").scaled) == (4, None)
    ledger.close()


def test_a_retired_service_leaves_only_its_run_number(path: Path) -> None:
    ledger = Ledger(path)
    story(ledger)
    ledger.scaled_by("a", Scaled(3, "ann", 5.0))
    ledger.retire("a")
    assert ledger.record("a") == ServiceRecord("a", run=2), "a run number names one run for ever"
    ledger.close()


def test_a_pause_is_remembered_and_ended_by_a_stop_or_a_start(path: Path) -> None:
    wish = ManualStop("alice", 5.0, "holiday")
    for end in (None, ManualStop("bob", 6.0)):
        ledger = Ledger(path)
        ledger.paused_by("a", wish)
        ledger.close()
        ledger = Ledger(path)
        assert ledger.record("a").paused == wish
        ledger.stopped_by("a", end)
        ledger.close()
        ledger = Ledger(path)
        assert (ledger.record("a").paused, ledger.record("a").stopped) == (None, end)
        ledger.close()


def test_a_ledger_from_before_there_were_pauses_is_read(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(
        '{"is":"record","service":"a","record":{"service":"a","run":2,"phase":"exited","stopped":null},"format":1}\n'
        '{"is":"desired","service":"a","stopped":{"by":"ann","at":1.0,"why":""}}\n'
    )
    ledger = Ledger(path)
    assert (ledger.corrupt_lines, ledger.record("a").run) == (0, 2)
    assert ledger.record("a").stopped == ManualStop("ann", 1.0)
    assert ledger.record("a").paused is None
    ledger.close()


@pytest.mark.parametrize("loss", ["removed", "cut"])
def test_what_the_file_lost_is_written_again_at_the_next_look(path: Path, loss: str) -> None:
    ledger = Ledger(path)
    story(ledger)
    known = ledger.records()
    if loss == "removed":
        path.unlink()
    else:
        os.truncate(path, 10)
    assert ledger.look() is None
    ledger.close()
    again = Ledger(path)
    assert again.records() == known
    again.close()


@pytest.mark.parametrize(
    "record",
    [
        {"run": "many", "phase": "launched"},
        {"run": -1, "phase": "launched"},
        {"run": True, "phase": "launched"},
        {"run": 1, "phase": "launched", "identity": {"pid": 1, "start_ticks": 1, "boot_id": "b"}},
        {"run": 1, "phase": "launched", "identity": {"pid": -5}},
        {"run": 1, "phase": "launched", "identity": [1]},
        {"run": 1, "phase": "exited", "last_exit": {"cause": "exit 1", "at": "never"}},
        {"run": 1, "phase": "exited", "last_exit": {"cause": "exit 1", "code": "one"}},
        {"run": 1, "phase": "launched", "token": 7},
        {"run": 1, "phase": "launched", "started_at": 1e999},
        {"run": 1, "phase": "launched", "service": "b"},
    ],
)
def test_nonsense_in_a_whole_line_reaches_nobody(path: Path, record: dict[str, object]) -> None:
    path.parent.mkdir(parents=True)
    entry = {"is": "record", "service": "a", "record": {"service": "a", **record}, "format": 1}
    path.write_text(json.dumps(entry) + "\n")
    ledger = Ledger(path)
    assert (ledger.corrupt_lines, ledger.records()) == (1, {})
    assert "1 corrupt line" in (ledger.trouble or "")
    ledger.close()


@pytest.mark.parametrize("at", ["NaN", "Infinity", "1e18", "4.1e9", "-1e300", "-1.0", "null"])
@pytest.mark.parametrize(
    "line",
    [
        '{"is":"desired","service":"a","stopped":{"by":"x","at":AT,"why":""}}',
        '{"is":"desired","service":"a","stopped":null,"paused":{"by":"x","at":AT,"why":""}}',
        '{"is":"scaled","service":"a","scaled":{"replicas":2,"by":"x","at":AT,"why":""}}',
        '{"is":"launched","service":"a","run":2,"identity":{"pid":6},"started_at":AT}',
        '{"is":"exited","service":"a","run":2,"exit":{"cause":"exit 1","at":AT}}',
        '{"is":"ready","service":"a","run":2,"proof":{"at":AT,"now_s":1.0,"boot_id":"b"}}',
        '{"is":"record","service":"a","record":{"service":"a","run":2,"phase":"launched","started_at":AT}}',
        '{"is":"record","service":"a","record":{"service":"a","run":2,"phase":"exited","last_exit":{"at":AT}}}',
        '{"is":"record","service":"a","record":{"service":"a","phase":"never","stopped":{"by":"x","at":AT}}}',
    ],
)
def test_a_time_that_is_none_costs_its_line(path: Path, line: str, at: str) -> None:
    ledger = Ledger(path)
    story(ledger)
    known = ledger.records()
    ledger.close()
    bad = line.replace("AT", at).encode() + b"\n"
    with path.open("ab") as file:
        file.write(bad)
    again = Ledger(path)
    assert (again.corrupt_lines, again.records()) == (1, known)
    assert path.with_name("ledger.jsonl.corrupt").read_bytes() == bad
    again.close()


def test_times_from_the_first_to_the_last_are_good(path: Path) -> None:
    ledger = Ledger(path)
    ledger.stopped_by("a", ManualStop("ann", 0.0))
    ledger.stopped_by("b", ManualStop("ann", LAST_S))
    ledger.close()
    again = Ledger(path)
    assert (again.corrupt_lines, sorted(again.records())) == (0, ["a", "b"])
    again.close()


def test_a_line_another_writer_left_torn_costs_nobody_else_s(path: Path) -> None:
    """The keeper appends too, and may run out of room in the middle of a line."""
    ledger = Ledger(path)
    story(ledger)
    with path.open("ab") as keeper:
        keeper.write(b'{"is":"intent","service":"a","run":9')
    ledger.stopped_by("a", ManualStop("ann", 5.0))
    ledger.close()
    again = Ledger(path)
    assert again.record("a").stopped == ManualStop("ann", 5.0)
    again.close()


# -- shortened while the daemon lives ----------------------------------------------------------------------------------


def test_a_ledger_that_has_grown_is_shortened_while_it_is_open(path: Path) -> None:
    ledger = Ledger(path)
    story(ledger)
    while path.stat().st_size <= SHORTEN_BYTES:
        run = ledger.record("a").run + 1
        ledger.intent("a", run, "process", f"t{run}")
        ledger.exited("a", run, {"code": 3})
    assert ledger.look() is None
    assert len(path.read_bytes().splitlines()) == 2, "one line a service"
    ledger.restarted("a")
    assert len(path.read_bytes().splitlines()) == 3, "what follows goes into the new file"
    before = ledger.records()
    ledger.close()
    again = Ledger(path)
    assert again.records() == before
    assert again.corrupt_lines == 0
    again.close()


def test_no_line_of_the_keeper_is_lost_when_the_ledger_is_shortened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.ledger.SHORTEN_BYTES", 0)
    monkeypatch.setattr("actors.ledger.SHORTEN_TIMES", 1)
    ledger, record, enough = Ledger(path), Record(), threading.Event()
    record.open(str(path))
    written, shortened, compact = 0, 0, Ledger._compact

    def counted(one: Ledger, records: Mapping[str, ServiceRecord]) -> bool:
        nonlocal shortened
        shortened += 1
        return compact(one, records)

    def keep() -> None:
        nonlocal written
        while not enough.is_set():
            record.write({"is": "restarted", "service": "k", "run": 0})
            written += 1

    monkeypatch.setattr(Ledger, "_compact", counted)
    keeper = threading.Thread(target=keep)
    keeper.start()
    while shortened < 20:
        ledger.restarted("d")
        ledger.look()
    enough.set()
    keeper.join()
    record.look()
    ledger.close()
    again = Ledger(path)
    assert (again.record("k").restarts, again.corrupt_lines, record.trouble) == (written, 0, None)
    assert written
    again.close()


def test_the_keeper_waits_for_nobody_and_writes_later(path: Path) -> None:
    ledger, record = Ledger(path), Record()
    record.open(str(path))
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    record.write(intent("a", 1, "t1"))
    record.write(intent("a", 2, "t2"))
    assert path.read_bytes() == b""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
    record.look()
    ledger.close()
    assert Ledger(path).record("a").token == "t2"


def test_a_line_the_keeper_left_torn_costs_only_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ran out of room in the middle of a line; its next one begins on a line of its own."""
    Ledger(path).close()
    record, write = Record(), os.write
    record.open(str(path))
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    record.write(intent("a", 1, "t1"))
    troubles = [record.trouble]
    monkeypatch.undo()
    record.write(intent("a", 2, "t2"))
    assert [*troubles, record.trouble] == ["disk full", None]
    again = Ledger(path)
    assert (again.record("a").token, again.corrupt_lines) == ("t2", 1)
    again.close()


def test_only_the_owner_may_read_it(path: Path) -> None:
    """Tokens are in it, by which a process shows whose it is."""
    Ledger(path).close()
    for bad in (b"", b"nonsense\n"):
        path.chmod(0o644)
        with path.open("ab") as file:
            file.write(bad)
        ledger = Ledger(path)
        story(ledger)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        ledger._shorten_above = 0
        ledger.look()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        ledger.close()
    assert stat.S_IMODE(path.with_name("ledger.jsonl.corrupt").stat().st_mode) == 0o600


def test_an_unreadable_ledger_is_not_replaced_by_an_empty_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(path)
    story(ledger)
    ledger.close()
    before = path.read_bytes()

    def unreadable(_: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", unreadable)
    second = Ledger(path)
    assert "Input/output error" in (second.trouble or "")
    second.close()
    monkeypatch.undo()
    assert path.read_bytes() == before


def test_what_was_launched_is_known_of_the_keepers_runs_too_and_of_no_other_runtimes(path: Path) -> None:
    ledger, record = Ledger(path), Record()
    record.open(str(path))
    ledger.intent("a", 1, "process", "t1", "h1")
    record.write(intent("a", 2, "t2"))
    ledger.close()
    ledger = Ledger(path)
    assert (ledger.record("a").run, ledger.record("a").spec_hash) == (2, "h1")
    ledger.intent("a", 3, "docker", "x")
    assert ledger.record("a").spec_hash == ""
    ledger.intent("a", 4, "docker", "x", "h4")
    ledger.intent("a", 5, "docker", "x", "")
    assert ledger.record("a").spec_hash == ""
    ledger.close()


@pytest.mark.parametrize("where", ["intent", "record"])
def test_a_hash_that_is_none_is_no_entry(path: Path, where: str) -> None:
    ledger = Ledger(path)
    ledger.intent("a", 1, "process", "t1", "h1")
    ledger.close()
    lines = {
        "intent": {"is": "intent", "service": "a", "run": 2, "runtime": "process", "token": "t", "spec_hash": 5},
        "record": {"is": "record", "service": "a", "record": {"service": "a", "phase": "intent", "spec_hash": None}},
    }
    with path.open("a", encoding="ascii") as file:
        file.write(json.dumps(lines[where]) + "\n")
    ledger = Ledger(path)
    assert (ledger.corrupt_lines, ledger.record("a").run, ledger.record("a").spec_hash) == (1, 1, "h1")
