"""What a child is: its spec, its exit reasons, its pacing. Pure: no thread, no clock, no pykka.

The words and defaults are those of Erlang/OTP's ``supervisor`` (stdlib 4.2); what goes beyond it (readiness gates,
pacing per child) is marked so.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self


class Restart(enum.Enum):
    """When an ended child is started again (OTP ``restart``)."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"


class ChildType(enum.Enum):
    WORKER = "worker"
    SUPERVISOR = "supervisor"


class ShutdownKind(enum.Enum):
    BRUTAL_KILL = "brutal_kill"
    INFINITY = "infinity"


Shutdown = float | ShutdownKind
"""Seconds a child has to stop, or one of the two special answers."""

BRUTAL_KILL: Final = ShutdownKind.BRUTAL_KILL
INFINITY: Final = ShutdownKind.INFINITY
DEFAULT_WORKER_SHUTDOWN_S: Final = 5.0  # OTP: 5000 ms


class WaitFor(enum.Enum):
    """What the next child in start order waits for (beyond OTP: ``READY``)."""

    STARTED = "started"
    READY = "ready"


class OnExhausted(enum.Enum):
    """What happens when a paced child has used up its own budget."""

    ESCALATE = "escalate"
    PARK = "park"


class ExitKind(enum.Enum):
    NORMAL = "normal"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"
    KILLED = "killed"
    START_FAILED = "start_failed"
    LOST = "lost"


class Origin(enum.Enum):
    """Whose fault an exit is: the world's (a service ended) or our own code's."""

    OURS = "ours"
    WORLD = "world"


@dataclass(frozen=True, slots=True)
class ExitReason:
    """Why a child ended.

    ``detail`` is the short text a person reads; ``evidence`` may hold structured facts (exit code, signal).
    """

    kind: ExitKind
    detail: str = ""
    origin: Origin = Origin.OURS
    evidence: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def is_clean(self) -> bool:
        """True for ``normal``, ``shutdown`` and ``{shutdown, Term}``: a transient child is then not restarted."""
        return self.kind in (ExitKind.NORMAL, ExitKind.SHUTDOWN)

    def __str__(self) -> str:
        if self.kind is ExitKind.CRASHED:
            return self.detail or "crashed"
        if self.kind is ExitKind.START_FAILED:
            return self.detail or "start failed"
        return f"{self.kind.value}:{self.detail}" if self.detail else self.kind.value

    @classmethod
    def crashed(cls, detail: str, *, origin: Origin = Origin.OURS, **evidence: Any) -> Self:
        return cls(ExitKind.CRASHED, detail, origin, evidence)


NORMAL: Final = ExitReason(ExitKind.NORMAL)
SHUTDOWN: Final = ExitReason(ExitKind.SHUTDOWN)
KILLED: Final = ExitReason(ExitKind.KILLED)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delay before restart number ``n`` in a row: first, then initial * factor**(n-2), at most max_s.

    With ``jitter`` the delay is spread over the upper half, also at the cap, so that children killed together come
    back apart (the first restart is never delayed unless ``first_s`` asks for it).
    """

    first_s: float = 0.0
    initial_s: float = 0.2
    factor: float = 2.0
    max_s: float = 60.0
    jitter: bool = True
    reset_after_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Pacing:
    """How faults of the world restart one child (beyond OTP). They never spend the supervisor's own budget."""

    backoff: Backoff = Backoff()
    max_restarts: int = 5
    within_s: float = 60.0
    on_exhausted: OnExhausted = OnExhausted.PARK


@dataclass(frozen=True, slots=True)
class ChildPast:
    """What pacing remembers of a child when its supervisor is a new one: after a fault of ours, or another daemon.

    Args:
        failures: world faults in a row.
        is_exhausted: its own budget is used up.
        paced_at: clock seconds of its restarts after world faults.
        not_before: clock seconds before which it is not tried again; None when it is not waiting.
        is_stale: its group is being restarted, and it has not been started anew yet.
    """

    failures: int = 0
    is_exhausted: bool = False
    paced_at: tuple[float, ...] = ()
    not_before: float | None = None
    is_stale: bool = False


