"""A restart that does harm: the service ran, and comes up no more. Nothing can put that back, so it is said aloud."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.faults.cases_services import ENDS_AT_ONCE, is_down, until_down
from tests.faults.ended import Ended
from tests.faults.registry import Case, Kind, shared
from tests.faults.ward import Bed, Part
from tests.support.eventually import holds_for

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


CASES: tuple[Case, ...] = (shared(RUNBOOK, "comes-up-no-more", Kind.ROLLBACK, comes_up_no_more, ("rollback_failed",)),)
