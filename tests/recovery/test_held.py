"""Silences, alerts that wait, storms and ladders, by the guardian with a real journal, real timers and real actors."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from actors.board import NodeKind, NodeState, NodeStatus
from actors.clock import SystemClock
from actors.deciding.words import Granted
from actors.journal import audit, rows
from actors.journal.schema import JournalTrouble
from guardian_link import Alert, GuardianClient
from runbooks.deciding.timing import Moment
from runbooks.parse import SHIPPED, load_library
from runbooks.replay import Answer, replayed
from supervisors.cli.spool import spooled
from supervisors.manager import CommandFailed, UnknownNode
from tests.recovery.place import Place, World, recovering
from tests.recovery.test_deciding import failure, in_journal, outcome, own
from tests.runbooks.files import GOOD, changed
from tests.support.eventually import eventually, holds_for

HOUR = 3600.0


def shown(place: Place, **wanted: str) -> dict[str, Any]:
    """The newest alert as people see it, when it is so."""

    def look() -> dict[str, Any]:
        found = dict(next(iter(place.recovery.records.alerts(1)), {}))
        assert {key: found.get(key) for key in wanted} == wanted, found
        return found

    return eventually(look, within_s=30)


def statuses(place: Place) -> list[str]:
    return [run["status"] for run in place.recovery.records.executions(20)]


# -- silences ---------------------------------------------------------------------------------------------------------


def test_a_silence_holds_over_a_restart_and_ends_by_hand(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        made = place.recovery.held.add_silence(["service=a"], 600.0, by="ann", why="works")
        found, why = outcome(guardian, failure())
        assert (found, "by ann" in why, "works" in why) == ("silenced", True, True)
        assert outcome(guardian, failure("b"))[0] == "run"
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        assert outcome(guardian, failure())[0] == "silenced"
        (listed,) = place.recovery.held.silences()
        assert (listed["id"], listed["state"], listed["by"]) == (made["id"], "active", "ann")
        ended = place.recovery.held.end_silence(made["id"], by="bob")
        assert (ended["state"], ended["ended_by"]) == ("ended", "bob")
        assert outcome(guardian, failure())[0] == "run"
        again = place.recovery.held.end_silence(made["id"], by="carl")
        assert again["ended_by"] == "bob"
        with pytest.raises(UnknownNode):
            place.recovery.held.end_silence("s-none", by="bob")
        with pytest.raises(CommandFailed, match="no matcher"):
            place.recovery.held.add_silence(["nonsense"], 60.0, by="ann")


def test_a_silence_ends_by_itself_and_silenced_alerts_still_end(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        place.recovery.held.add_silence(["service=a"], 1.0, by="ann")
        place.recovery.own_alerts.fires("print-1", time.time(), {"type": "service_failure", "service": "a"})
        shown(place, outcome="silenced")
        place.recovery.own_alerts.is_over("print-1").result(10)
        assert "resolved_at" in shown(place, outcome="silenced")
        eventually(lambda: outcome(guardian, failure())[0] == "run", within_s=10)
        assert place.recovery.held.silences()[0]["state"] == "expired"


# -- latches ----------------------------------------------------------------------------------------------------------


def test_a_release_says_why_and_by_whom(tmp_path: Path) -> None:
    with recovering(tmp_path) as place:
        in_journal(place, lambda db: db.execute("INSERT INTO latches VALUES ('service:a', 'x-0', 1.0, 'unknown')"))
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        assert outcome(guardian, failure())[0] == "latched"
        assert [one["target"] for one in place.recovery.held.latches()] == ["service:a"]
        with pytest.raises(CommandFailed, match="reason"):
            place.recovery.held.release("service:a", by="ann", why="")
        place.recovery.held.release("service:a", by="ann", why="looked at it")
        with pytest.raises(UnknownNode):
            place.recovery.held.release("service:a", by="ann", why="again")
        assert outcome(guardian, failure())[0] == "run"
        events = place.recovery.records.transitions("root/links/alerts", 50)
        assert any(one["event"] == "released" and "looked at it" in one["text"] for one in events)


# -- alerts that wait -------------------------------------------------------------------------------------------------

LASTING = {**GOOD, "id": "lasting", "for": "2s"}


def test_a_firing_that_goes_on_is_answered_by_a_timer_that_outlives_the_daemon(tmp_path: Path) -> None:
    books = own(tmp_path / "books", LASTING)
    with recovering(tmp_path / "state", runbooks=books) as place:
        place.recovery.own_alerts.fires("print-1", time.time(), {"type": "service_failure", "service": "a"})
        shown(place, outcome="pending", runbook="lasting")
        assert place.world.restarts == []
    with recovering(tmp_path / "state", runbooks=books) as place:
        found = shown(place, outcome="run")
        assert found["execution_id"]
        eventually(lambda: place.world.restarts == ["a"], within_s=30)
        assert in_journal(place, lambda db: db.execute("SELECT count(*) FROM pending").fetchone()[0]) == 0


def test_a_firing_that_ends_in_time_is_not_answered(tmp_path: Path) -> None:
    with recovering(tmp_path / "state", runbooks=own(tmp_path / "books", LASTING)) as place:
        place.recovery.own_alerts.fires("print-1", time.time(), {"type": "service_failure", "service": "a"})
        shown(place, outcome="pending")
        place.recovery.own_alerts.is_over("print-1").result(10)
        shown(place, outcome="pending", reason="it is over")
        assert place.world.restarts == []
        assert in_journal(place, lambda db: db.execute("SELECT count(*) FROM pending").fetchone()[0]) == 0


def test_one_run_answers_a_group(tmp_path: Path) -> None:
    grouped = {**GOOD, "id": "grouped", "group": {"by": ["/labels/host"], "wait": "1s"}}
    with (
        recovering(tmp_path / "state", runbooks=own(tmp_path / "books", grouped)) as place,
        GuardianClient(place.address) as guardian,
    ):
        first = guardian.send(failure("a", labels={"host": "h"}))
        assert first.decision is not None
        assert first.decision.outcome == "pending"
        assert outcome(guardian, failure("b", labels={"host": "h"}, severity="critical"))[0] == "duplicate"
        eventually(lambda: statuses(place) == ["succeeded"], within_s=30)
        severity = in_journal(place, lambda db: db.execute("SELECT severity FROM executions").fetchone()[0])
        assert (place.world.restarts, severity) == (["a"], "critical")
        assert place.recovery.records.alert(first.id)["outcome"] == "run"  # type: ignore[index]


def test_a_group_that_is_full_is_as_severe_as_its_worst(tmp_path: Path) -> None:
    grouped = {**GOOD, "id": "grouped", "group": {"by": ["/labels/host"], "wait": "1h", "max": 3}}
    with (
        recovering(tmp_path / "state", runbooks=own(tmp_path / "books", grouped)) as place,
        GuardianClient(place.address) as guardian,
    ):
        sent = [("c", "critical"), ("b", "critical"), ("a", "low")]
        found = [outcome(guardian, failure(name, labels={"host": "h"}, severity=how))[0] for name, how in sent]
        assert found == ["pending", "duplicate", "run"]
        severity = in_journal(place, lambda db: db.execute("SELECT severity FROM executions").fetchone()[0])
        assert severity == "critical"
        eventually(lambda: place.world.restarts == ["a"], within_s=30)


def test_while_it_warms_up_nothing_inhibited_is_answered(tmp_path: Path) -> None:
    """Alertmanager #4064, with the daemon restarted: the inhibiting alert comes after the inhibited one."""
    lesser = {**GOOD, "id": "lesser", "inhibited_by": [{"runbook": "greater", "equal": ["/labels/host"]}]}
    greater = {**changed("/id", "greater"), "match": {"field": "/type", "op": "eq", "value": "host_down"}}
    books = own(tmp_path / "books", lesser, greater)
    world = World()
    world.gate.clear()
    with recovering(tmp_path / "state", world, runbooks=books) as place, GuardianClient(place.address) as guardian:
        assert outcome(guardian, Alert(type="host_down", service="b", labels={"host": "h"}))[0] == "run"
        assert outcome(guardian, failure(labels={"host": "h"}))[0] == "inhibited"
        world.gate.set()
        eventually(lambda: statuses(place) == ["succeeded"], within_s=30)
    world = World()
    world.gate.clear()
    with (
        recovering(tmp_path / "state", world, runbooks=books, warm_up_s=2.0) as place,
        GuardianClient(place.address) as guardian,
    ):
        assert outcome(guardian, failure(labels={"host": "h"}, message="again"))[0] == "pending"
        told = outcome(guardian, Alert(type="host_down", service="b", labels={"host": "h"}, message="again"))
        assert told[0] == "run"
        eventually(
            lambda: in_journal(place, lambda db: db.execute("SELECT count(*) FROM pending").fetchone()[0]) == 0,
            within_s=30,
        )
        outcomes = [one["outcome"] for one in place.recovery.records.alerts(2)]
        assert outcomes == ["run", "inhibited"]
        assert world.restarts == ["b"]
        world.gate.set()