class Begin(enum.Enum):
    """How a child's run is to begin, where something may be left of an earlier supervisor's.

    * ``NEW``: a new run, unless one lives, which is taken on;
    * ``RESUME``: so too, but an end that no supervisor knows of is told instead (the first in a supervisor's life, and
      after a fault of ours: the end may have been in the inbox of the actor that crashed);
    * ``FRESH``: a new run in any case: what lives is stopped first.
    """

    NEW = "new"
    RESUME = "resume"
    FRESH = "fresh"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child of a supervisor (OTP ``child_spec()``).

    Args:
        id: unique among its siblings.
        start: an actor class (a subclass of ``actors.kernel.SupervisedActor``); it is started with the child's
            ``ActorContext`` and then ``args`` and ``kwargs``.
        restart: permanent (default), transient or temporary.
        shutdown: seconds to stop in, ``BRUTAL_KILL`` or ``INFINITY``; None is 5 s for a worker, infinity for a
            supervisor.
        significant: its end may end the supervisor (see ``AutoShutdown``).
        type: worker or supervisor.
        wait_for: what the next sibling's start waits for (beyond OTP).
        pacing: backoff and budget for faults of the world (beyond OTP); None is OTP's answer.
    """

    id: str
    start: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    restart: Restart = Restart.PERMANENT
    shutdown: Shutdown | None = None
    significant: bool = False
    type: ChildType = ChildType.WORKER
    wait_for: WaitFor = WaitFor.STARTED
    pacing: Pacing | None = None

    @property
    def shutdown_or_default(self) -> Shutdown:
        if self.shutdown is not None:
            return self.shutdown
        return INFINITY if self.type is ChildType.SUPERVISOR else DEFAULT_WORKER_SHUTDOWN_S


class BadSpec(ValueError):
    """A child spec or supervisor flag that cannot be used. ``kind`` is OTP's word for it."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


def parse_child_spec(given: object) -> ChildSpec:
    """A checked spec from a ``ChildSpec`` or a mapping with OTP's keys.

    Raises:
        BadSpec: with OTP's kind: missing_id, missing_start, invalid_restart_type, invalid_shutdown,
            invalid_child_type, invalid_significant, invalid_child_spec.
    """
    spec = _from_mapping(given) if isinstance(given, Mapping) else given
    if not isinstance(spec, ChildSpec):
        raise BadSpec("invalid_child_spec", f"{spec!r} is neither a ChildSpec nor a mapping")
    raw: Any = spec  # a caller without a type checker may have put anything into its fields
    if not isinstance(raw.id, str) or not raw.id:
        raise BadSpec("missing_id", "a child needs a non-empty id")
    if raw.start is None:
        raise BadSpec("missing_start", f"child {raw.id!r} has nothing to start")
    if not callable(raw.start):
        raise BadSpec("invalid_start", f"child {raw.id!r}: {raw.start!r} cannot be started")
    if not isinstance(raw.restart, Restart):
        raise BadSpec("invalid_restart_type", f"child {raw.id!r}: {raw.restart!r}")
    if not isinstance(raw.type, ChildType):
        raise BadSpec("invalid_child_type", f"child {raw.id!r}: {raw.type!r}")
    if raw.shutdown is not None and not _is_shutdown(raw.shutdown):
        raise BadSpec("invalid_shutdown", f"child {raw.id!r}: {raw.shutdown!r}")
    if not isinstance(raw.significant, bool):
        raise BadSpec("invalid_significant", f"child {raw.id!r}: {raw.significant!r}")
    return spec


def _is_shutdown(value: object) -> bool:
    if isinstance(value, ShutdownKind):
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


_KEYS: Final = frozenset(ChildSpec.__dataclass_fields__)


def _from_mapping(raw: Mapping[str, Any]) -> ChildSpec:
    unknown = sorted(set(raw) - _KEYS)
    if unknown:
        raise BadSpec("invalid_child_spec", f"unknown key {unknown[0]!r}")
    values = dict(raw)
    values.setdefault("id", "")
    values.setdefault("start", None)
    for key, words in (("restart", Restart), ("type", ChildType), ("wait_for", WaitFor)):
        if isinstance(values.get(key), str):
            values[key] = _word(words, values[key])
    if isinstance(values.get("shutdown"), str):
        values["shutdown"] = _word(ShutdownKind, values["shutdown"])
    return ChildSpec(**values)


def _word(words: type[enum.Enum], value: str) -> enum.Enum | str:
    """The enum member, or the text as it came: the check that follows names it."""
    try:
        return words(value)
    except ValueError:
        return value
