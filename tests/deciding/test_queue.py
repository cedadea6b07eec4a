"""Who is next: the order, the ageing, and that nothing is dropped, starved or begun beyond what is allowed."""

from __future__ import annotations

from dataclasses import replace

from runbooks.deciding.queue import IN_A_ROW, MOST, POINTS_A_MINUTE, in_order, line, rank
from runbooks.deciding.words import History, PastRun
from runbooks.matching import Outcome
from runbooks.model import Status
from tests.deciding.worlds import NOW, Virtual, limited, queued, running
from tests.runbooks.files import changed, runbook

BOOK = runbook()
TEN_MINUTES = 600.0


def order(*runs: PastRun, now: float = NOW) -> list[str]:
    return [run.execution_id for run in in_order(runs, History(runs), now)]


def test_priority_then_severity_then_age() -> None:
    runs = (
        queued(BOOK, "old", NOW - 2, priority=50),
        queued(BOOK, "new", NOW - 1, priority=50),
        queued(BOOK, "low", NOW - 1, priority=50, severity="low"),
        queued(BOOK, "first", NOW, priority=90),
        queued(BOOK, "worst", NOW, priority=0, severity="critical"),
    )
    assert order(*runs) == ["worst", "first", "old", "new", "low"]


def test_waiting_is_worth_ten_points_a_minute() -> None:
    old, new = queued(BOOK, "old", NOW - 239, priority=10), queued(BOOK, "new", NOW, priority=50)
    assert order(old, new) == ["new", "old"]
    assert order(old, new, now=NOW + 2) == ["new", "old"]  # both age
    assert order(replace(old, decided_at=NOW - 241), new) == ["old", "new"]


def test_no_newcomer_overtakes_who_has_waited_long_enough() -> None:
    longest_s = 60 * MOST / POINTS_A_MINUTE
    least = queued(BOOK, "least", NOW - longest_s, priority=0, severity="low")
    best = queued(BOOK, "best", NOW, priority=100, severity="high")
    assert rank(least, NOW) > rank(best, NOW)
    later = NOW + 100_000
    assert order(least, best, now=later) == ["least", "best"]  # both have all the points there are: the older is first


def test_busy_targets_and_held_ones_let_others_pass_and_keep_their_place() -> None:
    at_work = running(BOOK, "r", NOW - 9, target="t9")
    runs = [
        queued(BOOK, name, NOW - 5 + n, target=target)
        for n, (name, target) in enumerate(
            [("blocked", "t9"), ("held", "t1"), ("one", "t2"), ("same", "t2"), ("two", "t3"), ("three", "t4")]
        )
    ]
    history = History([at_work, *runs], max_concurrent=3)
    found = line(history, NOW, lambda run: "it is held" if run.execution_id == "held" else "")
    assert [run.execution_id for run in found.startable] == ["one", "two"]
    assert [(one.place, one.run.execution_id, one.why) for one in found.waiting] == [
        (1, "blocked", "r is at work on t9"),
        (2, "held", "it is held"),
        (3, "same", "one is at work on t2"),
        (4, "three", "3 runbooks may run at once"),
    ]
    assert {run.status for run in history.queued} == {Status.QUEUED}
    assert len(history.queued) == 6  # looking changes nothing


def test_a_limit_that_throws_holds_back() -> None:
    def broken(_run: PastRun) -> str:
        raise RuntimeError("a bug")

    found = line(History([queued(BOOK, "one", NOW)]), NOW, broken)
    assert found.startable == ()
    assert "a bug" in found.waiting[0].why


def test_a_thousand_alerts_on_one_target_one_run_at_a_time() -> None:
    world = Virtual((runbook(dedup={"fingerprint": ["/message"]}),))
    outcomes = [world.alert(message=str(n)).outcome for n in range(1000)]
    assert outcomes == [Outcome.RUN] + [Outcome.QUEUED] * 999
    world.to(NOW + 6000)
    assert sorted(world.began) == sorted(f"x-{n}" for n in range(1, 1001))  # nothing is dropped
    assert max(world.at_work()) == 1


