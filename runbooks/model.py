"""What a runbook is: its matching rule, its parameters, its actions and how each is probed, verified and undone.

Pure words: no thread, no clock, no file. Must never import config, actors or supervisors.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Facts = Mapping[str, Any]
"""An alert as matching sees it: a JSON object (type, service, severity, message, source, labels, ...)."""

SEVERITIES: Final = ("low", "medium", "high", "critical")
DEFAULT_FINGERPRINT: Final = ("/type", "/service", "/dedup_key")


class Op(enum.Enum):
    """How one field of an alert is compared."""

    EQ = "eq"
    NE = "ne"
    IN = "in"
    GE = "ge"
    GT = "gt"
    LE = "le"
    LT = "lt"
    MATCHES = "matches"
    EXISTS = "exists"


@dataclass(frozen=True, slots=True)
class FieldTest:
    """One comparison. ``field`` is a JSON Pointer (RFC 6901) into the alert."""

    field: str
    op: Op
    value: Any = None


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: Predicate


Predicate = FieldTest | AllOf | AnyOf | Not


class ParameterType(enum.Enum):
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    SERVICE = "service"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A typed value taken from the alert. Nothing of an alert enters a step in another way."""

    name: str
    type: ParameterType
    pointer: str | None = None
    required: bool = False
    default: Any = None
    choices: tuple[Any, ...] = ()
    pattern: str | None = None
    minimum: float | None = None
    maximum: float | None = None


class Effect(enum.Enum):
    """What a call does to the world: it decides what recovery may do when nobody knows whether it was done."""

    NONE = "none"
    IDEMPOTENT = "idempotent"
    MUTATING = "mutating"
    IRREVERSIBLE = "irreversible"


class CallType(enum.Enum):
    """Everything a runbook can ask of the world. ``steps`` knows how; ``READING`` ones change nothing."""

    SERVICE_RESTART = "service_restart"
    SERVICE_START = "service_start"
    SERVICE_STOP = "service_stop"
    SERVICE_RESTORE = "service_restore"
    COMMAND = "command"
    HTTP_REQUEST = "http_request"
    BRIDGE_COMMAND = "bridge_command"
    SERVICE_EXISTS = "service_exists"
    SERVICE_READY = "service_ready"
    SERVICE_GENERATION = "service_generation"
    SERVICE_RESTORED = "service_restored"
    TCP_CONNECT = "tcp_connect"
    HTTP_OK = "http_ok"
    COMMAND_OK = "command_ok"
    BRIDGE_READY = "bridge_ready"
    BRIDGE_DONE = "bridge_done"


DOING: Final = frozenset(
    {
        CallType.SERVICE_RESTART,
        CallType.SERVICE_START,
        CallType.SERVICE_STOP,
        CallType.SERVICE_RESTORE,
        CallType.COMMAND,
        CallType.HTTP_REQUEST,
        CallType.BRIDGE_COMMAND,
    }
)
READING: Final = frozenset(CallType) - DOING
NEEDS_SNAPSHOT: Final = frozenset({CallType.SERVICE_GENERATION, CallType.SERVICE_RESTORE, CallType.SERVICE_RESTORED})
"""Calls that compare the world with what it was before the action."""


@dataclass(frozen=True, slots=True)
class Call:
    """One thing to ask of the world. ``arguments`` may hold ``{name}`` placeholders until they are bound."""

    type: CallType
    arguments: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Check:
    """A reading call, looked at every ``every_s`` seconds: yes within ``within_s``, and then for ``hold_for_s``."""

    call: Call
    within_s: float = 0.0
    every_s: float = 0.5
    hold_for_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a failed call is tried, and the pause before attempt n+1: delay * factor**(n-1), at most max_delay."""

    attempts: int = 1
    delay_s: float = 1.0
    factor: float = 2.0
    max_delay_s: float = 60.0

    def pause_s(self, attempt: int) -> float:
        """Seconds to wait after attempt number ``attempt`` (from 1) failed."""
        grown = self.delay_s * self.factor ** min(attempt - 1, 64)
        return min(grown, self.max_delay_s)


@dataclass(frozen=True, slots=True)
class Rollback:
    """How an action is undone. The call must bear being made twice; ``verify`` says whether the undoing holds."""

    call: Call
    verify: Check
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Action:
    """One step. A step without a ``call`` (``wait_until``) only verifies."""

    id: str
    name: str
    effect: Effect
    call: Call | None = None
    probe: Check | None = None
    verify: Check | None = None
    rollback: Rollback | None = None
    retry: Retry = field(default_factory=Retry)
    irreversible_reason: str | None = None

    @property
    def mutates(self) -> bool:
        """Whether it must never be repeated without knowing that the first time did nothing."""
        return self.effect in (Effect.MUTATING, Effect.IRREVERSIBLE)

    @property
    def needs_snapshot(self) -> bool:
        calls = [check.call for check in (self.probe, self.verify) if check is not None]
        if self.rollback is not None:
            calls += [self.rollback.call, self.rollback.verify.call]
        return any(call.type in NEEDS_SNAPSHOT for call in calls)


@dataclass(frozen=True, slots=True)
class Dedup:
    """Alerts with equal values at the ``fingerprint`` pointers within ``window_s`` seconds are one."""

    fingerprint: tuple[str, ...] = DEFAULT_FINGERPRINT
    window_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    cooldown_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Runbook:
    """One checked runbook file. ``sha256`` is of ``source``, the very bytes a run is pinned to."""

    id: str
    version: str
    name: str
    description: str
    match: Predicate
    target: str
    actions: tuple[Action, ...]
    success_criteria: tuple[Check, ...]
    parameters: tuple[Parameter, ...] = ()
    preconditions: tuple[Check, ...] = ()
    dedup: Dedup = field(default_factory=Dedup)
    limits: Limits = field(default_factory=Limits)
    priority: int = 50
    enabled: bool = True
    max_execution_s: float = 600.0
    rollback_on_failure: bool = True
    sha256: str = ""
    source: bytes = field(default=b"", repr=False)


class Status(enum.Enum):
    """The life of one execution."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"
    UNKNOWN = "unknown"
    REJECTED = "rejected"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self not in (Status.QUEUED, Status.RUNNING)
