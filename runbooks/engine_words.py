"""The words of the engine: its state, what it is told, what it asks for, what is written down. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from runbooks.model import Action, Call, Check, Rollback, Status, Trouble
from runbooks.plan import Plan

MAX_DETAIL_CHARS: Final = 4096
ESCALATED: Final = "escalated: "
"""How the detail of a run begins that a step's ``on_failure: escalate`` ended."""

Snapshot = Mapping[str, Any]
"""What each thing an action touches was before it, by a name its family of calls gives it; JSON values. For a service:
run number, state, readiness, or None when it was not known.
"""


class Answer(enum.Enum):
    """What a look at the world says. ``UNKNOWN`` is an honest answer and never counts as yes or no."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Kind(enum.Enum):
    """What a record says. An effect is only ever made under a committed intent."""

    INTENT = "intent"
    DONE = "done"
    VERIFIED = "verified"
    SKIPPED = "skipped"
    STEP_FAILED = "step_failed"
    FAILING = "failing"
    CANCELLING = "cancelling"
    UNDO_INTENT = "undo_intent"
    UNDO_DONE = "undo_done"
    UNDO_VERIFIED = "undo_verified"


@dataclass(frozen=True, slots=True)
class Record:
    """One line of an execution's journal. ``step`` is the action's number (-1: the whole run), ``attempt`` from 1.

    An intent has the ``snapshot`` of before and ``bound``, the digest of what is going to be done, so that a resumed
    run does the very same or nothing; done has the step's ``outputs``, and of what failed its ``trouble`` and whether
    it is certain that nothing at all was changed (``untouched``).
    """

    kind: Kind
    step: int = -1
    step_id: str = ""
    attempt: int = 0
    ok: bool | None = None
    detail: str = ""
    snapshot: Snapshot | None = None
    bound: str = ""
    outputs: Mapping[str, Any] | None = None
    trouble: str = ""
    untouched: bool = False


# -- events: what the shell answers. ``ticket`` is that of the effect answered; others are late and dropped ----------


@dataclass(frozen=True, slots=True)
class Fenced:
    """Nothing an earlier incarnation started for this execution is under way any more; ``error``: something is, and it
    cannot be ended.
    """

    ticket: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    ticket: int
    snapshot: Snapshot | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The record is committed."""

    ticket: int


@dataclass(frozen=True, slots=True)
class CallDone:
    """``result``: what it gave back, a JSON value. ``is_lost``: nobody knows how it ended, and it cannot be ended.
    ``is_untouched``: it failed before anything was changed.
    """

    ticket: int
    ok: bool
    output: str = ""
    error: str = ""
    result: Any = None
    trouble: Trouble = Trouble.OTHER
    is_lost: bool = False
    is_untouched: bool = False


@dataclass(frozen=True, slots=True)
class CheckDone:
    """``is_untouched``, of a probe's no: it proves that nothing of its step was begun. A mere no says less: that it is
    not, or not wholly, there.
    """

    ticket: int
    answer: Answer
    detail: str = ""
    is_untouched: bool = False


@dataclass(frozen=True, slots=True)
class Woke:
    ticket: int


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Somebody wants the run to end, at the next safe place. Needs no ticket.

    ``keeps``: the step under way is brought to its end, and what was done stays; else all of it is rolled back.
    """

    reason: str
    keeps: bool = False


Event = Fenced | SnapshotTaken | Recorded | CallDone | CheckDone | Woke | CancelAsked


# -- effects: one at a time -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fence:
    """End or await what an earlier incarnation started for this execution."""

    ticket: int


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Learn what the world is that ``calls`` (of one action) touch or compare with."""

    ticket: int
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Commit the record; only then answer."""

    ticket: int
    record: Record


@dataclass(frozen=True, slots=True)
class Try:
    """Which attempt (from 1) of which step a call or check belongs to; undoing is a step of its own."""

    step: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RunCall:
    ticket: int
    call: Call
    snapshot: Snapshot | None
    of: Try | None = None


@dataclass(frozen=True, slots=True)
class RunCheck:
    ticket: int
    call: Call
    snapshot: Snapshot | None
    of: Try | None = None


@dataclass(frozen=True, slots=True)
class WakeAt:
    """``at_s`` is of the clock whose ``now`` the engine is given."""

    ticket: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over; the last effect."""

    status: Status
    detail: str

    @property
    def escalates(self) -> bool:
        """A step's ``on_failure`` asks for whoever comes next at once. It stands in the detail, which is kept."""
        return self.detail.startswith(ESCALATED)


