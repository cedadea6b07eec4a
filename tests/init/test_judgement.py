"""What the init does when its daemon has ended."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from actors.init.judgement import MOST_QUICK, Again, DaemonEnd, Leave, Past, judge
from actors.keeper.patience import MOST_S, QUICK_S, Patience

LONG_S, SHORT_S = QUICK_S + 1, QUICK_S - 1
KILLED = DaemonEnd(LONG_S, signal=signal.SIGKILL, was_up=True)


@pytest.mark.parametrize("code", [0, 3, 70, 137])
def test_an_orderly_end_is_the_end_of_the_init_with_that_code(code: int) -> None:
    assert judge(Past(), DaemonEnd(SHORT_S, code=code, was_up=True, was_ending=True))[1] == Leave(code)


def test_a_killed_daemon_is_started_again_at_once() -> None:
    assert judge(Past(), KILLED)[1] == Again(0.0)


def test_a_daemon_that_gave_up_is_started_again() -> None:
    assert judge(Past(), DaemonEnd(LONG_S, code=70, was_up=True))[1] == Again(0.0)


def test_a_first_start_that_fails_is_the_end() -> None:
    assert judge(Past(), DaemonEnd(SHORT_S, code=2))[1] == Leave(2)
    assert judge(Past(), DaemonEnd(LONG_S, code=1))[1] == Leave(1)


def test_a_first_start_that_is_killed_is_tried_again() -> None:
    assert isinstance(judge(Past(), DaemonEnd(SHORT_S, signal=signal.SIGKILL))[1], Again)


def test_after_a_daemon_was_up_a_failed_start_is_tried_again() -> None:
    """Its services live: they must not be left alone because of a file that is being edited."""
    past, _ = judge(Past(), KILLED)
    assert isinstance(judge(past, DaemonEnd(SHORT_S, code=2))[1], Again)


def test_an_end_that_was_asked_for_is_no_crash() -> None:
    assert judge(Past(), replace(KILLED, signal=signal.SIGTERM, was_asked=True))[1] == Leave(128 + signal.SIGTERM)


def test_quick_ends_in_a_row_are_given_longer_pauses_and_then_up() -> None:
    past, end, pauses = Past(), DaemonEnd(SHORT_S, signal=signal.SIGSEGV, was_up=True), []
    for _ in range(MOST_QUICK):
        past, verdict = judge(past, end)
        assert isinstance(verdict, Again)
        pauses.append(verdict.delay_s)
    assert pauses == sorted(set(pauses)), "each longer than the one before"
    assert pauses[0] > 0
    assert judge(past, end)[1] == Leave(128 + signal.SIGSEGV)


def test_a_long_life_makes_up_for_quick_ends() -> None:
    past = Past(has_been_up=True, patience=Patience(MOST_QUICK))
    past, verdict = judge(past, KILLED)
    assert verdict == Again(0.0)
    assert past.patience == Patience(0)


def test_pauses_end_at_the_most() -> None:
    assert Patience(1000).delay_s == MOST_S