# -- the queue --------------------------------------------------------------------------------------------------------


def test_a_queued_run_says_its_place_and_is_cancelled_when_its_alert_is_over(tmp_path: Path) -> None:
    world = World()
    world.gate.clear()
    with (
        recovering(tmp_path, world, max_concurrent=1) as place,
        GuardianClient(place.address) as guardian,
    ):
        guardian.send(failure("b"))
        place.recovery.own_alerts.fires("print-1", time.time(), {"type": "service_failure", "service": "a"})
        queued = eventually(lambda: place.recovery.records.executions(1)[0].get("queue"), within_s=30)
        assert queued == {"position": 1, "why": "1 runbooks may run at once"}
        place.recovery.own_alerts.is_over("print-1").result(10)

        def cancelled() -> bool:
            newest = place.recovery.records.executions(1)[0]
            return (newest["status"], newest.get("detail")) == ("cancelled", "the alert is over")

        eventually(cancelled, within_s=30)
        world.gate.set()
        eventually(lambda: statuses(place) == ["cancelled", "succeeded"], within_s=30)
        assert world.restarts == ["b"]


def test_a_running_one_goes_on_and_one_that_others_need_stays_queued(tmp_path: Path) -> None:
    world = World()
    world.gate.clear()
    with recovering(tmp_path, world, max_concurrent=1) as place, GuardianClient(place.address) as guardian:
        place.recovery.own_alerts.fires("print-b", time.time(), {"type": "service_failure", "service": "b"})
        eventually(lambda: world.restarts == ["b"], within_s=30)
        place.recovery.own_alerts.fires("print-a", time.time(), {"type": "service_failure", "service": "a"})
        eventually(lambda: statuses(place)[0] == "queued", within_s=30)
        assert outcome(guardian, failure("a"))[0] == "duplicate"  # another says the same, and does not take it back
        for one in ("print-a", "print-b"):
            place.recovery.own_alerts.is_over(one).result(10)
        holds_for(lambda: statuses(place) == ["queued", "running"], 0.5)
        world.gate.set()
        eventually(lambda: statuses(place) == ["succeeded", "succeeded"], within_s=30)