Effect = Fence | TakeSnapshot | WriteRecord | RunCall | RunCheck | WakeAt | Finish


# -- state ------------------------------------------------------------------------------------------------------------


class Phase(enum.Enum):
    """What the engine waits for."""

    FENCING = "fencing"
    PRECONDITION = "precondition"
    SNAPSHOT = "snapshot"
    INTENT = "intent"
    CALL = "call"
    PROBE = "probe"
    RESUME_PROBE = "resume_probe"
    DONE = "done"
    PAUSE = "pause"
    VERIFY = "verify"
    VERIFIED = "verified"
    SKIPPED = "skipped"
    STEP_FAILED = "step_failed"
    CRITERION = "criterion"
    LEFT = "left"
    FAILING = "failing"
    UNDO_INTENT = "undo_intent"
    UNDO_CALL = "undo_call"
    UNDO_PROBE = "undo_probe"
    UNDO_DONE = "undo_done"
    UNDO_PAUSE = "undo_pause"
    UNDO_VERIFY = "undo_verify"
    UNDO_VERIFIED = "undo_verified"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Poll:
    """A check being looked at again and again. ``held_since_s``: since when it says yes."""

    check: Check
    until_s: float
    held_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """An action that may have been applied, as it was bound, with the snapshot taken before it. ``is_doubtful``: an
    attempt of it failed, so it may be there in part, or not at all.
    """

    step: int
    action: Action
    snapshot: Snapshot | None = None
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Everything the engine knows of one run. ``index`` is the action's, precondition's or criterion's number.

    ``bound`` is the present action with its placeholders filled; ``outputs`` what the steps gave back so far;
    ``passed`` the steps that are done with (verified, or skipped), ``failed`` those that failed and the run went on.
    ``is_untouched``: the present attempt has certainly changed nothing; ``is_again``: an earlier incarnation may have
    begun it. Of what is not undone ``standing`` is there, and ``doubted`` perhaps in part.
    """

    plan: Plan
    deadline_s: float
    phase: Phase = Phase.PRECONDITION
    ticket: int = 0
    index: int = 0
    attempt: int = 1
    snapshot: Snapshot | None = None
    poll: Poll | None = None
    trouble: str = ""
    is_ok: bool = True
    is_untouched: bool = False
    is_again: bool = False
    undo: tuple[Intent, ...] = ()
    undone: tuple[str, ...] = ()
    standing: tuple[str, ...] = ()
    doubted: tuple[str, ...] = ()
    undo_failures: tuple[str, ...] = ()
    failure: str = ""
    cancelled: str | None = None
    keeps: bool = False
    bound: Action | None = None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    passed: frozenset[str] = frozenset()
    failed: tuple[tuple[str, str], ...] = ()
    result: Any = None
    trouble_kind: Trouble = Trouble.OTHER
    strange: str = ""
    """Why what is on record does not fit the plan; such a run is not carried on."""
    status: Status = Status.RUNNING
    detail: str = ""
    resumed_at: Kind | None = None

    @property
    def is_undoing(self) -> bool:
        return self.phase.value.startswith("undo_") or self.phase is Phase.FAILING

    @property
    def action(self) -> Action:
        return self.plan.actions[self.index] if self.bound is None else self.bound

    @property
    def rollback(self) -> Rollback:
        rollback = self.action.rollback
        if rollback is None:
            raise LookupError(f"step {self.action.id!r} has no rollback")
        return rollback

    @property
    def polled(self) -> Poll:
        if self.poll is None:
            raise LookupError(f"nothing is looked at in phase {self.phase.value}")
        return self.poll

    @property
    def present(self) -> Try | None:
        """The attempt that is being made, probed, verified or undone."""
        if self.phase in (Phase.PRECONDITION, Phase.CRITERION):
            return None
        is_of_undoing = self.is_undoing or self.phase is Phase.LEFT
        return Try(f"{self.action.id}.undo" if is_of_undoing else self.action.id, self.attempt)

    def record(self, kind: Kind, *, ok: bool | None = None, detail: str = "", **more: Any) -> Record:
        """A record of the present action and attempt."""
        return Record(kind, self.index, self.action.id, self.attempt, ok, detail[:MAX_DETAIL_CHARS], **more)
