"""What holds a queued run back: all that would hold back its alert if it came now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runbooks.deciding.gate import held_back
from runbooks.deciding.quiet import matchers
from runbooks.deciding.words import History, Silence
from runbooks.model import Mode, Status
from tests.deciding.worlds import ALERT, NOW, Virtual, ended, limited, queued
from tests.runbooks.files import runbook

BOOK = runbook()
RUN = queued(BOOK, "q", NOW - 1, target="service:a", facts=ALERT)


def silence(text: str, until: float = NOW + 60) -> History:
    return History([RUN], silences=(Silence("s-1", matchers((text,)), until, "ann", "works"),))


def test_a_silence_holds_it_for_as_long_as_it_lasts() -> None:
    history = silence("service=a")
    assert held_back(RUN, BOOK, history, NOW) == "silence s-1 by ann for another 60 s"
    assert held_back(RUN, None, history, NOW) == "silence s-1 by ann for another 60 s"  # its file is gone
    assert held_back(RUN, BOOK, history, NOW + 60) == ""
    assert held_back(RUN, BOOK, silence("service=b"), NOW) == ""


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"enabled": False}, "restart_it was switched to disabled meanwhile"),
        ({"mode": Mode.OFF}, "restart_it was switched to off meanwhile"),
        ({"mode": Mode.OBSERVE}, "restart_it was switched to observe meanwhile"),
        ({"mode": Mode.DRY_RUN}, "restart_it was switched to dry_run meanwhile"),
    ],
)
def test_a_runbook_that_acts_no_more_holds_it(changed: dict[str, object], why: str) -> None:
    assert held_back(RUN, replace(BOOK, **changed), History([RUN]), NOW) == why  # type: ignore[arg-type]


def test_the_cooldown_holds_it() -> None:
    book = limited(cooldown="1h")
    history = History([RUN, ended(book, Status.SUCCEEDED, NOW - 600)])
    assert held_back(RUN, book, history, NOW) == "service:a was recovered a moment ago; again in 3000 s"
    assert held_back(RUN, book, history, NOW + 3000) == ""


def test_what_waits_for_a_run_waits_for_its_cooldown_too() -> None:
    world = Virtual((limited(cooldown="60s"),), lasts_s=5)
    world.alert()
    world.alert(severity="critical")  # worse: it is not folded into the first
    world.to(NOW + 64)
    assert world.began == ["x-1"]
    world.to(NOW + 65)
    assert world.began == ["x-1", "x-2"]