def test_an_approved_run_goes_through_the_ordinary_queue(tmp_path: Path) -> None:
    careful = {**changed("/id", "careful"), "approval": {"timeout": "10m"}}
    with (
        recovering(tmp_path / "state", runbooks=own(tmp_path / "books", careful)) as place,
        GuardianClient(place.address) as guardian,
    ):
        ack = guardian.send(failure())
        assert ack.decision is not None
        assert (ack.decision.outcome, ack.execution_id is not None) == ("awaiting_approval", True)
        assert statuses(place) == ["awaiting_approval"]
        again = guardian.send(failure(message="again"))
        assert again.execution_id == ack.execution_id

        def grant(db: sqlite3.Connection) -> None:
            db.execute("UPDATE executions SET status='queued'")
            audit.note(db, 1.0, "granted", {"execution_id": ack.execution_id, "by": []})

        in_journal(place, grant)
        place.recovery._tell_guardian(Granted(ack.execution_id or ""))
        eventually(lambda: statuses(place) == ["succeeded"], within_s=30)
        assert place.world.restarts == ["a"]


# -- storms -----------------------------------------------------------------------------------------------------------


def test_a_storm_is_alerted_once_and_is_remembered(tmp_path: Path) -> None:
    wide = {**GOOD, "id": "wide", "limits": {"min_healthy": "50%"}}
    books = own(tmp_path / "books", wide)

    def services(place: Place, *states: NodeState) -> None:
        for number, state in enumerate(states):
            place.system.board.publish(NodeStatus(f"root/services/s{number}", NodeKind.SERVICE, state))

    with recovering(tmp_path / "state", runbooks=books) as place, GuardianClient(place.address) as guardian:
        services(place, NodeState.READY, NodeState.CRASH_LOOP, NodeState.CRASH_LOOP)
        for n in range(3):
            found, why = outcome(guardian, failure(message=str(n)))
            assert (found, "1 of 3 services are ready, 2 are needed" in why) == ("blast_radius", True)

        def storms() -> int:
            return sum(one["type"] == "recovery_storm" for one in place.recovery.records.alerts(20))

        eventually(lambda: storms() == 1, within_s=10)
        assert outcome(guardian, failure(message="more"))[0] == "blast_radius"
    with recovering(tmp_path / "state", runbooks=books) as place, GuardianClient(place.address) as guardian:
        services(place, NodeState.READY, NodeState.READY, NodeState.READY)
        found, why = outcome(guardian, failure(message="calm"))
        assert (found, "a moment ago" in why) == ("blast_radius", True)  # its cooldown, also after a restart
        holds_for(lambda: storms() == 1, 0.5)
        assert place.world.restarts == []


