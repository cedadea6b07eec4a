"""The trading side: positions over their limit, too little margin, too large a loss, orders to be blocked. A broker of
our own (``tests.faults.broker``) keeps positions and orders in a process; runbooks reach it over the bridge.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from supervisors.manager import CommandFailed
from supervisors.remote import Base, RemoteManager
from tests.faults.ended import Ended
from tests.faults.patience import LATE
from tests.faults.registry import Case, Kind
from tests.faults.ward import APPROVER, LONG_S, Bed, Part, Ward
from tests.support.eventually import eventually
from tests.system.running import free_port

POSITION: Final = "position_limit_exceeded"
MARGIN: Final = "margin_call_recovery"
DRAWDOWN: Final = "drawdown_exceeded_recovery"
BLOCK: Final = "block_new_orders"


@dataclass(frozen=True)
class Broker:
    port: int

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", json=body, timeout=LONG_S)


@contextmanager
def broker(ward: Ward) -> Iterator[Broker]:
    folder = ward.folder / "broker"
    folder.mkdir()
    port = free_port()
    argv = [sys.executable, "-m", "tests.faults.broker", str(port), str(folder), str(ward.folder / "state")]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield Broker(port)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@dataclass(frozen=True)
class Desk:
    """One account at the broker, its endpoint named like it, and what a runbook made of it."""

    bed: Bed
    at: Broker
    name: str

    def open(self, **account: Any) -> None:
        """It exists, and its endpoint is heard."""
        assert self.at.call("PUT", f"/accounts/{self.name}", account).status_code == 201
        eventually(self._is_heard, within_s=LONG_S, every_s=0.2, what=f"{self.name} heard")

    def _is_heard(self) -> bool:
        tree = self.bed.ward.get("/v1/tree")
        return any(one["name"] == self.name and one["state"] == "ready" for one in _nodes(tree["root"]))

    def seen(self) -> dict[str, Any]:
        found: dict[str, Any] = self.at.call("GET", f"/accounts/{self.name}").json()
        return found

    def change(self, **to: Any) -> None:
        self.at.call("PATCH", f"/accounts/{self.name}", to)

    def takes_orders(self) -> bool:
        return self.at.call("POST", f"/accounts/{self.name}/orders", {"symbol": "XAUUSD", "lots": 0.0}).is_success

    def wanted(self, kind: str, **labels: Any) -> str:
        """The execution that waits for somebody to agree."""
        ack = self.bed.send(kind, None, endpoint=self.name, **labels)
        assert ack.decision is not None
        assert ack.decision.outcome == "awaiting_approval", ack
        assert ack.decision.execution_id is not None
        return ack.decision.execution_id

    def agreed(self, execution_id: str) -> None:
        """Who sent the alert (here: whoever runs the daemon) may not agree to it; ann may."""
        plan = self.asked(execution_id)
        state = self.bed.selfheal.state
        address = (state / "operator.address").read_text(encoding="ascii").strip()
        token = (self.bed.ward.folder / f"{APPROVER}.token").read_text(encoding="ascii").strip()
        with RemoteManager(Base(state_dir=state)) as own, RemoteManager(Base(address=address, token=token)) as ann:
            with pytest.raises(CommandFailed, match="another person"):
                own.approve(execution_id, by="", plan=plan)
            assert ann.approve(execution_id, by="", plan=plan)["outcome"] == "granted"

    def asked(self, execution_id: str) -> str:
        """The hash of the plan that people are asked about."""

        def look() -> str | None:
            found = self.bed.ward.get("/v1/approvals")["approvals"]
            return next((one.get("plan") for one in found if one.get("execution_id") == execution_id), None)

        return eventually(look, within_s=LONG_S, every_s=0.1, what="the question")

    def over(self, kind: str, began: float, **labels: Any) -> Ended:
        """Asked for, agreed to, and over."""
        execution_id = self.wanted(kind, **labels)
        self.agreed(execution_id)
        return self.bed.over(execution_id, began)

    def until_blocked(self) -> None:
        """What follows when positions could not be closed: nobody makes it worse."""
        eventually(lambda: not self.takes_orders(), within_s=LONG_S, every_s=0.2, what="orders blocked")


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node["children"]:
        yield from _nodes(child)


def _play(run: Callable[[Desk], Ended], word: str = "") -> Callable[[Bed], AbstractContextManager[Part]]:
    @contextmanager
    def play(bed: Bed) -> Iterator[Part]:
        at = bed.ward.shared("broker", lambda: broker(bed.ward))
        desk = Desk(bed, at, f"{word}{bed.name}"[:60].rstrip("-"))
        yield Part({"bridges": {desk.name: {"kind": "zeromq", "start_period": "60s"}}}, lambda: run(desk))

    return play


# -- a position over its limit ----------------------------------------------------------------------------------------

LIMIT: Final[dict[str, Any]] = {"symbol": "EURUSD", "limit_lots": 2.0, "lots": 3.5}


def reduced(desk: Desk) -> Ended:
    desk.open(positions={"EURUSD": 3.5, "GBPUSD": 5.0})
    end = desk.over(POSITION, time.monotonic(), **LIMIT)
    if desk.bed.acts:
        seen = desk.seen()
        assert seen["positions"] == {"EURUSD": 2.0, "GBPUSD": 5.0}, end
        assert seen["asked"]["reduce_position"] == 1
        assert desk.takes_orders()
    return end


def reduced_by_what_is_too_much_by_then(desk: Desk) -> Ended:
    """The alert told of 3.5 lots; when somebody has agreed they are 2.5."""
    desk.open(positions={"EURUSD": 3.5})
    execution_id = desk.wanted(POSITION, **LIMIT)
    desk.change(positions={"EURUSD": 2.5})
    desk.agreed(execution_id)
    end = desk.bed.over(execution_id, time.monotonic())
    if desk.bed.acts:
        assert desk.seen()["positions"] == {"EURUSD": 2.0}, end
    return end


def not_reduced(desk: Desk) -> Ended:
    desk.open(positions={"EURUSD": 3.5}, refuses=["reduce_position"])
    end = desk.over(POSITION, time.monotonic(), **LIMIT)
    assert desk.seen()["positions"] == {"EURUSD": 3.5}, end
    return end


def said_and_not_reduced(desk: Desk) -> Ended:
    """The broker says that it did, and the position is what it was: no success, and no new orders."""
    desk.open(positions={"EURUSD": 3.5}, lies=["reduce_position"])
    end = desk.over(POSITION, time.monotonic(), **LIMIT)
    assert desk.seen()["positions"] == {"EURUSD": 3.5}, end
    return end


def within_by_then(desk: Desk) -> Ended:
    """When somebody has agreed it is within its limit again: nothing is sold."""
    desk.open(positions={"EURUSD": 3.5})
    execution_id = desk.wanted(POSITION, **LIMIT)
    desk.change(positions={"EURUSD": 1.5})
    desk.agreed(execution_id)
    end = desk.bed.over(execution_id, time.monotonic())
    seen = desk.seen()
    assert seen["positions"] == {"EURUSD": 1.5}, end
    assert "reduce_position" not in seen["asked"], seen
    return Ended(end.status)


def rejected(desk: Desk) -> Ended:
    desk.open(positions={"EURUSD": 3.5})
    execution_id = desk.wanted(POSITION, **LIMIT)
    plan = desk.asked(execution_id)
    with RemoteManager(Base(state_dir=desk.bed.selfheal.state)) as own:
        own.reject(execution_id, by="", plan=plan, why="the limit is wrong")
    end = desk.bed.over(execution_id, time.monotonic())
    assert desk.seen()["asked"] == {}, end
    return Ended(end.status)


def nobody_answers(desk: Desk) -> Ended:
    """Nothing is sold; new orders are blocked instead, which only takes ability away."""
    desk.open(positions={"EURUSD": 3.5})
    execution_id = desk.wanted(POSITION, **LIMIT)
    end = desk.bed.over(execution_id, time.monotonic())
    desk.until_blocked()
    seen = desk.seen()
    assert seen["positions"]["EURUSD"] == 3.5, end
    assert "reduce_position" not in seen["asked"], seen
    return Ended(end.status)


def without_symbol(desk: Desk) -> Ended:
    desk.open(positions={"EURUSD": 3.5})
    ack = desk.bed.send(POSITION, None, endpoint=desk.name, limit_lots=2.0)
    assert ack.decision is not None
    assert desk.seen()["asked"] == {}
    return Ended(ack.decision.outcome)


# -- margin and drawdown ----------------------------------------------------------------------------------------------

THIN: Final[dict[str, Any]] = {
    "positions": {"EURUSD": 5.0, "GBPUSD": 4.0, "USDJPY": 1.0},
    "losses": {"EURUSD": 10.0, "GBPUSD": 400.0, "USDJPY": 2.0},
}
LEVEL: Final[dict[str, Any]] = {"wanted_margin_percent": 150}


def freed(desk: Desk) -> Ended:
    """100 % of margin: closing the largest loser is enough."""
    desk.open(**THIN)
    end = desk.over(MARGIN, time.monotonic(), **LEVEL)
    if desk.bed.acts:
        seen = desk.seen()
        assert seen["positions"] == {"EURUSD": 5.0, "USDJPY": 1.0}, end
        assert seen["asked"]["free_margin"] == 1
    return end


def not_freed(desk: Desk) -> Ended:
    desk.open(**THIN, refuses=["free_margin"])
    end = desk.over(MARGIN, time.monotonic(), **LEVEL)
    assert desk.seen()["positions"] == THIN["positions"], end
    return end


def enough_by_then(desk: Desk) -> Ended:
    desk.open(**THIN)
    execution_id = desk.wanted(MARGIN, **LEVEL)
    desk.change(equity=5000.0)
    desk.agreed(execution_id)
    end = desk.bed.over(execution_id, time.monotonic())
    seen = desk.seen()
    assert seen["positions"] == THIN["positions"], end
    assert "free_margin" not in seen["asked"]
    return Ended(end.status)


LOST: Final[dict[str, Any]] = {"positions": {"EURUSD": 2.0, "GBPUSD": 1.0}, "equity": 700.0}
MOST: Final[dict[str, Any]] = {"limit_percent": 20}


def closed(desk: Desk) -> Ended:
    desk.open(**LOST)
    end = desk.over(DRAWDOWN, time.monotonic(), **MOST)
    if desk.bed.acts:
        seen = desk.seen()
        assert seen["positions"] == {}, end
        assert seen["asked"]["close_all_positions"] == 1
        assert not desk.takes_orders()
    return end


def not_closed(desk: Desk) -> Ended:
    desk.open(**LOST, refuses=["close_all_positions"])
    end = desk.over(DRAWDOWN, time.monotonic(), **MOST)
    assert desk.seen()["positions"] == LOST["positions"], end
    return end


def regained_by_then(desk: Desk) -> Ended:
    desk.open(**LOST)
    execution_id = desk.wanted(DRAWDOWN, **MOST)
    desk.change(equity=990.0)
    desk.agreed(execution_id)
    end = desk.bed.over(execution_id, time.monotonic())
    seen = desk.seen()
    assert seen["positions"] == LOST["positions"], end
    assert "close_all_positions" not in seen["asked"]
    assert desk.takes_orders()
    return Ended(end.status)


# -- orders -----------------------------------------------------------------------------------------------------------


def blocked(desk: Desk) -> Ended:
    desk.open(positions={"EURUSD": 1.0})
    assert desk.takes_orders()
    end = desk.bed.answered(BLOCK, time.monotonic(), None, endpoint=desk.name)
    if desk.bed.acts:
        assert not desk.takes_orders(), end
        assert desk.seen()["positions"]["EURUSD"] == 1.0
    return end


def said_and_not_blocked(desk: Desk) -> Ended:
    """The broker says that it did and takes orders still: it is told to allow them, as before, and people are told."""
    desk.open(positions={"EURUSD": 1.0}, lies=["block_new_orders"])
    end = desk.bed.answered(BLOCK, time.monotonic(), None, endpoint=desk.name)
    asked = desk.seen()["asked"]
    assert (asked["block_new_orders"], asked["allow_new_orders"]) == (1, 1), end
    assert desk.takes_orders()
    return end


def endpoint_of_nobody(desk: Desk) -> Ended:
    desk.open(positions={"EURUSD": 1.0})
    end = desk.bed.answered(BLOCK, time.monotonic(), None, endpoint=f"{desk.name[:50]}-nobody")
    assert desk.takes_orders()
    return end


def _failed_then_blocked(run: Callable[[Desk], Ended]) -> Callable[[Desk], Ended]:
    """Where there is nothing to undo, what follows is the next rung: no new orders."""

    def made(desk: Desk) -> Ended:
        end = run(desk)
        desk.until_blocked()
        return end

    return made


OK: Final = ("succeeded",)
CASES: tuple[Case, ...] = (
    Case(POSITION, "reduced", Kind.SUCCESS, _play(reduced), OK),
    Case(POSITION, "less-by-then", Kind.SUCCESS, _play(reduced_by_what_is_too_much_by_then), OK),
    Case(POSITION, "within-by-then", Kind.NO_MATCH, _play(within_by_then), OK),
    Case(POSITION, "refused-by-broker", Kind.ROLLBACK, _play(_failed_then_blocked(not_reduced)), ("failed",)),
    Case(POSITION, "broker-lies", Kind.ROLLBACK, _play(_failed_then_blocked(said_and_not_reduced)), ("failed",)),
    Case(POSITION, "rejected", Kind.REFUSED, _play(rejected), ("rejected",)),
    Case(POSITION, "nobody-answers", Kind.REFUSED, _play(nobody_answers, f"{LATE}-"), ("expired",)),
    Case(POSITION, "no-match", Kind.NO_MATCH, _play(without_symbol), ("rejected",)),
    Case(MARGIN, "freed", Kind.SUCCESS, _play(freed), OK),
    Case(MARGIN, "refused-by-broker", Kind.ROLLBACK, _play(_failed_then_blocked(not_freed)), ("failed",)),
    Case(MARGIN, "enough-by-then", Kind.NO_MATCH, _play(enough_by_then), OK),
    Case(DRAWDOWN, "closed", Kind.SUCCESS, _play(closed), OK),
    Case(DRAWDOWN, "refused-by-broker", Kind.ROLLBACK, _play(_failed_then_blocked(not_closed)), ("failed",)),
    Case(DRAWDOWN, "regained-by-then", Kind.NO_MATCH, _play(regained_by_then), OK),
    Case(BLOCK, "blocked", Kind.SUCCESS, _play(blocked), OK),
    Case(BLOCK, "rollback", Kind.ROLLBACK, _play(said_and_not_blocked), ("rolled_back",)),
    Case(BLOCK, "no-match", Kind.NO_MATCH, _play(endpoint_of_nobody), ("rejected",)),
)
