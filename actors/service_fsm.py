"""One run of a service as a state machine: ``step(state, event) -> (state, effects)``. Pure.

A run of the actor is a run of the service: it waits for its dependencies, adopts or launches, proves its readiness, is
probed, and ends with the run. Who restarts it, and when, is the supervisor's judgement.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import Any, Final

from actors.health import Verdict
from actors.messages import StopMode
from actors.runtimes.base import ExitStatus, Handle
from actors.runtimes.observing import NOTHING_SEEN, Observed, OwnHealth
from actors.spec import ExitKind, ExitReason, Origin


class RestartPolicy(enum.Enum):
    """The platform's four restart policies."""

    NEVER = "never"
    ON_FAILURE = "on_failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless_stopped"


class RunState(enum.Enum):
    WAITING = "waiting"
    LAUNCHING = "launching"
    UP = "up"
    READY = "ready"
    DEGRADED = "degraded"
    PAUSED = "paused"
    UNKNOWN = "unknown"
    STOPPING = "stopping"
    ENDED = "ended"


_S: Final = RunState
ALLOWED: Final[dict[RunState, frozenset[RunState]]] = {
    _S.WAITING: frozenset({_S.LAUNCHING, _S.UNKNOWN, _S.ENDED}),
    _S.LAUNCHING: frozenset({_S.UP, _S.READY, _S.UNKNOWN, _S.STOPPING, _S.ENDED}),
    _S.UP: frozenset({_S.READY, _S.DEGRADED, _S.PAUSED, _S.STOPPING, _S.ENDED}),
    _S.READY: frozenset({_S.UP, _S.DEGRADED, _S.PAUSED, _S.STOPPING, _S.ENDED}),
    _S.DEGRADED: frozenset({_S.UP, _S.READY, _S.PAUSED, _S.STOPPING, _S.ENDED}),
    _S.PAUSED: frozenset({_S.UP, _S.READY, _S.STOPPING, _S.ENDED}),
    _S.UNKNOWN: frozenset({_S.LAUNCHING, _S.WAITING, _S.ENDED}),
    _S.STOPPING: frozenset({_S.ENDED}),
    _S.ENDED: frozenset(),
}
"""Everything else is refused in ``_move``."""

LIVE: Final = frozenset({_S.UP, _S.READY, _S.DEGRADED})
"""Runs and is looked after; one that is paused runs too, and is left alone."""


class IllegalTransition(RuntimeError):
    """A bug of ours: the machine was asked to go where it cannot."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What does not change during a run."""

    policy: RestartPolicy = RestartPolicy.ALWAYS
    dependencies: frozenset[str] = frozenset()
    is_probed: bool = False
    is_attached: bool = False
    stops_with_daemon: bool = True


@dataclass(frozen=True, slots=True)
class ServiceRun:
    """``missing`` are the dependencies not ready yet; ``stop`` is how this run is being ended by us, and why.

    ``is_looking``: whether a run lives already is being looked up while the dependencies are missing.
    ``unknown``: why nobody could tell whether one lives; it is being asked again, and holds until that is answered.
    ``seen`` is what the runtime sees of it beyond its being alive; ``was_ready`` is kept over a pause from outside.
    ``is_paused``: a person wants it frozen: nothing is started, health does not count, and an end is no reason for
    another run.
    ``ended``: the reason it ended with, once it has.
    ``is_fresh``: its group is being restarted: what may live of it is stopped first.
    """

    rules: Rules
    state: RunState = RunState.WAITING
    missing: frozenset[str] = frozenset()
    stop: ExitReason | None = None
    detail: str | None = None
    is_looking: bool = False
    unknown: str | None = None
    seen: Observed = NOTHING_SEEN
    was_ready: bool = False
    is_paused: bool = False
    is_fresh: bool = False
    ended: ExitReason | None = None


# -- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begun:
    """The actor is set up; ``ready`` names the dependencies that are ready already."""

    ready: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DependencySeen:
    name: str
    is_ready: bool


@dataclass(frozen=True, slots=True)
class Launched:
    """The run exists: started now, or adopted (``was_ready``: it had proved its readiness to an earlier actor)."""

    handle: Handle
    was_ready: bool = False


