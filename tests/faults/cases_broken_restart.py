"""A restart that does harm: the service ran, and comes up no more. Nothing can put that back, so it is said aloud."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.faults.cases_services import ENDS_AT_ONCE, is_down, until_down
from tests.faults.ended import Ended
from tests.faults.registry import Case, Kind
from tests.faults.ward import LONG_S, Bed, Part
from tests.support.eventually import eventually, holds_for
from tests.system.running import free_port

RUNBOOK: Final = "service_failure"


@contextmanager
def comes_up_no_more(bed: Bed) -> Iterator[Part]:
    """It is ready and does not work, as somebody says; each run after this one ends at once."""
    go = bed.folder / "go"
    target = f"service:{bed.name}"

    def run() -> Ended:
        first, began = bed.pid(), time.monotonic()
        go.touch()
        end = bed.answered(RUNBOOK, began)
        until_down(bed)
        holds_for(lambda: is_down(bed), 1, every_s=0.2)
        assert bed.service().get("pid") != first
        assert "was ready, and is" in end.detail, end
        alert = bed.decided("recovery_failed", lambda one: one["service"] == bed.name)
        assert alert["severity"] == "critical", alert
        again = bed.send(RUNBOOK).decision
        assert again is not None
        assert (again.outcome, target in again.reason) == ("latched", True), again
        return end

    patient = {"command": ["sh", "-c", ENDS_AT_ONCE.format(file=go)], "restart_policy": "never"}
    yield Part({"services": {bed.name: patient}}, run)


@contextmanager
def stopped_meanwhile(bed: Bed) -> Iterator[Part]:
    """The restart does not help; before the run gives up a person stops the service. That word stands."""

    def run() -> Ended:
        first, began = bed.pid(), time.monotonic()
        ack = bed.send(RUNBOOK)
        assert ack.decision is not None
        assert ack.decision.execution_id is not None, ack
        eventually(lambda: bed.service().get("pid") not in (None, first), within_s=LONG_S, every_s=0.05)
        assert bed.selfheal.call("services", "stop", bed.name, "--why", "looking into it").returncode == 0
        end = bed.over(ack.decision.execution_id, began)
        holds_for(is_stopped, 1, every_s=0.2)
        return end

    def is_stopped() -> bool:
        found = bed.service()
        assert found["state"] == "stopped", found
        return True

    stays_ill = {
        "command": ["sleep", "1000"],
        "restart_policy": "never",
        "health_check": {"tcp": f"127.0.0.1:{free_port()}", "interval": "200ms", "start_period": "1h"},
    }
    yield Part({"services": {bed.name: stays_ill}}, run, ready=())


CASES: tuple[Case, ...] = (
    Case(RUNBOOK, "comes-up-no-more", Kind.ROLLBACK, comes_up_no_more, ("rollback_failed",)),
    Case(RUNBOOK, "stopped-meanwhile", Kind.ROLLBACK, stopped_meanwhile, ("rolled_back",)),
)
