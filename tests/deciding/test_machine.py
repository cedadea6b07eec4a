"""A guardian in virtual time, driven by hypothesis: whatever comes, every alert has one outcome and nothing is lost."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runbooks.deciding.quiet import matcher
from runbooks.deciding.words import Health, PastRun, Silence
from runbooks.matching import Outcome
from runbooks.model import SEVERITIES, Status
from tests.deciding.worlds import Virtual
from tests.runbooks.files import GOOD, changed, runbook

ENDS = (Status.SUCCEEDED, Status.FAILED, Status.ROLLED_BACK, Status.CANCELLED)


def books() -> tuple[object, ...]:
    limits = {
        "cooldown": "3s",
        "max_runs": [{"count": 4, "per": "1m", "scope": "target"}],
        "concurrency": 2,
        "breaker": {"failures": 2, "per": "5m", "open_for": "30s"},
        "min_healthy": "50%",
    }
    one_more = {**changed("/id", "one_more"), "dedup": {"on_repeat": "queue_one"}, "priority": 80}
    one_more["match"] = {"field": "/type", "op": "eq", "value": "one_more"}
    yields = {**changed("/id", "yields"), "inhibited_by": [{"runbook": "one_more", "equal": ["/service"]}]}
    yields["match"] = {"field": "/type", "op": "eq", "value": "yields"}
    return (runbook(GOOD, limits=limits, dedup={"window": "2s"}), runbook(one_more), runbook(yields))


class Deciding(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.alerts = 0
        self.finished: Counter[str] = Counter()
        self.ready = 4

    @initialize(most=st.integers(1, 4), lasts_s=st.sampled_from([0.5, 3.0, 40.0]), seed=st.integers(0, 3))
    def begin(self, most: int, lasts_s: float, seed: int) -> None:
        def ends(run: PastRun, now: float) -> Status:
            self.finished[run.execution_id] += 1
            return ENDS[(int(now) + seed) % len(ENDS)]

        self.world = Virtual(books(), most, lasts_s, ends)  # type: ignore[arg-type]
        self.world.history.health = lambda: Health(self.ready, 4)

    @rule(
        kind=st.sampled_from(["service_failure", "one_more", "yields", "odd"]),
        service=st.sampled_from(["a", "b", "c"]),
        severity=st.sampled_from(SEVERITIES),
        count=st.integers(1, 4),
    )
    def alert(self, kind: str, service: str, severity: str, count: int) -> None:
        for _ in range(count):
            self.alerts += 1
            before = len(self.world.history.runs)
            answer = self.world.alert(type=kind, service=service, severity=severity)
            made = len(self.world.history.runs) - before
            assert made == (answer.outcome in (Outcome.RUN, Outcome.QUEUED)), answer
            assert answer.outcome is not Outcome.REJECTED, answer.reason
            assert answer.reason
            if answer.outcome is Outcome.DUPLICATE:
                twin = self.world.history.get(answer.execution_id or "")
                assert twin is not None
                assert SEVERITIES.index(severity) <= SEVERITIES.index(twin.severity)

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 120.0]))
    def wait(self, seconds: float) -> None:
        self.world.to(self.world.now + seconds)

    @rule(name=st.sampled_from(["service:a", "service:b"]))
    def latch_or_release(self, name: str) -> None:
        if self.world.history.latches.pop(name, None) is None:
            self.world.history.latches[name] = "x ended unknown"

    @rule(ready=st.integers(0, 4))
    def services(self, ready: int) -> None:
        self.ready = ready

    @rule(service=st.sampled_from(["a", "b"]), seconds=st.sampled_from([1.0, 60.0]))
    def silence(self, service: str, seconds: float) -> None:
        made = Silence("s", matcher(f"service={service}"), self.world.now + seconds, "me", "")
        self.world.history.silences = (*self.world.history.silences[-3:], made)

    @invariant()
    def one_outcome_each(self) -> None:
        if hasattr(self, "world"):
            assert len(self.world.decisions) == self.alerts
            assert set(self.finished.values()) <= {1}

    @invariant()
    def one_run_on_a_target_and_no_more_than_allowed(self) -> None:
        if hasattr(self, "world"):
            running = self.world.history.running
            assert len(running) <= self.world.most
            assert len({run.target for run in running}) == len(running)
            of_one = Counter(run.runbook_id for run in running)
            assert of_one[GOOD["id"]] <= 2
            latched = set(self.world.history.latches)
            assert not {run.target for run in self.world.history.queued if run.started_at is not None} & latched

    def teardown(self) -> None:
        """When all is well again the queue runs empty: nothing was dropped."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.history.latches.clear()
        world.history.silences = ()
        self.ready = 4
        for _ in range(1500):
            if not world.history.queued and not world.history.running:
                break
            world.to(world.now + 60)
        assert world.history.queued == ()
        assert world.history.running == ()
        assert Counter(world.began) == self.finished
        assert sum(one.starts_execution for one in world.decisions) == len(world.began)


TestDeciding = Deciding.TestCase
TestDeciding.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_metric_that_decays_for_five_minutes_costs_one_run() -> None:
    """It is told every 15 s until it is below its limit: the run lasts until its alert has cleared, and folds all."""
    told_until = 300.0

    def ends(run: PastRun, now: float) -> Status:
        return Status.SUCCEEDED if now >= run.decided_at + told_until else Status.FAILED

    world = Virtual((runbook(GOOD, limits={"cooldown": "2m"}),), lasts_s=told_until + 30, ends=ends)
    began_at, outcomes = world.now, []
    while world.now <= began_at + told_until:
        outcomes.append(world.alert(message=f"{world.now}").outcome)
        world.to(world.now + 15)
    world.to(world.now + 600)
    assert outcomes == [Outcome.RUN] + [Outcome.DUPLICATE] * 20
    assert world.began == ["x-1"]


def test_flapping_for_a_day_costs_a_bounded_number_of_actions() -> None:
    """An alert every 20 s for 24 h, each run helps for a moment: at most 3 runs an hour, and no 4th within any hour."""
    limits = {"cooldown": "1m", "max_runs": [{"count": 3, "per": "1h", "scope": "target"}]}
    world = Virtual((runbook(GOOD, limits=limits),), lasts_s=4.0)
    end = world.now + 86_400
    while world.now < end:
        world.alert()
        world.to(world.now + 20)
    print(f"{len(world.decisions)} alerts in 24 h led to {len(world.began)} runs")
    assert len(world.began) == 72
    starts = [at for at, what, _ in world.made if what == "begin"]
    assert all(later - first >= 3600 for first, later in zip(starts, starts[3:], strict=False))


def test_flapping_without_help_costs_less() -> None:
    """Nothing helps: three runs, then one every time the breaker is half open."""
    limits = {"breaker": {"failures": 3, "per": "1h", "open_for": "1h"}}
    world = Virtual((runbook(GOOD, limits=limits),), lasts_s=4.0, ends=lambda _run, _now: Status.ROLLED_BACK)
    end = world.now + 86_400
    while world.now < end:
        world.alert()
        world.to(world.now + 20)
    print(f"{len(world.decisions)} alerts in 24 h led to {len(world.began)} runs that did not help")
    assert len(world.began) <= 3 + 24
