"""The scripted actors of a scenario, and the diary in which they write down what happens to them.

The actors run in their own threads; the diary is shared by all of them and by the thread that drives the scenario.

A nested supervisor of a scenario may have flags that cannot be used. OTP finds that out when it starts it; the library
refuses to make such a spec at all. ``RefusedSupervisor`` brings the refusal to the moment of the start.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from actors.context import ActorContext
from actors.kernel import IGNORE, StartRefused, SupervisedActor
from actors.messages import ChildExited, ChildIgnored, ChildStarted, ChildStartFailed
from actors.spec import NORMAL, SHUTDOWN, BadSpec, ChildSpec, ExitKind, ExitReason
from supervisors.decisions.model import Flags
from supervisors.supervisor import SupervisorActor

TIMEOUT_S = 20.0
Key = tuple[str, int]
"""One run of one node: its path and incarnation."""


class Inbox(queue.Queue[Any]):
    """Knows whether its actor is at work: what it took out is done when it asks for the next. Its start is work too."""

    def __init__(self) -> None:
        super().__init__()
        self.unfinished_tasks = 1

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        self.task_done()
        return super().get(block, timeout)

    @property
    def is_done(self) -> bool:
        return self.unfinished_tasks == 0


@dataclass
class Diary:
    """Everything that happened, in order, as the lifecycle observer of the tree saw it."""

    lock: threading.Condition = field(default_factory=threading.Condition)
    events: list[str] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    starts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    live: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    downs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    root_reason: str | None = None
    last_at: float = field(default_factory=time.monotonic)
    inboxes: dict[Key, Inbox] = field(default_factory=dict)
    ending: set[threading.Thread] = field(default_factory=set)
    """Of actors that said their end, and have still to tell their supervisor."""
    supervisors: set[str] = field(default_factory=set)

    def observe(self, path: str, message: object) -> None:
        name = short(path)
        with self.lock:
            match message:
                case ChildStarted():
                    self.starts[name] += 1
                    self.live[name] += 1
                    self._write(name, "start", "ok")
                case ChildIgnored(incarnation=incarnation):
                    self._ends(name, incarnation)
                    self._write(name, "start", "ignore")
                case ChildStartFailed(incarnation=incarnation):
                    self._ends(name, incarnation)
                    self._write(name, "start", "error")
                case ChildExited(incarnation=incarnation, reason=reason):
                    self._ends(name, incarnation)
                    self.live[name] -= 1
                    self.downs[name] += 1
                    if name == "root":
                        self.root_reason = str(reason)
                    self._write(name, "down", str(reason))
            self.lock.notify_all()

    def _write(self, name: str, what: str, how: str) -> None:
        if name != "root" or what == "down":  # how the root started is what its start returned
            self.events.append(f"{what} {name} {how}")
        self.last_at = time.monotonic()

    def _ends(self, name: str, incarnation: int) -> None:
        self.inboxes.pop((name, incarnation), None)
        self.ending.add(threading.current_thread())

    def make(self, context: ActorContext, inbox: object) -> None:
        """An actor is made; its thread has still to begin."""
        assert isinstance(inbox, Inbox)
        with self.lock:
            self.inboxes[short(context.path), context.incarnation] = inbox

    def attempt(self, path: str) -> int:
        """A start attempt begins; its number among those of this path."""
        name = short(path)
        with self.lock:
            self.attempts[name] += 1
            self.last_at = time.monotonic()
            return self.attempts[name]

    def touch(self) -> None:
        with self.lock:
            self.last_at = time.monotonic()

    def wait_until_quiet(self, quiet_s: float) -> None:
        """Wait until no event came for ``quiet_s`` seconds, and no actor is at work or has something to do.

        The second half is for a loaded machine, on which a thread may get no time for longer than that.
        """
        deadline = time.monotonic() + TIMEOUT_S
        with self.lock:
            while (left := self.last_at + quiet_s - time.monotonic()) > 0 or not self._is_idle():
                if time.monotonic() > deadline:
                    raise AssertionError(f"no quiet within {TIMEOUT_S} s: {self.events[-6:]}")
                self.lock.wait(max(left, 0.01))

    def _is_idle(self) -> bool:
        self.ending = {thread for thread in self.ending if thread.is_alive()}
        return not self.ending and all(inbox.is_done for inbox in self.inboxes.values())


def short(path: str) -> str:
    """A node's path as the scenarios write it: without the root's name."""
    return path.split("/", 1)[1] if "/" in path else "root"


class Scripted:
    """An actor whose inbox knows whether it is at work."""

    @staticmethod
    def _create_actor_inbox() -> Inbox:
        return Inbox()


class ScriptedChild(Scripted, SupervisedActor):
    """Starts and stops as its script says."""

    def __init__(self, context: ActorContext, diary: Diary, starts: list[Any], stop: Any) -> None:
        super().__init__(context)
        self._diary, self._starts, self._reaction = diary, starts, stop
        diary.make(context, self.actor_inbox)

    def setup(self) -> object:
        attempt = self._diary.attempt(self.context.path)
        return _begin(self._starts[min(attempt, len(self._starts)) - 1])

    def stop_requested(self, reason: ExitReason) -> None:
        match self._reaction:
            case "ignore":
                threading.Event().wait()
            case {"delay_ms": int(pause_ms)}:
                threading.Event().wait(pause_ms / 1000)
                self.exit(reason)
            case {"exit": str(other)}:
                self.exit(as_reason(other))
            case _:
                self.exit(reason)


class ScriptedSupervisor(Scripted, SupervisorActor):
    """An ordinary supervisor that counts its start attempts, and declines when its script says so."""

    def __init__(
        self, context: ActorContext, diary: Diary, flags: Flags, specs: tuple[ChildSpec, ...], *, declines: bool
    ) -> None:
        super().__init__(context, flags, specs, lambda: IGNORE if declines else None)
        self._diary = diary
        diary.make(context, self.actor_inbox)

    def setup(self) -> object:
        self._diary.supervisors.add(short(self.context.path))
        self._diary.attempt(self.context.path)
        return super().setup()


class RefusedSupervisor(Scripted, SupervisedActor):
    """Stands for a nested supervisor whose flags or specs cannot be used: its start fails with the refusal."""

    def __init__(self, context: ActorContext, diary: Diary, refusal: BadSpec) -> None:
        super().__init__(context)
        self._diary, self._refusal = diary, refusal
        diary.make(context, self.actor_inbox)

    def setup(self) -> object:
        self._diary.attempt(self.context.path)
        raise self._refusal


def _begin(outcome: Any) -> object:
    match outcome:
        case "ok":
            return None
        case "ignore":
            return IGNORE
        case {"error": reason}:
            raise StartRefused(reason)
        case {"raise": reason}:
            raise RuntimeError(reason)
        case {"garbage": value}:
            return value if value is not None else "garbage"
        case {"delay_ms": int(pause_ms), "then": then}:
            threading.Event().wait(pause_ms / 1000)
            return _begin(then)
    raise AssertionError(f"unknown start outcome {outcome!r}")


def as_reason(text: str) -> ExitReason:
    if text == "normal":
        return NORMAL
    if text == "shutdown":
        return SHUTDOWN
    if text.startswith("shutdown:"):
        return ExitReason(ExitKind.SHUTDOWN, text.split(":", 1)[1])
    return ExitReason(ExitKind.CRASHED, text)


def flat(reason: ExitReason) -> list[str]:
    """A failed start as OTP's nested terms, flattened."""
    if "child" in reason.evidence:
        return ["failed_to_start_child", reason.evidence["child"], *flat(reason.evidence["reason"])]
    if "returned" in reason.evidence:
        return [str(reason.evidence["returned"])]
    error = reason.evidence.get("error")
    if isinstance(error, BadSpec):
        return refused(error)
    return [str(error) if error is not None else reason.detail]


def refused(bad: BadSpec) -> list[str]:
    """A refused spec: its kind, and the id where OTP names it."""
    return [bad.kind, bad.detail] if bad.kind == "duplicate_child_name" else [bad.kind]
