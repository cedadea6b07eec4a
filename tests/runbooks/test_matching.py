from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from runbooks.matching import Decision, History, Outcome, PastRun, decide, explain, fingerprint
from runbooks.model import Runbook, Status
from tests.runbooks.files import changed, runbook

NOW = 1000.0
BOOK = runbook(dedup={"window": "10s"}, limits={"cooldown": "5s"})
ALERT = {"type": "service_failure", "service": "a", "severity": "high"}


@dataclass(frozen=True)
class Books:
    runbooks: tuple[Runbook, ...]


def past(**more: Any) -> PastRun:
    run = PastRun("x-1", BOOK.id, "service:a", fingerprint(BOOK, ALERT), Status.SUCCEEDED, NOW - 8, NOW - 7)
    return replace(run, **more)


def decided(*runs: PastRun, alert: Any = ALERT, **more: Any) -> Decision:
    return decide(alert, Books((BOOK,)), History(runs, **more), NOW)


def test_a_run() -> None:
    decision = decided()
    assert (decision.outcome, decision.target, decision.parameters) == (Outcome.RUN, "service:a", {"service": "a"})
    assert decision.runbook is BOOK


OTHER = {"fingerprint": "other", "target": "service:b"}
RUNNING = {"status": Status.RUNNING, "ended_at": None}


@pytest.mark.parametrize(
    ("run", "outcome"),
    [
        (past(), Outcome.DUPLICATE),
        (past(decided_at=NOW - 10), Outcome.RUN),
        (past(decided_at=NOW - 9.9), Outcome.DUPLICATE),
        (past(decided_at=NOW + 3600, ended_at=NOW + 3601), Outcome.RUN),
        (past(decided_at=NOW - 500, **RUNNING), Outcome.DUPLICATE),
        (past(decided_at=NOW - 500, status=Status.QUEUED, ended_at=None), Outcome.DUPLICATE),
        (past(severity="medium"), Outcome.RUN),
        (past(severity="medium", ended_at=NOW - 1), Outcome.COOLING),
        (past(fingerprint="other", ended_at=NOW - 4.9), Outcome.COOLING),
        (past(fingerprint="other", ended_at=NOW - 5), Outcome.RUN),
        (past(fingerprint="other", ended_at=NOW - 1, runbook_id="another"), Outcome.RUN),
        (past(fingerprint="other", ended_at=NOW - 1, target="service:b"), Outcome.RUN),
        (past(fingerprint="other", ended_at=NOW - 1, status=Status.REJECTED), Outcome.RUN),
        (past(fingerprint="other", **RUNNING), Outcome.QUEUED),
        (past(**OTHER, **RUNNING), Outcome.RUN),
    ],
)
def test_limits(run: PastRun, outcome: Outcome) -> None:
    decision = decided(run)
    assert decision.outcome is outcome, decision.reason
    assert decision.reason
    assert (decision.execution_id == "x-1") is (outcome is Outcome.DUPLICATE)


def test_room() -> None:
    busy = past(**OTHER, **RUNNING)
    assert decided(busy, max_concurrent=1).outcome is Outcome.QUEUED
    assert decided(busy, max_concurrent=2).outcome is Outcome.RUN
    waiting = past(execution_id="x-2", fingerprint="c", target="service:c", status=Status.QUEUED, ended_at=None)
    assert decided(busy, waiting, max_concurrent=2).outcome is Outcome.QUEUED  # nobody overtakes the queue


def test_refusals_say_why() -> None:
    assert decided(is_recovery_on=False).outcome is Outcome.RECOVERY_OFF
    nothing = decided(alert={"type": "odd"})
    assert (nothing.outcome, nothing.reason) == (Outcome.NO_MATCH, "no runbook for an alert of type 'odd'")
    assert decided(alert={}).outcome is Outcome.NO_MATCH
    lacking = decided(alert={"type": "service_failure"})
    assert lacking.outcome is Outcome.REJECTED
    assert "service" in lacking.reason
    assert decided(alert={**ALERT, "service": "x; rm -rf /"}).outcome is Outcome.REJECTED
    assert explain({"type": "odd"}, Books((BOOK,))) == {"restart_it": "/type is 'odd', wanted eq 'service_failure'"}


def test_order_priority_then_specificity_then_id() -> None:
    more = {"all": [BOOK_MATCH, {"field": "/service", "op": "eq", "value": "a"}]}
    plain = runbook(changed("/id", "b_plain"))
    same = runbook(changed("/id", "a_plain"))
    special = runbook(changed("/id", "special", changed("/match", more)))
    first = runbook({**changed("/id", "zz"), "priority": 90})
    off = runbook({**changed("/id", "off"), "priority": 99, "enabled": False})
    needy = {"needed": {"type": "string", "from": "/gone", "required": True}, **BOOK_PARAMETERS}
    lacking = runbook({**changed("/id", "lacking"), "priority": 95, "parameters": needy})

    def chosen(*books: Runbook) -> str:
        runbook_ = decide(ALERT, Books(books), History(), NOW).runbook
        assert runbook_ is not None
        return runbook_.id

    assert chosen(plain, same) == "a_plain"
    assert chosen(plain, same, special) == "special"
    assert chosen(plain, special, first, off, lacking) == "zz"


BOOK_MATCH = changed("/id", "x")["match"]
BOOK_PARAMETERS = changed("/id", "x")["parameters"]


def test_a_rule_that_breaks_lets_nothing_through() -> None:
    broken_window: Any = "10"
    broken = replace(BOOK, dedup=replace(BOOK.dedup, window_s=broken_window))
    decision = decide(ALERT, Books((broken,)), History((past(decided_at=NOW - 1),)), NOW)
    assert decision.outcome is Outcome.REJECTED
    assert "TypeError" in decision.reason
