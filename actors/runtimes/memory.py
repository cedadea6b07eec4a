"""A runtime without processes: for tests and dry runs. It passes the same contract tests as the real ones.

The first word of a spec's command is the script of the run: ``exit N`` ends at once with code N, ``stubborn`` ignores
the polite stop, anything else runs until stopped. ``MemoryWorld`` is what outlives a daemon: give it to a second
runtime and it adopts. Ends are told from the runtime's own watcher thread, as in the real ones.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from actors.clock import Clock, SystemClock
from actors.runtimes.base import (
    ExitStatus,
    Handle,
    LaunchError,
    LaunchSpec,
    OnExit,
    RestartAtOnce,
    StopFailed,
    TruthUnknown,
    Usage,
)
from actors.runtimes.runs import Run

_SIGTERM = 15
_SIGKILL = 9


@dataclass(frozen=True, slots=True)
class MemoryHandle:
    """One run in memory; its pid is a number that no process has."""

    service: str
    run: int
    pid: int
    started_at: float
    command: tuple[str, ...]
    container_id: str | None = None

    @property
    def is_stubborn(self) -> bool:
        return self.command[:1] == ("stubborn",)


class MemoryWorld:
    """The living runs, as an operating system would keep them. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pids = itertools.count(1 << 23)  # above any pid_max
        self._living: dict[int, MemoryHandle] = {}
        self._listeners: dict[int, Callable[[ExitStatus], None]] = {}
        self._engine_is_away = threading.Event()
        self.frozen: set[int] = set()

    @property
    def engine_is_away(self) -> bool:
        return self._engine_is_away.is_set()

    @engine_is_away.setter
    def engine_is_away(self, away: bool) -> None:
        if away:
            self._engine_is_away.set()
        else:
            self._engine_is_away.clear()

    def begin(self, service: str, run: int, command: tuple[str, ...], at: float) -> MemoryHandle:
        with self._lock:
            handle = MemoryHandle(service, run, next(self._pids), at, command)
            self._living[handle.pid] = handle
            return handle

    def living(self, service: str) -> MemoryHandle | None:
        with self._lock:
            return next((handle for handle in self._living.values() if handle.service == service), None)

    def listen(self, pid: int, listener: Callable[[ExitStatus], None]) -> bool:
        """Only the newest listener is told. False: it is dead already."""
        with self._lock:
            self._listeners[pid] = listener
            return pid in self._living

    def end(self, pid: int, status: ExitStatus) -> bool:
        """A run ends, by itself or by a signal. False when it had ended before."""
        with self._lock:
            was_alive = self._living.pop(pid, None) is not None
            listener = self._listeners.pop(pid, None)
        if was_alive and listener is not None:
            listener(status)
        return was_alive


@dataclass(slots=True)
class _Faults:
    launches: list[LaunchError] = field(default_factory=list)


