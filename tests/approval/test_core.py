"""What is agreed to, by whom, and what follows: the pure part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbooks.approval import (
    NOT_SHOWN,
    Reading,
    Say,
    Verdict,
    Vote,
    is_approver,
    needs_approval,
    plan_hash,
    plan_words,
    refusal,
    verdict,
)
from runbooks.model import Approval, Call, CallType
from tests.runbooks.files import GOOD, changed, runbook

VALUES = {"service": "risk-manager"}
SEEN = (Reading(Call(CallType.HTTP_OK, {"url": "http://x"}), "yes", 100),)


def ruled(**more: Any) -> dict[str, Any]:
    return {**GOOD, "approval": {"timeout": "5m", **more}}


@pytest.mark.parametrize(
    ("required_when", "risk", "is_needed"),
    [
        ("always", "low", True),
        ("risk>=medium", "low", False),
        ("risk>=medium", "medium", True),
        ("risk>=high", "medium", False),
        ("risk>=high", "high", True),
        ("risk>=high", "critical", True),
    ],
)
def test_the_risk_of_the_worst_action_decides(required_when: str, risk: str, is_needed: bool) -> None:
    raw = changed("/actions/0/risk_level", risk, ruled(required_when=required_when))
    assert needs_approval(runbook(raw)) is is_needed


def test_a_confirmation_of_one_action_is_enough_and_nothing_asks_for_nothing() -> None:
    assert not needs_approval(runbook(GOOD))
    plain = runbook(ruled(required_when="risk>=high"))
    asks = replace(plain, actions=(replace(plain.actions[0], requires_confirmation=True),))
    assert not needs_approval(plain)
    assert needs_approval(asks)
    assert needs_approval(replace(asks, approval=None))


def test_the_hash_is_of_everything_that_was_agreed_to() -> None:
    base = runbook(ruled())
    of = plan_hash(base, VALUES, SEEN, {"type": "t"})
    others = {
        "bytes": plan_hash(runbook(ruled(), description="Edited"), VALUES, SEEN, {"type": "t"}),
        "values": plan_hash(base, {"service": "other"}, SEEN, {"type": "t"}),
        "kind of value": plan_hash(base, {"service": "risk-manager", "n": 1}, SEEN, {"type": "t"}),
        "market": plan_hash(base, VALUES, (SEEN[0]._replace(seen=101),), {"type": "t"}),
        "answer": plan_hash(base, VALUES, (SEEN[0]._replace(answer="no"),), {"type": "t"}),
        "no readings": plan_hash(base, VALUES, (), {"type": "t"}),
        "alert": plan_hash(base, VALUES, SEEN, {"type": "u"}),
    }
    assert len({of, *others.values()}) == 1 + len(others), others
    assert of == plan_hash(runbook(ruled()), dict(VALUES), SEEN, {"type": "t"})
    assert len(of) == 64


def test_numbers_and_texts_are_not_mixed_up() -> None:
    base = runbook(ruled())
    seen = [SEEN[0]._replace(seen=value) for value in (1, 1.5, "1", True, None, [1], {"a": 1})]
    assert len({plan_hash(base, VALUES, (one,)) for one in seen}) == len(seen)


def test_the_plan_is_told_in_words_without_what_is_never_shown() -> None:
    raw = changed("/parameters/service/redact", True, ruled())
    (line, *_rest) = plan_words(runbook(raw), {"service": "canary-9f"})
    assert "canary-9f" not in line
    assert NOT_SHOWN in line
    assert plan_words(runbook(ruled()), VALUES)[0] == (
        '1. Restart: service_restart service="risk-manager" (mutating, risk low,'
        ' undone by service_restore service="risk-manager")'
    )


def test_what_must_not_be_is_told_so() -> None:
    """Nobody must agree to the opposite of what he reads."""
    down = {"call": {"type": "tcp_connect", "with": {"port": 1}}}
    lines = {
        expect: plan_words(runbook(ruled(), preconditions=[{**down, "expect": expect}]), VALUES)[0]
        for expect in ("yes", "no", "not_yes")
    }
    assert (lines["yes"], lines["no"]) == ("only if tcp_connect port=1", "only if not tcp_connect port=1")
    assert lines["not_yes"] == lines["no"]


RULES = Approval(60.0, approvers=("ann", "key:desk"), quorum=2, four_eyes=True)


def test_only_who_is_named_may_and_a_name_with_a_way_only_by_that_way() -> None:
    assert is_approver(RULES, "user:ann")
    assert is_approver(RULES, "token:ann")
    assert is_approver(RULES, "key:desk")
    assert not is_approver(RULES, "user:desk")
    assert not is_approver(RULES, "user:annabel")
    assert is_approver(Approval(60.0), "user:anyone")


def test_trap_23_who_asked_may_not_approve_by_any_way_but_may_take_it_back() -> None:
    for way in ("user:ann", "key:ann", "token:ann"):
        assert "another person" in str(refusal(RULES, ["key:ann"], [], Vote(way, Say.APPROVE)))
        assert refusal(RULES, ["key:ann"], [], Vote(way, Say.REJECT)) is None
    assert refusal(RULES, ["key:ann"], [], Vote("key:desk", Say.APPROVE)) is None


def test_trap_23_one_person_counts_once_by_whichever_way() -> None:
    votes = [Vote("user:ann", Say.APPROVE)]
    assert "counts once" in str(refusal(RULES, [], votes, Vote("token:ann", Say.APPROVE)))
    doubled = [*votes, Vote("token:ann", Say.APPROVE)]
    assert verdict(RULES, doubled, now=0.0, expires_at=60.0) is Verdict.WAITING


@given(
    st.lists(st.tuples(st.sampled_from(["user:a", "key:a", "user:b", "token:c"]), st.sampled_from(Say)), max_size=6),
    st.integers(1, 4),
    st.floats(0, 120),
)
def test_after_the_time_nothing_but_expiry_follows(said: list[tuple[str, Say]], quorum: int, now: float) -> None:
    votes = [Vote(*one) for one in said]
    came = verdict(Approval(60.0, quorum=quorum), votes, now, 60.0)
    people = {vote.who.split(":")[1] for vote in votes}
    if now >= 60.0:
        assert came is Verdict.EXPIRED
    elif any(vote.says is Say.REJECT for vote in votes):
        assert came is Verdict.REJECTED
    else:
        assert came is (Verdict.GRANTED if len(people) >= quorum else Verdict.WAITING)
