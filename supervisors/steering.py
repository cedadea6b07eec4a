"""Start, stop and restart services by name, and wait for what was asked. Any ordinary thread, never an actor's.

A stop by hand is remembered in the ledger: no policy overrules it, also not after a restart of the daemon.
"""

from __future__ import annotations

import difflib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from actors.board import NodeKind, NodeState, NodeStatus
from actors.context import ActorSystem
from actors.failpoints import reached, register
from actors.ledger import Ledger, ManualStop, Phase, Wishes, wishes_of
from actors.refs import ActorRef
from actors.runtimes.base import LaunchError, StopFailed
from actors.service_fsm import PauseAsked, ResumeAsked
from supervisors.decisions.model import Ask, Refused
from supervisors.library import call
from supervisors.manager import REFUSED, CommandFailed, ManagerError, TimedOut, UnknownNode
from supervisors.people import whose
from supervisors.supervisor import CallRequest, Result
from supervisors.tree_json import rfc3339

SETTLED_BAD = frozenset({NodeState.CRASH_LOOP, NodeState.FAILED})
CALL_MARGIN_S = 10.0
BY_RUNBOOK: Final = "runbook"
"""Who asked, when no person did."""
STOP_REMEMBERED: Final = register("daemon.wish.stop", "a person's stop is remembered, the service is up")
START_REMEMBERED: Final = register("daemon.wish.start", "a person's start is remembered, the service is down")