class MemoryRuntime:
    """``Runtime`` on a ``MemoryWorld``; ``crash`` and ``fail_next_launch`` are the faults one can ask for."""

    name = "memory"

    def __init__(self, world: MemoryWorld | None = None, *, clock: Clock | None = None) -> None:
        self.world = world or MemoryWorld()
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._runs: dict[str, Run[MemoryHandle]] = {}
        self._faults: dict[str, _Faults] = {}
        self._ends: queue.SimpleQueue[tuple[Run[MemoryHandle], ExitStatus] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._tell, name="memory-watcher", daemon=True)
        self._thread.start()

    # -- faults on request ----------------------------------------------------------------------------------------

    def crash(self, service: str, *, code: int | None = None, signal: int | None = None) -> None:
        """End the service's run from outside, by ``code`` or by ``signal`` (SIGKILL when neither is given)."""
        handle = self.world.living(service)
        if handle is None:
            raise LookupError(f"{service} does not run")
        if code is None and signal is None:
            signal = _SIGKILL
        cause = f"exit {code}" if code is not None else f"signal {signal}"
        self.world.end(handle.pid, ExitStatus(cause, code=code, signal=signal, at=self._clock.wall()))

    def fail_next_launch(self, service: str, error: LaunchError) -> None:
        with self._lock:
            self._faults.setdefault(service, _Faults()).launches.append(error)

    # -- the contract ---------------------------------------------------------------------------------------------

    def launch(self, spec: LaunchSpec, run: int, on_exit: OnExit) -> MemoryHandle:
        with self._lock:
            self._check_engine()
            faults = self._faults.get(spec.service)
            if faults is not None and faults.launches:
                raise faults.launches.pop(0)
            if not spec.command:
                raise LaunchError(f"service {spec.service!r} has no command to run", permanent=True)
            living = self.world.living(spec.service)
            if living is not None:
                raise LaunchError(f"service {spec.service!r} already runs: pid {living.pid}, run {living.run}")
            handle = self.world.begin(spec.service, run, spec.command, self._clock.wall())
            self._listen(Run(handle, on_exit))
        if handle.command[0] == "exit":
            code = int(handle.command[1])
            self.world.end(handle.pid, ExitStatus(f"exit {code}", code=code, at=self._clock.wall()))
        return handle

    def adopt(self, spec: LaunchSpec, on_exit: OnExit) -> MemoryHandle | None:
        with self._lock:
            self._check_engine()
            current = self._runs.get(spec.service)
            if current is not None:
                return current.handle if current.take_over(on_exit) else None
            living = self.world.living(spec.service)
            if living is None or not self._listen(Run(living, on_exit)):
                return None
            return living

    def stop(self, handle: Handle, grace_s: float) -> ExitStatus:
        run = self._run_of(handle)
        run.asked = True
        number = _SIGKILL if run.handle.is_stubborn else _SIGTERM
        if run.handle.is_stubborn:
            run.wait(grace_s)
        self._signal(run, number)
        status = run.wait(5.0)
        if status is None:
            raise StopFailed(f"service {handle.service!r}: its end was never told")
        return status

    def kill(self, handle: Handle) -> None:
        run = self._run_of(handle)
        run.asked = True
        self._signal(run, _SIGKILL)

    def pause(self, handle: Handle) -> None:
        self.world.frozen.add(self._run_of(handle).handle.pid)

    def resume(self, handle: Handle) -> None:
        self.world.frozen.discard(self._run_of(handle).handle.pid)

    def clear(self, service: str, grace_s: float) -> bool:
        handle = self.adopt(LaunchSpec(service), lambda _status: True)
        if handle is not None:
            self.stop(handle, grace_s)
        return handle is not None

    def arm(self, handle: Handle, order: Callable[[], RestartAtOnce | None]) -> None:
        del handle, order  # nobody but the daemon starts one

    def usage(self, handle: Handle) -> Usage | None:
        return Usage(0.0, 1024 * 1024) if self._run_of(handle).status is None else None

    def log_tail(self, handle: Handle, lines: int) -> tuple[str, ...]:
        return (f"run {self._run_of(handle).handle.run} began",)[:lines]

    def close(self) -> None:
        self._ends.put(None)
        self._thread.join(timeout=5)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _check_engine(self) -> None:
        if self.world.engine_is_away:
            raise TruthUnknown("memory engine is away")

    def _signal(self, run: Run[MemoryHandle], number: int) -> None:
        status = ExitStatus(f"signal {number}", signal=number, asked=True, at=self._clock.wall())
        self.world.end(run.handle.pid, status)

    def _listen(self, run: Run[MemoryHandle]) -> bool:
        self._runs[run.handle.service] = run
        return self.world.listen(run.handle.pid, lambda status: self._ends.put((run, status)))

    def _run_of(self, handle: Handle) -> Run[MemoryHandle]:
        with self._lock:
            run = self._runs.get(handle.service)
        if run is None or run.handle.run != handle.run:
            raise StopFailed(f"service {handle.service!r}: run {handle.run} is not known here")
        return run

    def _tell(self) -> None:
        while (end := self._ends.get()) is not None:
            run, status = end
            run.finish(status)