@dataclass(frozen=True, slots=True)
class Adopted:
    """What a look for a living run found while the dependencies were still missing."""

    found: Launched | None
    unknown: str | None = None
    """Why nobody can tell now."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """Nothing of an earlier run lives any more; ``trouble`` says why that cannot be had or told now."""

    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """A person wants it frozen."""


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """A person wants it to go on."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """It stands still now; ``error`` says why it could not be made to."""

    error: str | None = None


@dataclass(frozen=True, slots=True)
class LaunchRefused:
    text: str
    is_unknown: bool = False


@dataclass(frozen=True, slots=True)
class NoneLives:
    """It can be told again: none lived, and one is being launched."""


@dataclass(frozen=True, slots=True)
class RetryDue:
    """Time to ask again whether the service runs."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    status: ExitStatus


@dataclass(frozen=True, slots=True)
class HealthSeen:
    """What the probes say, thresholds applied; ``detail`` only when not all is well."""

    seen: Verdict
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class RunSeen:
    """What the runtime sees of the living run now: paused, its own health, drift."""

    seen: Observed


@dataclass(frozen=True, slots=True)
class StopAsked:
    reason: ExitReason
    mode: StopMode


@dataclass(frozen=True, slots=True)
class StopDue:
    """Time to try a stop again that failed."""


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """The file was edited under the run; ``ready`` names those of the new dependencies that are ready now."""

    rules: Rules
    ready: frozenset[str] = frozenset()


Event = (
    Begun
    | DependencySeen
    | Adopted
    | Cleared
    | Launched
    | LaunchRefused
    | NoneLives
    | RetryDue
    | RunEnded
    | HealthSeen
    | RunSeen
    | StopAsked
    | StopDue
    | RulesChanged
    | PauseAsked
    | ResumeAsked
    | Frozen
)

# -- effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AdoptOrLaunch:
    pass


@dataclass(frozen=True, slots=True)
class AdoptOnly:
    """Take on the living run if there is one: a service that runs need not wait for what it depends on."""


@dataclass(frozen=True, slots=True)
class ClearFirst:
    """Stop whatever lives of an earlier run; answered by ``Cleared``."""


@dataclass(frozen=True, slots=True)
class RetryLater:
    pass


@dataclass(frozen=True, slots=True)
class BeginProbing:
    pass


@dataclass(frozen=True, slots=True)
class SayReady:
    pass


@dataclass(frozen=True, slots=True)
class SayPresent:
    """It runs, though it is not ready: those who only wait for their turn may go on."""


@dataclass(frozen=True, slots=True)
class FreezeOrThaw:
    """Make the run stand still or go on, as ``is_paused`` says by then; a freeze is answered by ``Frozen``."""


@dataclass(frozen=True, slots=True)
class StopRun:
    """Stop the run with its grace; its end comes as ``RunEnded``."""


@dataclass(frozen=True, slots=True)
class Exit:
    reason: ExitReason


Effect = (
    AdoptOrLaunch
    | AdoptOnly
    | ClearFirst
    | RetryLater
    | BeginProbing
    | SayReady
    | SayPresent
    | FreezeOrThaw
    | StopRun
    | Exit
)


@dataclass(slots=True)
class _Step:
    run: ServiceRun
    effects: list[Effect] = field(default_factory=list)

    def move(self, to: RunState, detail: str | None = None) -> None:
        if to is not self.run.state and to not in ALLOWED[self.run.state]:
            raise IllegalTransition(f"{self.run.state.value} -> {to.value}")
        self.run = replace(self.run, state=to, detail=detail)

    def end(self, reason: ExitReason) -> None:
        self.move(RunState.ENDED, reason.detail or None)
        self.run = replace(self.run, ended=reason)
        self.effects.append(Exit(reason))


def begin(rules: Rules, *, is_paused: bool = False, is_fresh: bool = False) -> ServiceRun:
    return ServiceRun(rules, missing=rules.dependencies, is_paused=is_paused, is_fresh=is_fresh)


def step(run: ServiceRun, event: Event) -> tuple[ServiceRun, tuple[Effect, ...]]:
    """Take one event. One that comes too late for the state changes nothing."""
    now = _Step(run)
    if run.state is not RunState.ENDED:
        _take(now, event)
    return now.run, tuple(now.effects)