@dataclass(frozen=True)
class Steering:
    """Args:
    homes: for each service the path of its supervisor.
    stop_limits_s: for each service the longest its stop may take.
    on_command: told of every command (path, command, by, why), for the record.
    clear: stops what lives of a service that no actor has taken on; raises LaunchError, StopFailed.
    """

    system: ActorSystem
    ledger: Ledger
    homes: Mapping[str, str]
    stop_limits_s: Mapping[str, float]
    on_command: Callable[[str, str, str, str], None] = lambda _path, _command, _by, _why: None
    clear: Callable[[str], object] = lambda _name: None

    def status(self, name: str) -> NodeStatus:
        """The service's status now. Raises UnknownNode."""
        self._check(name)
        found = self.system.board.get(self.path(name))
        return found if found is not None else _never_started(self.path(name))

    def decided(self, name: str) -> str:
        """What a person has decided of its running, and when, while it stands; "" when nobody did, or a runbook did."""
        record = self.ledger.record(name)
        for word, wish in (("stopped", record.stopped), ("paused", record.paused)):
            if wish is not None and wish.by != BY_RUNBOOK:
                return f"{word} by {wish.by} at {rfc3339(wish.at)}"
        return ""

    def path(self, name: str) -> str:
        return f"{self.homes[name]}/{name}"

    def path_or_none(self, name: str) -> str | None:
        return self.path(name) if name in self.homes else None

    def note(self, name: str, command: str, by: str, why: str = "") -> None:
        """Record who asked for what."""
        self.on_command(self.path(name), command, by, why)

    def start(self, name: str, *, timeout_s: float | None, known: Wishes | None = None) -> NodeStatus:
        """Start it if it does not run; forget a stop by hand. ``timeout_s`` None does not wait for readiness.

        Args:
            known: the second half of a restart: the wishes that stood at its beginning. A later one is a later word.

        Raises:
            UnknownNode, CommandFailed, TimedOut.
        """
        self._check(name)
        if known is None:
            self.ledger.stopped_by(name, None)
        elif not self.ledger.wanted_again(name, known):
            raise CommandFailed(f"{name}: is not started again: {self.decided(name) or 'its wish has changed'}")
        reached(START_REMEMBERED)
        self._tell(name, ResumeAsked())
        result = self._call(name, Ask.RESTART)
        if isinstance(result, Refused) and result.kind == "restarting":  # it waits for its next try: try now
            self._call(name, Ask.TERMINATE)
            result = self._call(name, Ask.RESTART)
        if isinstance(result, Refused) and result.kind != "running":
            raise CommandFailed(f"{name}: cannot start: {result.kind}: {result.detail}")
        return self.status(name) if timeout_s is None else self.await_ready(name, timeout_s)

    def stop(
        self, name: str, *, by: str, why: str = "", wait: bool = True, timeout_s: float | None = None
    ) -> NodeStatus:
        """Stop it and keep it stopped. One that is stopped already stays so by whom and for what it was, unless there
        is a new ``why`` or only a runbook had stopped it; the status says whose it was (``note``).

        Raises:
            UnknownNode, CommandFailed, TimedOut.
        """
        self._check(name)
        known = self.ledger.record(name).stopped
        already = known if self.status(name).state is NodeState.STOPPED else None
        if known is None or why or (known.by == BY_RUNBOOK and by != BY_RUNBOOK):
            self.ledger.stopped_by(name, ManualStop(by, self.system.clock.wall(), why))
        reached(STOP_REMEMBERED)
        self.put_down(name, wait=wait, timeout_s=timeout_s)
        return _noted(self.status(name), "stopped", already)

    def pause(
        self, name: str, *, by: str, why: str = "", wait: bool = True, timeout_s: float | None = None
    ) -> NodeStatus:
        """Freeze it; it is neither probed nor restarted until ``resume``, also not after a restart of the daemon.

        One that does not run at the moment is not started until then. One that is paused already: as with ``stop``.

        Raises:
            UnknownNode, TimedOut; CommandFailed: it is stopped by hand, or cannot be frozen.
        """
        self._check(name)
        record = self.ledger.record(name)
        if record.stopped is not None:
            raise CommandFailed(f"{name}: is stopped by {record.stopped.by}: there is nothing to pause")
        if record.paused is None or why:
            self.ledger.paused_by(name, ManualStop(by, self.system.clock.wall(), why))
        if self._tell(name, PauseAsked()) and wait:
            self._await_paused(name, timeout_s or CALL_MARGIN_S)
        elif self.status(name).pid is None:  # it waits for its next try
            self.put_down(name, wait=wait, timeout_s=timeout_s)
        return _noted(self.status(name), "paused", record.paused)

    def _await_paused(self, name: str, timeout_s: float) -> None:
        def is_settled(status: NodeStatus) -> bool:
            is_down = status.pid is None and status.container_id is None
            return status.state is NodeState.PAUSED or is_down or _is_refused(status)

        status = self.await_status(name, is_settled, timeout_s, "paused")
        if _is_refused(status):
            self.ledger.stopped_by(name, None)
            raise CommandFailed(f"{name}: {status.detail}")

    def resume(self, name: str, *, timeout_s: float | None) -> NodeStatus:
        """Let a paused service go on, or start it if it does not run. One that is not paused is left as it is.

        Raises:
            UnknownNode, TimedOut; CommandFailed: it is stopped, or did not become ready.
        """
        self._check(name)
        record = self.ledger.record(name)
        if record.stopped is not None:
            raise CommandFailed(f"{name}: is stopped by {record.stopped.by}, not paused: start it")
        return self.status(name) if record.paused is None else self.start(name, timeout_s=timeout_s)

    def _tell(self, name: str, wish: PauseAsked | ResumeAsked) -> bool:
        """Tell the service's actor. False: there is none; the next one reads the ledger."""
        ref = self.system.whereis(self.path(name))
        return ref is not None and bool(ref.tell(wish))

    def restart(self, name: str, *, timeout_s: float | None) -> NodeStatus:
        """Stop it, start it, and wait for readiness (not with ``timeout_s`` None: then also not for the stop).

        Raises:
            UnknownNode, CommandFailed, TimedOut.
        """
        self._check(name)
        if timeout_s is None:
            threading.Thread(target=self._restart_alone, args=(name,), name=f"restart:{name}", daemon=True).start()
            return self.status(name)
        began, known = time.monotonic(), wishes_of(self.ledger.record(name))
        try:
            self.put_down(name)
        except ManagerError:
            if wishes_of(self.ledger.record(name)) == known:
                self._call(name, Ask.RESTART, wait=False)  # a restart that failed must not end as a stop
            raise
        return self.start(name, timeout_s=max(0.1, timeout_s - (time.monotonic() - began)), known=known)

    def _restart_alone(self, name: str) -> None:
        try:
            self.restart(name, timeout_s=self.stop_limits_s[name] + CALL_MARGIN_S)
        except ManagerError as error:
            structlog.get_logger().error("restart failed", service=name, error=str(error))

    def await_ready(self, name: str, timeout_s: float) -> NodeStatus:
        """Ready, or done: ended in order and left alone by its policy. Raises CommandFailed when it ends badly or is
        stopped meanwhile, TimedOut.
        """

        def is_settled(status: NodeStatus) -> bool:
            return status.state in (NodeState.READY, NodeState.STOPPED) or status.state in SETTLED_BAD

        status = self.await_status(name, is_settled, timeout_s, "ready")
        if status.state in SETTLED_BAD:
            last = status.last_exit.cause if status.last_exit is not None else None
            why = status.detail if status.detail is not None and status.detail.startswith(REFUSED) else last
            raise CommandFailed(f"{name}: {status.state.value}" + (f": {why}" if why else ""))
        if status.state is NodeState.STOPPED and (stopped := self.ledger.record(name).stopped) is not None:
            raise CommandFailed(f"{name}: stopped by {stopped.by} meanwhile")
        return status

    def await_status(
        self, name: str, is_there: Callable[[NodeStatus], bool], timeout_s: float, what: str
    ) -> NodeStatus:
        """Wait until the service's status passes. Raises TimedOut with what was seen last."""
        path = self.path(name)
        seen = threading.Event()

        def look(status: NodeStatus) -> None:
            if status.path == path and is_there(status):
                seen.set()

        stop_listening = self.system.board.listen(look)
        try:
            status = self.status(name)
            if not is_there(status) and not seen.wait(timeout_s):
                status = self.status(name)
                detail = f" ({status.detail})" if status.detail else ""
                raise TimedOut(f"{name}: not {what} within {timeout_s:g} s: {status.state.value}{detail}")
        finally:
            stop_listening()
        return self.status(name)

    def put_down(self, name: str, *, wait: bool = True, timeout_s: float | None = None) -> None:
        """Stop it and let no strategy start it until ``start``. Raises CommandFailed, TimedOut."""
        if not wait and self.system.whereis(self.path(name)) is None:
            threading.Thread(target=self._put_down_alone, args=(name,), name=f"stop:{name}", daemon=True).start()
            return
        result = self._call(name, Ask.HOLD, wait=wait, timeout_s=timeout_s)
        if isinstance(result, Refused):
            raise CommandFailed(f"{name}: cannot stop: {result.kind}")
        if wait and self.ledger.record(name).phase is Phase.LAUNCHED:  # an earlier daemon's, not taken on yet
            try:
                self.clear(name)
            except (LaunchError, StopFailed) as error:
                raise CommandFailed(f"{name}: {error}") from error

    def _put_down_alone(self, name: str) -> None:
        try:
            self.put_down(name)
        except ManagerError as error:
            structlog.get_logger().error("stop failed", service=name, error=str(error))

    def _call(self, name: str, ask: Ask, *, wait: bool = True, timeout_s: float | None = None) -> Result | None:
        ref = self.system.whereis(self.homes[name])
        if not isinstance(ref, ActorRef):
            raise CommandFailed(f"{name}: its supervisor {self.homes[name]} is not up")
        request = CallRequest(ask, name)
        if not wait:
            ref.tell(request)
            return None
        try:
            return call(ref, request, timeout_s or self.stop_limits_s[name] + CALL_MARGIN_S)
        except TimeoutError as late:
            raise TimedOut(f"{name}: {late}") from late

    def _check(self, name: str) -> None:
        if name not in self.homes:
            close = difflib.get_close_matches(name, self.homes, n=1)
            raise UnknownNode(name, close[0] if close else None)


def _noted(status: NodeStatus, state: str, already: ManualStop | None) -> NodeStatus:
    """The status, with a note that somebody had asked for that before."""
    if already is None:
        return status
    return replace(status, extra={**status.extra, "note": f"already {state} by {whose(already.by, already.why)}"})


def _is_refused(status: NodeStatus) -> bool:
    return status.state is not NodeState.PAUSED and "cannot be paused" in (status.detail or "")


def _never_started(path: str) -> NodeStatus:
    return NodeStatus(path, NodeKind.SERVICE, NodeState.WAITING)
