"""Silences and inhibition."""

from __future__ import annotations

from typing import Any

import pytest

from runbooks.deciding.quiet import BadMatcher, inhibitor, matcher, matchers
from runbooks.deciding.words import History, Silence
from runbooks.matching import Outcome, decide
from runbooks.model import Status
from runbooks.predicates import holds
from tests.deciding.worlds import ALERT, NOW, Books, Virtual, past, queued, running
from tests.runbooks.files import changed, runbook

FACTS = {**ALERT, "message": "disk /var is full", "labels": {"n": 5, "host": "web-1", "flag": True, "text": "5"}}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("service=a", True),
        ("service=b", False),
        ("service != b", True),
        ("service!=a", False),
        ("gone!=a", False),  # nothing fits by what it does not say
        ("gone!~a", False),
        ("message=~disk.*full", True),
        ("message=~disk", False),  # the whole text, as for Alertmanager
        ("message!~memory.*", True),
        ("labels.n=5", True),
        ("labels.text=5", True),
        ("labels.flag=true", True),
        ("labels.flag!=false", True),
        ("labels.n>=5", True),
        ("labels.n>5", False),
        ("labels.n<6", True),
        ("labels.text<6", False),
        ("/labels/host=web-1", True),
        ("type=~.*", True),
    ],
)
def test_matchers(text: str, fits: bool) -> None:
    assert holds(matcher(text), FACTS) is fits


LINES = {"message": "disk /var is full\nclean it\n", "service": "web"}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("message=~disk.*", True),
        ("message=~disk.*clean it.", True),
        ("message=~DISK.*", True),
        ("message=~.*full", False),
        ("message=~disk.*clean it", False),  # a line break at the end is part of the text
        ("message=~(?m)disk.*full$", False),
        ("message=~(?m)^clean it.", False),
        ("message=~(?-s)disk.*", False),
        ("message!~disk.*", False),
        ("message!~.*full", True),
        ("service=~web|api", True),
        ("service=~we|b", False),
    ],
)
def test_a_pattern_is_for_all_lines_of_the_text(text: str, fits: bool) -> None:
    assert holds(matcher(text), LINES) is fits


NOTHING_SAID = (
    "", "service", "=a", "message=~(", "labels.n>=many", "x" * 2000, "service=~(?<=a)b", "service=~a)|(web",
    "service!~a)|(?:web", "service=~web)|(?:", r"service=~\Qa)|(web", "service=~web\\",
)  # fmt: skip


@pytest.mark.parametrize("text", NOTHING_SAID)
def test_what_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(BadMatcher):
        matcher(text)


def test_a_silence_of_nothing_in_particular_is_refused() -> None:
    with pytest.raises(BadMatcher, match="at least one"):
        matchers(())
    assert holds(matchers(("service=a", "severity=high")), FACTS)
    assert not holds(matchers(("service=a", "severity=low")), FACTS)


def test_a_silence_keeps_runs_away_until_it_is_over_and_says_whose_it_is() -> None:
    silence = Silence("s-1", matcher("service=a"), NOW + 60, "ann", "maintenance")
    history = History(silences=[silence])
    answer = decide(ALERT, Books((runbook(),)), history, NOW + 59)
    assert answer.outcome is Outcome.SILENCED
    assert answer.reason == "silence s-1 by ann for another 1 s: maintenance"
    assert decide(ALERT, Books((runbook(),)), history, NOW + 60).outcome is Outcome.RUN
    assert decide({**ALERT, "service": "b"}, Books((runbook(),)), history, NOW).outcome is Outcome.RUN
    assert decide({**ALERT, "type": "odd"}, Books((runbook(),)), history, NOW).outcome is Outcome.NO_MATCH


INHIBITED = {**changed("/id", "lesser"), "inhibited_by": [{"runbook": "greater", "equal": ["/labels/host"]}]}
GREATER = {**changed("/id", "greater"), "match": {"field": "/type", "op": "eq", "value": "host_down"}}
HOST = {**ALERT, "labels": {"host": "web-1"}}


@pytest.mark.parametrize(
    ("facts", "status", "is_first"),
    [
        ({"labels": {"host": "web-1"}}, Status.RUNNING, True),
        ({"labels": {"host": "web-1"}}, Status.QUEUED, True),
        ({"labels": {"host": "web-1"}}, Status.AWAITING_APPROVAL, True),
        ({"labels": {"host": "web-2"}}, Status.RUNNING, False),
        ({"labels": {"host": ["web-1"]}}, Status.RUNNING, False),
        ({}, Status.RUNNING, False),
        (None, Status.RUNNING, False),
    ],
)
def test_a_run_of_another_is_first_when_the_fields_are_equal(facts: Any, status: Status, is_first: bool) -> None:
    book = runbook(INHIBITED)
    other = past(runbook(GREATER), execution_id="x-7", target="t", status=status, ended_at=None, facts=facts)
    answer = decide(HOST, Books((book,)), History([other]), NOW)
    assert (answer.outcome is Outcome.INHIBITED) is is_first, answer
    assert ("x-7 of greater is first" in answer.reason) is is_first


def test_what_ended_inhibits_nothing_and_what_both_lack_is_equal() -> None:
    book = runbook(INHIBITED)
    over = past(runbook(GREATER), target="t", facts={"labels": {"host": "web-1"}})
    assert decide(HOST, Books((book,)), History([over]), NOW).outcome is Outcome.RUN
    at_work = running(runbook(GREATER), "x-7", NOW, facts=dict(ALERT))
    assert inhibitor(book, ALERT, History([at_work])) is at_work


def test_two_that_yield_to_each_other_do_not_wait_for_ever() -> None:
    one = {**INHIBITED, "inhibited_by": [{"runbook": "greater"}]}
    two = {**GREATER, "inhibited_by": [{"runbook": "lesser"}]}
    world = Virtual((runbook(one), runbook(two)))
    for book, name in ((one, "first"), (two, "second")):
        world.history.put(queued(runbook(book), name, NOW, target="t", facts=dict(ALERT)))
    world.serve()
    world.to(NOW + 20)
    assert sorted(world.began) == ["first", "second"]
    assert max(world.at_work()) == 1


def test_nothing_inhibited_is_answered_while_the_daemon_warms_up() -> None:
    """Alertmanager #4064: after a restart what inhibits is not known yet, and what it inhibits fires."""
    book = runbook(INHIBITED)
    world = Virtual((book, runbook(GREATER)))
    world.history.warm_until = NOW + 30
    first = world.alert(labels={"host": "web-1"})
    assert (first.outcome, world.began) == (Outcome.PENDING, [])
    assert "the daemon began a moment ago" in first.reason
    greater = world.alert(type="host_down", service="h", labels={"host": "web-1"})
    assert greater.outcome is Outcome.RUN  # it yields to nothing, so it does not wait
    world.history.put(running(runbook(GREATER), "x-9", NOW, facts={"labels": {"host": "web-1"}}))
    world.now = NOW + 31
    assert world.alert(labels={"host": "web-1"}).outcome is Outcome.INHIBITED
