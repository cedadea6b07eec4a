"""Who asked for a run cannot agree to it: by whichever of its alerts, on whichever rung of a ladder."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actors import askers
from actors.approvals import NotTaken
from actors.askers import UNKNOWN, Asked
from actors.deciding.words import INSIDE, OPERATOR
from actors.journal import rows
from actors.journal.alert_batches import NewDecision, new_alert, store_alerts
from actors.journal.happened import decide_alerts
from actors.journal.rows import OpenAlert
from runbooks.approval import Say
from supervisors.manager import CommandFailed
from tests.approval.desks import APPROVED, FACTS, Desk, desk
from tests.recovery.place import Place, World, recovering
from tests.recovery.test_deciding import own
from tests.runbooks.files import GOOD, changed
from tests.support.eventually import eventually

ANYONE: dict[str, Any] = {**APPROVED, "approval": {"timeout": "60s", "four_eyes": True}}


def folded(one: Desk, name: str, client: str, facts: dict[str, Any] | None = None, execution: str | None = "") -> int:
    """Another alert, answered with the run (``execution`` None: with none yet)."""
    one.count += 1
    said = facts or FACTS
    alert = new_alert(client, f"folded-{one.count}", said, one.clock.wall())
    body = {
        "outcome": "duplicate",
        "execution_id": name if execution == "" else execution,
        "runbook": "reduce",
        "reason": "",
    }

    def write(db: sqlite3.Connection) -> int:
        (stored,) = store_alerts(db, [alert])
        assert isinstance(stored, rows.StoredAlert)
        decided = NewDecision(stored.seq, body, None, one.clock.wall())
        decide_alerts(db, "root/links/alerts", [OpenAlert(stored.seq, alert.msg_id, said)], [decided])
        return stored.seq

    return int(one.journal.submit(write).result(30))


def asked(one: Desk, name: str) -> Asked:
    return one.journal.read(lambda db: askers.asked(db, name, "ann"))


def written(one: Desk, query: str, *given: Any) -> None:
    one.journal.submit(lambda db: db.execute(query, given)).result(30)


def refuses(one: Desk, name: str, who: str, plan: str, says: Say = Say.APPROVE, match: str = "another person") -> None:
    with pytest.raises(NotTaken, match=match):
        one.approvals.vote(name, who, says, plan)
    assert one.status(name) == "awaiting_approval"


# -- alerts that were folded into the run -----------------------------------------------------------------------------


def test_whoever_sent_a_repeat_since_it_was_asked_cannot_agree(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        name, plan = one.asked(ANYONE, client="trader")
        folded(one, name, "bob")
        folded(one, name, OPERATOR, {**FACTS, "labels": {"requested_by": "user:cleo"}})
        assert asked(one, name) == Asked(("key:trader",), ("key:bob", "user:cleo"))
        (shown,) = one.approvals.waiting()
        assert shown["asked_by"] == ["key:trader", "key:bob", "user:cleo"]
        for who in ("user:bob", "token:cleo"):
            refuses(one, name, who, plan)
        assert one.approvals.vote(name, "user:dora", Say.APPROVE, plan)["outcome"] == "granted"


def test_a_repeat_that_comes_while_a_vote_is_on_its_way_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vote was looked at, and then its own alert came: the transaction looks once more."""
    with desk(tmp_path) as one:
        name, plan = one.asked(ANYONE, client="trader")
        real = one.approvals._void

        def late(*given: Any) -> Any:
            folded(one, name, "bob")
            return real(*given)

        monkeypatch.setattr(one.approvals, "_void", late)
        refuses(one, name, "user:bob", plan)


