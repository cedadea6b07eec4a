"""A daemon's link that answers by a script: for what only the client's side can show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bridge_link.pump import Incoming, RouterPump
from bridge_link.wire import Kind, Message
from bridge_link.zap import Guard

Script = Callable[[Incoming, int], list[Message]]


@dataclass
class ScriptedDaemon:
    """``script(incoming, how_often_this_id_came)`` names the answers."""

    script: Script
    guard: Guard | None = None
    seen: list[Message] = field(default_factory=list)
    pump: RouterPump = field(init=False)

    def open(self, address: str = "tcp://127.0.0.1:0") -> str:
        self.pump = RouterPump(address, self._take, "scripted", guard=self.guard)
        self.pump.start()
        assert self.pump.address is not None
        return self.pump.address

    def _take(self, incoming: Incoming) -> None:
        """The alerts of one message are taken as if each had come alone."""
        message = incoming.message
        if message.kind is Kind.ALERTS:
            for message_id, body in message.body["alerts"].items():
                self._take_one(replace(incoming, message=Message(Kind.ALERT, message_id, body)))
        else:
            self._take_one(incoming)

    def _take_one(self, incoming: Incoming) -> None:
        self.seen.append(incoming.message)
        times = sum(1 for one in self.seen if one.id == incoming.message.id)
        for answer in self.script(incoming, times):
            self.pump.send(incoming.peer, answer)


def obliging(incoming: Incoming, times: int) -> list[Message]:
    """Stores and decides whatever comes."""
    status = "stored" if times == 1 else "duplicate"
    decided = {"outcome": "run", "execution_id": "x-1", "runbook": "service_failure", "reason": ""}
    message = incoming.message
    match message.kind:
        case Kind.ALERT:
            return [
                Message(Kind.STORED, message.id, {"status": status}),
                Message(Kind.DECIDED, message.id, decided),
            ]
        case Kind.QUERY if message.body["ask"] == "execution":
            result = {"id": message.body["execution_id"], "status": "succeeded", "detail": "well"}
            return [Message(Kind.ANSWER, message.id, {"ok": True, "result": result})]
        case Kind.QUERY if message.body["ask"] == "alert":
            result = {"id": message.body["id"], "outcome": "run", "execution_id": "x-1"}
            return [Message(Kind.ANSWER, message.id, {"ok": True, "result": result})]
        case Kind.QUERY:
            return [Message(Kind.ANSWER, message.id, {"ok": True, "result": {"total_executions": 3}})]
        case _:
            return []


def together(count: int) -> Script:
    """Stores each and decides none before it has seen ``count`` of them."""
    seen: list[Incoming] = []

    def script(incoming: Incoming, _times: int) -> list[Message]:
        seen.append(incoming)
        stored = Message(Kind.STORED, incoming.message.id, {"status": "stored"})
        if len({one.message.id for one in seen}) < count:
            return [stored]
        return [stored, *(obliging(one, 1)[1] for one in seen)]

    return script


@contextmanager
def daemon(script: Script = obliging) -> Iterator[tuple[ScriptedDaemon, str]]:
    scripted = ScriptedDaemon(script)
    address = scripted.open()
    try:
        yield scripted, address
    finally:
        scripted.pump.close()
