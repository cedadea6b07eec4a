"""The Docker runtime: a service as a container, created by us from an image or attached to.

Methods run on the I/O pool and may block, each with a timeout; the Docker watcher's threads tell the ends. The engine's
``inspect`` is the truth, events only wake. While the engine is away nothing is known, so nothing is started, and a kill
that could not be carried out is owed until it is back.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import structlog
from docker import DockerClient
from docker.errors import APIError, NotFound

from actors.clock import Clock, SystemClock
from actors.docker_watcher import DockerWatcher
from actors.failpoints import reached, register
from actors.ledger import Ledger, Phase
from actors.runtimes.base import (
    ExitStatus,
    Handle,
    LaunchError,
    LaunchSpec,
    OnExit,
    PauseFailed,
    RestartAtOnce,
    StopFailed,
    TruthUnknown,
    Usage,
)
from actors.runtimes.docker_containers import Containers, Found
from actors.runtimes.docker_engine import DockerEngine
from actors.runtimes.docker_exits import KILL_TOLD_LATE_S, ContainerEvent, classify, read_event, signal_number
from actors.runtimes.docker_facts import Unseen, is_restarting, is_running, observed_from, unseen_end
from actors.runtimes.docker_outside import Outside
from actors.runtimes.docker_spec import ContainerIdentity, identity_from, is_attached, unix_time
from actors.runtimes.launch_hash import launch_hash
from actors.runtimes.observing import OnObserved
from actors.runtimes.procfs import ProcessIdentity, identity_of
from actors.runtimes.runs import Run
from actors.runtimes.usage import ProcessMeter
from actors.service_logs import shown

NAME: Final = "docker"
_SEEN_S: Final = 2.0
_REPLACE_GRACE_S: Final = 10
_CODE_SIGKILL: Final = 137
_ENGINE_END_S: Final = 20.0
"""An engine that shuts down stops its containers first; this long before its end it still counts as the cause."""
_RESTART_S: Final = 60.0
"""``docker restart`` tells of itself when it is done; the end before it is at most its stop's grace and a start ago."""
_POLICY_STARTS_S: Final = 2.0
_LOOK_S: Final = 0.05
_OOM_TOLD_S: Final = 0.25
RESTARTED_OUTSIDE: Final = "restarted from outside"
_LOOK_AT: Final = frozenset({"destroy", "start", "pause", "unpause", "update", "health_status"})

CREATE_WANTED: Final = register("daemon.container.create", "a container is wanted, none was made")
CREATED: Final = register("daemon.container.created", "the container is made, no intent is written, it does not run")
START_WANTED: Final = register("daemon.container.intent", "the intent is written, the container was not started")
STARTED: Final = register("daemon.container.started", "the container runs, its identity is not written")
RECORDED: Final = register("daemon.container.recorded", "the identity is written, the actor was not told")
FOUND: Final = register("daemon.container.found", "a running container of ours was found, nothing is written")
STOP_WANTED: Final = register("daemon.container.stop", "a stop was asked for, the engine was not")
STOP_ASKED: Final = register("daemon.container.stopped", "the engine has stopped it, the end was not seen")
END_SEEN: Final = register("daemon.container.end.seen", "its end was seen, it is not told or written")
END_TOLD: Final = register("daemon.container.end.told", "the actor has the news, the exit is written")
END_RECORDED: Final = register("daemon.container.end.recorded", "the exit is written, nobody was told")
OLD_STOPPED: Final = register("daemon.container.old.stopped", "one not wanted any more is down, it is not removed")
OLD_REMOVED: Final = register("daemon.container.old.removed", "one not wanted any more is removed")


@dataclass(frozen=True, slots=True)
class DockerHandle:
    """One run of a service as a container. ``process`` is its main process when that lives on this machine.

    ``is_limited``: its memory is.
    """

    service: str
    run: int
    identity: ContainerIdentity
    pid: int | None
    started_at: float
    stop_signal: int
    process: ProcessIdentity | None = None
    is_limited: bool = False

    @property
    def container_id(self) -> str:
        return self.identity.container_id


