"""What runs a service: the contract of ``process``, ``docker`` and ``memory`` (one set of tests holds for all).

All methods may block and are called on the I/O pool, never on an actor's thread. ``on_exit`` is called exactly once a
run, from a watcher thread: it must only put a message into an inbox. It may be called before ``launch`` has returned (a
run that dies at once), and has been called when ``stop`` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from actors.runtimes.settings import EnvironmentSources, ProcessSettings


class LaunchError(Exception):
    """A run could not be started. The text says what, where and what to do. ``permanent``: trying again is no use."""

    def __init__(self, text: str, *, permanent: bool = False) -> None:
        super().__init__(text)
        self.permanent = permanent


class TruthUnknown(LaunchError):
    """Nobody can say now whether the service runs (the engine is away): nothing may be started."""


class StopFailed(Exception):
    """Something of a run would not die, or the engine did not answer. The text names what is left."""


class PauseFailed(Exception):
    """A run could not be frozen, or could not be let go on. The text says what and why."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to create from ``image``, or to attach to by name or by compose project and service."""

    image: str | None = None
    attach_name: str | None = None
    compose_project: str | None = None
    compose_service: str | None = None
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    network: str | None = None


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything needed to run one service once. ``environment`` is added to the daemon's own for processes."""

    service: str
    command: tuple[str, ...] = ()
    working_dir: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    log_path: Path | None = None
    log_max_bytes: int = 10 * 1024 * 1024
    log_backups: int = 3
    memory_bytes: int | None = None
    container: ContainerSpec | None = None
    settings: ProcessSettings = field(default_factory=ProcessSettings)
    sources: EnvironmentSources = field(default_factory=EnvironmentSources)


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a run ended. ``cause`` is one short phrase ("exit 3", "signal SIGKILL", "OOM", "docker stop").

    ``asked`` is True when our own ``stop`` or ``kill`` ended it. ``stopped_by_hand`` is True when somebody stopped it
    in the way the runtime knows as a wish (``docker stop``): the policy ``unless_stopped`` respects that.
    """

    cause: str
    code: int | None = None
    signal: int | None = None
    oom_killed: bool = False
    asked: bool = False
    stopped_by_hand: bool = False
    at: float = 0.0

    @property
    def is_clean(self) -> bool:
        return self.code == 0 and self.signal is None and not self.oom_killed


@dataclass(frozen=True, slots=True)
class Usage:
    cpu_percent: float
    memory_bytes: int


OnExit = Callable[[ExitStatus], object]
"""Takes a run's end. Answer ``False`` (as ``Ref.tell`` does) when nobody is there any more: the status is then kept and
given to the next ``adopt``."""


@dataclass(frozen=True, slots=True)
class RestartAtOnce:
    """The standing order: when this run ends by itself, start the next one without asking."""

    only_on_failure: bool = False


class Handle(Protocol):
    """One run of one service. ``run`` counts the service's runs from 1."""

    @property
    def service(self) -> str: ...
    @property
    def run(self) -> int: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def container_id(self) -> str | None: ...
    @property
    def started_at(self) -> float:
        """Wall time, Unix seconds."""


class Runtime(Protocol):
    """Starts, adopts, watches and ends runs. Never two live runs of one service."""

    name: str

    def launch(self, spec: LaunchSpec, run: int, on_exit: OnExit) -> Handle:
        """Start run number ``run``.

        Raises:
            LaunchError: nothing was left behind. Also when an earlier run of the service is still alive.
        """

    def adopt(self, spec: LaunchSpec, on_exit: OnExit) -> Handle | None:
        """The live run of this service that is ours, if there is one; ``on_exit`` replaces an earlier one's.

        A run that ended while nobody was there to be told is returned once too, and ``on_exit`` is called at once.

        Raises:
            TruthUnknown: cannot be told now.
        """

    def stop(self, handle: Handle, grace_s: float) -> ExitStatus:
        """Ask it to end, wait at most ``grace_s`` seconds, then kill all of it; returns when none lives.

        Raises:
            StopFailed: something is left, or nobody can tell.
        """

    def kill(self, handle: Handle) -> None:
        """End it and its descendants at once; ``on_exit`` tells when it is gone.

        Raises:
            StopFailed: the engine did not answer.
        """

    def pause(self, handle: Handle) -> None:
        """Freeze it with all its descendants. Once more does no harm.

        Raises:
            PauseFailed: it was not frozen, or nobody can tell.
        """

    def resume(self, handle: Handle) -> None:
        """Let it go on. One that is not frozen is left as it is.

        Raises:
            PauseFailed: it may still be frozen.
        """

    def clear(self, service: str, grace_s: float) -> bool:
        """Stop and remove whatever of this service is ours and still there; for one that is not wanted any more.

        Returns whether there was anything. Never touches what was only attached to.

        Raises:
            TruthUnknown: cannot be told now. StopFailed: something is left.
        """

    def arm(self, handle: Handle, order: Callable[[], RestartAtOnce | None]) -> None:
        """Give the standing order, or take it back (None). ``order`` is asked while nobody else arms this service.

        A runtime that cannot obey does nothing. What it started is found by ``adopt``; what nobody adopts within a few
        seconds, it ends.
        """

    def usage(self, handle: Handle) -> Usage | None:
        """CPU percent of one core since the last call, resident bytes; of the run with its descendants.

        None when it has ended or cannot be told now.
        """

    def log_tail(self, handle: Handle, lines: int) -> tuple[str, ...]:
        """The last ``lines`` lines the run wrote, oldest first (for a crash record).

        Raises:
            TruthUnknown: cannot be told now.
        """

    def close(self) -> None:
        """End the watcher threads. Runs live on."""