# -- ladders ----------------------------------------------------------------------------------------------------------


def test_a_run_that_did_not_help_climbs_the_ladder_and_its_end_is_told(tmp_path: Path) -> None:
    first = {**GOOD, "id": "first", "escalate": [{"runbook": "second", "after": "100ms"}, {"notify": "call somebody"}]}
    second = {**changed("/id", "second"), "match": {"field": "/type", "op": "eq", "value": "never"}}
    world = World(refused={"a"})
    books = own(tmp_path / "books", first, second)
    with recovering(tmp_path / "state", world, runbooks=books) as place, GuardianClient(place.address) as guardian:
        guardian.send(failure())

        def told() -> bool:
            kinds = [one["type"] for one in place.recovery.records.alerts(20)]
            assert kinds.count("escalation") == 1, kinds
            return True

        eventually(told, within_s=60)
        runs = [run["runbook"] for run in place.recovery.records.executions(20)]
        assert runs == ["second", "first"]
        messages = [one["message"] for one in place.recovery.records.alerts(20)]
        assert any("first did not help on service:a" in text and "next is second" in text for text in messages)
        assert any("call somebody" in text for text in messages)
        holds_for(lambda: len(place.recovery.records.executions(20)) == 2, 1.0)


def test_a_replay_of_its_journal_decides_as_the_daemon_did(tmp_path: Path) -> None:
    """A rung of an escalation and a run that a person asked for are for one runbook, whatever its rule says."""
    first = {**GOOD, "id": "first", "escalate": [{"runbook": "second"}, {"notify": "call somebody"}]}
    second = {**changed("/id", "second"), "match": {"field": "/type", "op": "eq", "value": "never"}}
    grouped = {**changed("/id", "grouped"), "group": {"by": ["/type"], "wait": "1h", "max": 2}}
    grouped["match"] = {"field": "/type", "op": "eq", "value": "grouped"}
    books = own(tmp_path / "books", first, second, grouped)
    journal = tmp_path / "state" / "journal.db"
    with (
        recovering(tmp_path / "state", World(refused={"a"}), runbooks=books) as place,
        GuardianClient(place.address) as guardian,
    ):
        guardian.send(failure())
        eventually(
            lambda: [run["status"] for run in place.recovery.records.executions(20)] == ["rolled_back"] * 2, within_s=60
        )
        eventually(lambda: place.recovery.records.alerts(1)[0]["type"] == "escalation", within_s=30)
        assert place.recovery.run_runbook("second", {"service": "b"}, by="ann", why="")["outcome"] == "run"
        eventually(lambda: statuses(place)[0] == "succeeded", within_s=30)
        for name in ("c", "d"):
            guardian.send(Alert(type="grouped", service=name))
        query = "SELECT outcome, runbook FROM alerts ORDER BY seq"
        live = [Answer(*row) for row in in_journal(place, lambda db: db.execute(query).fetchall())]
    with spooled(journal) as spool:
        replayed_ones = replayed(spool.alerts(), load_library((SHIPPED, *books)), 0.01)
    assert [one.outcome for one in live] == ["run", "run", "no_match", "run", "duplicate", "run"]
    assert [one.runbook for one in live] == ["first", "second", None, "second", "grouped", "grouped"]
    assert replayed_ones == [*live[:4], live[4]._replace(outcome="pending>answered"), live[5]]


