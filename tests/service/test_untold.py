"""Which ends the first start under a new supervisor is told, and which it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.ledger import Phase, ServiceRecord
from actors.runtimes.base import ExitStatus
from actors.service_fsm import RestartPolicy, Rules
from actors.untold import UNKNOWN, untold_end

BOOT = "this-boot"
CRASHED = ServiceRecord(
    "a",
    run=3,
    phase=Phase.EXITED,
    runtime="process",
    token="t",
    identity={"pid": 7, "boot_id": BOOT},
    started_at=500.0,
    last_exit={"cause": "exit 3", "code": 3, "asked": False, "at": 600.0},
    exited_run=3,
    counted_run=2,
)
DONE = replace(CRASHED, last_exit={"cause": "exit 0", "code": 0, "at": 600.0})
GONE = replace(CRASHED, phase=Phase.LAUNCHED, last_exit=None, exited_run=2)


def told(record: ServiceRecord, policy: str = "always", *, runtime: str = "process", boot: str = BOOT) -> Any:
    rules = Rules(RestartPolicy(policy))
    return untold_end(record, runtime, rules, boot_id=boot, booted_at=100.0, now=900.0)


@pytest.mark.parametrize("policy", ["always", "on_failure", "unless_stopped", "never"])
def test_a_crash_nobody_has_judged_is_told(policy: str) -> None:
    assert told(CRASHED, policy) == ExitStatus("exit 3", code=3, at=600.0)


@pytest.mark.parametrize("policy", ["always", "never"])
def test_a_run_that_vanished_while_nobody_was_there_ended_somehow(policy: str) -> None:
    assert told(GONE, policy) == ExitStatus(UNKNOWN, at=900.0)


def test_who_was_done_stays_done() -> None:
    judged = replace(DONE, counted_run=3)
    assert told(judged, "on_failure") == told(judged, "never") == ExitStatus("exit 0", code=0, at=600.0)
    assert told(replace(CRASHED, counted_run=3), "never") == ExitStatus("exit 3", code=3, at=600.0)
    by_hand = replace(DONE, last_exit={"cause": "docker stop", "code": 0, "stopped_by_hand": True})
    assert told(by_hand, "unless_stopped") == ExitStatus("docker stop", code=0, stopped_by_hand=True)


@pytest.mark.parametrize(
    ("record", "policy"),
    [
        (replace(CRASHED, counted_run=3), "always"),
        (replace(CRASHED, judged_run=3), "always"),
        (replace(CRASHED, last_exit={"cause": "stopped", "asked": True}), "never"),
        (replace(DONE, is_rested=True), "on_failure"),
        (replace(CRASHED, is_rested=True), "always"),
        (replace(CRASHED, phase=Phase.INTENT), "never"),
        (ServiceRecord("a"), "never"),
    ],
    ids=["judged", "parked", "asked", "done and rested", "crashed and rested", "never launched", "unknown"],
)
def test_anything_else_is_a_reason_to_begin(record: ServiceRecord, policy: str) -> None:
    assert told(record, policy) is None


def test_another_boot_and_another_runtime_are_a_new_beginning() -> None:
    for record in (CRASHED, GONE, DONE):
        assert told(record, "never", boot="another") is None
        assert told(record, "never", runtime="docker") is None
    container = replace(DONE, runtime="docker", identity={"id": "c", "started_at": "t"})
    assert told(container, "never", runtime="docker") is not None
    long_ago = replace(container, started_at=99.0, last_exit={"code": 0, "at": 99.5})
    assert told(long_ago, "never", runtime="docker") is None
    assert told(replace(DONE, identity=None, started_at=0.0), "never") is not None, (
        "ended before its launch was written"
    )
    assert told(replace(container, phase=Phase.LAUNCHED), "never", runtime="docker") is None, "the engine tells that"
