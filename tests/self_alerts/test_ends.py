"""The end of an alert of the daemon's own that could not be written at once."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from config.models import WatchConfig
from supervisors.self_alerts import SelfAlerts, WatchParts
from supervisors.self_words import BOX_SCOPE, HIGH_CPU, Figure, Subject, limit_of
from tests.approval.desks import HandClock

CPU = Subject(HIGH_CPU, BOX_SCOPE)
LOOK_S = 5.0


@dataclass
class Told:
    """The journal's side; while ``is_away`` nothing can be written."""

    clock: HandClock
    is_away: bool = False
    said: list[str] = field(default_factory=list)

    def fires(self, fingerprint: str, starts_at: float, facts: Mapping[str, Any]) -> None:
        self.said.append("fires")

    def is_over(self, fingerprint: str) -> Future[str | None]:
        answer: Future[str | None] = Future()
        if self.is_away:
            answer.set_exception(OSError("no room"))
        else:
            self.said.append("over")
            answer.set_result("alert-1")
        return answer

    def firing(self) -> dict[str, float]:
        return {}


class World:
    def __init__(self) -> None:
        self.watch, self.clock, self.percent = WatchConfig(), HandClock(), 10.0
        self.told = Told(self.clock)
        self.alerts = SelfAlerts(
            WatchParts(
                lambda: self.watch,
                lambda: {CPU: Figure(self.percent, limit_of(95, self.watch), "cpu", {})},
                lambda _name: None,
                self.told,  # type: ignore[arg-type]
                self.clock,
                lambda work: work(),
            )
        )

    def lasts(self, seconds: float, percent: float) -> None:
        self.percent = percent
        for _ in range(int(seconds / LOOK_S)):
            self.clock.pass_s(LOOK_S)
            self.alerts.look()


def test_an_end_that_could_not_be_written_is_written_later() -> None:
    world = World()
    world.lasts(70, 99)
    world.told.is_away = True
    world.lasts(40, 10)
    assert world.told.said == ["fires"]
    world.told.is_away = False
    world.lasts(10, 10)
    assert world.told.said == ["fires", "over"]


def test_what_begins_anew_before_its_end_was_written_is_not_over() -> None:
    world = World()
    world.lasts(70, 99)
    world.told.is_away = True
    world.lasts(40, 10)
    world.lasts(70, 99)
    world.told.is_away = False
    world.lasts(10, 99)
    assert set(world.told.said) == {"fires"}