def test_the_limit_of_all_is_never_exceeded() -> None:
    world = Virtual((runbook(dedup={"fingerprint": ["/message"]}),), most=3)
    for n in range(300):
        world.alert(message=str(n), service=f"s{n % 17}")
        world.to(world.now + 0.7)
    world.to(world.now + 2000)
    assert len(world.began) == 300
    assert max(world.at_work()) == 3


def test_nobody_starves_under_a_stream_of_critical_alerts() -> None:
    """A run every 5 s, a critical alert every 4 s: there is never room, and the low one runs all the same."""
    books = (runbook(dedup={"fingerprint": ["/message"]}, priority=0),)
    world = Virtual(books, most=1)
    world.alert(message="first", service="s0", severity="critical")
    low = world.alert(message="low", service="low", severity="low")
    assert low.outcome is Outcome.QUEUED
    for n in range(200):
        world.alert(message=f"c{n}", service=f"c{n}", severity="critical")
        world.to(world.now + 4)
    began_as = world.began.index("x-2")
    print(f"the low one was number {began_as} of {len(world.began)} that began under a stream of critical ones")
    assert began_as <= IN_A_ROW + 1


def test_nobody_starves_under_a_stream_of_better_ones() -> None:
    best = {**changed("/id", "best"), "priority": 100, "dedup": {"fingerprint": ["/message"]}}
    best["match"] = {"field": "/type", "op": "eq", "value": "best"}
    worst = runbook(priority=0, dedup={"fingerprint": ["/message"]})
    world = Virtual((runbook(best), worst), most=1)
    world.alert(type="best", message="first", service="s0")
    world.alert(message="low", service="low", severity="low")
    asked_at = world.now
    while "x-2" not in world.began:
        world.alert(type="best", message=f"{world.now}", service=f"s{world.now}")
        world.to(world.now + 4)
        assert world.now < asked_at + 3600, "it starves"
    print(f"the worst one waited {world.now - asked_at:.0f} s under a stream of the best")


def test_a_critical_alert_waits_for_what_is_at_work_and_nothing_else() -> None:
    world = Virtual((runbook(dedup={"fingerprint": ["/message"]}),), most=1)
    for n in range(100):
        world.alert(message=f"m{n}", service=f"s{n}")
    world.to(NOW + 202)
    before = len(world.began)
    world.alert(message="urgent", service="urgent", severity="critical")
    world.to(NOW + 206)
    assert world.began[before:] == ["x-101"]


def test_two_streams_share_by_turns() -> None:
    history_runs = [queued(BOOK, f"c{n}", NOW - 50 + n, severity="critical") for n in range(10)]
    lesser = [queued(BOOK, f"l{n}", NOW - 60 + n) for n in range(3)]
    names = order(*history_runs, *lesser)
    assert names[:IN_A_ROW] == ["c0", "c1", "c2", "c3"]
    assert names[IN_A_ROW] == "l0"
    assert names.index("l1") == 2 * IN_A_ROW + 1


def test_queued_runs_meet_the_limits_when_they_are_to_begin() -> None:
    book = limited(max_runs=[{"count": 1, "per": "1m", "scope": "runbook"}])
    world = Virtual((book,))
    world.history.put(running(book, "other", NOW - 30, runbook_id="another", target="service:a"))
    assert world.alert().outcome is Outcome.QUEUED
    world.history.put(replace(running(book, "recent", NOW, target="service:z"), status=Status.SUCCEEDED, ended_at=NOW))
    world.to(NOW + 50)
    assert world.began == []
    world.to(NOW + 61)
    assert world.began == ["x-1"]


def test_a_latched_target_keeps_its_queue_waiting() -> None:
    world = Virtual((BOOK,), most=1)
    world.alert(service="b")
    assert world.alert(service="a").outcome is Outcome.QUEUED
    world.history.latches["service:a"] = "x-0 ended unknown"
    world.to(NOW + 100)
    assert world.began == ["x-1"]
    del world.history.latches["service:a"]
    world.to(NOW + 101)
    assert world.began == ["x-1", "x-2"]
