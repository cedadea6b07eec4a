"""A small web server that writes down what it is sent."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Web:
    """``status`` and ``answer`` are what it says, or, with ``echoes``, what it was sent; ``gate`` holds it
    up while it is not set.
    """

    base: str = ""
    status: int = 200
    answer: bytes = b"{}"
    echoes: bool = False
    seen: list[Request] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)


@contextmanager
def web() -> Iterator[Web]:
    it = Web()
    it.gate.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            it.seen.append(Request(self.command, self.path, dict(self.headers.items()), body))
            it.gate.wait(30)
            answer = f"{self.path} {self.headers} {body!r}".encode() if it.echoes else it.answer
            self.send_response(it.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name.startswith("do_"):
                return self._take
            raise AttributeError(name)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        it.base = f"http://127.0.0.1:{server.server_port}"
        try:
            yield it
        finally:
            it.gate.set()
            server.shutdown()
            thread.join(10)
