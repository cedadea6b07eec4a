"""From an alert on the wire to its outcome, with real sockets, a real journal and real actors."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zmq

from actors.journal import rows
from actors.journal.rows import Execution
from actors.messages import ExitNow
from actors.spec import ExitReason
from bridge_link.keys import find_key
from bridge_link.sockets import make_dealer
from bridge_link.wire import Kind, Message, decode, encode
from guardian_link import Alert, AlertRefused, DaemonUnreachable, GuardianClient
from runbooks.model import Status
from runbooks.ports import PortError, RunInfo, ServiceView
from tests.recovery.place import Place, World, recovering
from tests.support.eventually import eventually, holds_for


def failure(service: str = "a", **more: Any) -> Alert:
    return Alert(type="service_failure", service=service, message="no heartbeat", **more)


def test_an_alert_restarts_its_service_and_its_outcome_comes_back(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(failure())
        assert ack.status == "stored"
        assert ack.execution_id is not None
        outcome = guardian.wait(ack.execution_id, timeout_s=30)
        assert outcome.status == "succeeded"
        assert place.world.restarts == ["a"]
        (execution,) = place.recovery.records.executions(10)
        assert execution["status"] == "succeeded"
        assert [(step["id"], step["status"]) for step in execution["steps"]] == [("restart", "succeeded")]
        (shown,) = place.recovery.records.alerts(10)
        assert (shown["id"], shown["outcome"], shown["execution_id"]) == (ack.id, "run", ack.execution_id)
        assert guardian.statistics()["success_rate"] == 1.0


def test_what_waits_for_a_person_has_not_ended_and_spoils_no_rate(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(failure())
        assert guardian.wait(ack.execution_id or "", timeout_s=30).status == "succeeded"
        place.recovery._journal.submit(_one_more_that_waits).result(10)
        figures = guardian.statistics()
        assert (figures["success_rate"], figures["total_executions"], figures["active_executions"]) == (1.0, 2, 0)


def _one_more_that_waits(db: sqlite3.Connection) -> None:
    asked = Execution("x-2", 1, "r", b"{}", "s", "t", {}, "f", "high", 50, Status.AWAITING_APPROVAL, time.time())
    rows.add_execution(db, asked)


def test_the_same_alert_again_is_answered_and_does_nothing(tmp_path: Path) -> None:
    alert = failure()
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        first = guardian.send(alert)
        again = guardian.send(alert)
        assert (again.status, again.execution_id) == ("duplicate", first.execution_id)
        assert first.execution_id is not None
        guardian.wait(first.execution_id, timeout_s=30)
        assert guardian.send(alert).execution_id == first.execution_id
        assert place.world.restarts == ["a"]


def test_trap_10_another_body_under_a_known_id_is_refused(tmp_path: Path) -> None:
    alert = failure()
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        guardian.send(alert)
        with pytest.raises(AlertRefused, match="conflict"):
            guardian.send(failure("b", id=alert.id))
        assert len(place.recovery.records.alerts(10)) == 1


def test_nothing_matches(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(Alert(type="weather_report"))
        assert ack.decision is not None
        assert (ack.decision.outcome, ack.execution_id) == ("no_match", None)
        assert place.world.restarts == []


def test_recovery_off_is_said_remembered_and_undone(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        assert place.recovery.switch(enabled=False, by="alice")["enabled"] is False
        ack = guardian.send(failure())
        assert ack.decision is not None
        assert (ack.decision.outcome, ack.execution_id) == ("recovery_off", None)
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        status = place.recovery.status()
        assert (status["enabled"], status["by"]) == (False, "alice")
        place.recovery.switch(enabled=True, by="alice")
        assert guardian.send(failure()).execution_id is not None


def test_a_service_that_does_not_become_ready_is_a_failed_recovery(tmp_path: Path) -> None:
    world = World(refused={"a"})
    with recovering(tmp_path, world) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(failure())
        assert ack.execution_id is not None
        outcome = guardian.wait(ack.execution_id, timeout_s=40)
        assert not outcome.is_recovered
        assert place.recovery.records.executions(1)[0]["status"] == outcome.status


@dataclass
class HalfWay(World):
    """A restart puts the service down and cannot start it; a start can."""

    down: set[str] = field(default_factory=set)
    starts: list[str] = field(default_factory=list)

    def status(self, name: str) -> ServiceView | None:
        view = super().status(name)
        return view if view is None or name not in self.down else ServiceView(name, False, view.run, "stopped")

    def restart(self, name: str, timeout_s: float) -> RunInfo:
        self.down.add(name)
        raise PortError(f"{name}: cannot be started: no such file")

    def start(self, name: str, timeout_s: float, decided: str | None = None) -> RunInfo:
        self.down.discard(name)
        self.starts.append(name)
        return super().restart(name, timeout_s)


def test_a_service_that_was_put_down_and_not_started_is_started_again(tmp_path: Path) -> None:
    world = HalfWay()
    with recovering(tmp_path, world) as place, GuardianClient(place.address) as guardian:
        ack = guardian.send(failure())
        assert ack.execution_id is not None
        outcome = guardian.wait(ack.execution_id, timeout_s=60)
    assert (outcome.status, "rolled back: restart" in outcome.detail) == ("rolled_back", True)
    assert (world.starts, world.down) == (["a"], set())


def test_one_run_per_target_and_the_queue_is_served(tmp_path: Path) -> None:
    world = World()
    world.gate.clear()
    with recovering(tmp_path, world, max_concurrent=1) as place, GuardianClient(place.address) as guardian:
        first = guardian.send(failure("a"))
        second = guardian.send(failure("b"))
        assert second.decision is not None
        assert second.decision.outcome == "queued"
        eventually(lambda: world.restarts == ["a"])
        holds_for(lambda: world.restarts == ["a"], 0.5)
        world.gate.set()
        for ack in (first, second):
            assert ack.execution_id is not None
            assert guardian.wait(ack.execution_id, timeout_s=30).is_recovered
        assert world.restarts == ["a", "b"]


def test_an_alert_stored_and_not_decided_is_decided_by_the_next_daemon(tmp_path: Path) -> None:
    with recovering(tmp_path) as place:
        alerts = place.root.supervisor("links")
        assert alerts is not None
        alerts.terminate_child("alerts")
        with GuardianClient(place.address) as guardian:
            ack = guardian.send(failure(), timeout_s=1)
        assert (ack.status, ack.decision) == ("stored", None)
    with recovering(tmp_path) as place:
        eventually(lambda: place.world.restarts == ["a"])
        eventually(lambda: place.recovery.records.executions(1)[0]["status"] == "succeeded", within_s=20)
        assert place.recovery.records.alerts(1)[0]["id"] == ack.id


def test_an_execution_cut_off_is_taken_up_and_its_effect_is_not_doubled(tmp_path: Path) -> None:
    """Our code fails while the restart is being made: the next incarnation waits for its end, then asks the probe."""
    world = World()
    world.gate.clear()
    with recovering(tmp_path, world) as place:
        with GuardianClient(place.address) as guardian:
            guardian.send(failure())
        eventually(lambda: world.restarts == ["a"])
        crash_execution(place)
        world.gate.set()  # the call that the dead actor left behind has its effect only now
        eventually(lambda: place.recovery.records.executions(1)[0]["status"] == "succeeded", within_s=40)
        assert world.restarts == ["a"]


def crash_execution(place: Place) -> None:
    """Our own code fails in the middle of a run: its supervisor starts it again and it goes on from the journal."""
    runbooks = place.root.supervisor("runbooks")
    assert runbooks is not None
    (running,) = runbooks.which_children()
    ref = runbooks.child(running.id)
    assert ref is not None
    ref.tell(ExitNow(ExitReason.crashed("a bug")))
    eventually(lambda: runbooks.which_children()[0].incarnation > running.incarnation)


def test_a_bad_alert_gets_a_permanent_refusal_that_names_the_field(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, zmq.Context() as context, make_dealer(context, find_key()) as raw:
        raw.connect(place.address)
        raw.send_multipart(encode(Message(Kind.ALERT, "bad-alert-1", {"type": "x", "severity": "worst"})))
        assert raw.poll(5000)
        refusal = decode(raw.recv_multipart())
        assert (refusal.kind, refusal.body["permanent"]) == (Kind.NACK, True)
        assert "severity" in refusal.body["text"]
        assert place.recovery.records.alerts(10) == []


def test_unknown_questions_are_refused_and_known_ones_answered(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        assert guardian.execution_status("x-none") is None
        assert guardian.alerts() == []
        with pytest.raises(AlertRefused, match="ask for execution"):
            guardian._ask({"ask": "the moon"})


def test_a_dead_journal_writer_is_restarted_with_all_that_depends_on_it(tmp_path: Path) -> None:
    with recovering(tmp_path) as place:
        place.recovery._journal.close()  # its thread ends: a fault of ours
        eventually(lambda: place.recovery._journal.is_alive, within_s=20)

        def sends() -> bool:
            address = (tmp_path / "guardian.address").read_text(encoding="ascii").strip()
            try:
                with GuardianClient(address) as guardian:
                    return guardian.send(failure(), timeout_s=2).execution_id is not None
            except DaemonUnreachable:  # it is being restarted
                return False

        eventually(sends, within_s=20)
