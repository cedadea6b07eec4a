"""Settings that are changed while recovery is at work: runs at once, what names stand for, what the journal keeps."""

from __future__ import annotations

from pathlib import Path

from actors.alertmanager import AlertmanagerPlan
from actors.journal.retention import Retention
from actors.runbook import StopPolicy
from guardian_link import Ack, Alert, GuardianClient
from guardian_link.alertmanager import Notified, Words
from tests.recovery.place import Place, World, recovering
from tests.support.eventually import eventually, holds_for


def send(guardian: GuardianClient, service: str) -> Ack:
    return guardian.send(Alert(type="service_failure", service=service, message="no heartbeat"), timeout_s=30)


def at_once(place: Place, most: int) -> None:
    place.recovery.configured(enabled=True, policy=StopPolicy.FINISH, max_concurrent=most, by="test")


def statuses(place: Place) -> list[str]:
    """Of all runs, the oldest first."""
    return [str(one["status"]) for one in reversed(place.recovery.records.executions(9))]


def test_more_runs_at_once_begin_what_waits_and_fewer_let_those_at_work_go_on(tmp_path: Path) -> None:
    world = World(runs={"a": 1, "b": 1, "c": 1})
    world.gate.clear()
    with recovering(tmp_path, world, max_concurrent=1) as place, GuardianClient(place.address) as guardian:
        send(guardian, "a")
        send(guardian, "b")
        eventually(lambda: world.restarts == ["a"])
        holds_for(lambda: statuses(place) == ["running", "queued"], 0.5)
        at_once(place, 2)
        eventually(lambda: sorted(world.restarts) == ["a", "b"], within_s=20)
        at_once(place, 1)
        third = send(guardian, "c")
        assert third.decision is not None
        assert (third.decision.outcome, third.decision.reason) == ("queued", "1 runbooks may run at once")
        holds_for(lambda: statuses(place) == ["running", "running", "queued"], 1.5)
        world.gate.set()
        assert third.execution_id is not None
        assert guardian.wait(third.execution_id, timeout_s=30).is_recovered
        assert statuses(place) == ["succeeded"] * 3


def test_what_alertmanager_s_names_stand_for(tmp_path: Path) -> None:
    with recovering(tmp_path) as place:
        intake = place.recovery.alertmanager

        def take(name: str) -> None:
            intake.take([Notified(name.lower(), 1e9, None, {"alertname": name})]).result(10)

        take("One")
        intake.plan = AlertmanagerPlan(Words({"Two": "mine"}, {"Two": "a"}))
        take("Two")
        alerts = [(one["type"], one["service"]) for one in place.recovery.records.alerts(9)]
        assert alerts[0] == ("mine", "a")
        assert alerts[1][0] == "one"


def test_what_the_journal_keeps(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        for number in range(3):
            guardian.send(Alert(type="nobody_answers", service="a", message=f"number {number}"), timeout_s=30)

        def messages() -> list[str]:
            return [str(one["message"]) for one in place.recovery.records.alerts(9)]

        holds_for(lambda: len(set(messages())) == 3, 1.5)
        place.recovery.keep(Retention(bodies=1))
        eventually(lambda: messages() == ["number 2"], within_s=20)
