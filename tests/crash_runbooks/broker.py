"""A small broker over HTTP, and what the bridge endpoint does that trades with it. Each order done is a line of a file.

The endpoint is a clumsy one: it orders what it is told, each time it is told, and what it says of the account is always
the same. So whatever comes to it twice is seen.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from tests.crash_runbooks.aside import Command

SYMBOL: Final = "EURUSD"
POSITIONS: Final = {SYMBOL: 3.5, "GBPUSD": 1.0}
LIMIT_S: Final = 10.0


def serve(port_file: Path, effects: Path, *, refuses: bool) -> None:
    """Be the broker until the end. ``refuses``: takes no order (but may be told to take no new ones)."""
    lock = threading.Lock()

    class Desk(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            is_refused = refuses and order["what"] in ("sell", "close")
            if not is_refused:
                with lock, effects.open("a", encoding="utf-8") as file:
                    file.write(" ".join(str(one) for one in order.values()) + "\n")
            body = b"{}"
            self.send_response(403 if is_refused else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Desk)
    fresh = port_file.with_suffix(".new")
    fresh.write_text(str(server.server_address[1]), encoding="ascii")
    fresh.replace(port_file)
    server.serve_forever(poll_interval=0.5)


def orders(port: int) -> dict[str, Command]:
    """The commands of the bridge endpoint that orders from it."""

    def order(**words: Any) -> None:
        body = json.dumps(words).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/orders", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=LIMIT_S):
            pass

    def reduce_position(given: Mapping[str, Any]) -> None:
        order(what="sell", symbol=given["symbol"], lots=POSITIONS[given["symbol"]] - given["to_lots"])

    def free_margin(given: Mapping[str, Any]) -> None:
        order(what="close", symbol=SYMBOL, until=given["to_percent"])

    def close_all_positions(given: Mapping[str, Any]) -> None:
        for symbol in POSITIONS:
            order(what="close", symbol=symbol)
        order(what="block", over=given["if_drawdown_over_percent"])

    def position(given: Mapping[str, Any]) -> dict[str, float]:
        lots = POSITIONS[given["symbol"]]
        return {"lots": lots, "excess_lots": lots - given["limit_lots"]}

    return {
        "position": position,
        "margin": lambda given: {"margin_percent": 80.0, "missing_percent": given["to_percent"] - 80.0},
        "drawdown": lambda given: {"drawdown_percent": 30.0, "excess_percent": 30.0 - given["limit_percent"]},
        **dict.fromkeys(("position_within", "margin_enough", "positions_closed"), lambda _: "so it is"),
        "reduce_position": reduce_position,
        "free_margin": free_margin,
        "close_all_positions": close_all_positions,
        "block_new_orders": lambda _: order(what="block"),
        "allow_new_orders": lambda _: order(what="allow"),
    }
