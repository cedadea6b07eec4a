"""One run of a service as an actor: the thin shell round ``service_fsm``.

Runs in its own actor thread and never blocks: launch, stop and probes go to the I/O pool, the run's end comes as a
message from a watcher thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from actors.board import NodeKind, NodeStatus
from actors.context import ActorContext
from actors.former import PROCESS, end_all, end_former, is_former
from actors.health import HealthPolicy, HealthState, observe
from actors.health import begin as begin_health
from actors.iopool import IoPool
from actors.kernel import SupervisedActor
from actors.ledger import Ledger, Phase, Proof
from actors.live_runs import LiveRuns
from actors.messages import DependencyChanged, IoDone, RestartPermit, SpecReplaced, Wake
from actors.probes import Probe, ProbeResult, ProbeVerdict, run_probe
from actors.runtimes.base import (
    ExitStatus,
    Handle,
    LaunchError,
    LaunchSpec,
    PauseFailed,
    RestartAtOnce,
    Runtime,
    StopFailed,
    TruthUnknown,
)
from actors.runtimes.observing import Observing
from actors.runtimes.procfs import boot_id
from actors.service_fsm import (
    LIVE,
    Adopted,
    AdoptOnly,
    AdoptOrLaunch,
    BeginProbing,
    Begun,
    Cleared,
    ClearFirst,
    DependencySeen,
    Effect,
    Event,
    Exit,
    FreezeOrThaw,
    Frozen,
    HealthSeen,
    Launched,
    LaunchRefused,
    NoneLives,
    PauseAsked,
    RestartPolicy,
    ResumeAsked,
    RetryDue,
    RetryLater,
    Rules,
    RulesChanged,
    RunEnded,
    RunSeen,
    RunState,
    SayPresent,
    SayReady,
    StopAsked,
    StopDue,
    StopRun,
    begin,
    step,
)
from actors.service_logs import tail
from actors.service_shown import HEALTH, last_exit, shown
from actors.spec import Begin, ExitReason
from actors.stillness import Stillness
from actors.untold import UNKNOWN, untold_end

RETRY_S = 1.0
"""How often an unknown truth (the engine is away) is asked for again."""
CRASH_LOG_LINES = 5
STARTING_PROBE_S = 0.1
WITH_ITS_GROUP = "restarted with its group"


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One service as configured, in the words of this floor (``supervisors.tree`` translates)."""

    name: str
    runtime: str
    launch: LaunchSpec
    rules: Rules
    grace_s: float = 10.0
    probe: Probe | None = None
    probe_interval_s: float = 5.0
    probe_timeout_s: float = 2.0
    health: HealthPolicy = field(default_factory=HealthPolicy)
    description: str | None = None


@dataclass(frozen=True)
class ServiceParts:
    """What service actors share."""

    runtimes: Mapping[str, Runtime]
    ledger: Ledger
    live: LiveRuns = field(default_factory=LiveRuns)


