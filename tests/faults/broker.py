"""A small broker: accounts with positions, orders that are taken or not, and for each account a bridge endpoint.

``python -m tests.faults.broker PORT FOLDER STATE``. HTTP on the port is what traders and these tests see of it; the
bridge, into the daemon of ``STATE``, is how runbooks reach it. Each account is a thread-safe book in memory; its
endpoint keeps the table of commands it ran in ``FOLDER``.

* ``PUT /accounts/NAME`` with an account (``Account``'s fields): it is opened, and its endpoint begins.
* ``GET /accounts/NAME``: the account, and how often each command was run.
* ``POST /accounts/NAME/orders`` ``{"symbol", "lots"}``: 409 while orders are blocked.
* ``PATCH /accounts/NAME``: as a market, or a person, changes it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from bridge_link import BridgeClient


@dataclass
class Account:
    """``positions``: lots by symbol. ``losses``: of each, in money. ``per_lot``: the margin one lot needs.

    ``refuses``: the commands it does not do. ``lies``: those it says it did.
    """

    positions: dict[str, float]
    losses: dict[str, float] = field(default_factory=dict)
    equity: float = 1000.0
    highest: float = 1000.0
    per_lot: float = 100.0
    blocked: bool = False
    refuses: list[str] = field(default_factory=list)
    lies: list[str] = field(default_factory=list)

    @property
    def margin_percent(self) -> float:
        used = sum(self.positions.values()) * self.per_lot
        return 100 * self.equity / used if used else 100_000.0

    @property
    def drawdown_percent(self) -> float:
        return 100 * max(0.0, self.highest - self.equity) / self.highest


class Refused(Exception):
    """The broker does not do it."""


@dataclass
class Book:
    """One account and what was asked of it; thread-safe."""

    account: Account
    asked: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def commands(self) -> dict[str, Any]:
        looks = {
            "position": self.position,
            "position_within": self.position_within,
            "margin": self.margin,
            "margin_enough": self.margin_enough,
            "drawdown": self.drawdown,
            "positions_closed": self.positions_closed,
            "new_orders_blocked": self.new_orders_blocked,
        }
        deeds = {
            "reduce_position": self.reduce_position,
            "free_margin": self.free_margin,
            "close_all_positions": self.close_all_positions,
            "block_new_orders": self.block_new_orders,
            "allow_new_orders": self.allow_new_orders,
        }
        made = {name: self._look(name, look) for name, look in looks.items()}
        return made | {name: self._deed(name, deed) for name, deed in deeds.items()}

    def _look(self, name: str, look: Any) -> Any:
        def run(given: Mapping[str, Any]) -> Any:
            with self.lock:
                self.asked[name] += 1
                return look(given)

        return run

    def _deed(self, name: str, deed: Any) -> Any:
        def run(given: Mapping[str, Any]) -> Any:
            with self.lock:
                self.asked[name] += 1
                if name in self.account.refuses:
                    raise Refused("the market is closed")
                return "done" if name in self.account.lies else deed(given)

        return run

    # -- looks --------------------------------------------------------------------------------------------------------

    def position(self, given: Mapping[str, Any]) -> dict[str, float]:
        lots = self.account.positions.get(given["symbol"], 0.0)
        return {"lots": lots, "excess_lots": max(0.0, lots - given["limit_lots"])}

    def position_within(self, given: Mapping[str, Any]) -> str:
        found = self.position(given)
        if found["excess_lots"] > 0:
            raise Refused(f"{found['lots']:g} lots are over the limit")
        return f"{found['lots']:g} lots"

    def margin(self, given: Mapping[str, Any]) -> dict[str, float]:
        percent = self.account.margin_percent
        return {"margin_percent": percent, "missing_percent": max(0.0, given["to_percent"] - percent)}

    def margin_enough(self, given: Mapping[str, Any]) -> str:
        found = self.margin(given)
        if found["missing_percent"] > 0:
            raise Refused(f"a margin of {found['margin_percent']:g} % is too small")
        return f"{found['margin_percent']:g} %"

    def drawdown(self, given: Mapping[str, Any]) -> dict[str, float]:
        percent = self.account.drawdown_percent
        return {"drawdown_percent": percent, "excess_percent": max(0.0, percent - given["limit_percent"])}

    def positions_closed(self, given: Mapping[str, Any]) -> str:
        left = sorted(symbol for symbol, lots in self.account.positions.items() if lots)
        if left or not self.account.blocked:
            raise Refused(
                f"open: {', '.join(left) or 'none'}; orders are {'' if self.account.blocked else 'not '}blocked"
            )
        return "all closed"

    def new_orders_blocked(self, given: Mapping[str, Any]) -> str:
        if not self.account.blocked:
            raise Refused("orders are taken")
        return "blocked"

    # -- deeds --------------------------------------------------------------------------------------------------------

    def reduce_position(self, given: Mapping[str, Any]) -> str:
        """Never more than is too much now."""
        symbol, most = given["symbol"], given["to_lots"]
        lots = self.account.positions.get(symbol, 0.0)
        self.account.positions[symbol] = min(lots, most)
        return f"{lots:g} -> {self.account.positions[symbol]:g}"

    def free_margin(self, given: Mapping[str, Any]) -> str:
        closed = []
        while self.account.margin_percent < given["to_percent"]:
            symbol = max(self.account.positions, key=lambda one: self.account.losses.get(one, 0.0))
            del self.account.positions[symbol]
            closed.append(symbol)
        return f"closed {', '.join(closed)}"

    def close_all_positions(self, given: Mapping[str, Any]) -> str:
        if self.account.drawdown_percent > given["if_drawdown_over_percent"]:
            self.account.positions.clear()
            self.account.blocked = True
        return "closed"

    def block_new_orders(self, given: Mapping[str, Any]) -> str:
        self.account.blocked = True
        return "blocked"

    def allow_new_orders(self, given: Mapping[str, Any]) -> str:
        self.account.blocked = False
        return "allowed"

    # -- what is seen from outside ------------------------------------------------------------------------------------

    def shown(self) -> dict[str, Any]:
        with self.lock:
            return {**dataclasses.asdict(self.account), "asked": dict(self.asked)}

    def change(self, to: Mapping[str, Any]) -> None:
        with self.lock:
            for name, value in to.items():
                setattr(self.account, name, value)

    def order(self, symbol: str, lots: float) -> bool:
        with self.lock:
            if not self.account.blocked:
                self.account.positions[symbol] = self.account.positions.get(symbol, 0.0) + lots
            return not self.account.blocked


class Door(BaseHTTPRequestHandler):
    """One request."""

    books: ClassVar[dict[str, Book]] = {}
    clients: ClassVar[list[BridgeClient]] = []
    folder: ClassVar[Path]
    state: ClassVar[Path]

    def do_PUT(self) -> None:
        name = self.path.split("/")[2]
        book = self.books[name] = Book(Account(**self._body()))
        self.clients.append(
            BridgeClient(
                name=name, state_dir=self.state, folder=self.folder, beat_every_s=0.3, commands=book.commands()
            )
        )
        self._say(201, {})

    def do_GET(self) -> None:
        self._say(200, self._book().shown())

    def do_PATCH(self) -> None:
        self._book().change(self._body())
        self._say(200, {})

    def do_POST(self) -> None:
        given = self._body()
        taken = self._book().order(given["symbol"], given["lots"])
        self._say(201 if taken else 409, {})

    def _book(self) -> Book:
        return self.books[self.path.split("/")[2]]

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _say(self, status: int, body: Any) -> None:
        said = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  its name is the base class's
        """Nobody reads it."""


def main() -> None:
    port, folder, state = sys.argv[1:4]
    Door.folder, Door.state = Path(folder), Path(state)
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Door)
    print("up", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