def _take(now: _Step, event: Event) -> None:
    match event:
        case Begun(ready):
            now.run = replace(now.run, missing=now.run.missing - ready)
            _launch_if_free(now)
            if now.run.is_fresh:
                _clear(now)
            elif now.run.state is RunState.WAITING:  # it runs already, perhaps
                now.run = replace(now.run, is_looking=True)
                now.effects.append(AdoptOnly())
        case Adopted(found, unknown):
            _looked(now, found, unknown)
        case DependencySeen(name, is_ready):
            _dependency(now, name, is_ready=is_ready)
        case Launched():
            _launched(now, event)
        case LaunchRefused(text, is_unknown):
            _refused(now, text, is_unknown=is_unknown)
        case RetryDue() | StopDue():
            _try_again(now, event)
        case RunEnded(status):
            reason = now.run.stop if now.run.stop is not None else _end_reason(now.run, status)
            now.end(replace(reason, evidence={**reason.evidence, **exit_facts(status)}))
        case HealthSeen(seen, detail) if now.run.state in LIVE and not now.run.is_paused:
            _health(now, seen, detail)
        case StopAsked(reason, mode):
            _stop(now, reason, mode)
        case _:
            _take_more(now, event)


def _take_more(now: _Step, event: Event) -> None:
    """What happens beside the walk from launch to end."""
    match event:
        case RunSeen(seen):
            _seen(now, seen)
        case NoneLives():
            now.run = replace(now.run, unknown=None)
        case Cleared(trouble) if now.run.is_fresh:
            _cleared(now, trouble)
        case RulesChanged(rules, ready):
            _rules_changed(now, rules, ready)
        case PauseAsked() if now.run.stop is None:
            _pause(now)
        case ResumeAsked() if now.run.is_paused:
            _resume(now)
        case Frozen(error) if now.run.state in LIVE and now.run.is_paused:
            _frozen(now, error)
        case _:
            pass


def _try_again(now: _Step, event: RetryDue | StopDue) -> None:
    if isinstance(event, RetryDue) and now.run.state is RunState.UNKNOWN:
        _retry(now)
    elif isinstance(event, StopDue) and now.run.state is RunState.STOPPING:
        now.effects.append(StopRun())


def _retry(now: _Step) -> None:
    now.run = replace(now.run, unknown=now.run.detail)
    if now.run.is_fresh:
        _clear(now)
    elif now.run.is_paused:
        now.move(RunState.WAITING, "paused")
        now.run = replace(now.run, is_looking=True)
        now.effects.append(AdoptOnly())
    else:
        now.move(RunState.LAUNCHING)
        now.effects.append(AdoptOrLaunch())


def _dependency(now: _Step, name: str, *, is_ready: bool) -> None:
    """Only a run that has not begun cares: a dependency lost later is no reason to end a healthy service."""
    if now.run.state is RunState.WAITING and name in now.run.rules.dependencies:
        missing = now.run.missing - {name} if is_ready else now.run.missing | {name}
        now.run = replace(now.run, missing=missing)
        _launch_if_free(now)


def _launch_if_free(now: _Step) -> None:
    if now.run.state is not RunState.WAITING or now.run.stop is not None or now.run.is_fresh:
        return
    if now.run.is_paused:
        now.move(RunState.WAITING, "paused")
        return
    if now.run.missing:
        now.move(RunState.WAITING, "waiting for " + ", ".join(f"{name}:ready" for name in sorted(now.run.missing)))
        return
    now.move(RunState.LAUNCHING)
    now.effects.append(AdoptOrLaunch())


def _clear(now: _Step) -> None:
    now.move(RunState.WAITING, "stopped with its group")
    now.run = replace(now.run, is_looking=True)
    now.effects.append(ClearFirst())


def _cleared(now: _Step, trouble: str | None) -> None:
    now.run = replace(now.run, is_looking=False, is_fresh=trouble is not None)
    if now.run.stop is not None:
        now.end(now.run.stop)
    elif trouble is not None:
        now.move(RunState.UNKNOWN, trouble)
        now.effects.append(RetryLater())
    elif now.run.is_paused:
        now.end(paused_reason("stopped with its group"))
    else:
        now.run = replace(now.run, unknown=None)
        _launch_if_free(now)


