"""What is found by an index, or remembered of an earlier alert, is what a look at everything finds."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbooks import choosing
from runbooks.deciding import breaker, gate, limits, quiet, repeats
from runbooks.deciding.queue import in_order
from runbooks.deciding.words import History, PastRun
from runbooks.model import SEVERITIES, Runbook, Status
from runbooks.parse import Library, load_library
from runbooks.replay import Recorded, replayed
from tests.deciding import plain
from tests.runbooks.files import GOOD, changed, runbook

TARGETS = ("service:a", "service:b")


def books() -> tuple[Runbook, ...]:
    numbers = [
        {"count": 2, "per": "20s", "scope": "target"},
        {"count": 3, "per": "30s", "scope": "runbook"},
        {"count": 4, "per": "40s", "scope": "global"},
    ]
    breaking = {"breaker": {"failures": 2, "per": "25s", "open_for": "15s"}, "cooldown": "4s"}
    yields = {**changed("/id", "yields"), "inhibited_by": [{"runbook": "restart_it", "equal": ["/service"]}]}
    match = {"field": "/type", "op": "in", "value": ["service_failure", "other"]}
    return (
        runbook(limits={"max_runs": numbers, "concurrency": 3}, dedup={"window": "6s", "on_repeat": "queue_one"}),
        runbook(changed("/id", "breaks", GOOD), limits=breaking, match=match, priority=80),
        runbook(yields, dedup={"window": "3s"}, match={"field": "/type", "op": "eq", "value": "yields"}),
    )


BOOKS = books()
RUNS = st.builds(
    lambda number, book, target, like, status, at, took, severity: PastRun(
        f"x-{number}",
        BOOKS[book].id,
        TARGETS[target],
        f"f{like}",
        status,
        float(at),
        at + took if status.is_terminal else None,
        severity,
        float(at) if status is Status.RUNNING or (status.is_terminal and took > 1) else None,
        50,
        {"service": "ab"[target]},
    ),
    st.integers(0, 9), st.integers(0, 2), st.integers(0, 1), st.integers(0, 2), st.sampled_from(list(Status)),
    st.integers(0, 60), st.integers(0, 4), st.sampled_from(SEVERITIES),
)  # fmt: skip
STEPS = st.lists(RUNS | st.sampled_from([f"x-{number}" for number in range(10)]) | st.floats(0, 70), max_size=25)


@given(st.lists(RUNS, max_size=8, unique_by=lambda one: one.execution_id), STEPS, st.integers(0, 90))
@settings(max_examples=120, deadline=None)
def test_each_rule_finds_by_its_index_what_a_look_at_all_runs_finds(
    first: list[PastRun], steps: list[PastRun | str | float], now: int
) -> None:
    """Runs are put, put again as something else, dropped and forgotten, in any order and at any instant."""
    history, known = History(tuple(first)), {one.execution_id: one for one in first}
    for step in steps:
        match step:
            case PastRun():
                before = known.get(step.execution_id)
                if before is not None and before.status.is_terminal and not step.status.is_terminal:
                    continue  # nothing that ended goes on
                if before is not None and _named(before) != _named(step):
                    del known[step.execution_id]
                history.put(step)
                known[step.execution_id] = step
            case str():
                history.drop(step)
                known.pop(step, None)
            case float():
                history.forget(step)
                known = {key: one for key, one in known.items() if one.ended_at is None or one.ended_at >= step}
    assert list(history.runs) == list(known.values())
    queued = [one for one in known.values() if one.status is Status.QUEUED]
    assert in_order(history.queued, history, now) == in_order(queued, history, now)
    running = [one for one in known.values() if one.status is Status.RUNNING]
    assert {one.execution_id for one in history.running} == {one.execution_id for one in running}
    assert history.open_count == len(queued) + len(running)
    for book in BOOKS:
        assert list(history.of_runbook(book.id)) == [one for one in known.values() if one.runbook_id == book.id]
        for many in (False, True):
            assert gate.crowded(book, history, with_queued=many) == plain.crowded(book, history, with_queued=many)
        for target in TARGETS:
            _same_about(book, target, history, float(now))


def _same_about(book: Runbook, target: str, history: History, now: float) -> None:
    state = breaker.breaker_state(book, target, history, now)
    assert state == plain.breaker_state(book, target, history, now)
    assert limits.cooling_left_s(book, target, history, now) == plain.cooling_left_s(book, target, history, now)
    for but in ("", *(one.execution_id for one in history.runs)):
        assert limits.limited(book, target, history, now, but=but) == plain.limited(book, target, history, now, but=but)
        assert breaker.broken(book, target, history, now, but=but) == plain.broken(book, target, history, now, but=but)
        for only_running in (False, True):
            asked: dict[str, Any] = {"but": but, "only_running": only_running}
            facts = {"service": target[-1]}
            assert quiet.inhibitor(book, facts, history, **asked) == plain.inhibitor(book, facts, history, **asked)
    for like in ("f0", "f1", "f2"):
        for severity in SEVERITIES:
            assert repeats.twin(like, book, severity, history, now) == plain.twin(like, book, severity, history, now)


def test_a_whole_replay_is_the_same_with_the_plain_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dense mix over the shipped library and runbooks with every limit: each answer, in its order."""
    library = Library((*load_library().runbooks, *BOOKS))
    rng, at, made = random.Random(11), 0.0, []
    for _ in range(1500):
        at += rng.choice([0.0, 0.2, 1.0, 5.0])
        made.append(Recorded(at, _alert(rng)))
    quick = replayed(made, library, 3.0)
    outcomes = {one.outcome for one in quick}
    assert {"run", "queued", "limited", "cooling", "duplicate", "observed", "no_match", "rejected"} <= outcomes
    for module, name in ((repeats, "twin"), (quiet, "inhibitor"), (breaker, "broken"), (limits, "cooling_left_s"),
                         (limits, "limited"), (gate, "crowded")):  # fmt: skip
        monkeypatch.setattr(module, name, getattr(plain, name))
    monkeypatch.setattr("runbooks.matching.chosen", choosing.chosen_plainly)
    assert replayed(made, library, 3.0) == quick


