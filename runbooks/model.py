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
    CONTAINS = "contains"
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
    PATH = "path"
    DURATION = "duration"


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
    redact: bool = False
    """Its value is never shown."""


class Risk(enum.Enum):
    """How bad a step can turn out; with ``Approval.required_when`` it decides who must agree."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class OnFailure(enum.Enum):
    """What a failed step means for the run: all before it is undone; it goes on; the run ends where it is."""

    ROLLBACK = "rollback"
    CONTINUE = "continue"
    ESCALATE = "escalate"
    HALT = "halt"


class Trouble(enum.Enum):
    """Why a call failed, as far as it decides whether another try is worth it (``Retry.on``)."""

    TIMEOUT = "timeout"
    """It took longer than its time."""
    UNREACHABLE = "unreachable"
    """Nobody answered."""
    REFUSED = "refused"
    """Somebody answered and did not do it: an exit code, a status, a word."""
    UNVERIFIED = "unverified"
    """It said it was done, and the world does not show it."""
    PERMANENT = "permanent"
    """Another try would end the same: no such program, no such service, arguments that do not fit."""
    OTHER = "other"


class Mode(enum.Enum):
    """How much a runbook may do by itself."""

    OFF = "off"
    OBSERVE = "observe"
    DRY_RUN = "dry_run"
    AUTO = "auto"


class Effect(enum.Enum):
    """What a call does to the world: it decides what recovery may do when nobody knows whether it was done."""

    NONE = "none"
    IDEMPOTENT = "idempotent"
    MUTATING = "mutating"
    IRREVERSIBLE = "irreversible"


class CallType(enum.Enum):
    """Everything a runbook can ask of the world. ``catalogue`` has their arguments, ``calls`` knows how."""

    SERVICE_RESTART = "service_restart"
    SERVICE_START = "service_start"
    SERVICE_STOP = "service_stop"
    SERVICE_SCALE = "service_scale"
    SERVICE_RESTORE = "service_restore"
    COMMAND = "command"
    HTTP_REQUEST = "http_request"
    BRIDGE_COMMAND = "bridge_command"
    BRIDGE_HEALTH = "bridge_health"
    CONFIGURATION_CHANGE = "configuration_change"
    CONFIGURATION_RESTORE = "configuration_restore"
    RESOURCE_CLEANUP = "resource_cleanup"
    CLEANUP_RESTORE = "cleanup_restore"
    DATABASE_OPERATION = "database_operation"
    NOTIFY = "notify"
    CUSTOM_FUNCTION = "custom_function"
    SERVICE_EXISTS = "service_exists"
    SERVICE_WANTED = "service_wanted"
    SERVICE_READY = "service_ready"
    SERVICE_GENERATION = "service_generation"
    SERVICE_RESTORED = "service_restored"
    SERVICE_SCALED = "service_scaled"
    SERVICE_USAGE_BELOW = "service_usage_below"
    TCP_CONNECT = "tcp_connect"
    HTTP_OK = "http_ok"
    DNS_RESOLVES = "dns_resolves"
    PING = "ping"
    COMMAND_OK = "command_ok"
    BRIDGE_EXISTS = "bridge_exists"
    BRIDGE_READY = "bridge_ready"
    BRIDGE_HEALTHY = "bridge_healthy"
    BRIDGE_OFFERS = "bridge_offers"
    BRIDGE_DONE = "bridge_done"
    CONFIGURATION_IS = "configuration_is"
    CONFIGURATION_RESTORED = "configuration_restored"
    CLEANUP_DONE = "cleanup_done"
    CLEANUP_RESTORED = "cleanup_restored"
    DISK_FREE = "disk_free"
    DATABASE_OK = "database_ok"
    DATABASE_SESSIONS_BELOW = "database_sessions_below"
    DATABASE_UNBLOCKED = "database_unblocked"
    DATABASE_RESTORED = "database_restored"
    NOTIFIED = "notified"
    CUSTOM_OK = "custom_ok"
    ALERT_CLEARED = "alert_cleared"
    TIME_PASSED = "time_passed"


DOING: Final = frozenset(
    {
        CallType.SERVICE_RESTART,
        CallType.SERVICE_START,
        CallType.SERVICE_STOP,
        CallType.SERVICE_SCALE,
        CallType.SERVICE_RESTORE,
        CallType.COMMAND,
        CallType.HTTP_REQUEST,
        CallType.BRIDGE_COMMAND,
        CallType.BRIDGE_HEALTH,
        CallType.CONFIGURATION_CHANGE,
        CallType.CONFIGURATION_RESTORE,
        CallType.RESOURCE_CLEANUP,
        CallType.CLEANUP_RESTORE,
        CallType.DATABASE_OPERATION,
        CallType.NOTIFY,
        CallType.CUSTOM_FUNCTION,
    }
)
READING: Final = frozenset(CallType) - DOING
NEEDS_SNAPSHOT: Final = frozenset(
    {
        CallType.SERVICE_SCALE,
        CallType.SERVICE_GENERATION,
        CallType.SERVICE_RESTORE,
        CallType.SERVICE_RESTORED,
        CallType.CONFIGURATION_CHANGE,
        CallType.CONFIGURATION_RESTORE,
        CallType.CONFIGURATION_RESTORED,
        CallType.RESOURCE_CLEANUP,
        CallType.CLEANUP_RESTORE,
        CallType.CLEANUP_DONE,
        CallType.CLEANUP_RESTORED,
        CallType.DATABASE_OPERATION,
        CallType.DATABASE_RESTORED,
    }
)
"""Calls that compare the world with what it was before the action."""
OF_AN_ACTION: Final = frozenset(
    {
        CallType.SERVICE_GENERATION,
        CallType.SERVICE_RESTORED,
        CallType.BRIDGE_DONE,
        CallType.CONFIGURATION_RESTORED,
        CallType.CLEANUP_DONE,
        CallType.CLEANUP_RESTORED,
        CallType.DATABASE_RESTORED,
        CallType.NOTIFIED,
        CallType.TIME_PASSED,
    }
)
"""Looks that are about an action; they make no sense as a precondition or criterion."""


@dataclass(frozen=True, slots=True)
class Call:
    """One thing to ask of the world. ``arguments`` may hold ``{name}`` placeholders until they are bound."""

    type: CallType
    arguments: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 30.0


class Expect(enum.Enum):
    """Which answers a check holds with. ``NOT_YES``: no, or nobody can tell (what must be broken still)."""

    YES = "yes"
    NO = "no"
    NOT_YES = "not_yes"


@dataclass(frozen=True, slots=True)
class Check:
    """A reading call, looked at every ``every_s`` seconds: yes within ``within_s``, and then for ``hold_for_s``."""

    call: Call
    within_s: float = 0.0
    every_s: float = 0.5
    hold_for_s: float = 0.0
    expect: Expect = Expect.YES
    """Other than yes only in preconditions."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a failed call is tried, and the pause before attempt n+1: delay * factor**(n-1), at most max_delay."""

    attempts: int = 1
    delay_s: float = 1.0
    factor: float = 2.0
    max_delay_s: float = 60.0
    jitter: bool = False
    on: tuple[str, ...] = ()
    """Classes of failure worth another try (``Trouble`` values); empty: all but the permanent ones."""

    def pause_s(self, attempt: int, share: float = 0.0) -> float:
        """Seconds to wait after attempt number ``attempt`` (from 1) failed. With ``jitter`` up to half of it is left
        out: ``share`` (0 to 1) of that half.
        """
        grown = min(self.delay_s * self.factor ** min(attempt - 1, 64), self.max_delay_s)
        return grown * (1 - 0.5 * share) if self.jitter else grown

    def is_worth(self, trouble: Trouble) -> bool:
        """Whether a failure of this class is tried again."""
        return trouble.value in self.on if self.on else trouble is not Trouble.PERMANENT


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
    risk: Risk = Risk.LOW
    when: Predicate | None = None
    """Over ``{"alert": ..., "parameters": ..., "outputs": ...}``; a step whose ``when`` does not hold is skipped."""
    on_failure: OnFailure = OnFailure.ROLLBACK
    dependencies: tuple[str, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Name -> JSON Pointer into the call's result: later steps use ``{name}``."""
    requires_confirmation: bool = False

    @property
    def mutates(self) -> bool:
        """Whether it must never be repeated without knowing that the first time did nothing."""
        return self.effect in (Effect.MUTATING, Effect.IRREVERSIBLE)

    @property
    def snapshot_calls(self) -> tuple[Call, ...]:
        """The calls that need to know what the world was before the action."""
        calls = [] if self.call is None else [self.call]
        calls += [check.call for check in (self.probe, self.verify) if check is not None]
        if self.rollback is not None:
            calls += [self.rollback.call, self.rollback.verify.call]
        return tuple(call for call in calls if call.type in NEEDS_SNAPSHOT)


class OnRepeat(enum.Enum):
    """What becomes of an alert that is one with an earlier one: folded into it, run once more after it, or ignored."""

    COALESCE = "coalesce"
    QUEUE_ONE = "queue_one"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Dedup:
    """Alerts with equal values at the ``fingerprint`` pointers within ``window_s`` seconds are one."""

    fingerprint: tuple[str, ...] = DEFAULT_FINGERPRINT
    window_s: float = 0.0
    on_repeat: OnRepeat = OnRepeat.COALESCE


class Scope(enum.Enum):
    TARGET = "target"
    RUNBOOK = "runbook"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class MaxRuns:
    """At most ``count`` runs begun within ``per_s`` seconds, counted over the scope."""

    count: int
    per_s: float
    scope: Scope


@dataclass(frozen=True, slots=True)
class Breaker:
    """After ``failures`` runs on a target that did not help within ``per_s`` seconds none is begun for ``open_for_s``;
    then one is let through, and its end decides.
    """

    failures: int
    per_s: float
    open_for_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """``min_healthy``: of the services, a number (``"2"``) or a share (``"50%"``) that must be ready to begin."""

    cooldown_s: float = 0.0
    max_runs: tuple[MaxRuns, ...] = ()
    concurrency: int | None = None
    min_healthy: str | None = None
    breaker: Breaker | None = None


class RequiredWhen(enum.Enum):
    ALWAYS = "always"
    MEDIUM = "risk>=medium"
    HIGH = "risk>=high"


class OnTimeout(enum.Enum):
    REJECT_AND_ALERT = "reject_and_alert"
    SAFE_ACTION = "safe_action"


@dataclass(frozen=True, slots=True)
class Approval:
    """Who must agree before anything is done, bound to the hash of the resolved plan. Expiry never executes the plan;
    ``safe_action`` begins the runbook of that id instead, which only reduces exposure.
    """

    timeout_s: float
    required_when: RequiredWhen = RequiredWhen.ALWAYS
    approvers: tuple[str, ...] = ()
    quorum: int = 1
    four_eyes: bool = False
    """Who asked for the run may not approve it."""
    on_timeout: OnTimeout = OnTimeout.REJECT_AND_ALERT
    safe_action: str | None = None
    recheck: bool = True


@dataclass(frozen=True, slots=True)
class Inhibition:
    """No run while one of ``runbook`` is open whose alert has equal values at the ``equal`` pointers."""

    runbook: str
    equal: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grouping:
    """Alerts with equal values at the ``by`` pointers that come within ``wait_s`` are answered by one run."""

    by: tuple[str, ...]
    wait_s: float
    most: int = 100


@dataclass(frozen=True, slots=True)
class Escalation:
    """What is done ``after_s`` seconds after a run ended without success: another runbook, or a notice."""

    runbook: str | None = None
    notify: str | None = None
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunbookTest:
    """A case of the file itself: what this alert leads to, in a world whose answers are ``fakes``."""

    name: str
    alert: Mapping[str, Any]
    fakes: Mapping[str, Any]
    expect: Mapping[str, Any]


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
    owner: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    mode: Mode = Mode.AUTO
    for_s: float = 0.0
    """How long the condition must go on before anything is done."""
    group: Grouping | None = None
    inhibited_by: tuple[Inhibition, ...] = ()
    approval: Approval | None = None
    escalate: tuple[Escalation, ...] = ()
    tests: tuple[RunbookTest, ...] = ()


class Status(enum.Enum):
    """The life of one execution."""

    QUEUED = "queued"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"
    UNKNOWN = "unknown"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self not in _OPEN


_OPEN = (Status.QUEUED, Status.AWAITING_APPROVAL, Status.RUNNING)