def _looked(now: _Step, found: Launched | None, unknown: str | None) -> None:
    now.run = replace(now.run, is_looking=False)
    if now.run.state is not RunState.WAITING:
        return  # it is being launched meanwhile: that takes on the very same run
    if found is not None:
        now.move(RunState.LAUNCHING)
        _launched(now, found)
    elif now.run.stop is not None:
        now.end(now.run.stop)
    elif now.run.is_paused and unknown is not None:
        now.move(RunState.UNKNOWN, unknown)
        now.effects.append(RetryLater())
    elif now.run.is_paused:
        now.end(paused_reason("does not run"))


def _pause(now: _Step) -> None:
    is_first, now.run = not now.run.is_paused, replace(now.run, is_paused=True)
    if now.run.state in LIVE and is_first:
        now.effects.append(FreezeOrThaw())
    elif now.run.state is RunState.WAITING and not now.run.is_looking:
        now.end(paused_reason("does not run"))


def _frozen(now: _Step, error: str | None) -> None:
    if error is None:
        now.move(RunState.PAUSED)
        return
    now.run = replace(now.run, is_paused=False)
    now.move(now.run.state, error)


def _resume(now: _Step) -> None:
    now.run = replace(now.run, is_paused=False)
    if now.run.state is RunState.PAUSED:
        now.effects.append(FreezeOrThaw())
        _prove(now, was_ready=False)
    elif now.run.state in LIVE:  # it was just to be frozen
        now.effects.append(FreezeOrThaw())
    else:
        _launch_if_free(now)


def _launched(now: _Step, event: Launched) -> None:
    if now.run.stop is not None:  # asked to stop while the launch was under way
        now.move(RunState.STOPPING)
        now.effects.append(StopRun())
        return
    if now.run.is_paused:
        now.move(RunState.UP, "pausing")
        now.effects += [SayPresent(), FreezeOrThaw()]
        return
    _prove(now, was_ready=event.was_ready)


def _prove(now: _Step, *, was_ready: bool) -> None:
    is_proven = not now.run.rules.is_probed and now.run.seen.health in (None, OwnHealth.HEALTHY)
    if was_ready or is_proven:
        now.move(RunState.READY)
        now.effects.append(SayReady())
    else:
        now.move(RunState.UP)
    if now.run.rules.is_probed:
        now.effects.append(BeginProbing())
    _seen(now, now.run.seen)


def _refused(now: _Step, text: str, *, is_unknown: bool) -> None:
    if now.run.stop is not None:
        now.end(now.run.stop)
    elif is_unknown:
        now.move(RunState.UNKNOWN, text)
        now.effects.append(RetryLater())
    else:
        now.end(policy_reason(now.run.rules.policy, text, is_failure=True))


def _health(now: _Step, seen: Verdict, detail: str | None) -> None:
    match seen:
        case Verdict.READY:
            was = now.run.state
            now.move(RunState.READY, detail)
            if was is RunState.UP:
                now.effects.append(SayReady())
        case Verdict.DEGRADED:
            was = now.run.state
            now.move(RunState.DEGRADED, detail)
            if was is RunState.UP:
                now.effects.append(SayReady())  # it serves, so dependents may go on
        case Verdict.STARTING:
            now.move(now.run.state, detail)
        case Verdict.UNHEALTHY if now.run.rules.policy is RestartPolicy.NEVER:
            now.move(RunState.UP, detail)  # nobody would start it again: leave it be, and say so
        case Verdict.UNHEALTHY:
            text = f"unhealthy: {detail}" if detail else "unhealthy"
            reason = policy_reason(now.run.rules.policy, text, is_failure=True)
            now.run = replace(now.run, stop=reason)
            now.move(RunState.STOPPING, text)
            now.effects.append(StopRun())


