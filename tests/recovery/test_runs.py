"""Running executions: who may write, what bounds them, how they are ended, and what is known after an end."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog

from actors import runbook, runbook_hands
from actors.journal import rows, runs
from actors.journal.alert_batches import NewDecision, new_alert, record_decisions, store_alerts
from actors.journal.journal import Journal
from actors.journal.rows import Execution
from actors.journal.runs import HasEnded, Overtaken, RunLost
from actors.journal.schema import JournalTrouble
from actors.runbook import StopPolicy, StopRun
from guardian_link import Alert, GuardianClient
from runbooks import engine
from runbooks.engine_words import CallDone, Kind, Record
from runbooks.model import Status
from runbooks.parse import SHIPPED, load_library
from runbooks.ports import RunInfo
from supervisors.action_ports import ActionsPlan
from supervisors.manager import CommandFailed, UnknownNode
from supervisors.recovery import RecoveryPlan
from tests.recovery.place import Place, World, recovering
from tests.recovery.test_deciding import own
from tests.runbooks.files import GOOD
from tests.support.eventually import eventually, holds_for
from tests.support.tables import TABLE

PATH = "root/runbooks/x-1"
INTENT = Record(Kind.INTENT, 0, "restart", 1, bound="abc", outputs=None, trouble="")
Recordings = Callable[[str, object], None]


def failure(service: str = "a", **more: Any) -> Alert:
    return Alert(type="service_failure", service=service, message="no heartbeat", **more)


def shown(place: Place, execution_id: str) -> dict[str, Any]:
    return dict(place.recovery.records.execution(execution_id) or {})


def ended(place: Place, execution_id: str) -> dict[str, Any]:
    eventually(lambda: shown(place, execution_id).get("ended_at") is not None, within_s=40)
    return shown(place, execution_id)


def alerted(place: Place) -> list[Any]:
    """The alerts about recoveries that failed."""
    return [one for one in place.recovery.records.alerts(9) if one["type"] == "recovery_failed"]


def is_empty(place: Place) -> bool:
    """Whether the journal is a new one, and can be read."""
    try:
        return not place.recovery.records.executions(9)
    except JournalTrouble:
        return False


def in_journal(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "journal.db") as db:
        return list(db.execute(query))


def begun(place: Place, guardian: GuardianClient, service: str = "a") -> str:
    """An execution whose restart is under way (the world's gate holds it)."""
    place.world.gate.clear()
    ack = guardian.send(failure(service))
    assert ack.execution_id is not None
    eventually(lambda: service in place.world.restarts, within_s=30)
    return ack.execution_id


# -- who may write ----------------------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    made = Journal(tmp_path / "journal.db")
    made.start()
    yield made
    made.close()


@pytest.fixture
def execution(journal: Journal) -> Execution:
    row = new_alert("local", "alert-1", {"type": "t", "service": "a"}, 1.0)
    journal.submit(lambda db: store_alerts(db, [row])).result(10)
    made = Execution("x-1", 1, "rb", b"{}", "0", "service:a", {}, "f", "high", 50, Status.RUNNING, 1.0)
    body = {"outcome": "run", "execution_id": "x-1", "runbook": "rb", "reason": ""}
    journal.submit(lambda db: record_decisions(db, [NewDecision(1, body, made, 1.0)])).result(10)
    return made


def test_only_the_newest_incarnation_writes(journal: Journal, execution: Execution) -> None:
    def do(work: Callable[[sqlite3.Connection], Any]) -> Any:
        return journal.submit(work).result(10)

    old = do(lambda db: runs.claim(db, PATH, execution, 2.0))
    assert (old.epoch, old.stalls, old.started_at, old.facts["service"]) == (1, 1, 2.0, "a")
    do(lambda db: runs.add_record(db, "x-1", old.epoch, INTENT, 3.0))
    new = do(lambda db: runs.claim(db, PATH, execution, 4.0))
    assert (new.epoch, new.stalls, new.started_at, new.records) == (2, 1, 2.0, [(3.0, INTENT)])
    with pytest.raises(Overtaken):
        do(lambda db: runs.add_record(db, "x-1", old.epoch, INTENT, 5.0))
    with pytest.raises(Overtaken):
        do(lambda db: runs.finish(db, PATH, execution, old.epoch, Status.SUCCEEDED, "", 5.0))
    assert journal.read(lambda db: rows.records(db, "x-1")) == [(3.0, INTENT)]
    do(lambda db: runs.finish(db, PATH, execution, new.epoch, Status.FAILED, "no", 6.0))
    with pytest.raises(HasEnded) as end:
        do(lambda db: runs.finish(db, PATH, execution, new.epoch, Status.SUCCEEDED, "", 7.0))
    assert (end.value.status, end.value.detail) == (Status.FAILED, "no")
    with pytest.raises(HasEnded):
        do(lambda db: runs.add_record(db, "x-1", new.epoch, INTENT, 7.0))
    with pytest.raises(HasEnded):
        do(lambda db: runs.claim(db, PATH, execution, 8.0))


def test_incarnations_that_write_nothing_are_counted(journal: Journal, execution: Execution) -> None:
    claims = [journal.submit(lambda db: runs.claim(db, PATH, execution, 2.0)).result(10) for _ in range(3)]
    assert [claim.stalls for claim in claims] == [1, 2, 3]
    journal.submit(lambda db: runs.add_record(db, "x-1", 3, INTENT, 3.0)).result(10)
    assert journal.submit(lambda db: runs.claim(db, PATH, execution, 4.0)).result(10).stalls == 1


@pytest.mark.parametrize("status", list(runs.LATCHING))
def test_an_end_nobody_can_trust_latches_in_the_same_transaction(
    journal: Journal, execution: Execution, status: Status
) -> None:
    claim = journal.submit(lambda db: runs.claim(db, PATH, execution, 2.0)).result(10)

    def fail_after_it(db: sqlite3.Connection) -> None:
        runs.finish(db, PATH, execution, claim.epoch, status, "stuck", 3.0)
        raise ValueError("and then the disk was full")

    with pytest.raises(ValueError, match="disk"):
        journal.submit(fail_after_it).result(10)
    assert journal.read(runs.untold_failures) == []
    assert journal.read(rows.counts) == {"running": 1}
    journal.submit(lambda db: runs.finish(db, PATH, execution, claim.epoch, status, "stuck", 3.0)).result(10)
    (latch,) = journal.read(runs.untold_failures)
    assert (latch["target"], latch["execution_id"], latch["at"]) == ("service:a", "x-1", 3.0)
    assert latch["why"] == f"rb {status.value}: stuck"


def test_what_the_journal_does_not_know_cannot_be_written(journal: Journal, execution: Execution) -> None:
    journal.submit(lambda db: db.execute("DELETE FROM executions")).result(10)
    for work in (
        lambda db: runs.claim(db, PATH, execution, 2.0),
        lambda db: runs.add_record(db, "x-1", 1, INTENT, 2.0),
        lambda db: runs.finish(db, PATH, execution, 1, Status.FAILED, "", 2.0),
    ):
        with pytest.raises(RunLost):
            journal.submit(work).result(10)


def test_whether_nothing_was_changed_is_kept(journal: Journal, execution: Execution) -> None:
    """A record that does not say so is written as ever: an older daemon reads it."""
    known = [Record(Kind.DONE, 0, "a", 1, ok=False, untouched=True), Record(Kind.DONE, 0, "a", 1, ok=False)]

    def work(db: sqlite3.Connection) -> list[str]:
        for record in known:
            rows.add_record(db, execution.id, record, 1.0)
        return [row[0] for row in db.execute("SELECT record FROM steps ORDER BY seq")]

    assert ["untouched" in one for one in journal.submit(work).result(10)] == [True, False]
    assert [record for _, record in journal.read(lambda db: rows.records(db, execution.id))] == known


# -- crashes ----------------------------------------------------------------------------------------------------------


def test_a_run_that_crashes_its_actor_every_time_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its call was made; every actor breaks when it hears of that."""
    real = engine.step
    broken: list[Any] = []

    def breaks(state: Any, event: Any, now: float) -> Any:
        if isinstance(event, CallDone) or broken:
            broken.append(event)
            raise ZeroDivisionError("a fault of ours")
        return real(state, event, now)

    monkeypatch.setattr(engine, "step", breaks)
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(failure())
        assert ack.execution_id is not None
        end = ended(place, ack.execution_id)
        assert end["status"] == "unknown"
        assert "crashed 3 times" in end["detail"]
        assert "ZeroDivisionError" in end["detail"]
        assert len(broken) == runbook.MOST_CRASHES
        assert place.world.restarts == ["a"]
        assert [row[0] for row in in_journal(tmp_path, "SELECT target FROM latches")] == ["service:a"]
        failed = eventually(
            lambda: [one for one in place.recovery.records.alerts(9) if one["service"] == "a"][:-1], within_s=30
        )
        assert [(one["type"], one["severity"]) for one in failed] == [("recovery_failed", "critical")]
        assert guardian.send(failure("b")).execution_id is not None  # all else goes on


@pytest.mark.parametrize("broken", ["claim", "add_record", "finish"])
def test_what_cannot_be_written_by_a_fault_of_ours_is_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Neither the disk nor the file is at fault: the run ends at once, its target is latched, and people hear of it."""
    real = getattr(runs, broken)
    tries: list[Any] = []

    def breaks(db: Any, *given: Any) -> Any:
        if broken == "add_record" and given[2].kind is Kind.INTENT:
            return real(db, *given)
        tries.append(given)
        raise TypeError("not for \ud800 tables")

    monkeypatch.setattr(runs, broken, breaks)
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(failure())
        assert ack.execution_id is not None
        if broken != "finish":
            end = ended(place, ack.execution_id)
            assert end["status"] == "unknown"
            assert "by a fault of the program: TypeError('not for \\ud800 tables')" in end["detail"], end["detail"]
        eventually(lambda: len(alerted(place)) == 1, within_s=30)
        assert in_journal(tmp_path, "SELECT target FROM latches") == [("service:a",)]
        holds_for(lambda: len(tries) == (2 if broken == "finish" else 1), 1.5)


def test_a_trouble_of_the_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = runs.add_record
    tries: list[Any] = []

    def full_twice(db: Any, *given: Any) -> Any:
        tries.append(given)
        if len(tries) <= 2:
            raise OSError(28, "No space left on device")
        return real(db, *given)

    monkeypatch.setattr(runs, "add_record", full_twice)
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(failure())
        assert ack.execution_id is not None
        assert ended(place, ack.execution_id)["status"] == "succeeded"
        assert place.world.restarts == ["a"]


def test_a_file_name_that_is_no_text_is_written_out(tmp_path: Path) -> None:
    """It stands in what the step says, and so in records, events, the end and the alert about it."""
    root = tmp_path / "root"
    root.mkdir()
    file = root / os.fsdecode(b"bericht-\xfc.log")
    file.write_bytes(os.urandom(200_000))  # it cannot be compressed: putting it aside frees nothing
    os.utime(file, (1, 1))
    given = {"root": str(root)}
    put_aside = {
        "id": "put_aside",
        "name": "Put aside",
        "action_type": "resource_cleanup",
        "effect": "mutating",
        "parameters": {**given, "patterns": ["*.log"], "until_free": "100%"},
        "probe": {"call": {"type": "cleanup_done", "with": given}},
        "verify": {"call": {"type": "disk_free", "with": {"path": str(root), "at_least": "0%"}}},
        "rollback": {
            "call": {"type": "cleanup_restore", "with": given},
            "verify": {"call": {"type": "cleanup_restored", "with": given}},
        },
    }
    books = tmp_path / "books"
    books.mkdir()
    (books / "clean.json").write_text(json.dumps({**GOOD, "id": "clean", "priority": 99, "actions": [put_aside]}))
    state = tmp_path / "state"
    every = "tcp://127.0.0.1:0"
    actions = ActionsPlan(cleanup_roots=(root,))
    plan = RecoveryPlan(state, True, 5, (books,), every, every, warm_up_s=0.0, actions=actions)
    with recovering(state, plan=plan) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(failure())
        assert ack.execution_id is not None
        end = ended(place, ack.execution_id)
        assert end["runbook"] == "clean"
        assert "bericht-\\udcfc.log" in end["detail"], end
        assert file.exists()


def test_a_text_that_is_none_can_be_stored_and_found(journal: Journal) -> None:
    def work(db: sqlite3.Connection) -> list[Any]:
        rows.add_event(db, 1.0, "root/\udcfc", "e", "ok: ü, half: \ud800", {})
        rows.add_event(db, 1.0, "root/ü", "e", "", {})
        found = rows.events(db, "root/\udcfc", 9)
        return [found[0]["text"], len(found), *db.execute("SELECT :it", {"it": "\udc80"}).fetchone()]

    assert journal.submit(work).result(10) == ["ok: ü, half: \\ud800", 1, "\\udc80"]


def test_without_an_intent_a_crashing_run_has_done_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> Any:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(engine, "start", breaks)
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(failure())
        assert ack.execution_id is not None
        assert ended(place, ack.execution_id)["status"] == "failed"
        assert in_journal(tmp_path, "SELECT target FROM latches") == []


def test_a_journal_lost_under_a_run_ends_it_clearly(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        execution_id = begun(place, guardian)
        for name in ("journal.db", "journal.db-wal"):  # a page that the log still has would make it whole again
            damaged = tmp_path / name
            with damaged.open("r+b") as file:
                file.write(os.urandom(damaged.stat().st_size))
        eventually(lambda: is_empty(place), within_s=30)
        place.world.gate.set()
        eventually(lambda: in_journal(tmp_path, "SELECT execution_id FROM latches"), within_s=30)
        assert in_journal(tmp_path, "SELECT target, execution_id FROM latches") == [("service:a", execution_id)]
        eventually(lambda: place.system.whereis(f"root/runbooks/{execution_id}") is None, within_s=30)
        alerts = eventually(
            lambda: [one for one in place.recovery.records.alerts(9) if one["service"] == "a"], within_s=30
        )
        assert alerts[0]["type"] == "recovery_failed"
        assert place.world.restarts == ["a"]


def test_an_untold_failure_is_told_by_the_next_daemon(tmp_path: Path) -> None:
    with recovering(tmp_path) as place:
        place.recovery._journal.submit(lambda db: runs.latch(db, "service:b", "x-7", 1.0, "rb unknown: why")).result(10)
        assert place.recovery.records.alerts(9) == []
    for _ in range(2):  # and only once
        assert _told(tmp_path) == [("recovery-failed-x-7", "b")]


def _told(folder: Path) -> list[tuple[str, str]]:
    with recovering(folder) as place:
        alerts = eventually(lambda: place.recovery.records.alerts(9), within_s=30)
        return [(one["id"], one["service"]) for one in alerts]


PLAUSIBLE = {"service": "a", "endpoint": "desk", "path": "/data"}
UNLIKELY = ("box", "box:", "disk:/var/log/mein ordner \u00e9", f"service:{'a' * 200}", "zz:-x")


def _targets() -> list[str]:
    """Those of the shipped runbooks; each parameter in one has a value here."""
    found = {one.target.format_map(PLAUSIBLE) for one in load_library((SHIPPED,)).runbooks if one.target}
    assert {"service:a", "trading:desk", "bridge:desk", "disk:/data"} <= found
    return [*sorted(found), *UNLIKELY]


def _latched(folder: Path, targets: Mapping[str, str]) -> None:
    """``targets``: by execution id."""

    def latch(db: sqlite3.Connection) -> None:
        for execution_id, target in targets.items():
            runs.latch(db, target, execution_id, 1.0, "rb rollback_failed: why")

    with recovering(folder) as place:
        place.recovery._journal.submit(latch).result(10)


def _failures(place: Place) -> list[dict[str, Any]]:
    """The alerts about recoveries that failed, as they were sent."""
    found = place.recovery._journal.read(lambda db: rows.alerts(db, 99))
    return [one["body"] for one in found if one["body"]["type"] == "recovery_failed"]


def test_a_failure_on_any_target_is_told(tmp_path: Path) -> None:
    """A service is named where the target's name can be a service's."""
    targets = {f"x-{number}": target for number, target in enumerate(_targets())}
    _latched(tmp_path, targets)
    with recovering(tmp_path) as place:

        def told() -> dict[str, Any]:
            found = {one["labels"]["execution"]: one for one in _failures(place)}
            assert found.keys() == targets.keys()
            return found

        found = eventually(told, within_s=30)
    assert {name: one["labels"]["target"] for name, one in found.items()} == targets
    services = {one["labels"]["target"]: one.get("service") for one in found.values()}
    assert (services["service:a"], services["trading:desk"], services["box"]) == ("a", "desk", "box")
    assert not any(services[target] for target in ("disk:/data", *UNLIKELY[1:]))


def test_one_failure_that_cannot_be_told_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    _latched(tmp_path, {"no id": "service:a", "x-7": "service:b"})
    with structlog.testing.capture_logs() as logs:
        assert _told(tmp_path) == [("recovery-failed-x-7", "b")]
    (said,) = [one for one in logs if one["event"] == "a failed recovery could not be told"]
    assert (said["execution_id"], said["log_level"]) == ("no id", "error")


def test_an_alert_of_others_by_its_id_is_not_the_one_about_a_failure(tmp_path: Path) -> None:
    with recovering(tmp_path) as place:
        place.recovery._intake.take_mapping({"type": "t", "id": "recovery-failed-x-7"}, "mallory")
        eventually(lambda: place.recovery.records.alerts(9), within_s=30)
    _latched(tmp_path, {"x-7": "service:b"})
    with recovering(tmp_path) as place:
        eventually(lambda: len(alerted(place)) == 1, within_s=30)


def test_a_run_on_a_folder_whose_end_nobody_can_trust_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runs.add_record

    def breaks(db: Any, *given: Any) -> Any:
        if given[2].kind is not Kind.INTENT:
            raise TypeError("a fault of ours")
        return real(db, *given)

    monkeypatch.setattr(runs, "add_record", breaks)
    books = own(tmp_path / "books", {**GOOD, "id": "own", "target": "disk:/data"})
    with recovering(tmp_path / "state", runbooks=books) as place, GuardianClient(place.address) as guardian:
        guardian.send(failure())
        (told,) = eventually(lambda: _failures(place), within_s=40)
        assert (told["labels"]["target"], told["severity"], "service" in told) == ("disk:/data", "critical", False)


# -- ends that are asked for ------------------------------------------------------------------------------------------


def test_a_cancelled_run_is_rolled_back(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        execution_id = begun(place, guardian)
        place.recovery.cancel(execution_id, by="alice", why="wrong one")
        place.world.gate.set()
        end = ended(place, execution_id)
        assert end["status"] == "cancelled"
        assert "cancelled: by alice: wrong one" in end["detail"]
        assert "rolled back: restart" in end["detail"]
        with pytest.raises(CommandFailed, match="has ended: cancelled"):
            place.recovery.cancel(execution_id, by="alice", why="")
        with pytest.raises(UnknownNode):
            place.recovery.cancel("x-none", by="alice", why="")


def test_a_waiting_execution_is_cancelled_without_being_begun(tmp_path: Path) -> None:
    with recovering(tmp_path, max_concurrent=1) as place, GuardianClient(place.address) as guardian:
        first = begun(place, guardian)
        second = guardian.send(failure("b")).execution_id
        assert second is not None
        place.recovery.cancel(second, by="alice", why="")
        end = ended(place, second)
        assert (end["status"], end["started_at"], end["steps"]) == ("cancelled", None, [])
        place.world.gate.set()
        assert ended(place, first)["status"] == "succeeded"
        assert place.world.restarts == ["a"]


def test_a_wish_to_end_outlives_the_daemon(tmp_path: Path) -> None:
    """It was written, and nobody heard of it any more."""
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        execution_id = begun(place, guardian)
        stop = StopRun(StopPolicy.ROLLBACK, "by alice").as_json()
        place.recovery._journal.submit(lambda db: runs.ask_stop(db, execution_id, stop)).result(10)
    with recovering(tmp_path) as place:
        assert ended(place, execution_id)["status"] == "cancelled"
        assert place.world.restarts in ([], ["a"])  # the call was held back: not made, or undone by a start


def test_a_run_taken_up_while_recovery_is_off_begins_no_step(tmp_path: Path) -> None:
    """Nobody asked for its end: the file was edited while no daemon lived, or it was decided at that very moment."""
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        execution_id = begun(place, guardian)
    world = World()
    with recovering(tmp_path, world, enabled=False) as place:
        end = ended(place, execution_id)
        assert end["status"] == "cancelled"
        assert "switched off by the configuration" in end["detail"]
        assert world.restarts == []


@pytest.mark.parametrize("policy", ["finish", "rollback"])
def test_a_step_whose_record_hangs_is_not_begun_after_the_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setattr("supervisors.recovery_switch.JOURNAL_S", 0.1)
    link, gate, held, real = "tcp://127.0.0.1:0", threading.Event(), threading.Event(), runs.add_record

    def add(db: sqlite3.Connection, execution_id: str, epoch: int, record: Record, at: float) -> None:
        if record.kind is Kind.INTENT:
            held.set()
            gate.wait(30)
        real(db, execution_id, epoch, record, at)

    monkeypatch.setattr(runs, "add_record", add)
    plan = RecoveryPlan(tmp_path, True, 5, (), link, link, on_switch_off=StopPolicy(policy))
    with recovering(tmp_path, plan=plan) as place, GuardianClient(place.address) as guardian:
        execution_id = str(guardian.send(failure()).execution_id)
        assert held.wait(30)
        place.recovery._switch.switch(enabled=False, by="alice")
        gate.set()
        assert ended(place, execution_id)["status"] == "cancelled"
        assert place.world.restarts == []


@pytest.mark.parametrize(("policy", "words"), [("finish", "stays applied: restart"), ("rollback", "rolled back")])
def test_switched_off_runs_end_as_configured(tmp_path: Path, policy: str, words: str) -> None:
    link = "tcp://127.0.0.1:0"
    plan = RecoveryPlan(tmp_path, True, 5, (), link, link, on_switch_off=StopPolicy(policy))
    with recovering(tmp_path, plan=plan) as place, GuardianClient(place.address) as guardian:
        execution_id = begun(place, guardian)
        place.recovery.switch(enabled=False, by="alice")
        place.world.gate.set()
        end = ended(place, execution_id)
        assert end["status"] == "cancelled"
        assert words in end["detail"]
        assert "switched off by alice" in end["detail"]


def command_runbook(folder: Path, *argv: str, **more: Any) -> Path:
    """A directory with one runbook that runs a program."""
    action = {
        "id": "run",
        "name": "Run it",
        "action_type": "command",
        "effect": "idempotent",
        "command": list(argv),
        "timeout": "60s",
    } | more
    raw = {**GOOD, "id": "command_it", "match": {"field": "/type", "op": "eq", "value": "run_it"}, "actions": [action]}
    folder.mkdir(exist_ok=True)
    (folder / "command_it.json").write_text(json.dumps(raw))
    return folder


def marked(word: str) -> list[psutil.Process]:
    found = []
    for one in psutil.process_iter():
        try:
            if word in one.cmdline() and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
        except psutil.Error:
            continue
    return found


def test_cancel_ends_all_that_a_command_has_started(tmp_path: Path) -> None:
    """Also what has left its session and its parents."""
    number = str(10**8 + os.getpid())
    script = f"(setsid sleep {number} & ) ; trap '' TERM; sleep {number}"
    runbooks = command_runbook(tmp_path / "more", "sh", "-c", script)
    with recovering(tmp_path / "state", runbooks=(runbooks,)) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(Alert(type="run_it", service="a"))
        assert ack.execution_id is not None
        eventually(lambda: len(marked(number)) == 2, within_s=30)
        asked = time.monotonic()
        place.recovery.cancel(ack.execution_id, by="alice", why="")
        eventually(lambda: not marked(number), within_s=30)
        assert ended(place, ack.execution_id)["status"] == "cancelled"
        assert time.monotonic() - asked < 5.0 * int(os.environ.get("SELFHEAL_SLOWNESS", "3"))


# -- bounds -----------------------------------------------------------------------------------------------------------


class Deaf(World):
    """A port that does not keep its word: it takes as long as it likes."""

    def restart(self, name: str, timeout_s: float) -> RunInfo:
        return super().restart(name, 300.0)


def quick_restart(folder: Path, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    action = {**GOOD["actions"][0], "timeout": "200ms"} | more
    raw = {**GOOD, "id": "service_failure", "actions": [action]}
    (folder / "service_failure.json").write_text(json.dumps(raw))
    return folder


def test_a_call_that_never_comes_back_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runbook_hands, "GRACE_S", 0.3)
    more = quick_restart(tmp_path / "more")
    with recovering(tmp_path / "state", Deaf(), runbooks=(more,)) as place, GuardianClient(place.address) as guardian:
        execution_id = begun(place, guardian)
        end = ended(place, execution_id)
        assert (end["status"], place.world.restarts) == ("unknown", ["a"])
        assert "cannot be ended" in end["detail"]
        assert in_journal(tmp_path / "state", "SELECT target FROM latches") == [("service:a",)]


def test_a_run_keeps_the_bytes_it_started_with(tmp_path: Path) -> None:
    """The file is changed while the run is under way, and the daemon starts again: the old verification holds."""
    more = quick_restart(tmp_path / "more", timeout="20s")
    with recovering(tmp_path / "state", runbooks=(more,)) as place, GuardianClient(place.address) as guardian:
        execution_id = begun(place, guardian)
        quick_restart(more, timeout="20s", name="Changed", id="other_step")
    with recovering(tmp_path / "state", runbooks=(more,)) as place, GuardianClient(place.address) as guardian:
        assert [step["id"] for step in ended(place, execution_id)["steps"]] == ["restart"]
        fresh = guardian.send(failure("b")).execution_id
        assert fresh is not None
        assert [step["id"] for step in ended(place, fresh)["steps"]] == ["other_step"]


def test_a_redacted_value_is_in_no_record(tmp_path: Path) -> None:
    canary = "canary-5fae91"
    more = command_runbook(tmp_path / "more", "sh", "-c", 'echo "said $0"; exit 3', "{word}")
    raw = json.loads((more / "command_it.json").read_text())
    raw["parameters"]["word"] = {"type": "string", "from": "/labels/word", "redact": True, "required": True}
    (more / "command_it.json").write_text(json.dumps(raw))
    state = tmp_path / "state"
    with recovering(state, runbooks=(more,)) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(Alert(type="run_it", service="a", labels={"word": canary}))
        assert ack.execution_id is not None
        end = ended(place, ack.execution_id)
        assert "said [redacted]" in end["detail"]
        written = in_journal(state, "SELECT record FROM steps UNION ALL SELECT detail FROM executions")
        written += in_journal(state, "SELECT text || evidence FROM events")
    assert "[redacted]" in str(written)
    assert canary not in str(written)


def test_a_run_goes_on_within_two_seconds_of_a_restart_with_a_long_history(
    tmp_path: Path, record_property: Recordings
) -> None:
    count = 10_000

    def fill(db: sqlite3.Connection) -> None:
        alerts = [(n, "old", f"old-{n}", "0", "{}", 1.0, "run", f"x-old-{n}", 1.0) for n in range(10**6, 10**6 + count)]
        db.executemany(
            "INSERT INTO alerts(seq, client, msg_id, sha256, body, received_at, outcome, execution_id, decided_at)"
            " VALUES (?,?,?,?,?,?,?,?,?)",
            alerts,
        )
        now = time.time()
        runs_ = [(one[7], one[0], "service:z", "succeeded", now - 3600, now - 3600, now - 3600) for one in alerts]
        db.executemany(
            "INSERT INTO executions(id, alert_seq, target, status, decided_at, started_at, ended_at, runbook, source,"
            " sha256, parameters, fingerprint, severity, priority)"
            " VALUES (?,?,?,?,?,?,?, 'rb', x'00', '0', '{}', 'f', 'high', 50)",
            runs_,
        )
        steps = [(one[7], 1.0, json.dumps({"kind": "intent"})) for one in alerts for _ in range(3)]
        db.executemany("INSERT INTO steps(execution_id, at, record) VALUES (?,?,?)", steps)

    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        place.recovery._journal.submit(fill).result(60)
        execution_id = begun(place, guardian)
    began = time.monotonic()
    with recovering(tmp_path) as place:
        query = "SELECT epoch FROM executions WHERE ended_at IS NULL OR epoch > 1"
        eventually(lambda: in_journal(tmp_path, query) == [(2,)], within_s=30)
        took_s = time.monotonic() - began
        assert ended(place, execution_id)["status"] in ("succeeded", "cancelled")
    record_property(TABLE, f"restart to resumed execution over {count} ended ones: {took_s:.2f} s")
    assert took_s < 2.0 * int(os.environ.get("SELFHEAL_SLOWNESS", "3"))
