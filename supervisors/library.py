"""The supervision tree as a library: start a tree of your own actors, and OTP's run-time calls on it.

Called from ordinary threads (never from an actor's); every wait has a limit.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from typing import Any, Self

from actors.context import ActorContext, ActorSystem
from actors.messages import (
    ChildExited,
    ChildIgnored,
    ChildStarted,
    ChildStartFailed,
    Resume,
    StopMode,
    StopYourself,
    Suspend,
)
from actors.refs import ActorGone, ActorRef
from actors.spec import SHUTDOWN, ChildSpec, ChildType, ExitReason, Restart, Shutdown, WaitFor
from supervisors.decisions.admission import check_child, check_children, check_flags
from supervisors.decisions.model import (
    DEFAULT_INTENSITY,
    DEFAULT_PERIOD_S,
    Ask,
    AutoShutdown,
    ChildCounts,
    ChildInfo,
    Flags,
    Ok,
    Refused,
    Strategy,
)
from supervisors.supervisor import CallRequest, RefOf, Result, SupervisorActor

CALL_TIMEOUT_S = 60.0


class SupervisionError(Exception):
    """A start or a call that was refused. ``kind`` is OTP's word; ``reason`` the inner exit reason, if there is one."""

    def __init__(self, kind: str, reason: ExitReason | str | None = None) -> None:
        super().__init__(f"{kind}: {reason}" if reason else kind)
        self.kind = kind
        self.reason = reason


class StartIgnored(Exception):
    """The supervisor's ``init`` declined to start."""


class _Owner:
    """Stands for the parent a root has not: collects what the root reports."""

    def __init__(self) -> None:
        self.reports: queue.SimpleQueue[object] = queue.SimpleQueue()

    def tell(self, message: object) -> bool:
        self.reports.put(message)
        return True

    def ask(self, message: object, timeout_s: float) -> Any:
        raise ActorGone(f"nobody answers {message!r} within {timeout_s:g} s: this is no actor")