def test_a_step_that_asks_for_who_comes_next_is_answered_at_once(tmp_path: Path) -> None:
    first = {**changed("/actions/0/on_failure", "escalate"), "escalate": [{"runbook": "second", "after": "20m"}]}
    second = {**changed("/id", "second"), "match": {"field": "/type", "op": "eq", "value": "never"}}
    books = own(tmp_path / "books", first, second)
    with recovering(tmp_path / "state", World(refused={"a"}), runbooks=books) as place:
        with GuardianClient(place.address) as guardian:
            guardian.send(failure())
        eventually(lambda: statuses(place) == ["rolled_back", "failed"], within_s=30)
        now = place.system.clock.moment()
        past = place.recovery.records.journal.read(lambda db: rows.past_runs(db, HOUR, now))
        assert [(run.runbook_id, run.escalates) for run in past] == [("restart_it", True), ("second", False)]


def test_labels_of_others_climb_nothing(tmp_path: Path) -> None:
    """Only the daemon's own alerts name a runbook."""
    labels = {"escalated_from": "x-1", "escalated_to": "service_failure", "rung": "0"}
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        assert outcome(guardian, Alert(type="nothing_known", service="a", labels=labels))[0] == "no_match"
        assert in_journal(place, lambda db: db.execute("SELECT count(*) FROM escalations").fetchone()[0]) == 0


def failed_first(place: Place) -> str:
    """The root of a ladder that nobody climbs for an hour."""
    with GuardianClient(place.address) as guardian:
        root = guardian.send(failure()).execution_id
    assert root is not None
    eventually(lambda: statuses(place) == ["rolled_back"], within_s=30)
    return root