def _seen(now: _Step, seen: Observed) -> None:
    """A run paused from outside is not probed and its own health does not count; afterwards it is what it was before.

    One that a person has paused here is left alone, whatever is seen of it.
    """
    now.run = replace(now.run, seen=seen)
    if now.run.is_paused:
        return
    state, rules = now.run.state, now.run.rules
    if state in LIVE and seen.paused is not None:
        now.run = replace(now.run, was_ready=state is not RunState.UP)
        now.move(RunState.PAUSED, seen.paused)
    elif state is RunState.PAUSED and seen.paused is None:
        now.move(RunState.READY if now.run.was_ready else RunState.UP)
        if rules.is_probed:
            now.effects.append(BeginProbing())
    if now.run.state in LIVE and not rules.is_probed and seen.unknown is None:
        _own_health(now, seen)


def _own_health(now: _Step, seen: Observed) -> None:
    """Without a check of ours the container's own one is the word on readiness and on life."""
    match seen.health:
        case OwnHealth.HEALTHY if now.run.state is RunState.UP:
            _health(now, Verdict.READY, None)
        case OwnHealth.UNHEALTHY:
            _health(now, Verdict.UNHEALTHY, seen.health_detail)
        case _:
            pass


def _rules_changed(now: _Step, rules: Rules, ready: frozenset[str]) -> None:
    """The run goes on as it is: only one that still waits may begin now, and probes may begin or end."""
    was_probed = now.run.rules.is_probed
    now.run = replace(now.run, rules=rules, missing=rules.dependencies - ready)
    if now.run.state in LIVE and was_probed and not rules.is_probed:
        is_unproven = now.run.state is RunState.UP
        now.move(RunState.READY)
        if is_unproven:
            now.effects.append(SayReady())
    elif now.run.state in LIVE and rules.is_probed and not was_probed:
        now.effects.append(BeginProbing())
    _launch_if_free(now)


def _stop(now: _Step, reason: ExitReason, mode: StopMode) -> None:
    leaves_it = mode is StopMode.DETACH or (mode is StopMode.END_OF_DAEMON and not now.run.rules.stops_with_daemon)
    may_run = now.run.state is not RunState.UNKNOWN and (now.run.state is not RunState.WAITING or now.run.is_looking)
    if leaves_it or not may_run:
        now.end(reason)
        return
    is_first = now.run.stop is None
    now.run = replace(now.run, stop=reason)
    if now.run.state in LIVE or now.run.state is RunState.PAUSED:
        now.move(RunState.STOPPING)
        now.effects.append(StopRun())
    elif now.run.state in (RunState.LAUNCHING, RunState.WAITING) and is_first:
        now.run = replace(now.run, detail="stopping as soon as it is launched")


def exit_facts(status: ExitStatus) -> dict[str, Any]:
    """How the run ended, for an exit reason's evidence: always the ``cause``, and what else is known."""
    facts = {"cause": status.cause, "code": status.code, "signal": status.signal}
    return {name: value for name, value in facts.items() if value is not None}


def _end_reason(run: ServiceRun, status: ExitStatus) -> ExitReason:
    return paused_reason(status.cause) if run.is_paused else end_reason(run.rules, status)


def paused_reason(what: str) -> ExitReason:
    """It does not run and is paused: nobody but a person starts it."""
    return ExitReason(ExitKind.SHUTDOWN, f"{what} while paused", Origin.WORLD, {"failed": False, "hold": True})


def end_reason(rules: Rules, status: ExitStatus) -> ExitReason:
    """What an end that nobody here asked for means under the service's policy."""
    return policy_reason(rules.policy, status.cause, is_failure=not status.is_clean, by_hand=status.stopped_by_hand)


def policy_reason(policy: RestartPolicy, text: str, *, is_failure: bool, by_hand: bool = False) -> ExitReason:
    """An exit reason that makes a *transient* child do what the policy says.

    A crash of the world is restarted (paced); a ``shutdown`` with that detail is not. ``hold`` keeps a group restart
    from starting it again.
    """
    evidence = {"failed": is_failure}
    match policy:
        case RestartPolicy.ALWAYS:
            is_wanted = True
        case RestartPolicy.UNLESS_STOPPED:
            is_wanted = not by_hand
            evidence["hold"] = by_hand
        case RestartPolicy.ON_FAILURE:
            is_wanted = is_failure
        case RestartPolicy.NEVER:
            is_wanted = False
    kind = ExitKind.CRASHED if is_wanted else ExitKind.SHUTDOWN
    return ExitReason(kind, text, Origin.WORLD, evidence)