class Supervisor:
    """A running supervisor, seen from outside.

    Example::

        root = Supervisor.start(strategy=Strategy.ONE_FOR_ONE, children=[ChildSpec(id="a", start=Worker)])
        root.which_children()
        root.stop()
    """

    def __init__(
        self, ref: ActorRef, path: str, owner: _Owner | None = None, system: ActorSystem | None = None
    ) -> None:
        self.ref = ref
        self.path = path
        self._owner = owner
        self._system = system
        self._exit: ExitReason | None = None

    # -- making ---------------------------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: int = DEFAULT_INTENSITY,
        period_s: float = DEFAULT_PERIOD_S,
        auto_shutdown: AutoShutdown = AutoShutdown.NEVER,
        children: Iterable[ChildSpec | Mapping[str, Any]] = (),
        template: ChildSpec | Mapping[str, Any] | None = None,
        init: Callable[[], object] | None = None,
        name: str = "root",
        system: ActorSystem | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Self:
        """Start a root supervisor and wait until its children are started.

        Raises:
            BadSpec: a flag or a child spec cannot be used; nothing was started.
            SupervisionError: a child failed to start (kind ``failed_to_start_child``); those before it were stopped.
            StartIgnored: ``init`` returned ``IGNORE``.
        """
        spec = cls.spec(
            name,
            strategy=strategy,
            intensity=intensity,
            period_s=period_s,
            auto_shutdown=auto_shutdown,
            children=children,
            template=template,
            init=init,
        )
        return cls.start_spec(spec, system=system, timeout_s=timeout_s)

    @classmethod
    def start_spec(
        cls, spec: ChildSpec, *, system: ActorSystem | None = None, timeout_s: float = CALL_TIMEOUT_S
    ) -> Self:
        """Start a root from a spec made by ``Supervisor.spec``. Raises as ``start`` does."""
        own = ActorSystem() if system is None else system
        owner = _Owner()
        context = ActorContext(spec.id, spec.id, 1, owner, own)
        ref = ActorRef(spec.start.start(context, *spec.args, **spec.kwargs))
        own.names[spec.id] = ref
        root = cls(ref, spec.id, owner, own if system is None else None)
        try:
            first = owner.reports.get(timeout=timeout_s)
        except queue.Empty:
            ref.tell(StopYourself(SHUTDOWN))
            raise SupervisionError("timeout", f"{spec.id} was not up within {timeout_s:g} s") from None
        match first:
            case ChildStarted():
                return root
            case ChildIgnored():
                root._close()
                raise StartIgnored(spec.id)
            case ChildStartFailed(reason=reason):
                root._close()
                raise SupervisionError("failed_to_start_child", reason)
            case _:
                root._close()
                raise SupervisionError("shutdown", str(first))

    @staticmethod
    def spec(
        id: str,  # noqa: A002  OTP's word
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: int = DEFAULT_INTENSITY,
        period_s: float = DEFAULT_PERIOD_S,
        auto_shutdown: AutoShutdown = AutoShutdown.NEVER,
        children: Iterable[ChildSpec | Mapping[str, Any]] = (),
        template: ChildSpec | Mapping[str, Any] | None = None,
        init: Callable[[], object] | None = None,
        max_children: int | None = None,
        held: frozenset[str] = frozenset(),
        restart: Restart = Restart.PERMANENT,
        shutdown: Shutdown | None = None,
        significant: bool = False,
        wait_for: WaitFor = WaitFor.STARTED,
    ) -> ChildSpec:
        """The child spec of a (nested) supervisor.

        Raises:
            BadSpec: a flag or a child spec cannot be used.
        """
        flags = Flags(strategy, intensity, period_s, auto_shutdown, None, max_children, held)
        check_flags(flags)
        if template is not None:
            flags = replace(flags, template=check_child(template, flags))
        specs = check_children(children, flags)
        return ChildSpec(
            id=id,
            start=SupervisorActor,
            args=(flags, specs, init),
            restart=restart,
            shutdown=shutdown,
            significant=significant,
            type=ChildType.SUPERVISOR,
            wait_for=wait_for,
        )

    # -- OTP's run-time calls -------------------------------------------------------------------------------------

    def start_child(self, spec: object) -> ActorRef | None:
        """Add a child (a ``ChildSpec`` or a mapping) and wait until it is started; None when it declined.

        Raises:
            SupervisionError: already_started, already_present, max_children, start_failed, or a kind of ``BadSpec``.
        """
        return self._started(CallRequest(Ask.START, spec=spec))

    def start_instance(self, key: str, *args: Any) -> ActorRef | None:
        """Add an instance of the template of a ``simple_one_for_one`` supervisor. Raises as ``start_child``."""
        return self._started(CallRequest(Ask.START, id=key, args=args))

    def terminate_child(self, child_id: str) -> None:
        """Stop a child and keep its spec. Raises SupervisionError: not_found."""
        self._call(CallRequest(Ask.TERMINATE, child_id))

    def hold_child(self, child_id: str) -> None:
        """Stop a child so that no strategy starts it again until ``restart_child``. Raises as ``terminate_child``."""
        self._call(CallRequest(Ask.HOLD, child_id))

    def restart_child(self, child_id: str) -> ActorRef | None:
        """Start a stopped child; None when it declined.

        Raises:
            SupervisionError: not_found, running, restarting, start_failed.
        """
        return self._started(CallRequest(Ask.RESTART, child_id))

    def delete_child(self, child_id: str) -> None:
        """Forget a stopped child's spec. Raises SupervisionError: not_found, running, restarting."""
        self._call(CallRequest(Ask.DELETE, child_id))

    def which_children(self) -> tuple[ChildInfo, ...]:
        """All children in start order."""
        children: tuple[ChildInfo, ...] = self._call(CallRequest(Ask.WHICH))
        return children

    def count_children(self) -> ChildCounts:
        counts: ChildCounts = self._call(CallRequest(Ask.COUNT))
        return counts

    def get_childspec(self, child_id: str) -> ChildSpec:
        """Raises SupervisionError: not_found."""
        spec: ChildSpec = self._call(CallRequest(Ask.GET_SPEC, child_id))
        return spec

    def child(self, child_id: str) -> ActorRef | None:
        """The reference of a running child. It changes with every restart: look it up, do not keep it.

        Raises:
            ActorGone: the supervisor is not alive.
        """
        ref: ActorRef | None = self.ref.ask(RefOf(child_id), CALL_TIMEOUT_S)
        return ref

    def supervisor(self, child_id: str) -> Supervisor | None:
        """A nested supervisor that runs. Raises ActorGone."""
        ref = self.child(child_id)
        return None if ref is None else Supervisor(ref, f"{self.path}/{child_id}")

    def suspend(self) -> None:
        """Let messages wait until ``resume`` (OTP ``sys:suspend``)."""
        self.ref.tell(Suspend())

    def resume(self) -> None:
        self.ref.tell(Resume())

    # -- the end --------------------------------------------------------------------------------------------------

    @property
    def is_alive(self) -> bool:
        return self.ref.is_alive

    def stop(self, timeout_s: float = CALL_TIMEOUT_S, mode: StopMode = StopMode.TERMINATE) -> ExitReason:
        """Stop everything, newest first, and wait for it.

        Raises:
            TimeoutError: not within ``timeout_s`` seconds.
        """
        self.stop_begin(mode)
        return self.wait(timeout_s)

    def stop_begin(self, mode: StopMode = StopMode.TERMINATE) -> None:
        """Ask for the stop and return at once."""
        self.ref.tell(StopYourself(SHUTDOWN, mode))

    def wait(self, timeout_s: float | None = None) -> ExitReason:
        """Wait for the root's end (a root only) and return its reason.

        Raises:
            TimeoutError: not within ``timeout_s`` seconds.
        """
        if self._owner is None:
            raise SupervisionError("not_a_root", f"{self.path} has a supervisor that waits for it")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._exit is None:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                report = self._owner.reports.get(timeout=left_s)
            except queue.Empty:
                raise TimeoutError(f"{self.path} did not end within {timeout_s} s") from None
            if isinstance(report, ChildExited):
                self._exit = report.reason
                self._close()
        return self._exit

    def _close(self) -> None:
        if self._system is not None:
            self._system.close()

    def _started(self, request: CallRequest) -> ActorRef | None:
        ref: ActorRef | None = self._call(request)
        return ref

    def _call(self, request: CallRequest, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        result = call(self.ref, request, timeout_s)
        if isinstance(result, Refused):
            raise SupervisionError(result.kind, result.detail)
        return result.value


def call(ref: ActorRef, request: CallRequest, timeout_s: float = CALL_TIMEOUT_S) -> Result:
    """Make a run-time call and wait for its answer; ``Refused("noproc")`` when the supervisor is or goes down.

    Raises:
        TimeoutError: no answer within ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    if not ref.tell(request):
        return Refused("noproc")
    while True:
        try:
            return request.reply.result(timeout=0.2)
        except FutureTimeout:
            if not ref.is_alive and not request.reply.done():
                return Refused("noproc")  # it went down with the request in its inbox
            if time.monotonic() >= deadline:
                raise TimeoutError(f"no answer to {request.ask.value} within {timeout_s:g} s") from None


__all__ = ["Ok", "StartIgnored", "SupervisionError", "Supervisor", "call"]
