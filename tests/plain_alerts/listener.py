"""A real HTTP server that takes plain alerts, and remembers when each came."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.eventually import eventually


@dataclass
class Listener:
    url: str = ""
    told: list[dict[str, Any]] = field(default_factory=list)
    came_s: dict[str, float] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)
    status: int = 200

    def took_s(self, alert: str, sent_s: float, within_s: float = 30.0) -> float:
        """How long after ``sent_s`` (monotonic) this alert was told."""
        eventually(lambda: alert in self.came_s, within_s=within_s, what=f"plain alert {alert}")
        return self.came_s[alert] - sent_s


@contextmanager
def listening() -> Iterator[Listener]:
    listener = Listener()
    listener.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            came_s = time.monotonic()
            listener.gate.wait(30)
            listener.told.append(body)
            listener.came_s.setdefault(str(body.get("alert")), came_s)
            self.send_response(listener.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    listener.url = f"http://127.0.0.1:{server.server_address[1]}/told"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        listener.gate.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
