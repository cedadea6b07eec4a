"""What holds a queued run back: all that would hold back its alert if it came now. What a cancelled one holds back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runbooks.deciding import limits
from runbooks.deciding.gate import held_back
from runbooks.deciding.limits import cooling_left_s
from runbooks.deciding.quiet import matchers
from runbooks.deciding.words import History, Silence
from runbooks.matching import Outcome, decide, fingerprint
from runbooks.model import Mode, Status
from tests.deciding.worlds import ALERT, NOW, Books, Virtual, ended, limited, past, queued
from tests.runbooks.files import GOOD, runbook

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


def test_a_run_that_was_cancelled_at_work_has_been_at_work() -> None:
    book = limited(cooldown="1h", max_runs=[{"count": 1, "per": "2h", "scope": "runbook"}])
    at_work = ended(book, Status.CANCELLED, NOW - 600, started_at=NOW - 610)
    assert cooling_left_s(book, "service:a", History([at_work]), NOW) == 3000
    assert limits.limited(book, "service:a", History([at_work]), NOW) != ""
    never = ended(book, Status.CANCELLED, NOW - 600)
    assert cooling_left_s(book, "service:a", History([never]), NOW) == 0
    assert limits.limited(book, "service:a", History([never]), NOW) == ""


def test_a_run_whose_alert_was_over_before_it_began_answers_no_other() -> None:
    book = runbook({**GOOD, "dedup": {"fingerprint": ["/service"], "window": "10m"}})
    for started_at, outcome in ((None, Outcome.RUN), (NOW - 9, Outcome.DUPLICATE)):
        over = past(book, status=Status.CANCELLED, fingerprint=fingerprint(book, ALERT), started_at=started_at)
        assert decide(ALERT, Books((book,)), History([over]), NOW).outcome is outcome