def test_a_repeat_gives_nobody_the_right_to_take_a_run_back(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        name, plan = one.asked(client="trader")
        folded(one, name, "mallory")
        refuses(one, name, "user:mallory", plan, Say.REJECT, "none of those who may")
        assert one.approvals.vote(name, "user:trader", Say.REJECT, plan)["outcome"] == "rejected"


def test_who_is_forgotten_agrees_to_nothing(tmp_path: Path) -> None:
    """A person asked too, and the alert that says who has no body any more."""
    with desk(tmp_path) as one:
        name, plan = one.asked(ANYONE, client="trader")
        seq = folded(one, name, OPERATOR, {**FACTS, "labels": {"requested_by": "user:bob"}})
        written(one, "UPDATE alerts SET body='' WHERE seq=?", seq)
        assert asked(one, name).others == (UNKNOWN,)
        refuses(one, name, "user:bob", plan, match="not known any more")
        careless, plan = one.asked({**ANYONE, "id": "careless", "approval": {"timeout": "60s"}})
        folded(one, careless, OPERATOR, {**FACTS, "labels": {}})
        assert one.approvals.vote(careless, "user:bob", Say.APPROVE, plan)["outcome"] == "granted", "no four eyes"


# -- alerts of the daemon's own ---------------------------------------------------------------------------------------


def inside(one: Desk, name: str, **labels: str) -> None:
    """The run's alert is the daemon's own."""
    body = json.dumps({**FACTS, "labels": labels})
    query = "UPDATE alerts SET client=?, body=? WHERE seq=(SELECT alert_seq FROM executions WHERE id=?)"
    written(one, query, INSIDE, body, name)


def test_what_an_alert_about_a_run_leads_to_was_asked_for_by_who_asked_for_the_run(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        root = one.decide(ANYONE, client="bob")
        folded(one, root, "cleo")
        for labels in ({"escalated_from": root, "rung": "0"}, {"execution": root}, {"execution_id": root}):
            name = one.decide(ANYONE)
            inside(one, name, **labels)
            assert asked(one, name) == Asked(("key:bob",), ("key:cleo",)), labels
        name = one.decide(ANYONE)
        inside(one, name, escalated_from=root, execution="x-of-somebody-else")
        assert asked(one, name) == Asked(("key:bob",), ("key:cleo",)), "a label the root's sender gave"
        inside(one, name, scope="box")
        assert asked(one, name) == Asked()
        written(one, "INSERT INTO escalations VALUES (?, 0, 1.0, 'm', ?, 'text')", root, name)
        assert asked(one, name) == Asked((), ("key:bob", "key:cleo"))
        inside(one, name, escalated_from="x-gone")
        assert UNKNOWN in asked(one, name).own
        inside(one, name, escalated_from=name)
        assert asked(one, name).own == (), "no end of looking"


def test_runs_for_alerts_about_runs_are_followed_only_so_far(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        names = [one.decide(ANYONE, client="bob")]
        for _ in range(askers.MOST_DEEP):
            names.append(one.decide(ANYONE))
            inside(one, names[-1], execution=names[-2])
        assert asked(one, names[-2]).own == ("key:bob",)
        assert asked(one, names[-1]).own == (UNKNOWN,)


# -- alerts that waited -----------------------------------------------------------------------------------------------

GROUPED = {**ANYONE, "group": {"by": ["/labels/host"], "wait": "1s"}}


def test_whose_alert_was_in_the_group_cannot_agree(tmp_path: Path) -> None:
    """They have no execution on record: they were folded before there was one."""
    at_h = {**FACTS, "service": "b", "labels": {"host": "h"}}
    with desk(tmp_path) as one:
        folded(one, "", "early", {**at_h, "labels": {"host": "other"}}, None)
        name = one.decide(GROUPED, client="trader")
        written(one, "UPDATE alerts SET body=? WHERE client='trader'", json.dumps({**FACTS, "labels": {"host": "h"}}))
        folded(one, name, "bob", at_h, None)
        folded(one, name, "dora", {**at_h, "labels": {"host": "other"}}, None)
        found = one.journal.read(lambda db: askers.asked(db, name, "ann", with_waiting=True))
        assert found == Asked(("key:trader",), ("key:bob",))


def test_one_of_a_group_cannot_take_its_run_back(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        folded(one, "", "mallory", {**FACTS, "service": "b"}, None)
        name, plan = one.asked({**GROUPED, "approval": APPROVED["approval"]}, client="trader")
        (shown,) = one.approvals.waiting()
        assert shown["asked_by"] == ["key:trader", "key:mallory"]
        refuses(one, name, "user:mallory", plan, Say.REJECT, "none of those who may")


def test_whose_alert_said_that_it_goes_on_cannot_agree(tmp_path: Path) -> None:
    """One that waited for the same came earlier, and was folded into the group of one that came later."""
    lasting = {**GROUPED, "for": "10s"}
    with desk(tmp_path) as one:
        folded(one, "", "long-ago", {**FACTS, "service": "b", "labels": {"host": "h"}}, None)
        one.clock.pass_s(10.0)
        folded(one, "", "early", {**FACTS, "service": "b", "labels": {"host": "h"}}, None)
        one.clock.pass_s(15.0)
        name = one.decide(lasting, client="trader")
        written(one, "UPDATE alerts SET body=? WHERE client='trader'", json.dumps({**FACTS, "labels": {"host": "h"}}))
        folded(one, name, "bob", {**FACTS, "service": "b", "labels": {"host": "elsewhere"}}, None)
        folded(one, name, "dora", {**FACTS, "service": "c", "labels": {"host": "another"}}, None)
        found = one.journal.read(lambda db: askers.asked(db, name, "ann", with_waiting=True))
        assert found == Asked(("key:trader",), ("key:early", "key:bob"))


# -- with a real guardian ---------------------------------------------------------------------------------------------


@contextmanager
def asking(folder: Path, world: World, *books: dict[str, Any]) -> Iterator[tuple[Place, Callable[..., str]]]:
    with recovering(folder / "state", world, runbooks=own(folder / "books", *books)) as place:

        def sent(client: str, **more: Any) -> str:
            alert = {"type": "service_failure", "service": "a", "source": "test", **more}
            return place.recovery._intake.take_mapping(alert, client)

        yield place, sent


def wanted(place: Place) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        return next((dict(one) for one in place.recovery.waiting_approvals() if "plan" in one), None)

    return eventually(look, within_s=30, what="the request")


def test_four_eyes_on_an_escalation(tmp_path: Path) -> None:
    first = {**GOOD, "id": "first", "escalate": [{"runbook": "second", "after": "10ms"}]}
    never = {"field": "/type", "op": "eq", "value": "never"}
    second = {**GOOD, "id": "second", "match": never, "approval": {"timeout": "60s", "four_eyes": True}}
    world = World(refused={"a"})
    with asking(tmp_path, world, first, second) as (place, sent):
        sent("bob")
        shown = wanted(place)
        assert (shown["runbook"], shown["asked_by"]) == ("second", ["key:bob"])
        for who in ("user:bob", "token:bob"):
            with pytest.raises(CommandFailed, match="another person"):
                place.recovery.approve(shown["execution_id"], by=who, plan=None, why="")
        world.refused.clear()
        came = place.recovery.approve(shown["execution_id"], by="user:cleo", plan=None, why="")
        assert came["outcome"] == "granted"


def test_four_eyes_of_a_group_and_of_repeats(tmp_path: Path) -> None:
    grouped = {
        **changed("/id", "grouped"),
        "group": {"by": ["/labels/host"], "wait": "1s"},
        "approval": {"timeout": "60s", "four_eyes": True},
    }
    with asking(tmp_path, World(), grouped) as (place, sent):
        sent("ann", labels={"host": "h"})
        sent("bob", service="b", labels={"host": "h"})
        shown = wanted(place)
        assert shown["asked_by"] == ["key:ann", "key:bob"]
        repeat = sent("cleo", labels={"host": "h"})
        eventually(lambda: (place.recovery.records.alert(repeat) or {}).get("outcome") == "duplicate", within_s=30)
        for who in ("user:ann", "user:bob", "user:cleo"):
            with pytest.raises(CommandFailed, match="another person"):
                place.recovery.approve(shown["execution_id"], by=who, plan=None, why="")
        assert place.recovery.approve(shown["execution_id"], by="user:dora", plan=None, why="")["outcome"] == "granted"
