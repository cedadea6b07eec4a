"""The base of all actors: hides what pykka does differently from Erlang, and reports each life exactly once.

Owns pykka's hooks; runs in the actor's own thread; never blocks. Pinned by ``tests/contracts/test_pykka.py``:

* an exception in the handler of an ``ask`` must crash the actor too (pykka only tells the caller);
* an exception in ``on_start`` calls no hook in pykka: here it is reported as a failed start;
* ``SystemExit`` in one actor stops every actor of the process in pykka: here it is an ordinary crash;
* "not alive" in pykka does not mean gone: here the exit is reported last of all, after ``teardown``.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final

import pykka
from pykka import ActorRegistry

from actors.board import NodeKind
from actors.context import ActorContext
from actors.messages import (
    AreYouThere,
    ChildExited,
    ChildIgnored,
    ChildReady,
    ChildStarted,
    ChildStartFailed,
    ExitNow,
    Resume,
    StopMode,
    StopYourself,
    Suspend,
)
from actors.refs import ActorRef
from actors.spec import NORMAL, ExitKind, ExitReason

IGNORE: Final = object()
"""Returned by ``setup`` of an actor that declines to start (OTP ``ignore``)."""
PENDING: Final = object()
"""Returned by ``setup`` of an actor that calls ``started()`` itself, later."""


class CrashedInHandler(Exception):
    """What the caller of an ``ask`` gets when the handler crashed its actor."""


def _not_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], CrashedInHandler))


logging.getLogger("pykka").addFilter(_not_ours)  # the kernel has logged the crash itself, with its node


class StartRefused(Exception):
    """Raise it in ``setup`` to fail a start with a plain reason instead of a traceback's text."""


