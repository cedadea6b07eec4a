"""What a row of probe results means: still starting, ready, degraded, unhealthy. Pure: no thread, clock or I/O.

One check serves three questions, each with its own threshold: has it started (until the first success within the start
period failures do not count), does it live (``retries`` failures in a row: kill and restart), is it ready
(``successes`` passes in a row).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

from actors.probes import ProbeResult, ProbeVerdict

_RECENT: Final = 10
_FLAPPING: Final = 5


class Verdict(enum.Enum):
    """What to do with the service now."""

    STARTING = "starting"  # not ready yet, and not at fault yet
    READY = "ready"
    DEGRADED = "degraded"  # serves, but says (or shows by flapping) that not all is well
    UNHEALTHY = "unhealthy"  # kill and restart


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """Thresholds: ``retries`` failures in a row until unhealthy, ``successes`` in a row until ready."""

    retries: int = 3
    successes: int = 1
    start_period_s: float = 10.0


@dataclass(frozen=True, slots=True)
class HealthState:
    """Everything kept between two looks. ``started_at`` is clock time in seconds, ``detail`` the text for people."""

    policy: HealthPolicy
    started_at: float
    has_passed: bool = False
    is_ready: bool = False
    failures: int = 0
    successes: int = 0
    recent: tuple[bool, ...] = ()
    verdict: Verdict = Verdict.STARTING
    detail: str = ""

    @property
    def is_unhealthy(self) -> bool:
        return self.verdict is Verdict.UNHEALTHY


def begin(policy: HealthPolicy, now: float, *, was_ready: bool = False) -> HealthState:
    """The state of a run at its start; ``was_ready`` for an adopted run, which is not probed from startup again."""
    verdict = Verdict.READY if was_ready else Verdict.STARTING
    return HealthState(policy, now, has_passed=was_ready, is_ready=was_ready, verdict=verdict)


def observe(state: HealthState, result: ProbeResult, now: float) -> tuple[HealthState, Verdict]:
    """The state after one more look at clock time ``now`` (seconds), and what it means."""
    if result.verdict is ProbeVerdict.FAIL:
        after = _failed(state, result, now)
    else:
        after = _passed(state, result)
    return after, after.verdict


def _passed(state: HealthState, result: ProbeResult) -> HealthState:
    successes = state.successes + 1
    is_ready = state.is_ready or successes >= state.policy.successes
    recent = (*state.recent, True)[-_RECENT:]
    after = replace(state, has_passed=True, is_ready=is_ready, failures=0, successes=successes, recent=recent)
    if not is_ready:
        wanted = state.policy.successes
        return replace(after, verdict=Verdict.STARTING, detail=f"{result.detail} ({successes} of {wanted} passes)")
    return _when_ready(after, result)


def _failed(state: HealthState, result: ProbeResult, now: float) -> HealthState:
    if not state.has_passed and now < state.started_at + state.policy.start_period_s:
        return replace(state, successes=0, detail=result.detail)
    failures = state.failures + 1
    recent = (*state.recent, False)[-_RECENT:]
    after = replace(state, failures=failures, successes=0, recent=recent)
    detail = f"{result.detail} ({failures} of {state.policy.retries} failures)"
    if failures >= state.policy.retries:
        return replace(after, is_ready=False, verdict=Verdict.UNHEALTHY, detail=detail)
    if not state.is_ready:
        return replace(after, verdict=Verdict.STARTING, detail=detail)
    return replace(_when_ready(after, result), detail=detail)


def _when_ready(state: HealthState, result: ProbeResult) -> HealthState:
    """A pass now and then must not hide that every second look fails."""
    failed = state.recent.count(False)
    if failed >= _FLAPPING:
        detail = f"flapping: {failed} of the last {len(state.recent)} checks failed: {result.detail}"
        return replace(state, verdict=Verdict.DEGRADED, detail=detail)
    is_degraded = result.verdict is ProbeVerdict.DEGRADED or (
        result.verdict is ProbeVerdict.FAIL and state.verdict is Verdict.DEGRADED
    )
    return replace(state, verdict=Verdict.DEGRADED if is_degraded else Verdict.READY, detail=result.detail)