def _alert(rng: random.Random) -> dict[str, Any]:
    kinds = [
        "service_failure",
        "other",
        "yields",
        "high_cpu_usage",
        "network_connectivity",
        "high_latency",
        "unheard_of",
    ]
    labels = {"scope": rng.choice(["service", "box"]), "port": rng.choice([1, 2]), "limit_cpu_percent": 80}
    return {
        "type": rng.choice(kinds),
        "service": rng.choice(["a", "b", "c", "d", "e", "f", ""]),
        "severity": rng.choice(SEVERITIES),
        "labels": {key: value for key, value in labels.items() if rng.random() < 0.8},
    }


VALUES = st.sampled_from([0, 1, -1, True, False, 0.0, -0.0, 1.0, None, "", "1", "a", "box", "x" * 300, [1], {"a": 1}])
FIELDS = ("service", "severity", "dedup_key", "message", "source")
LABELS = ("scope", "port", "host", "limit_cpu_percent", "path", "cleanup_root", "lock_keys", "endpoint")
KINDS = (
    "high_cpu_usage",
    "network_connectivity",
    "database_locked",
    "position_limit_exceeded",
    "disk_space_low",
    "odd",
)
ALERTS = st.builds(
    lambda kind, fields, labels: {"type": kind, "labels": labels, **fields},
    st.sampled_from(KINDS) | VALUES,
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3),
    st.dictionaries(st.sampled_from(LABELS), VALUES, max_size=4),
)
SHIPPED = load_library().runbooks


@given(st.lists(ALERTS, min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_what_is_remembered_of_an_alert_is_what_would_be_chosen(alerts: list[dict[str, Any]]) -> None:
    """Whatever came before: alerts that differ by 1 and true, or 0.0 and -0.0, are not taken for one another."""
    for alert in alerts:
        for runbooks in (SHIPPED, BOOKS):
            found, wanted = choosing.chosen(alert, runbooks), choosing.chosen_plainly(alert, runbooks)
            assert repr(found) == repr(wanted)
            assert found is None or found.runbook is None or type(found.runbook) is Runbook


def test_what_was_chosen_is_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    plainly = choosing.chosen_plainly

    def counted(alert: Any, runbooks: Any) -> Any:
        asked.append(alert)
        return plainly(alert, runbooks)

    monkeypatch.setattr(choosing, "chosen_plainly", counted)
    monkeypatch.setattr(choosing, "MOST_REMEMBERED", 20)
    own = (runbook(changed("/id", "mine")),)

    def ask(service: str, message: str = "") -> None:
        choosing.chosen({"type": "service_failure", "service": service, "message": message}, own)

    ask("a")
    ask("a", "another text")  # nobody looks at it
    assert len(asked) == 1
    for number in range(choosing.MOST_REMEMBERED):
        ask(f"s{number}")
    ask("a")  # forgotten with all others
    assert len(asked) == choosing.MOST_REMEMBERED + 2
    long = "y" * (choosing.MOST_CHARS + 1)
    ask(long)
    ask(long)  # never remembered
    assert len(asked) == choosing.MOST_REMEMBERED + 4


def _named(run: PastRun) -> tuple[str, str, str]:
    return (run.runbook_id, run.target, run.fingerprint)