@pytest.mark.parametrize(
    ("escalated_to", "is_there", "why"),
    [
        ("second", False, "no runbook second any more"),
        ("second", True, "not in use"),
        ("service_failure", True, "does not lead to service_failure"),
        ("first", True, "does not lead to first"),
    ],
)
def test_a_ladder_that_leads_to_nothing_begins_nothing_else_and_says_so(
    tmp_path: Path, escalated_to: str, is_there: bool, why: str
) -> None:
    """It was told of while it was there. No other runbook may take the alert that was made for it, and none that the
    ladder of the root does not name.
    """
    first = {**GOOD, "id": "first", "escalate": [{"runbook": "second", "after": "1h"}]}
    second = ({**GOOD, "id": "second", "enabled": False},) if is_there else ()
    books = own(tmp_path / "books", first, *second)
    with recovering(tmp_path / "state", World(refused={"a"}), runbooks=books) as place:
        root = failed_first(place)
        labels = {"escalated_from": root, "escalated_to": escalated_to, "rung": "0"}
        rung = {"type": "service_failure", "service": "a", "source": "selfheal", "id": f"escalation-{root}-0"}
        place.recovery._intake.take_mapping({**rung, "message": "next is second", "labels": labels})

        def told() -> bool:
            alerts = {one["id"]: one for one in place.recovery.records.alerts(20)}
            assert f"escalation-{root}-0-lost" in alerts, alerts.keys()
            lost, tried = alerts[f"escalation-{root}-0-lost"], alerts[f"escalation-{root}-0"]
            assert (tried["outcome"], lost["outcome"]) == ("no_match", "no_match")
            assert why in lost["message"]
            return True

        eventually(told, within_s=30)
        assert len(place.recovery.records.executions(20)) == 1
        climbed = in_journal(place, lambda db: db.execute("SELECT root, rung FROM escalations").fetchall())
        assert [tuple(one) for one in climbed] == [(root, 0)]


@pytest.mark.parametrize("number", [-1, 1, 7])
def test_a_rung_the_ladder_does_not_have_leads_nowhere(tmp_path: Path, number: int) -> None:
    first = {**GOOD, "id": "first", "escalate": [{"runbook": "first", "after": "1h"}]}
    books = own(tmp_path / "books", first)
    with recovering(tmp_path / "state", World(refused={"a"}), runbooks=books) as place:
        root = failed_first(place)
        labels = {"escalated_from": root, "escalated_to": "first", "rung": str(number)}
        alert = {"type": "service_failure", "service": "b", "source": "selfheal", "labels": labels}
        tried = place.recovery._intake.take_mapping(alert)
        eventually(lambda: (place.recovery.records.alert(tried) or {}).get("outcome") == "no_match", within_s=30)


@pytest.mark.parametrize("last", [{"notify": "call the desk"}, {"runbook": "gone"}, {"runbook": "second"}])
def test_a_sender_names_no_runbook_by_the_labels_of_a_ladder(tmp_path: Path, last: dict[str, str]) -> None:
    """Its alert's own runbook fails, and the alert that climbs the rung says nothing of the sender's labels."""
    never = {"field": "/labels/secret", "op": "eq", "value": "never"}
    first = {**GOOD, "id": "first", "escalate": [{**last, "after": "10ms"}]}
    second, victim = ({**GOOD, "id": name, "match": never} for name in ("second", "victim"))
    books = own(tmp_path / "books", first, second, victim)
    labels = {"escalated_to": "victim", "escalated_from": "x-1", "rung": "5", "host": "h"}
    with recovering(tmp_path / "state", World(refused={"a"}), runbooks=books) as place:
        with GuardianClient(place.address) as guardian:
            root = guardian.send(failure(labels=labels)).execution_id

        def climbed() -> dict[str, Any]:
            found = place.recovery.records.journal.read(lambda db: rows.alert(db, f"escalation-{root}-0")) or {}
            assert found.get("outcome"), found
            return dict(found["body"])

        found = eventually(climbed, within_s=30)
        leads_to = {"escalated_to": "second"} if last.get("runbook") == "second" else {}
        assert found["labels"] == {"host": "h", "escalated_from": root, "rung": "0"} | leads_to
        runs = [run["runbook"] for run in place.recovery.records.executions(20)]
        assert runs == (["second", "first"] if leads_to else ["first"])


# -- fail closed, and clocks ------------------------------------------------------------------------------------------


