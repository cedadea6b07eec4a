"""One bridge endpoint as an actor: the thin shell round ``bridge_fsm`` and a transport.

Runs in its own actor thread and never blocks. Silence, a refused or a lost connection are faults of the world: the
actor ends with that reason and its supervisor brings it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from actors.board import LastExit, NodeKind, NodeState, NodeStatus
from actors.bridge_fsm import (
    Connected,
    Effect,
    Event,
    Exit,
    Heard,
    LinkState,
    LookAt,
    Looked,
    Lost,
    SayReady,
    begin,
    step,
)
from actors.bridge_sessions import BridgeSessions
from actors.context import ActorContext
from actors.endpoints.lines import Unread
from actors.endpoints.transport import EndpointPlan, ErrorHeard
from actors.endpoints.transports import make_transport
from actors.kernel import SupervisedActor
from actors.messages import Wake
from actors.spec import ExitReason

SHOW_EVERY_S: Final = 1.0
MOST_FACTS: Final = 16
MOST_FACT_CHARS: Final = 200

OnError = Callable[[str, Mapping[str, Any]], None]
"""Told of an error an endpoint reported (endpoint name, bridge error): it must only hand it on."""


@dataclass(slots=True)
class EndpointPast:
    """What outlives one run of the actor within a daemon: how often it ran, how it ended, how many lines said nothing.

    Owned by the one running incarnation, but for ``is_awaited``, which any thread may set: the other side has just been
    started, and the next run gives it time to come.
    """

    runs: int = 0
    last_exit: LastExit | None = None
    is_awaited: bool = True
    unread: int = 0


class BridgeEndpointActor(SupervisedActor):
    node_kind = NodeKind.BRIDGE

    def __init__(
        self,
        context: ActorContext,
        plan: EndpointPlan,
        past: EndpointPast,
        sessions: BridgeSessions,
        on_error: OnError,
    ) -> None:
        super().__init__(context)
        self._plan = plan
        self._past = past
        self._on_error = on_error
        # after a start of the daemon, or of the service behind, it has yet to be found again; later a silence is one
        start_period_s = plan.start_period_s if past.is_awaited else 0.0
        past.is_awaited = False
        self._transport = make_transport(plan, sessions, max(plan.silence_s, start_period_s))
        self._since = context.system.clock.wall()
        self._run, self._first_effects = begin(plan.silence_s, context.system.clock.now(), start_period_s)
        self._facts: Mapping[str, Any] = {}
        self._ready_since: float | None = None
        self._shown_at = float("-inf")

    def setup(self) -> object:
        self._past.runs += 1
        self._act(self._first_effects)
        self._transport.start(self.ref.tell)
        self._show()
        return None

    def handle(self, message: Any) -> Any:
        match message:
            case Heard(facts=facts):
                if facts:
                    self._facts = plain_facts(facts)
                self._take(message)
            case Connected() | Lost():
                self._take(message)
            case ErrorHeard(error, is_life):
                if is_life:
                    self._take(Heard())
                self._on_error(self._plan.name, error)
            case Unread(count, why):
                self._note_unread(count, why)
            case Wake(token="look"):
                self._take(Looked())
            case _:
                super().handle(message)
        return None

    def teardown(self, reason: ExitReason) -> None:
        self._transport.close()
        if not reason.is_clean:
            self._past.last_exit = LastExit(str(reason), self.context.system.clock.wall())
        self._show(NodeState.STOPPED if reason.is_clean else NodeState.FAILED)

    def kill_owned(self) -> None:
        self._transport.close()

    def _note_unread(self, count: int, why: str) -> None:
        """Counted, and said once: whoever writes such lines writes many."""
        if not self._past.unread:
            structlog.get_logger().warning("a line of an endpoint is not read", endpoint=self._plan.name, why=why)
        self._past.unread += count
        if self.context.system.clock.now() - self._shown_at >= SHOW_EVERY_S:
            self._show()

    def _take(self, event: Event) -> None:
        before = self._run.state
        self._run, effects = step(self._run, event, self.context.system.clock.now())
        self._act(effects)
        now = self.context.system.clock.now()
        if self._run.state is not before or now - self._shown_at >= SHOW_EVERY_S:
            self._show()

    def _act(self, effects: tuple[Effect, ...]) -> None:
        system = self.context.system
        for effect in effects:
            match effect:
                case SayReady():
                    self._ready_since = system.clock.wall()
                    self._past.is_awaited = False  # it has come: its next silence is one
                    self.ready()
                case LookAt(at_s):
                    system.timers.after(at_s - system.clock.now(), self.ref, Wake("look"))
                case Exit(reason):
                    self.exit(reason)

    def _show(self, state: NodeState | None = None) -> None:
        clock = self.context.system.clock
        self._shown_at = clock.now()
        is_beating = self._run.state is LinkState.BEATING
        self.context.system.board.publish(
            NodeStatus(
                self.context.path,
                NodeKind.BRIDGE,
                state or (NodeState.READY if is_beating else NodeState.STARTING),
                runtime="actor",
                endpoint=self._plan.place,
                incarnation=self._past.runs,
                restarts=max(0, self._past.runs - 1),
                since=self._since,
                ready_since=self._ready_since if is_beating else None,
                last_exit=self._past.last_exit,
                detail=None if state else self._detail(),
                extra=self._extra(),
            )
        )

    def _extra(self) -> dict[str, Any]:
        extra: dict[str, Any] = {"endpoint_kind": self._plan.kind}
        if self._facts:
            extra["facts"] = dict(self._facts)
        if self._past.unread:
            extra["unread_lines"] = self._past.unread
        return extra

    def _detail(self) -> str:
        match self._run.state:
            case LinkState.BEATING:
                return f"last beat {self.context.system.clock.now() - self._run.heard_at:.1f}s ago"
            case LinkState.HELLO:
                return "connected, no heartbeat yet"
            case _:
                return f"waiting for the first sign from {self._plan.place}"


def plain_facts(said: Mapping[str, Any]) -> dict[str, Any]:
    """What an endpoint says of itself, as far as people need it: a few short values."""
    plain = {key[:50]: value for key, value in said.items() if isinstance(value, (str, int, float, bool))}
    few = dict(list(plain.items())[:MOST_FACTS])
    return {key: value[:MOST_FACT_CHARS] if isinstance(value, str) else value for key, value in few.items()}