class SupervisedActor(pykka.ThreadingActor):
    """Subclasses define ``setup``, ``handle`` and ``teardown``; constructors only store what they get."""

    use_daemon_thread = True
    node_kind: ClassVar[NodeKind] = NodeKind.ACTOR
    """How the tree shows a child that has not said anything of itself yet."""

    def __init__(self, context: ActorContext) -> None:
        super().__init__()
        self.context = context
        self.log = context.log
        self.ref = ActorRef(self.actor_ref)
        self.stop_mode = StopMode.TERMINATE
        self._is_started = False
        self._is_ready = False
        self._exit: ExitReason | None = None
        self._suspended: deque[object] | None = None
        context.life.kill_owned = self.kill_owned

    # -- what a subclass may define -------------------------------------------------------------------------------

    def setup(self) -> object:
        """Begin. Runs on the actor's thread before the first message; return ``IGNORE`` to decline."""
        return None

    def handle(self, message: Any) -> Any:
        """Handle one message; what is returned answers an ``ask``."""
        self.log.warning("unexpected message", message=repr(message))
        return None

    def stop_requested(self, reason: ExitReason) -> None:
        """The supervisor wants this actor to end. By default it ends at once; override to end later by ``exit``."""
        self.exit(reason)

    def teardown(self, reason: ExitReason) -> None:
        """Clean up. Runs once on every way out; ``self.stop_mode`` tells whether to take along what it stands for."""

    def kill_owned(self) -> None:
        """Kill what this actor owns, from another thread, when the actor itself does not answer any more."""

    # -- what a subclass may call ---------------------------------------------------------------------------------

    def started(self) -> None:
        """Report a successful start (only after ``setup`` returned ``PENDING``)."""
        if not self._is_started:
            self._is_started = True
            self._report(ChildStarted(self.context.id, self.context.incarnation))

    def start_failed(self, reason: ExitReason) -> None:
        """Report a failed start and end (only after ``setup`` returned ``PENDING``)."""
        self._fail_start(reason)

    def ready(self, since: float | None = None) -> None:
        """Report that this run does its work now (``since`` an earlier clock second). Counts once."""
        if not self._is_ready:
            self._is_ready = True
            self._report(ChildReady(self.context.id, self.context.incarnation, since))

    def exit(self, reason: ExitReason = NORMAL) -> None:
        """End with ``reason`` after the present message."""
        if self._exit is None:
            self._exit = reason

    @property
    def is_exiting(self) -> bool:
        return self._exit is not None

    # -- pykka's hooks --------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        thread = threading.current_thread()
        thread.name = f"actor:{self.context.path}#{self.context.incarnation}"
        self.context.life.thread = thread
        outcome, crash = self._guarded(self.setup)
        if crash is not None:
            self._fail_start(_as_start_failure(crash))
        elif outcome is IGNORE:
            self._end()
            self._report(ChildIgnored(self.context.id, self.context.incarnation))
        elif outcome is None:
            self.started()
        elif outcome is not PENDING:  # a value that means nothing is a failed start (OTP)
            text = f"setup returned {outcome!r}; return None, IGNORE or PENDING"
            self._fail_start(ExitReason(ExitKind.START_FAILED, text, evidence={"returned": outcome}))
        self._finish_if_asked()

    def on_receive(self, message: Any) -> Any:
        if self._is_over:
            return None
        match message:
            case Suspend():
                self._suspended = self._suspended if self._suspended is not None else deque()
                return None
            case Resume():
                self._resume()
                return None
            case _ if self._suspended is not None:
                self._suspended.append(message)
                return None
            case _:
                return self._handle_guarded(message)

    # -- inside ---------------------------------------------------------------------------------------------------

    @property
    def _is_over(self) -> bool:
        return self.actor_stopped.is_set()

    def _resume(self) -> None:
        kept, self._suspended = self._suspended, None
        for message in kept or ():
            if not self._is_over:
                self._handle_guarded(message)

    def _handle_guarded(self, message: object) -> Any:
        answer, crash = self._guarded(lambda: self._dispatch(message))
        if crash is not None:
            self.log.error("actor crashed", error=repr(crash), exc_info=crash)
            self._exit = _as_crash(crash)
        self._finish_if_asked()
        if crash is not None:
            raise CrashedInHandler(repr(crash)) from crash
        return answer

    def _dispatch(self, message: object) -> Any:
        match message:
            case StopYourself(reason, mode):
                self.stop_mode = mode
                return self.stop_requested(reason)
            case ExitNow(reason):
                return self.exit(reason)
            case AreYouThere(here):
                return here()
            case _:
                return self.handle(message)

    def _guarded(self, call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        try:
            return call(), None
        except BaseException as error:  # SystemExit too: pykka would stop every actor of the process
            return None, error

    def _fail_start(self, reason: ExitReason) -> None:
        self._end()
        self._guarded_teardown(reason)
        self._report(ChildStartFailed(self.context.id, self.context.incarnation, reason))

    def _finish_if_asked(self) -> None:
        if self._exit is None or self._is_over:
            return
        self._end()
        self._guarded_teardown(self._exit)
        self._report(ChildExited(self.context.id, self.context.incarnation, self._exit))

    def _guarded_teardown(self, reason: ExitReason) -> None:
        _, error = self._guarded(lambda: self.teardown(reason))
        if error is not None:  # it never replaces the reason
            self.log.error("teardown failed", error=repr(error), exc_info=error)

    def _end(self) -> None:
        """Leave pykka's loop without handling what is still queued (public names only)."""
        ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()

    def _report(self, message: object) -> None:
        if self.context.system.observer is not None:
            self.context.system.observer(self.context.path, message)
        if self.context.parent is not None:
            self.context.parent.tell(message)


def _as_crash(error: BaseException) -> ExitReason:
    return ExitReason(ExitKind.CRASHED, f"{type(error).__name__}: {error}", evidence={"error": error})


def _as_start_failure(error: BaseException) -> ExitReason:
    text = str(error) if isinstance(error, StartRefused) else f"{type(error).__name__}: {error}"
    return ExitReason(ExitKind.START_FAILED, text, evidence={"error": error})
