"""The Docker runtime: a service as a container, created by us from an image or attached to.

Methods run on the I/O pool and may block, each with a timeout; the Docker watcher's threads tell the ends. The engine's
``inspect`` is the truth, events only wake. While the engine is away nothing is known, so nothing is started.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from docker.errors import APIError, NotFound

from actors.clock import Clock, SystemClock
from actors.docker_watcher import DockerWatcher
from actors.ledger import Ledger
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
from actors.runtimes.docker_exits import ContainerEvent, classify, signal_number
from actors.runtimes.docker_spec import ContainerIdentity, identity_from, is_attached, unix_time
from actors.runtimes.procfs import ProcessIdentity, identity_of
from actors.runtimes.runs import Run
from actors.runtimes.usage import ProcessMeter

NAME: Final = "docker"
_SEEN_S: Final = 2.0
_REPLACE_GRACE_S: Final = 10
_CODE_SIGKILL: Final = 137


@dataclass(frozen=True, slots=True)
class DockerHandle:
    """One run of a service as a container. ``process`` is its main process when that lives on this machine."""

    service: str
    run: int
    identity: ContainerIdentity
    pid: int | None
    started_at: float
    stop_signal: int
    process: ProcessIdentity | None = None

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
        self.watcher = watcher or DockerWatcher(DockerEngine(address))
        self.watcher.start(self)

    @property
    def trouble(self) -> str | None:
        """Why nothing is known of containers now (the engine is away), or None."""
        return self.watcher.trouble

    # -- the contract ---------------------------------------------------------------------------------------------

    def launch(self, spec: LaunchSpec, run: int, on_exit: OnExit) -> DockerHandle:
        with self._locked(spec.service):
            previous = self._runs.get(spec.service)
            if previous is not None and previous.status is None:
                raise _already_runs(spec.service, previous.handle)
            if previous is not None and self._specs.get(spec.service) == spec:
                with contextlib.suppress(NotFound):  # removed by somebody meanwhile: the long way
                    return self._start(spec, run, previous.handle.container_id, on_exit)
            container_id = self._container_to_start(spec, run, is_known=previous is not None)
            return self._start(spec, run, container_id, on_exit)

    def adopt(self, spec: LaunchSpec, on_exit: OnExit) -> DockerHandle | None:
        with self._locked(spec.service):
            current = self._runs.get(spec.service)
            if current is not None:
                return current.handle if current.take_over(on_exit) else None
            found = self._containers.find(spec)
            if found is None or not found.is_running or not found.fits(spec):
                return None
            return self._take_in(spec, found, on_exit)

    def stop(self, handle: Handle, grace_s: float) -> ExitStatus:
        run = self._run_of(handle)
        if run.status is None:
            run.asked = True
            self._ask_to_stop(run, math.ceil(grace_s))
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
            raise StopFailed(f"service {handle.service!r}: {away}") from away
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
                self._stop_and_remove(one, math.ceil(grace_s))
        return bool(found)

    def arm(self, handle: Handle, order: Callable[[], RestartAtOnce | None]) -> None:
        del handle, order  # nobody but the daemon starts one

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
        return tuple(raw.decode("utf-8", "replace").splitlines())

    def close(self) -> None:
        self.watcher.close()
        self._engine.close()

    # -- birth ----------------------------------------------------------------------------------------------------

    def _container_to_start(self, spec: LaunchSpec, run: int, *, is_known: bool) -> str:
        """The container for the next run: the stopped one of an equal spec, or a new one for a differing one."""
        found = self._containers.find(spec)
        if is_attached(spec):
            if found is None:
                raise LaunchError(self._containers.missing_text(spec))
            return found.id
        if found is not None and not found.fits(spec):
            self._stop_and_remove(found, _REPLACE_GRACE_S)
            found = None
        if found is not None and found.is_running and not is_known:
            raise LaunchError(
                f"service {spec.service!r} still runs from an earlier daemon: container {found.id[:12]}: "
                "adopt it or stop it first"
            )
        return found.id if found is not None else self._containers.make(spec, run)

    def _stop_and_remove(self, found: Found, grace_s: int) -> None:
        """One of ours, found by its labels."""
        with contextlib.suppress(NotFound):
            if found.is_running:
                self._engine.ask(lambda client: client.api.stop(found.id, timeout=grace_s))
            self._engine.ask(lambda client: client.api.remove_container(found.id, force=True))

    def _start(self, spec: LaunchSpec, run: int, container_id: str, on_exit: OnExit) -> DockerHandle:
        self._ledger.intent(spec.service, run, NAME, "")
        self._containers.start(spec, container_id)
        inspected = self._engine.inspect(container_id)
        if inspected is None:
            raise LaunchError(f"service {spec.service!r}: its container was removed while it started")
        return self._register(spec, run, inspected, on_exit)

    def _take_in(self, spec: LaunchSpec, found: Found, on_exit: OnExit) -> DockerHandle:
        """A running container becomes a run of ours: the recorded one, or the next if somebody restarted it since."""
        record = self._ledger.record(spec.service)
        is_recorded = record.identity is not None and dict(record.identity) == asdict(identity_from(found.inspected))
        run = record.run if is_recorded else record.run + 1
        if not is_recorded:
            self._ledger.intent(spec.service, run, NAME, "")
        return self._register(spec, run, found.inspected, on_exit)

    def _register(self, spec: LaunchSpec, run: int, inspected: Mapping[str, Any], on_exit: OnExit) -> DockerHandle:
        handle = _handle(spec.service, run, inspected)
        entry = Run(handle, on_exit)
        with self._table_lock:
            self._runs[spec.service] = entry
            self._specs[spec.service] = spec
        self._ledger.launched(spec.service, run, asdict(handle.identity), handle.started_at)
        if not inspected["State"]["Running"]:
            self._finish_from(entry, inspected)
        elif any(event.action == "die" and event.at >= handle.started_at for event in self._events(handle)):
            with contextlib.suppress(TruthUnknown):  # the next reconcile finds it
                self._settle(entry)  # it died before the table knew it
        return handle

    # -- death ----------------------------------------------------------------------------------------------------

    def container_event(self, event: ContainerEvent) -> None:
        """On the watcher's event thread: an end is told at once, with the event's own exit code."""
        run = self._run_in(event.container_id)
        if run is None or run.status is not None or event.at < run.handle.started_at:
            return
        if event.action == "die":
            self._died(run, event)
        elif event.action == "destroy":
            self._settle(run)

    def reconcile(self) -> None:
        """On the watcher's reconcile thread: every run believed alive is looked at."""
        with self._table_lock:
            runs = [run for run in self._runs.values() if run.status is None]
        for run in runs:
            self._settle(run)

    def _died(self, run: DockerRun, event: ContainerEvent) -> None:
        """137 alone may be an OOM kill, which only the engine can tell: one look, and only then."""
        oom_killed = False
        was_killed = any(known.action in ("kill", "oom") for known in self._events(run.handle))
        if event.exit_code == _CODE_SIGKILL and not run.asked and not was_killed:
            with contextlib.suppress(TruthUnknown):
                inspected = self._engine.inspect(event.container_id)
                oom_killed = bool(inspected and inspected["State"]["OOMKilled"])
        self._finish(run, event.exit_code, oom_killed=oom_killed, at=event.at)

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
            self._finish(run, None, cause="restarted from outside")
        elif not inspected["State"]["Running"]:
            self._finish_from(run, inspected)

    def _settle_or_fail(self, run: DockerRun) -> None:
        try:
            self._settle(run)
        except TruthUnknown as away:
            raise StopFailed(f"service {run.handle.service!r}: {away}") from away

    def _finish_from(self, run: DockerRun, inspected: Mapping[str, Any]) -> None:
        state = inspected["State"]
        at = unix_time(str(state["FinishedAt"])) or self._clock.wall()
        self._finish(run, int(state["ExitCode"]), oom_killed=bool(state["OOMKilled"]), at=at)

    def _finish(
        self,
        run: DockerRun,
        code: int | None,
        *,
        oom_killed: bool = False,
        at: float | None = None,
        cause: str | None = None,
    ) -> None:
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
                events=self._events(handle),
                stop_signal=handle.stop_signal,
            )
        if run.finish(status):
            if handle.process is not None:
                self._meter.forget(handle.process)
            self._ledger.exited(handle.service, handle.run, asdict(status))

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
    )


def _local_process(pid: int, container_id: str) -> ProcessIdentity | None:
    """The main process, if the engine's pid is one of this machine: a distant engine's number is somebody else here."""
    try:
        cgroups = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii")
    except OSError:
        return None
    return identity_of(pid) if container_id in cgroups else None
