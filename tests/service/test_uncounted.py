"""A restart that was made and not counted before the daemon's own death is counted by the next one, and only such."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.ledger import ManualStop, Phase, ServiceRecord
from supervisors.uncounted import uncounted

CRASHED = ServiceRecord("a", run=4, phase=Phase.LAUNCHED, last_exit={"code": 3, "asked": False}, exited_run=3)


def test_the_restart_after_a_written_end_is_counted() -> None:
    assert uncounted({"a": CRASHED}, {"a": "always"}, ()) == {"a": 3}
    assert uncounted({"a": CRASHED}, {"a": "on_failure"}, ()) == {"a": 3}


@pytest.mark.parametrize(
    ("record", "policy", "untold"),
    [
        (replace(CRASHED, run=3, phase=Phase.EXITED), "always", ()),
        (replace(CRASHED, counted_run=3), "always", ()),
        (CRASHED, "always", ("a",)),
        (CRASHED, "never", ()),
        (replace(CRASHED, last_exit={"code": 0}), "on_failure", ()),
        (replace(CRASHED, last_exit={"code": 0, "stopped_by_hand": True}), "unless_stopped", ()),
        (replace(CRASHED, last_exit={"code": None, "signal": 15, "asked": True}), "always", ()),
        (replace(CRASHED, stopped=ManualStop("alice", 1.0)), "always", ()),
        (replace(CRASHED, judged_run=3), "always", ()),
        (CRASHED, None, ()),
    ],
    ids=[
        "not restarted yet",
        "counted",
        "yet to be told",
        "never",
        "clean",
        "by hand",
        "asked",
        "stopped",
        "parked",
        "not configured",
    ],
)
def test_nothing_else_is(record: ServiceRecord, policy: str | None, untold: tuple[str, ...]) -> None:
    policies = {} if policy is None else {"a": policy}
    assert uncounted({"a": record}, policies, untold) == {}
