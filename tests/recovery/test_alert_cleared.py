"""``alert_cleared``: whether the condition is gone, by a real journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.clock import SystemClock
from actors.journal import firings, rows
from actors.journal.alert_batches import NewDecision, new_alert, record_decisions, store_alerts
from actors.journal.conditions import JournalAlerts
from actors.journal.firings import Ended, Firing
from actors.journal.journal import Journal
from actors.journal.rows import Execution
from runbooks.calls.family import CheckOutcome
from runbooks.deciding.timing import Moment
from runbooks.engine_words import Answer, Kind, Record
from runbooks.model import Call, CallType, Status
from runbooks.ports import Ports
from runbooks.steps import make_check

T0 = 1_795_000_000.0
NOBODY: object = None


class Hands:
    """A clock that is moved by hand; ``set_back_s`` is how wrong its wall time is."""

    now_s = 500.0
    set_back_s = 0.0

    def now(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return T0 + self.now_s - self.set_back_s

    def moment(self) -> Moment:
        return Moment(self.wall(), "boot", self.now_s)


@dataclass
class Desk:
    journal: Journal
    clock: Hands
    alerts: JournalAlerts

    def tell(self, name: str, execution: str = "x-1", *, starts: bool = False) -> None:
        """An alert comes in and is folded into the execution, or starts it."""

        def work(db: object) -> None:
            (stored,) = store_alerts(db, [new_alert("c", name, {"type": "t", "n": name}, self.clock.wall())])  # type: ignore[arg-type]
            assert not isinstance(stored, Exception)
            made = _execution(execution, stored.seq, self.clock.wall()) if starts else None
            body = {
                "outcome": "run" if starts else "duplicate",
                "execution_id": execution,
                "runbook": "r",
                "reason": "",
            }
            record_decisions(db, [NewDecision(stored.seq, body, made, self.clock.wall())])  # type: ignore[arg-type]

        self.journal.submit(work).result(10)

    def fire(self, *, starts: bool = False, starts_at: float = T0) -> None:
        def work(db: object) -> None:
            firing = Firing("print", starts_at, f"f-{starts_at:g}", {"type": "t"})
            kept = firings.keep(db, "alertmanager", firing, self.clock.wall(), 3600)  # type: ignore[arg-type]
            made = _execution("x-1", kept.seq, self.clock.wall()) if starts else None
            body = {"outcome": "run", "execution_id": "x-1", "runbook": "r", "reason": ""}
            record_decisions(db, [NewDecision(kept.seq, body, made, self.clock.wall())])  # type: ignore[arg-type]

        self.journal.submit(work).result(10)

    def resolve(self) -> None:
        self.journal.submit(lambda db: firings.end(db, Ended("print", T0, T0 + 50, "n"), T0 + 50, "root")).result(10)

    def verified(self) -> None:
        at = self.clock.wall()
        self.journal.submit(lambda db: rows.add_record(db, "x-1", Record(Kind.VERIFIED, 0, "s", 1), at)).result(10)

    def look(self, quiet: str = "30s") -> CheckOutcome:
        ports = Ports(NOBODY, NOBODY, NOBODY, NOBODY, alerts=self.alerts)  # type: ignore[arg-type]
        return make_check(Call(CallType.ALERT_CLEARED, {"quiet_for": quiet}), None, ports, "x-1")


def _execution(name: str, seq: int, at: float) -> Execution:
    return Execution(name, seq, "r", b"{}", "s", "t", {}, "print", "high", 50, Status.RUNNING, at)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    journal, clock = Journal(tmp_path / "journal.db"), Hands()
    journal.start()
    yield Desk(journal, clock, JournalAlerts(journal, clock))
    journal.close()


def test_a_firing_is_over_when_it_is_said_to_be(desk: Desk) -> None:
    desk.fire(starts=True)
    desk.verified()
    first = desk.look()
    assert (first.answer, first.detail) == (Answer.NO, f"f-{T0:g} fires still")
    desk.clock.now_s += 10_000
    assert desk.look().answer is Answer.NO  # silence of its source is no end
    desk.resolve()
    assert desk.look().answer is Answer.YES
    desk.fire(starts_at=T0 + 100)  # folded into the run that is under way
    assert desk.look().answer is Answer.NO


def test_of_other_kinds_silence_since_the_last_step_was_verified_is_the_end(desk: Desk) -> None:
    desk.tell("one", starts=True)
    desk.clock.now_s += 5
    desk.verified()
    assert desk.look().answer is Answer.YES
    desk.clock.now_s += 1
    desk.tell("two")
    assert desk.look().answer is Answer.NO
    desk.clock.now_s += 29
    assert desk.look().answer is Answer.NO
    desk.clock.now_s += 1
    assert desk.look().answer is Answer.YES
    assert desk.look("40s").answer is Answer.NO


def test_what_came_between_the_proof_and_the_first_look_counts(desk: Desk) -> None:
    desk.tell("one", starts=True)
    desk.verified()
    desk.clock.now_s += 1
    desk.tell("two")
    assert desk.look().answer is Answer.NO


def test_a_clock_that_is_set_makes_nothing_over(desk: Desk) -> None:
    desk.tell("one", starts=True)
    desk.verified()
    assert desk.look().answer is Answer.YES
    desk.tell("two")
    assert desk.look().answer is Answer.NO
    for jump_s in (3600.0, -3600.0):
        desk.clock.set_back_s += jump_s
        assert desk.look().answer is Answer.NO
    desk.clock.now_s += 30
    assert desk.look().answer is Answer.YES


def test_a_worse_alert_that_has_a_run_of_its_own_is_about_the_same(desk: Desk) -> None:
    desk.tell("one", starts=True)
    desk.verified()
    assert desk.look().answer is Answer.YES
    desk.tell("worse", "x-2", starts=True)
    assert desk.look().answer is Answer.NO


def test_before_any_step_its_own_alert_does_not_count(desk: Desk) -> None:
    desk.tell("one", starts=True)
    assert desk.look().answer is Answer.YES
    desk.tell("two")
    assert desk.look().answer is Answer.NO


def test_nobody_can_tell_without_records(desk: Desk) -> None:
    desk.tell("one", starts=True)
    for file in desk.journal.path.parent.iterdir():
        file.write_bytes(b"no database" * 1000)
    assert desk.look().answer is Answer.UNKNOWN
    none = Ports(NOBODY, NOBODY, NOBODY, NOBODY)  # type: ignore[arg-type]
    assert make_check(Call(CallType.ALERT_CLEARED), None, none, "x-1").answer is Answer.UNKNOWN


def test_the_real_clock_fits(tmp_path: Path) -> None:
    now = SystemClock().moment()
    assert now.up_s > 0
    assert json.dumps(now.mark).count("/") == 1
