"""How much CPU a service uses, when several ask: the watch, a runbook, people at the tree."""

from __future__ import annotations

from actors.runtimes.procfs import ProcessIdentity, ProcessLine, ProcessTable
from actors.runtimes.usage import ProcessMeter
from tests.approval.desks import HandClock

MAIN = ProcessIdentity(100, 7, "boot")


def table(cpu_s: float) -> ProcessTable:
    return {100: ProcessLine(100, 1, 100, 100, 7, False, cpu_s, 4096)}


def test_who_asks_right_after_another_hears_the_same() -> None:
    clock, cpu_s = HandClock(), [0.0]
    meter = ProcessMeter(clock, lambda: table(cpu_s[0]))
    first = meter.measure(MAIN)
    assert first is not None
    assert first.cpu_percent == 0.0
    clock.pass_s(1)
    cpu_s[0] = 0.8
    heard = [meter.measure(MAIN) for _ in range(3)]
    assert [one.cpu_percent for one in heard if one is not None] == [80.0] * 3
    clock.pass_s(2)
    cpu_s[0] = 1.0
    later = meter.measure(MAIN)
    assert later is not None
    assert later.cpu_percent == 10.0
