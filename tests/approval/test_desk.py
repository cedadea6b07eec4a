"""The desk on a real journal: asked, approved, rejected, void, expired; each once, and on record."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.approvals import Approvals, NotTaken
from actors.journal import consents, events
from actors.journal.journal import Journal
from runbooks.approval import Say
from tests.approval.desks import APPROVED, LIMIT, Desk, HandClock, desk
from tests.runbooks.files import GOOD, changed, runbook
from tests.support.eventually import eventually

ANYONE: dict[str, Any] = {**APPROVED, "approval": {"timeout": "60s"}}


def kinds(one: Desk) -> list[str]:
    return one.journal.read(lambda db: [row[0] for row in db.execute("SELECT kind FROM audit ORDER BY seq")])


def test_an_approval_queues_it_and_is_on_record(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        name, plan = one.asked()
        (shown,) = one.approvals.waiting()
        assert (shown["plan"], shown["approvers"], shown["quorum"]) == (plan, ["ann", "bob", "cleo"], 1)
        assert shown["seen"] == [{"call": "http_ok", "answer": "yes", "value": 100}]
        came = one.approvals.vote(name, "user:bob", Say.APPROVE, plan[:12], "looked at it")
        assert (came["outcome"], one.status(name)) == ("granted", "queued")
        assert [granted.execution_id for granted in one.granted] == [name]
        assert kinds(one) == ["decided", "asked", "vote", "granted"]
        assert one.alerts[0]["type"] == "approval_wanted"
        assert f"selfheal approve {name} --plan {plan[:12]}" in one.alerts[0]["message"]


def test_a_quorum_needs_different_people(tmp_path: Path) -> None:
    raw = changed("/approval/quorum", 2, APPROVED)
    with desk(tmp_path) as one:
        name, plan = one.asked(raw)
        assert one.approvals.vote(name, "user:bob", Say.APPROVE, plan)["outcome"] == "waiting"
        with pytest.raises(NotTaken, match="counts once"):
            one.approvals.vote(name, "token:bob", Say.APPROVE, plan)
        assert one.status(name) == "awaiting_approval"
        assert one.approvals.vote(name, "key:cleo", Say.APPROVE, plan)["outcome"] == "granted"


def test_trap_23_approval_replay(tmp_path: Path) -> None:
    """A vote that was taken once does nothing again: not for the same run, nor for another, nor with an old hash."""
    with desk(tmp_path) as one:
        name, plan = one.asked()
        one.approvals.vote(name, "user:bob", Say.APPROVE, plan)
        for _ in range(2):
            with pytest.raises(NotTaken, match="awaits no approval"):
                one.approvals.vote(name, "user:bob", Say.APPROVE, plan)
        assert len(one.granted) == 1
        one.exposure.value = 555
        other, fresh = one.asked()
        assert fresh != plan
        with pytest.raises(NotTaken, match="the plan is another one"):
            one.approvals.vote(other, "user:bob", Say.APPROVE, plan)
        assert one.status(other) == "awaiting_approval"
        assert one.journal.read(lambda db: consents.votes_of(db, other)) == []


def test_trap_23_self_approval(tmp_path: Path) -> None:
    """Who sent the alert may not approve what it leads to: not by his key, not as a user, not with the local key."""
    with desk(tmp_path) as one:
        name, plan = one.asked(client="bob")
        for way in ("user:bob", "key:bob", "token:bob"):
            with pytest.raises(NotTaken, match="another person"):
                one.approvals.vote(name, way, Say.APPROVE, plan)
        local, plan = one.asked(client="local")
        with pytest.raises(NotTaken, match="another person"):  # the daemon's own user holds the local key
            one.approvals.vote(local, "user:ann", Say.APPROVE, plan)
        assert one.approvals.vote(local, "user:cleo", Say.APPROVE, plan)["outcome"] == "granted"
        assert one.approvals.vote(name, "user:bob", Say.REJECT, plan)["outcome"] == "rejected"


def test_who_is_not_named_counts_for_nothing(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        name, plan = one.asked()
        for says in Say:
            with pytest.raises(NotTaken, match="none of those who may"):
                one.approvals.vote(name, "user:mallory", says, plan)
        assert one.status(name) == "awaiting_approval"


def void_cases() -> dict[str, Any]:
    def edit(one: Desk, _name: str) -> None:
        one.files["reduce"] = runbook({**APPROVED, "description": "Edited meanwhile"})

    def remove(one: Desk, _name: str) -> None:
        del one.files["reduce"]

    def market(one: Desk, _name: str) -> None:
        one.exposure.value = 101

    def parameters(one: Desk, name: str) -> None:
        query, values = "UPDATE executions SET parameters=? WHERE id=?", json.dumps({"service": "b"})
        one.journal.submit(lambda db: db.execute(query, (values, name))).result(30)

    def alert(one: Desk, _name: str) -> None:
        query = "UPDATE alerts SET body=replace(body, '\"m\"', '\"n\"')"
        one.journal.submit(lambda db: db.execute(query)).result(30)

    return {
        "file edited": (edit, "was edited"),
        "file removed": (remove, "gone or broken"),
        "market value": (market, "http_ok says yes (101), and said yes (100)"),
        "parameters": (parameters, "its parameters, or the alert"),
        "alert": (alert, "its parameters, or the alert"),
    }


@pytest.mark.parametrize("case", list(void_cases()))
def test_an_edit_between_request_and_approval_makes_it_void(tmp_path: Path, case: str) -> None:
    change, said = void_cases()[case]
    with desk(tmp_path) as one:
        name, plan = one.asked()
        change(one, name)
        came = one.approvals.vote(name, "user:bob", Say.APPROVE, plan)
        assert (came["outcome"], one.status(name), one.granted) == ("void", "rejected", [])
        assert said in came["detail"]
        assert [done.execution_id for done in one.finished] == [name]
        eventually(lambda: (one.alerts[-1]["type"], one.alerts[-1]["severity"]) == ("approval_void", "critical"))


PATIENT = changed("/preconditions/0", LIMIT | {"within": "20s", "every": "50ms"}, APPROVED)


def test_a_precondition_has_its_time_before_it_is_asked_and_before_a_vote_counts(tmp_path: Path) -> None:
    """A daemon that has just started has not heard every endpoint yet: that voids nothing."""
    with desk(tmp_path) as one:
        one.exposure.refusals = 3
        name, plan = one.asked(PATIENT)
        assert one.exposure.refusals == 0
        one.exposure.refusals = 3
        assert one.approvals.vote(name, "user:bob", Say.APPROVE, plan)["outcome"] == "granted"


def test_a_market_value_that_moved_is_not_waited_for(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        name, plan = one.asked(PATIENT)
        one.exposure.value = 101
        began = time.monotonic()
        assert one.approvals.vote(name, "user:bob", Say.APPROVE, plan)["outcome"] == "void"
        assert time.monotonic() - began < 10


def test_without_recheck_the_market_may_move(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        name, plan = one.asked(changed("/approval/recheck", False, APPROVED))
        one.exposure.value = 101
        assert one.approvals.vote(name, "user:bob", Say.APPROVE, plan)["outcome"] == "granted"


def test_expiry_never_runs_it_and_alerts(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        name, plan = one.asked()
        one.clock.pass_s(60.0)
        with pytest.raises(NotTaken, match="in time"):
            one.approvals.vote(name, "user:bob", Say.APPROVE, plan)
        one.until(name, "expired")
        assert one.granted == []
        eventually(lambda: one.alerts[-1]["type"] == "approval_expired")


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_setting_the_clock_gives_no_more_time(tmp_path: Path, step_s: float) -> None:
    """Back: the clock nobody can set ends it. Forward: the wall clock does, too early rather than too late."""
    with desk(tmp_path) as one:
        name, plan = one.asked()
        one.clock.wall_s += step_s
        one.clock.pass_s(60.0)
        with pytest.raises(NotTaken, match="in time"):
            one.approvals.vote(name, "user:bob", Say.APPROVE, plan)
        one.until(name, "expired")


def test_the_next_daemon_goes_on_with_the_same_time_also_when_the_clock_was_set_back(tmp_path: Path) -> None:
    clock = HandClock()
    with desk(tmp_path, clock) as one:
        name, plan = one.asked()
        files = one.files
    clock.pass_s(50.0)
    with desk(tmp_path, clock, files) as one:
        one.approvals.look()
        (shown,) = one.approvals.waiting()
        assert shown["plan"] == plan
    clock.pass_s(10.0)
    clock.wall_s -= 3600.0
    with desk(tmp_path, clock, files) as one:
        one.until(name, "expired")
        assert one.granted == []


def test_a_safe_action_begins_instead_and_the_plan_never(tmp_path: Path) -> None:
    approval = {"timeout": "60s", "on_timeout": "safe_action", "safe_action": "block_orders"}
    with desk(tmp_path) as one:
        one.files["block_orders"] = safe = runbook({**GOOD, "id": "block_orders"})
        name, _plan = one.asked({**APPROVED, "approval": approval})
        one.clock.pass_s(61.0)
        one.until(name, "expired")
        (granted,) = eventually(lambda: tuple(one.granted))  # told after it is on the disk
        assert granted.execution is not None
        assert (granted.execution.runbook, granted.execution.sha256) == ("block_orders", safe.sha256)
        assert one.status(granted.execution_id) == "queued"
        assert kinds(one)[-2:] == ["decided", "ended"]


@pytest.mark.parametrize(
    ("where", "value", "why"),
    [
        ("/actions/0/risk_level", "medium", "no runbook of low risk"),
        ("/actions/0/risk_level", "critical", "no runbook of low risk"),
        ("/mode", "observe", "in mode observe"),
        ("/mode", "dry_run", "in mode dry_run"),
        ("/enabled", False, "block_orders is disabled"),
    ],
)
def test_a_safe_action_that_is_none_is_not_begun(tmp_path: Path, where: str, value: str | bool, why: str) -> None:
    approval = {"timeout": "60s", "on_timeout": "safe_action", "safe_action": "block_orders"}
    with desk(tmp_path) as one:
        one.files["block_orders"] = runbook(changed(where, value), id="block_orders")
        name, _plan = one.asked({**APPROVED, "approval": approval})
        one.clock.pass_s(61.0)
        one.until(name, "expired")
        assert one.granted == []
        eventually(lambda: why in one.alerts[-1]["message"])


def test_a_plan_that_cannot_be_worked_out_is_rejected_and_said(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        name = one.decide(ANYONE, values={})
        one.until(name, "rejected")
        assert [done.execution_id for done in one.finished] == [name]
        eventually(lambda: "cannot be worked out" in one.alerts[-1]["message"])


def test_a_journal_that_could_not_be_read_is_read_again_and_the_trouble_is_over(tmp_path: Path) -> None:
    with desk(tmp_path) as one:
        journal = Journal(tmp_path / "later.db", events.ensure_epoch)
        late = Approvals(replace(one.approvals.parts, journal=journal))
        said = eventually(late.look, what="the trouble")
        assert "what awaits approval cannot be read" in said
        journal.start()
        try:
            eventually(lambda: late.look() is None, what="no trouble any more")
        finally:
            journal.close()
