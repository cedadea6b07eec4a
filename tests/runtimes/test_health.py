"""Thresholds over rows of results: a table a case."""

from __future__ import annotations

import pytest

from actors.health import HealthPolicy, HealthState, Verdict, begin, observe
from actors.probes import ProbeResult, ProbeVerdict

GOOD = ProbeResult(ProbeVerdict.PASS, "http /healthz: 200")
SOSO = ProbeResult(ProbeVerdict.DEGRADED, "http /healthz: 200 degraded")
BAD = ProbeResult(ProbeVerdict.FAIL, "http /healthz: 503")
OF = {"+": GOOD, "~": SOSO, "-": BAD}
SHOWN = {Verdict.STARTING: "s", Verdict.READY: "R", Verdict.DEGRADED: "d", Verdict.UNHEALTHY: "U"}


def row(state: HealthState, results: str, *, first_at: float = 0.0, every_s: float = 1.0) -> tuple[HealthState, str]:
    shown = ""
    for number, result in enumerate(results):
        state, verdict = observe(state, OF[result], first_at + number * every_s)
        assert verdict is state.verdict
        shown += SHOWN[verdict]
    return state, shown


@pytest.mark.parametrize(
    ("policy", "results", "shown"),
    [
        pytest.param(HealthPolicy(3, 1, 0.0), "+", "R", id="ready at the first pass"),
        pytest.param(HealthPolicy(3, 3, 0.0), "+++", "ssR", id="ready after three passes"),
        pytest.param(HealthPolicy(3, 3, 0.0), "++-+++", "ssssSR".replace("S", "s"), id="passes in a row only"),
        pytest.param(HealthPolicy(3, 1, 0.0), "---", "ssU", id="never came up"),
        pytest.param(HealthPolicy(3, 1, 4.0), "------", "ssssss", id="start period and two more"),
        pytest.param(HealthPolicy(3, 1, 4.0), "-------", "ssssssU", id="start period, then three"),
        pytest.param(HealthPolicy(3, 1, 100.0), "--+---", "ssRRRU", id="a success ends the start period"),
        pytest.param(HealthPolicy(3, 1, 0.0), "+--+--+", "RRRRRRR", id="failures in a row only"),
        pytest.param(HealthPolicy(1, 1, 0.0), "+-", "RU", id="one failure is enough"),
        pytest.param(HealthPolicy(3, 1, 0.0), "+~+", "RdR", id="degraded and back"),
        pytest.param(HealthPolicy(3, 1, 0.0), "~-+", "ddR", id="one failure does not make degraded ready"),
        pytest.param(HealthPolicy(3, 2, 0.0), "~~", "sd", id="degraded counts as a pass"),
        pytest.param(HealthPolicy(3, 1, 0.0), "+-+-+-+-+-+-", "RRRRRRRRRddd", id="flapping shows"),
    ],
)
def test_row(policy: HealthPolicy, results: str, shown: str) -> None:
    assert row(begin(policy, 0.0), results)[1] == shown


def test_recovering_from_flapping_is_ready_again() -> None:
    state, _ = row(begin(HealthPolicy(), 0.0), "+-+-+-+-+-+")
    assert state.verdict is Verdict.DEGRADED
    assert row(state, "+" * 10)[0].verdict is Verdict.READY


def test_an_adopted_ready_run_is_not_starting_again() -> None:
    state = begin(HealthPolicy(start_period_s=100.0), 0.0, was_ready=True)
    assert state.verdict is Verdict.READY
    assert row(state, "---")[1] == "RRU"


def test_the_detail_says_how_far_it_is() -> None:
    state, _ = row(begin(HealthPolicy(3, 1, 0.0), 0.0), "+-")
    assert state.detail == "http /healthz: 503 (1 of 3 failures)"
    state, _ = row(state, "--")
    assert state.is_unhealthy
    assert state.detail == "http /healthz: 503 (3 of 3 failures)"
    state, _ = row(begin(HealthPolicy(3, 2, 0.0), 0.0), "+")
    assert state.detail == "http /healthz: 200 (1 of 2 passes)"