def test_a_journal_that_cannot_be_read_means_plain_alerts_and_no_action(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recovering(tmp_path) as place:
        place.root.supervisor("links").terminate_child("alerts")  # type: ignore[union-attr]

        def unreadable(_query: Any) -> Any:
            raise JournalTrouble("cannot be read")

        monkeypatch.setattr(place.recovery._journal, "read", unreadable)
        with structlog.testing.capture_logs() as logs:
            place.root.supervisor("links").restart_child("alerts")  # type: ignore[union-attr]
            with GuardianClient(place.address) as guardian:
                ack = guardian.send(failure(), timeout_s=2)
            assert (ack.status, ack.decision) == ("stored", None)
            eventually(lambda: [one["alert"] for one in logs if one["event"] == "plain alert"] == [ack.id])
        status = place.system.board.get("root/links/alerts")
        assert status is not None
        assert (status.state, "nothing can be decided" in (status.detail or "")) == (NodeState.DEGRADED, True)
        assert place.world.restarts == []
        monkeypatch.undo()
        eventually(lambda: place.world.restarts == ["a"], within_s=30)


class Jumping(SystemClock):
    """A wall clock somebody sets."""

    by_s = 0.0

    def wall(self) -> float:
        return super().wall() + self.by_s

    def moment(self) -> Moment:
        now = super().moment()
        return Moment(now.wall_s + self.by_s, now.boot, now.up_s)


@pytest.mark.parametrize("jump_s", [HOUR, -HOUR])
def test_cooldown_silence_and_limits_survive_a_clock_that_jumps_and_a_restart(tmp_path: Path, jump_s: float) -> None:
    limited = {
        **GOOD,
        "id": "limited",
        "limits": {"cooldown": "30m", "max_runs": [{"count": 1, "per": "45m", "scope": "runbook"}]},
    }
    books, clock = own(tmp_path / "books", limited), Jumping()
    with (
        recovering(tmp_path / "state", runbooks=books, clock=clock) as place,
        GuardianClient(place.address) as guardian,
    ):
        place.recovery.held.add_silence(["service=s"], 1800.0, by="ann")
        assert outcome(guardian, failure())[0] == "run"
        eventually(lambda: statuses(place) == ["succeeded"], within_s=30)
        clock.by_s = jump_s
        assert _answers(guardian) == ("cooling", "limited", "silenced")
    with (
        recovering(tmp_path / "state", runbooks=books, clock=clock) as place,
        GuardianClient(place.address) as guardian,
    ):
        assert _answers(guardian) == ("cooling", "limited", "silenced")
        clock.by_s = 0.0
        assert _answers(guardian) == ("cooling", "limited", "silenced")
    with (
        recovering(tmp_path / "state", runbooks=books, clock=clock) as place,
        GuardianClient(place.address) as guardian,
    ):
        assert _answers(guardian) == ("cooling", "limited", "silenced")


def test_a_run_has_its_time_although_the_clock_was_set_forward(tmp_path: Path) -> None:
    books, clock, world = own(tmp_path / "books", {**GOOD, "id": "own"}), Jumping(), World(broken={"a"})
    with recovering(tmp_path / "state", world, runbooks=books, clock=clock) as place:
        with GuardianClient(place.address) as guardian:
            guardian.send(failure())
        eventually(lambda: statuses(place) == ["running"] and world.restarts == ["a"], within_s=30)
    clock.by_s = HOUR  # far more than the ten minutes it may last
    world.broken.clear()
    with recovering(tmp_path / "state", world, runbooks=books, clock=clock) as place:
        eventually(lambda: statuses(place) == ["succeeded"], within_s=30)
        assert world.restarts == ["a"]


def _answers(guardian: GuardianClient) -> tuple[str, str, str]:
    return (
        outcome(guardian, failure("a"))[0],
        outcome(guardian, failure("b"))[0],
        outcome(guardian, failure("s"))[0],
    )


def test_old_records_without_marks_are_read(tmp_path: Path) -> None:
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        guardian.send(failure())
        eventually(lambda: statuses(place) == ["succeeded"], within_s=30)

        def strip(db: sqlite3.Connection) -> None:
            db.execute("UPDATE executions SET decided_mark=NULL, started_mark=NULL, ended_mark=NULL")

        in_journal(place, strip)
    with recovering(tmp_path) as place, GuardianClient(place.address) as guardian:
        assert outcome(guardian, failure(message="again"))[0] in ("duplicate", "cooling")