class ServiceActor(SupervisedActor):
    node_kind = NodeKind.SERVICE
    takes_restart_permits = True
    """Its supervisor tells it, with ``RestartPermit``, whether a crash may be answered at once."""

    def __init__(self, context: ActorContext, plan: ServicePlan, parts: ServiceParts) -> None:
        super().__init__(context)
        self._plan = plan
        self._parts = parts
        self._runtime = parts.runtimes[plan.runtime]
        is_paused = parts.ledger.record(plan.name).paused is not None
        self._run = begin(plan.rules, is_paused=is_paused, is_fresh=context.begin is Begin.FRESH)
        self._is_resuming = context.begin is Begin.RESUME
        self._health: HealthState | None = None
        self._handle: Handle | None = None
        self._since = context.system.clock.wall()
        self._ready_since: float | None = None
        self._last_run = parts.ledger.record(plan.name).run
        self._ready_dependencies: set[str] = set()
        self._is_permitted = False
        self._is_armed = False
        self._is_stopping = False
        self._held_end: ExitStatus | None = None
        self._probing = 0
        self._stillness = Stillness()

    # -- kernel hooks ---------------------------------------------------------------------------------------------

    def setup(self) -> object:
        names = tuple(self._plan.rules.dependencies)
        ready = self.context.system.board.wait_for(names, self.ref) if names else {}
        self._ready_dependencies = {name for name, is_ready in ready.items() if is_ready}
        self._take(Begun(frozenset(self._ready_dependencies)))
        return None

    def handle(self, message: Any) -> Any:
        match message:
            case PauseAsked() | ResumeAsked():
                self._take(message)
            case IoDone():
                self._io_done(message)
            case RunEnded(status):
                self._end_seen(status)
            case RunSeen() | NoneLives():
                self._take(message)
            case RestartPermit(at_once):
                self._is_permitted = at_once
                self._arm()
            case DependencyChanged(name, is_ready):
                (self._ready_dependencies.add if is_ready else self._ready_dependencies.discard)(name)
                self._take(DependencySeen(name, is_ready))
            case SpecReplaced(spec):
                self._replan(spec.args[0])
            case Wake(token):
                self._woke(token)
            case _:
                super().handle(message)
        return None

    def _woke(self, token: object) -> None:
        match token:
            case ("probe", number):
                if number == self._probing:  # not of the time before a pause, or before another check
                    self._probe()
            case "stop":
                self._take(StopDue())
            case "retry":
                self._take(RetryDue())
            case _:
                raise ValueError(f"unknown wake {token!r}")

    def _io_done(self, done: IoDone) -> None:
        match done:
            case IoDone(tag="launch"):
                self._launch_done(done)
            case IoDone(tag="adopt"):
                self._adoption_done(done)
            case IoDone(tag="clear", error=error):
                self._clearing_done(error)
            case IoDone(tag="arm", error=error) if error is not None:
                self.log.warning("cannot arm the restart", error=str(error))
            case IoDone(tag="still", error=error):
                self._stillness_done(error)
            case IoDone(tag=("probe", number)):
                if number == self._probing:
                    self._probe_done(done)
            case IoDone(tag="stop"):
                self._stop_done(done)

    def stop_requested(self, reason: ExitReason) -> None:
        self._take(StopAsked(reason, self.stop_mode))

    def teardown(self, reason: ExitReason) -> None:
        self.log.debug("service actor ends", reason=str(reason), mode=self.stop_mode.value)
        self.context.system.board.forget(tuple(self._plan.rules.dependencies), self.ref)
        if self._run.state is RunState.ENDED:
            self._publish()

    def kill_owned(self) -> None:
        """Runs on the I/O pool when this actor does not answer: no run may outlive a stop."""
        live = self._parts.live.by_service.get(self._plan.name)
        if live is not None:
            live[0].kill(live[1])

    # -- one step -------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        before = self._run
        self._run, effects = step(before, event)
        for effect in effects:
            self._act(effect)
        if self._run != before:
            self._publish()
        self._arm()

    def _act(self, effect: Effect) -> None:
        timers = self.context.system.timers
        match effect:
            case AdoptOrLaunch():
                self._pool().run(self._adopt_or_launch, self.ref, "launch")
            case AdoptOnly():
                self._pool().run(self._adopt, self.ref, "adopt")
            case ClearFirst():
                self.context.system.waits.run(self._clear, self.ref, "clear")
            case RetryLater():
                timers.after(RETRY_S, self.ref, Wake("retry"))
            case BeginProbing():
                self._begin_probing()
            case SayReady():
                self._say_ready()
            case SayPresent():
                self.ready()
            case FreezeOrThaw():
                self._settle_stillness()
            case StopRun():
                handle, grace_s = self._handle, self._plan.grace_s
                if handle is not None:
                    self._is_stopping = True
                    self.context.system.waits.run(
                        lambda: self._stillness.stop(self._runtime, handle, grace_s), self.ref, "stop"
                    )
            case Exit(reason):
                self.exit(reason)

    def _replan(self, plan: ServicePlan) -> None:
        """The file was edited in what needs no new run: this one goes on under the new plan."""
        before, self._plan = self._plan, plan
        board, dependencies = self.context.system.board, plan.rules.dependencies
        board.forget(tuple(before.rules.dependencies - dependencies), self.ref)
        ready = board.wait_for(tuple(dependencies), self.ref) if dependencies else {}
        self._ready_dependencies = {name for name, is_ready in ready.items() if is_ready}
        if self._health is not None:
            self._health = replace(self._health, policy=plan.health)
        self._take(RulesChanged(plan.rules, frozenset(self._ready_dependencies)))
        handle = self._handle
        if before.rules.policy is not plan.rules.policy and self._is_armed and handle is not None:
            self.context.system.io.run(lambda: self._runtime.arm(handle, self._order), self.ref, "arm")

    # -- launch -----------------------------------------------------------------------------------------------------

    def _adopt_or_launch(self) -> Launched | RunEnded:
        """On the I/O pool: the live run if there is one, else an end that was never told, else a new run."""
        found = self._adopt() or self._untold()
        if found is not None:
            return found
        if self._run.unknown is not None:
            self.ref.tell(NoneLives())
        live, name = self._parts.live, self._plan.name
        with live.launching(name):
            handle = self._runtime.launch(self._plan.launch, self._last_run + 1, self._ended)
            live.by_service[name] = (self._runtime, handle)
        self._observe(handle)
        return Launched(handle)

    def _pool(self) -> IoPool:
        """What has to be stopped first may take its whole grace."""
        record, system = self._parts.ledger.record(self._plan.name), self.context.system
        return system.waits if is_former(record, self._plan.runtime, self._plan.launch) else system.io

    def _end_former(self) -> None:
        """On a pool, before anything is taken on or started: a run of before an edit of the file is ended, as an
        ``apply`` would. Where nobody can tell whether it lives, nothing is started (TruthUnknown).
        """
        ledger, plan, runtimes = self._parts.ledger, self._plan, self._parts.runtimes
        record = ledger.record(plan.name)
        if is_former(record, plan.runtime, plan.launch):
            was_there = end_former(ledger, record, runtimes, plan.grace_s)
        elif self._is_resuming and plan.runtime != PROCESS and PROCESS in runtimes:
            was_there = end_all(runtimes[PROCESS], plan.name, plan.grace_s)  # a keeper may have what no record tells
        else:
            return
        if was_there:
            self.log.info("a run of before the file was edited was ended", run=record.run, runtime=record.runtime)
        self._last_run = max(self._last_run, ledger.record(plan.name).run)
        if self._run.stop is not None:
            raise LaunchError(f"service {plan.name!r}: stopped meanwhile")

    def _adopt(self) -> Launched | None:
        """On the I/O pool."""
        self._end_former()
        name = self._plan.name
        handle = self._runtime.adopt(self._plan.launch, self._ended)
        if handle is None:
            return None
        self._parts.live.by_service[name] = (self._runtime, handle)
        self._observe(handle)
        record = self._parts.ledger.record(name)
        was_ready = record.proof is not None and record.run == handle.run
        return Launched(handle, was_ready=was_ready)

    def _untold(self) -> RunEnded | None:
        """On the I/O pool."""
        is_resuming, self._is_resuming = self._is_resuming, False
        ledger, plan, now = self._parts.ledger, self._plan, self.context.system.clock.wall()
        record = ledger.record(plan.name)
        if not is_resuming:
            return None
        end = untold_end(record, plan.runtime, plan.rules, boot_id=boot_id(), booted_at=psutil.boot_time(), now=now)
        if end is None:
            return None
        if record.phase is not Phase.EXITED:
            ledger.exited(plan.name, record.run, asdict(end))
        return RunEnded(end)

    def _stop_failed(self, error: BaseException) -> None:
        """What was asked for stays asked for: the engine may only be away."""
        self.log.error("stop failed: trying again", error=str(error))
        self.context.system.timers.after(RETRY_S, self.ref, Wake("stop"))

    def _observe(self, handle: Handle) -> None:
        """On the I/O pool. What is seen already reaches the inbox before the launch's own answer."""
        if isinstance(self._runtime, Observing):
            self._runtime.observe(handle, lambda seen: self.ref.tell(RunSeen(seen)))

    def _ended(self, status: ExitStatus) -> bool:
        """On a watcher thread. False when this actor is gone: the runtime keeps the news for the next."""
        return self.ref.tell(RunEnded(status))

    def _launch_done(self, done: IoDone) -> None:
        if done.error is None and isinstance(done.result, RunEnded):
            self._run_ended(done.result.status)
        elif done.error is None:
            self._hold(done.result)
            self._take(done.result)
        else:
            self._take(LaunchRefused(self._words_of(done.error, "launch"), isinstance(done.error, TruthUnknown)))

    def _words_of(self, error: BaseException, what: str) -> str:
        """Why nothing came of a launch, in words. Whatever it was, it is the trouble of this one service: what is no
        refusal of the runtime is a fault of ours, which the log keeps whole, and no other service pays for it.
        """
        if isinstance(error, (LaunchError, StopFailed, PauseFailed)):
            return str(error)
        self.log.error("unexpected failure", of=what, error=repr(error), exc_info=error)
        return f"service {self._plan.name!r}: {what} failed: {type(error).__name__}: {error}"

    def _hold(self, launched: Launched) -> None:
        self._handle, self._since = launched.handle, launched.handle.started_at

    def _adoption_done(self, done: IoDone) -> None:
        """Nothing found, or nobody can tell now: it is asked again when the dependencies are there."""
        found: Launched | None = done.result
        if found is not None and self._run.state is RunState.WAITING:
            self._hold(found)
        self._take(Adopted(found, None if done.error is None else self._words_of(done.error, "adoption")))

    def _clear(self) -> None:
        """On the pool for long waits. One that lived, or was thought to, is restarted by this."""
        self._end_former()
        ledger, plan = self._parts.ledger, self._plan
        may_live = ledger.record(plan.name).phase is Phase.LAUNCHED
        if not self._cleared() and not may_live:
            return
        record = ledger.record(plan.name)
        if record.phase is Phase.LAUNCHED:
            ledger.exited(plan.name, record.run, asdict(ExitStatus(UNKNOWN, at=self.context.system.clock.wall())))
        ledger.recaused(plan.name, WITH_ITS_GROUP)
        ledger.restarted(plan.name, record.run)

    def _cleared(self) -> bool:
        """Whether there was anything. What was only attached to is stopped, and stays where it is."""
        if not self._plan.rules.is_attached:
            return self._runtime.clear(self._plan.name, self._plan.grace_s)
        handle = self._runtime.adopt(self._plan.launch, lambda _status: True)
        if handle is not None:
            self._runtime.stop(handle, self._plan.grace_s)
        return handle is not None

    def _clearing_done(self, error: BaseException | None) -> None:
        self._take(Cleared(None if error is None else self._words_of(error, "stop of an earlier run")))

    def _arm(self) -> None:
        """Give the runtime the standing order to restart at once, or take it back, when the answer has changed."""
        run, handle = self._run, self._handle
        is_wanted = self._is_permitted and run.rules.policy is not RestartPolicy.NEVER
        wanted = (
            is_wanted and run.state in LIVE and not run.is_paused and self._ready_dependencies >= run.rules.dependencies
        )
        if handle is None or wanted == self._is_armed:
            return
        self._is_armed = wanted
        self.context.system.io.run(lambda: self._runtime.arm(handle, self._order), self.ref, "arm")

    def _order(self) -> RestartAtOnce | None:
        """On the I/O pool: what is wanted by now."""
        if not self._is_armed:
            return None
        return RestartAtOnce(only_on_failure=self._run.rules.policy is RestartPolicy.ON_FAILURE)

    def _end_seen(self, status: ExitStatus) -> None:
        """A service that is stopped is down when its descendants are, too: then the stop is done."""
        if self._is_stopping:
            self._held_end = status
        else:
            self._run_ended(status)

    def _stop_done(self, done: IoDone) -> None:
        self._is_stopping = False
        if self._held_end is not None:
            if done.error is not None:  # the main process is down: whoever starts the next run sweeps first
                self.log.error("stop failed", error=str(done.error))
            self._run_ended(self._held_end)
        elif done.error is not None:
            self._stop_failed(done.error)

    def _run_ended(self, status: ExitStatus) -> None:
        """The next run must not wait for this: the record and the crash's last lines are the pool's work."""
        name, log_path = self._plan.name, self._plan.launch.log_path
        self._parts.live.by_service.pop(name, None)
        stop = self._run.stop
        if stop is not None and stop.detail and self._handle is not None:  # ended by us because of its health
            facts = {**(self._parts.ledger.record(name).last_exit or {}), "cause": stop.detail}
            self._parts.ledger.exited(name, self._handle.run, facts)
        if not status.is_clean and log_path is not None:
            self.context.system.io.run(lambda: self._keep_crash_log(name, log_path))
        self._take(RunEnded(status))

    def _keep_crash_log(self, name: str, log_path: Path) -> None:
        self._parts.live.crash_logs[name] = tuple(tail(log_path, CRASH_LOG_LINES))

    # -- health -----------------------------------------------------------------------------------------------------

    def _say_ready(self) -> None:
        """A run that had proved its readiness to an earlier actor has been ready since then."""
        clock, handle = self.context.system.clock, self._handle
        if handle is None:
            return
        record = self._parts.ledger.record(self._plan.name)
        proof = record.proof if record.run == handle.run else None
        if proof is None:
            proof = Proof(clock.wall(), clock.now(), boot_id())
            self._parts.ledger.proved(self._plan.name, handle.run, proof)
        self._ready_since = proof.at
        self.ready(proof.now_s if proof.boot_id == boot_id() else None)

    def _settle_stillness(self) -> None:
        handle = self._handle
        if handle is not None:
            self.context.system.io.run(
                lambda: self._stillness.settle(self._runtime, handle, self._is_still), self.ref, "still"
            )

    def _is_still(self) -> bool:
        """On the I/O pool: what is wanted by now."""
        return self._run.is_paused

    def _stillness_done(self, error: BaseException | None) -> None:
        if error is None:
            self._take(Frozen())  # a thaw needs no answer: then it is not paused any more
        else:
            text = self._words_of(error, "pause or resume")
            self.log.error("pause or resume failed", error=text)
            self._take(Frozen(text))

    def _begin_probing(self) -> None:
        self._probing += 1
        now = self.context.system.clock.now()
        self._health = begin_health(self._plan.health, now, was_ready=self._run.state is RunState.READY)
        self._probe()

    def _probe(self) -> None:
        probe, timeout_s = self._plan.probe, self._plan.probe_timeout_s
        if probe is not None and self._run.state in LIVE:
            self.context.system.io.run(lambda: run_probe(probe, timeout_s), self.ref, ("probe", self._probing))

    def _probe_done(self, done: IoDone) -> None:
        if done.error is not None:
            raise done.error
        if self._health is None or self.is_exiting:
            return
        if self._plan.probe is None:  # it was taken out of the file meanwhile
            return
        result: ProbeResult = done.result
        self._health, verdict = observe(self._health, result, self.context.system.clock.now())
        detail = None if result.verdict is ProbeVerdict.PASS else self._health.detail
        self._take(HealthSeen(verdict, detail))
        self._probe_again()

    def _probe_again(self) -> None:
        """A run that may still be starting is looked at more often: its dependents wait."""
        pause_s, health = self._plan.probe_interval_s, self._health
        now = self.context.system.clock.now()
        if health is not None and not health.is_ready and now < health.started_at + health.policy.start_period_s:
            pause_s = min(pause_s, STARTING_PROBE_S)
        self.context.system.timers.after(pause_s, self.ref, Wake(("probe", self._probing)))

    # -- the board --------------------------------------------------------------------------------------------------

    def _publish(self) -> None:
        handle, run = self._handle, self._run
        record = self._parts.ledger.record(self._plan.name)
        is_live = run.state not in (RunState.ENDED, RunState.WAITING)
        state, detail = shown(run)
        self.context.system.board.publish(
            NodeStatus(
                self.context.path,
                NodeKind.SERVICE,
                state,
                runtime=self._plan.runtime,
                pid=handle.pid if handle is not None and is_live else None,
                container_id=handle.container_id if handle is not None else None,
                incarnation=handle.run
                if handle is not None
                else record.run,  # it may have ended before its launch was told
                restarts=record.restarts,
                since=self._since,
                ready_since=self._ready_since if is_live else None,
                health=HEALTH.get(run.state) if self._plan.probe is not None or run.seen.health is not None else None,
                last_exit=last_exit(record, self._parts.live.crash_logs.get(self._plan.name, ())),
                detail=detail,
            )
        )