DockerRun = Run[DockerHandle]


class DockerRuntime:
    """``Runtime`` for containers. ``instance`` names this daemon's state directory: only its containers are ours.

    ``address`` of the engine: None is ``DOCKER_HOST``, else the local socket.
    """

    name = NAME

    def __init__(
        self,
        ledger: Ledger,
        instance: str,
        *,
        address: str | None = None,
        watcher: DockerWatcher | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._ledger = ledger
        self._clock = clock or SystemClock()
        self._engine = DockerEngine(address)
        self._containers = Containers(self._engine, instance)
        self._meter = ProcessMeter(self._clock)
        self._table_lock = threading.Lock()
        self._runs: dict[str, DockerRun] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._specs: dict[str, LaunchSpec] = {}
        self._kills_owed: dict[str, DockerRun] = {}
        self._closed = threading.Event()
        self._finish_lock = threading.Lock()
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="docker-aside")
        self._ends = ThreadPoolExecutor(max_workers=32, thread_name_prefix="docker-ends")
        self.outside = Outside(instance)
        self.watcher = watcher or DockerWatcher(DockerEngine(address))
        self.watcher.on_trouble(self.outside.lose_sight)
        self.watcher.start(self)

    @property
    def trouble(self) -> str | None:
        """Why nothing is known of containers now (the engine is away), or None."""
        return self.watcher.trouble

    # -- the contract ---------------------------------------------------------------------------------------------

    def launch(self, spec: LaunchSpec, run: int, on_exit: OnExit) -> DockerHandle:
        self.outside.wants(spec)
        with self._locked(spec.service):
            previous = self._runs.get(spec.service)
            if previous is not None and previous.status is None:
                raise _already_runs(spec.service, previous.handle)
            if previous is not None and self._specs.get(spec.service) == spec and not spec.sources:
                with contextlib.suppress(NotFound):  # removed by somebody meanwhile: the long way
                    return self._start(spec, run, previous.handle.container_id, on_exit)
            container_id = self._container_to_start(spec, run, is_known=previous is not None)
            return self._start(spec, run, container_id, on_exit)

    def adopt(self, spec: LaunchSpec, on_exit: OnExit) -> DockerHandle | None:
        self.outside.wants(spec)
        with self._locked(spec.service):
            current = self._runs.get(spec.service)
            if current is not None:
                return current.handle if current.take_over(on_exit) else None
            found = self._containers.find(spec)
            if found is not None and found.is_restarting:
                raise TruthUnknown(_between_runs(spec.service))
            if found is not None and found.is_running:
                return self._take_in(spec, found, on_exit) if found.fits(spec) else None
            return self._unseen(spec, found, on_exit)

    def stop(self, handle: Handle, grace_s: float) -> ExitStatus:
        run = self._run_of(handle)
        if run.status is None:
            run.asked = True
            reached(STOP_WANTED)
            self._ask_to_stop(run, math.ceil(grace_s))
            reached(STOP_ASKED)
            if run.wait(_SEEN_S) is None:
                self._settle_or_fail(run)  # the die event got lost
        status = run.wait(_SEEN_S)
        if status is None:
            raise StopFailed(f"service {handle.service!r}: container {run.handle.container_id[:12]} still runs")
        return status

    def kill(self, handle: Handle) -> None:
        run = self._run_of(handle)
        if run.status is not None:
            return
        run.asked = True
        try:
            self._engine.ask(lambda client: client.api.kill(run.handle.container_id))
        except TruthUnknown as away:
            self._kills_owed[handle.service] = run
            raise StopFailed(f"service {handle.service!r}: {away}; it is killed when the engine is back") from away
        except APIError:  # it does not run any more, or is gone
            self._settle_or_fail(run)

    def pause(self, handle: Handle) -> None:
        self._freeze(handle, frozen=True)

    def resume(self, handle: Handle) -> None:
        self._freeze(handle, frozen=False)

    def _freeze(self, handle: Handle, *, frozen: bool) -> None:
        """The engine refuses what is done already (409): what the container says of itself decides."""
        word = "paused" if frozen else "let go on"
        try:
            container_id = self._run_of(handle).handle.container_id
            inspected = self._engine.inspect(container_id)
            if inspected is not None and inspected["State"]["Paused"] == frozen:
                return
            self._engine.ask(lambda client: (client.api.pause if frozen else client.api.unpause)(container_id))
        except (TruthUnknown, APIError, StopFailed) as error:
            raise PauseFailed(f"service {handle.service!r}: its container cannot be {word}: {error}") from error

    def clear(self, service: str, grace_s: float) -> bool:
        with self._locked(service):
            found = self._containers.own(service)
            for one in found:
                with self._stopping(service, one.id):
                    self._stop_and_remove(one, math.ceil(grace_s))
        return bool(found)

    def halt(self, service: str, container_id: str, grace_s: float) -> bool:
        """Stop this container if it runs, whosever it is, and leave it where it is. Returns whether it ran.

        Raises:
            TruthUnknown: cannot be told now. StopFailed: it still runs.
        """
        with self._locked(service), self._stopping(service, container_id):
            inspected = self._engine.inspect(container_id)
            if inspected is None or not is_running(inspected):
                return False
            with contextlib.suppress(NotFound):
                self._engine.ask(lambda client: client.api.stop(container_id, timeout=math.ceil(grace_s)))
            return True

    @contextlib.contextmanager
    def _stopping(self, service: str, container_id: str) -> Iterator[None]:
        try:
            yield
        except APIError as error:
            words = " ".join(str(error.explanation or error).split())
            text = f"service {service!r}: Docker cannot stop container {container_id[:12]}: {words}"
            raise StopFailed(text) from error

    def arm(self, handle: Handle, order: Callable[[], RestartAtOnce | None]) -> None:
        del handle, order  # nobody but the daemon starts one

    def observe(self, handle: Handle, on_observed: OnObserved) -> None:
        self.outside.observe(handle.service, handle.run, on_observed)

    def usage(self, handle: Handle) -> Usage | None:
        run = self._run_of(handle)
        process = run.handle.process
        return None if run.status is not None or process is None else self._meter.measure(process)

    def log_tail(self, handle: Handle, lines: int) -> tuple[str, ...]:
        """The last lines the container wrote.

        Raises:
            TruthUnknown: the engine did not answer.
        """
        run = self._run_of(handle)
        try:
            raw = self._engine.ask(lambda client: client.api.logs(run.handle.container_id, tail=lines, stream=False))
        except APIError:  # removed, or a log driver that cannot be read
            return ()
        return tuple(shown(line, len(line)) for line in raw.splitlines())  # the engine itself cuts at 16 KiB

    def close(self) -> None:
        self._closed.set()
        self.watcher.close()
        self._aside.shutdown(wait=True, cancel_futures=True)
        self._ends.shutdown(wait=True)
        self._engine.close()

    # -- birth ----------------------------------------------------------------------------------------------------

    def _container_to_start(self, spec: LaunchSpec, run: int, *, is_known: bool) -> str:
        """The container for the next run: the stopped one of an equal spec, or a new one for a differing one."""
        found = self._containers.find(spec)
        if found is not None and found.is_going:
            self._containers.await_removal(found.id, _REPLACE_GRACE_S)
            found = self._containers.find(spec)
        if is_attached(spec):
            if found is None:
                raise LaunchError(self._containers.missing_text(spec))
            return found.id
        if found is not None and not (found.fits(spec) and found.is_up_to_date(spec)):
            self._stop_and_remove(found, _REPLACE_GRACE_S)
            found = None
        if found is not None and found.is_running and not is_known:
            raise LaunchError(
                f"service {spec.service!r} still runs from an earlier daemon: container {found.id[:12]}: "
                "adopt it or stop it first"
            )
        return found.id if found is not None else self._make(spec, run)

    def _make(self, spec: LaunchSpec, run: int) -> str:
        reached(CREATE_WANTED)
        made = self._containers.make(spec, run)
        reached(CREATED)
        return made

    def _stop_and_remove(self, found: Found, grace_s: int) -> None:
        """One of ours, found by its labels."""
        with contextlib.suppress(NotFound):
            if found.is_running:
                self._engine.ask(lambda client: client.api.stop(found.id, timeout=grace_s))
            reached(OLD_STOPPED)
            self._engine.ask(lambda client: client.api.remove_container(found.id, force=True))
        reached(OLD_REMOVED)

    def _start(self, spec: LaunchSpec, run: int, container_id: str, on_exit: OnExit) -> DockerHandle:
        self._ledger.intent(spec.service, run, NAME, container_id, launch_hash(spec))
        reached(START_WANTED)
        self._containers.start(spec, container_id)
        reached(STARTED)
        return self._register(spec, run, self._after_start(spec, container_id), on_exit)

    def _after_start(self, spec: LaunchSpec, container_id: str) -> Mapping[str, Any]:
        """Who has a restart policy is started by the engine a moment later: that run is taken on, not fought."""
        deadline = self._clock.now() + _POLICY_STARTS_S
        while True:
            inspected = self._engine.inspect(container_id)
            if inspected is None:
                raise LaunchError(f"service {spec.service!r}: its container was removed while it started")
            if not is_restarting(inspected):
                return inspected
            if self._clock.now() >= deadline or self._closed.wait(_LOOK_S):
                raise TruthUnknown(_between_runs(spec.service))

    def _take_in(self, spec: LaunchSpec, found: Found, on_exit: OnExit) -> DockerHandle:
        """A running container becomes a run of ours: the recorded one (of which perhaps only the intent was recorded),
        or the next if somebody restarted it, or made it anew, since.
        """
        reached(FOUND)
        record = self._ledger.record(spec.service)
        identity = asdict(identity_from(found.inspected))
        if record.identity is not None and dict(record.identity) == identity:
            return self._register(spec, record.run, found.inspected, on_exit)
        run = record.run if record.phase is Phase.INTENT else record.run + 1
        if record.phase is Phase.LAUNCHED and record.runtime == NAME:
            self._ledger.exited(spec.service, record.run, asdict(ExitStatus(RESTARTED_OUTSIDE, at=found.started_at)))
            self._ledger.restarted(spec.service)
        self._ledger.intent(spec.service, run, NAME, found.id, launch_hash(spec))
        return self._register(spec, run, found.inspected, on_exit)

    def _unseen(self, spec: LaunchSpec, found: Found | None, on_exit: OnExit) -> DockerHandle | None:
        """The recorded run ended while no daemon lived: its end is told now, as the engine knows it."""
        record = self._ledger.record(spec.service)
        match unseen_end(record, NAME, None if found is None else found.inspected):
            case Unseen.EXITED if found is not None:
                handle = self._register(spec, record.run, found.inspected, on_exit, self._replayed(found.inspected))
                if not found.fits(spec):
                    del self._specs[spec.service]  # the next run is not started in this container
                return handle
            case Unseen.REMOVED if record.identity is not None:
                handle = _gone(spec.service, record.run, record.identity, record.started_at)
                entry = self._enter(spec, handle, on_exit)
                self._finish(entry, None, cause="container removed")
                return handle
            case _:
                return None

    def _replayed(self, inspected: Mapping[str, Any]) -> list[ContainerEvent]:
        """What the engine remembers of this run's events: who ended it is not in ``inspect``."""
        since, until = identity_from(inspected).started_at, str(inspected["State"]["FinishedAt"])
        filters = {"type": ["container"], "container": [str(inspected["Id"])], "event": ["kill", "oom"]}

        def ask(client: DockerClient) -> list[ContainerEvent]:
            late = cast("int", f"{unix_time(until) + KILL_TOLD_LATE_S:.6f}")
            raw = client.api.events(since=_as_text(since), until=late, filters=filters, decode=True)
            return [event for event in map(read_event, raw) if event is not None]

        try:
            return self._engine.ask(ask)
        except APIError:  # an engine that cannot tell: then nobody asked for the end
            return []

    def _enter(self, spec: LaunchSpec, handle: DockerHandle, on_exit: OnExit) -> DockerRun:
        entry = Run(handle, on_exit)
        with self._table_lock:
            self._runs[spec.service] = entry
            self._specs[spec.service] = spec
        return entry

    def _register(
        self,
        spec: LaunchSpec,
        run: int,
        inspected: Mapping[str, Any],
        on_exit: OnExit,
        events: list[ContainerEvent] | None = None,
    ) -> DockerHandle:
        handle = _handle(spec.service, run, inspected)
        self.outside.begin(spec.service, run, observed_from(inspected))
        entry = self._enter(spec, handle, on_exit)
        self._ledger.launched(spec.service, run, asdict(handle.identity), handle.started_at)
        reached(RECORDED)
        if not is_running(inspected):
            self._finish_from(entry, inspected, events)
        elif any(event.action == "die" and event.at >= handle.started_at for event in self._events(handle)):
            with contextlib.suppress(TruthUnknown):  # the next reconcile finds it
                self._settle(entry)  # it died before the table knew it
        return handle

    # -- death ----------------------------------------------------------------------------------------------------

    def container_event(self, event: ContainerEvent) -> None:
        """On the watcher's event thread: an end is told at once, with the event's own exit code."""
        run = self._run_in(event.container_id)
        if run is not None and run.status is None:
            if event.at >= run.handle.started_at:
                self._of_living(run, event)
        elif event.action == "start":
            self._look_for_start(self.outside.meant_by(event))
        if event.action == "restart":
            self._restarted_outside(event)

    def _of_living(self, run: DockerRun, event: ContainerEvent) -> None:
        if event.action == "die":
            self._died(run, event)
        elif event.action in _LOOK_AT:
            self._settle(run)

    def reconcile(self) -> None:
        """On the watcher's reconcile thread: every run believed alive is looked at, and whether one runs unknown."""
        with self._table_lock:
            runs = [run for run in self._runs.values() if run.status is None]
        for run in runs:
            self._settle(run)
        self._pay_kills()
        for spec in self.outside.wanted():
            self._look_for_start(spec)

    def engine_restarted(self, ended_at: float) -> None:
        with self._table_lock:
            ended = [run for run in self._runs.values() if run.status is not None and run.status.stopped_by_hand]
        for run in ended:
            status = run.status
            if status is not None and ended_at - _ENGINE_END_S <= status.at <= ended_at + 1:
                self.outside.listener.was_no_wish(run.handle.service)

    def _look_for_start(self, spec: LaunchSpec | None) -> None:
        """Does it run although we know of no run? Not asked while a launch is under way: that one looks itself.

        Raises:
            TruthUnknown.
        """
        if spec is None:
            return
        lock = self._locked(spec.service)
        if not lock.acquire(blocking=False):
            return
        try:
            run = self._runs.get(spec.service)
            found = None if run is not None and run.status is None else self._containers.find(spec)
        except TruthUnknown:
            raise
        except LaunchError:  # compose has several: a launch says so
            return
        finally:
            lock.release()
        if found is not None and found.is_running:
            self.outside.tell_runs_again(spec.service, found.started_at)

    def _restarted_outside(self, event: ContainerEvent) -> None:
        """``docker restart`` by somebody: what ended with a stop before it was no wish to stop."""
        spec = self.outside.meant_by(event)
        if spec is None:
            return
        record = self._ledger.record(spec.service)
        if record.last_exit is not None and event.at - float(record.last_exit.get("at", 0.0)) <= _RESTART_S:
            self._ledger.recaused(spec.service, RESTARTED_OUTSIDE)
        self.outside.listener.happened(spec.service, "restarted", f"{RESTARTED_OUTSIDE} (docker restart)")
        run = self._run_in(event.container_id)
        if run is not None:
            self.outside.restarted(spec.service, run.handle.run, RESTARTED_OUTSIDE)

    def _pay_kills(self) -> None:
        """What was asked for while the engine was away."""
        for service, run in tuple(self._kills_owed.items()):
            del self._kills_owed[service]
            if run.status is None:
                with contextlib.suppress(StopFailed):  # away again: still owed
                    self.kill(run.handle)

    def _died(self, run: DockerRun, event: ContainerEvent) -> None:
        """137 alone may be an OOM kill whose event was lost, where memory is limited. Only the engine knows.

        It is busy with the death: it is asked at once, but nobody waits for its answer before the next start. An exit
        with 0 may be one too (a child was killed): then that event is waited for, since it decides whether there is a
        next start at all.
        """
        was_told = any(known.action in ("kill", "oom") for known in self._events(run.handle))
        may_be_oom = run.handle.is_limited and not run.asked and not was_told
        if event.exit_code == 0 and may_be_oom:
            self._ends.submit(self._ended_well, run, event)
            return
        is_unclear = event.exit_code == _CODE_SIGKILL and may_be_oom
        looked = self._aside.submit(self._engine.inspect, event.container_id) if is_unclear else None
        self._finish(run, event.exit_code, at=event.at)
        if looked is not None:
            looked.add_done_callback(lambda done: self._known_better(run, event.at, done))

    def _ended_well(self, run: DockerRun, event: ContainerEvent) -> None:
        """On a thread of its own: the engine tells of an OOM kill a moment before or after the end."""
        deadline, pause, oom_killed = self._clock.now() + _OOM_TOLD_S, threading.Event(), False
        try:
            while self._clock.now() < deadline and not any(one.action == "oom" for one in self._events(run.handle)):
                pause.wait(_LOOK_S)
            inspected = self._engine.inspect(event.container_id)
            if inspected is not None and identity_from(inspected) == run.handle.identity:
                oom_killed = bool(inspected["State"]["OOMKilled"])
        except Exception as error:  # whatever it is: the end itself is certain
            structlog.get_logger().warning("cannot ask how it ended", service=run.handle.service, error=str(error))
        self._finish(run, event.exit_code, oom_killed=oom_killed, at=event.at)

    def _known_better(self, run: DockerRun, at: float, done: Future[Mapping[str, Any] | None]) -> None:
        inspected = None if done.exception() is not None else done.result()
        if inspected is None or identity_from(inspected) != run.handle.identity or not inspected["State"]["OOMKilled"]:
            return
        record = self._ledger.record(run.handle.service)
        if record.last_exit is not None and record.last_exit.get("at") == at:
            self._ledger.recaused(run.handle.service, "OOM")

    def _settle(self, run: DockerRun) -> None:
        """Ask the engine whether the run still lives.

        Raises:
            TruthUnknown: the engine did not answer; nothing is concluded.
        """
        inspected = self._engine.inspect(run.handle.container_id)
        if run.status is not None:
            return
        if inspected is None:
            self._finish(run, None, cause="container removed")
        elif identity_from(inspected) != run.handle.identity:
            self._finish(run, None, cause=RESTARTED_OUTSIDE)
        elif not is_running(inspected):
            self._finish_from(run, inspected)
        else:
            self.outside.see(run.handle.service, run.handle.run, observed_from(inspected))

    def _settle_or_fail(self, run: DockerRun) -> None:
        try:
            self._settle(run)
        except TruthUnknown as away:
            raise StopFailed(f"service {run.handle.service!r}: {away}") from away

    def _finish_from(
        self, run: DockerRun, inspected: Mapping[str, Any], events: list[ContainerEvent] | None = None
    ) -> None:
        state = inspected["State"]
        at = unix_time(str(state["FinishedAt"])) or self._clock.wall()
        self._finish(run, int(state["ExitCode"]), oom_killed=bool(state["OOMKilled"]), at=at, events=events)

    def _finish(
        self,
        run: DockerRun,
        code: int | None,
        *,
        oom_killed: bool = False,
        at: float | None = None,
        cause: str | None = None,
        events: list[ContainerEvent] | None = None,
    ) -> None:
        reached(END_SEEN)
        handle = run.handle
        at = self._clock.wall() if at is None else at
        if cause is not None:
            status = ExitStatus(cause, asked=run.asked, at=at)
        else:
            status = classify(
                code=code,
                oom_killed=oom_killed,
                asked=run.asked,
                at=at,
                events=self._events(handle) if events is None else events,
                stop_signal=handle.stop_signal,
            )
        with self._finish_lock:  # in the ledger before anybody can start the next run
            if run.status is not None:
                return
            self.outside.end(handle.service, handle.run)
            self._ledger.exited(handle.service, handle.run, asdict(status))
            reached(END_RECORDED)
            run.finish(status)
        reached(END_TOLD)
        if handle.process is not None:
            self._meter.forget(handle.process)

    def _ask_to_stop(self, run: DockerRun, grace_s: int) -> None:
        container_id = run.handle.container_id
        try:
            self._engine.ask(lambda client: client.api.stop(container_id, timeout=grace_s))
        except TruthUnknown as away:
            raise StopFailed(f"service {run.handle.service!r}: {away}") from away
        except NotFound:
            self._finish(run, None, cause="container removed")
        except APIError as error:
            words = " ".join(str(error.explanation or error).split())
            raise StopFailed(f"service {run.handle.service!r}: Docker cannot stop it: {words}") from error

    def _events(self, handle: DockerHandle) -> list[ContainerEvent]:
        return [event for event in self.watcher.events_of(handle.container_id) if event.at >= handle.started_at]

    # -- the table ------------------------------------------------------------------------------------------------

    def _locked(self, service: str) -> threading.RLock:
        with self._table_lock:
            return self._locks.setdefault(service, threading.RLock())

    def _run_in(self, container_id: str) -> DockerRun | None:
        with self._table_lock:
            return next((run for run in self._runs.values() if run.handle.container_id == container_id), None)

    def _run_of(self, handle: Handle) -> DockerRun:
        with self._table_lock:
            run = self._runs.get(handle.service)
        if run is None or run.handle.run != handle.run:
            raise StopFailed(f"service {handle.service!r}: run {handle.run} is not known here")
        return run


