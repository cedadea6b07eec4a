"""The words of the supervisor's judgement: its state, the events it takes, the effects it asks for. Pure data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from actors.messages import (
    ChildExited,
    ChildIgnored,
    ChildReady,
    ChildStarted,
    ChildStartFailed,
    StopMode,
)
from actors.spec import Begin, ChildSpec, ExitReason


class Strategy(enum.Enum):
    """Who is affected when a child has to be restarted (OTP ``strategy``)."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"

    @property
    def is_group(self) -> bool:
        return self in (Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE)


class AutoShutdown(enum.Enum):
    """Whether the clean end of significant children ends the supervisor (OTP ``auto_shutdown``)."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"


DEFAULT_INTENSITY: Final = 1  # OTP
DEFAULT_PERIOD_S: Final = 5.0  # OTP


@dataclass(frozen=True, slots=True)
class Flags:
    """A supervisor's flags (OTP ``sup_flags()``, with OTP's defaults).

    ``template`` is the one spec of a ``simple_one_for_one`` supervisor; without it such a supervisor takes whole specs
    (as Elixir's DynamicSupervisor). ``held`` names children that a person stopped: they are not started at boot.
    """

    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: int = DEFAULT_INTENSITY
    period_s: float = DEFAULT_PERIOD_S
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    template: ChildSpec | None = None
    max_children: int | None = None
    held: frozenset[str] = frozenset()


class Phase(enum.Enum):
    """Where one child is. RESTARTING waits for another try; PARKED has used up its own budget and waits long."""

    DOWN = "down"
    RESTARTING = "restarting"
    PARKED = "parked"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"


ALIVE: Final = frozenset({Phase.STARTING, Phase.UP, Phase.STOPPING})


@dataclass(frozen=True, slots=True)
class Child:
    """One child's record.

    Args:
        wanted: it should be up.
        held: a person stopped it; no strategy starts it.
        recycle: a group restart needs it down before anything is started.
        doomed: it is forgotten as soon as it is down.
        is_moving: it leaves for another supervisor: its record is the answer when it is down.
        is_new: added by a call and not yet started once: a failed start forgets it.
        incarnation: number of its present or last run, unique within one supervisor's life.
        turn: order among siblings that wait to be started (one_for_one).
        not_before: clock seconds before which it is not tried again.
        stop_by: clock seconds at which a stop becomes a kill.
        failures: world faults in a row, for the backoff.
        paced_at: clock seconds of its restarts after world faults, within its own window.
        is_resumed: its next start goes on from what an earlier supervisor, or an actor that crashed, left.
        is_stale: its group is being restarted; what an earlier supervisor may have left of it must not live on.
    """

    spec: ChildSpec
    phase: Phase = Phase.DOWN
    wanted: bool = False
    held: bool = False
    recycle: bool = False
    doomed: bool = False
    is_new: bool = False
    is_moving: bool = False
    incarnation: int = 0
    is_ready: bool = False
    ready_at: float | None = None
    failures: int = 0
    is_exhausted: bool = False
    paced_at: tuple[float, ...] = ()
    not_before: float | None = None
    turn: int = 0
    stop_by: float | None = None
    last_reason: ExitReason | None = None
    is_resumed: bool = False
    is_stale: bool = False

    @property
    def is_tried_again(self) -> bool:
        """Its restart failed and is on its way back through the mailbox (OTP ``restarting``)."""
        return self.phase is Phase.RESTARTING and self.not_before is None

    @property
    def is_backing_off(self) -> bool:
        """It waits for the moment of its next try."""
        return self.phase in (Phase.RESTARTING, Phase.PARKED) and self.not_before is not None


class Mode(enum.Enum):
    NEW = "new"
    BOOTING = "booting"
    RUNNING = "running"
    HALTING = "halting"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class SupervisorState:
    """All a supervisor knows. ``children`` is in start order."""

    flags: Flags
    children: Mapping[str, Child]
    mode: Mode = Mode.NEW
    restarts: tuple[float, ...] = ()
    exit_reason: ExitReason | None = None
    boot_error: ExitReason | None = None
    stop_mode: StopMode = StopMode.TERMINATE
    recycle_mode: StopMode = StopMode.TERMINATE
    deferred: tuple[Event, ...] = ()
    callers: Mapping[str, int] = field(default_factory=dict)
    turn: int = 0
    births: int = 0


# -- events: facts and requests the shell hands in ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Boot:
    """Begin: start all children in order."""


@dataclass(frozen=True, slots=True)
class Woke:
    """A deadline may have come."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """A failed restart, back through the mailbox, so that other messages were served in between (OTP)."""

    id: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    reason: ExitReason
    mode: StopMode = StopMode.TERMINATE


class Ask(enum.Enum):
    """The run-time calls (OTP), and what a live edit of the tree needs (beyond OTP).

    * ``HOLD``: terminate, and let no strategy start it again;
    * ``REPLACE``: another spec for a child, which goes on as it is; a running one is told its new spec;
    * ``TAKE_OUT``: let go of a child without ending what it stands for, and forget it; the answer is its record;
    * ``INSERT``: start a child, with the record of another supervisor's ``TAKE_OUT`` or ``HELD`` if one is given;
    * ``ARRANGE``: the children's order (``args``), and with ``spec`` other flags.
    """

    START = "start_child"
    TERMINATE = "terminate_child"
    RESTART = "restart_child"
    DELETE = "delete_child"
    HOLD = "hold_child"
    REPLACE = "replace_child"
    TAKE_OUT = "take_out_child"
    INSERT = "insert_child"
    ARRANGE = "arrange_children"
    WHICH = "which_children"
    COUNT = "count_children"
    GET_SPEC = "get_childspec"


@dataclass(frozen=True, slots=True)
class Call:
    """A run-time call. ``number`` is answered by an ``Answer``; None: nobody waits."""

    number: int | None
    ask: Ask
    id: str | None = None
    spec: object = None
    args: tuple[Any, ...] = ()


Event = (
    Boot
    | Woke
    | TryAgain
    | StopRequested
    | Call
    | ChildStarted
    | ChildIgnored
    | ChildStartFailed
    | ChildReady
    | ChildExited
)

# -- effects: what the shell is asked to do --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartActor:
    spec: ChildSpec
    incarnation: int
    begin: Begin = Begin.NEW


@dataclass(frozen=True, slots=True)
class StopActor:
    id: str
    incarnation: int
    reason: ExitReason
    mode: StopMode


@dataclass(frozen=True, slots=True)
class Respec:
    """Tell the running child its new spec."""

    spec: ChildSpec
    incarnation: int


@dataclass(frozen=True, slots=True)
class KillActor:
    """Its time to stop is over: kill what it owns, abandon its thread, ignore what it still says."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    at_s: float


@dataclass(frozen=True, slots=True)
class Requeue:
    """Send ``TryAgain`` to yourself."""

    id: str


@dataclass(frozen=True, slots=True)
class Ok:
    value: Any = None


@dataclass(frozen=True, slots=True)
class Refused:
    """An error answer; ``kind`` is OTP's word, ``detail`` may be an inner reason."""

    kind: str
    detail: ExitReason | str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    number: int
    result: Ok | Refused


@dataclass(frozen=True, slots=True)
class SelfStarted:
    """All children that can start without waiting have been started: the supervisor is up."""


@dataclass(frozen=True, slots=True)
class SelfStartFailed:
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class ExitSelf:
    reason: ExitReason


class ReportKind(enum.Enum):
    """What happened to a child, for the log, the journal and ``why`` (OTP supervisor reports)."""

    STARTED = "started"
    READY = "ready"
    START_FAILED = "start_failed"
    EXITED = "exited"
    RESTARTING = "restarting"
    PARKED = "parked"
    KILLED = "killed"
    GAVE_UP = "gave_up"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Report:
    kind: ReportKind
    id: str
    incarnation: int
    reason: ExitReason | None = None
    delay_s: float | None = None


@dataclass(frozen=True, slots=True)
class Forget:
    """The child's spec is gone."""

    id: str


Effect = (
    StartActor
    | StopActor
    | Respec
    | KillActor
    | WakeAt
    | Requeue
    | Answer
    | SelfStarted
    | SelfStartFailed
    | ExitSelf
    | Report
    | Forget
)


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """A line of ``which_children``: state is running, restarting or stopped."""

    id: str
    state: str
    type: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class ChildCounts:
    """OTP ``count_children``."""

    specs: int
    active: int
    supervisors: int
    workers: int