def _as_text(engine_time: str) -> int:
    """Unix seconds with nanoseconds as the engine takes them; the SDK passes the text through."""
    whole, _, fraction = engine_time.rstrip("Z").partition(".")
    return cast("int", f"{int(unix_time(whole + 'Z'))}.{fraction.ljust(9, '0')[:9]}")


def _between_runs(service: str) -> str:
    return f"service {service!r}: the engine is about to restart it by its own restart policy"


def _gone(service: str, run: int, identity: Mapping[str, Any], started_at: float) -> DockerHandle:
    """A run whose container does not exist any more."""
    known = ContainerIdentity(str(identity["container_id"]), str(identity["started_at"]))
    return DockerHandle(service, run, known, None, started_at, signal_number(None))


def _already_runs(service: str, handle: DockerHandle) -> LaunchError:
    return LaunchError(
        f"service {service!r} already runs: container {handle.container_id[:12]}, run {handle.run}: stop it first"
    )


def _handle(service: str, run: int, inspected: Mapping[str, Any]) -> DockerHandle:
    identity = identity_from(inspected)
    pid = int(inspected["State"]["Pid"]) or None
    return DockerHandle(
        service=service,
        run=run,
        identity=identity,
        pid=pid,
        started_at=unix_time(identity.started_at),
        stop_signal=signal_number(inspected["Config"].get("StopSignal")),
        process=None if pid is None else _local_process(pid, identity.container_id),
        is_limited=bool((inspected.get("HostConfig") or {}).get("Memory")),
    )


def _local_process(pid: int, container_id: str) -> ProcessIdentity | None:
    """The main process, if the engine's pid is one of this machine: a distant engine's number is somebody else here."""
    try:
        cgroups = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
    except OSError:
        return None
    return identity_of(pid) if container_id in cgroups else None
