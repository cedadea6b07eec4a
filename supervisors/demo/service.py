"""A small HTTP service with faults on request: ``python -m supervisors.demo.service --name N --port P``.

``GET /healthz`` says healthy, degraded or unhealthy; ``POST /fault/NAME`` makes it misbehave. Standard library only, so
that a dozen start quickly.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

FAULTS: Final = "unhealthy, degraded, healthy, exit?code=3, crash, hang, slow?ms=500, burn, leak?mb=50"


class State:
    """How the service feels."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = "healthy"
        self.delay_s = 0.0
        self.held: list[bytearray] = []
        self.began = time.time()
        self.requests = 0


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201  its output is its log


class Faults:
    """What ``POST /fault/NAME`` does; each takes the query's values."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.known: dict[str, Callable[[dict[str, str]], None]] = {
            "healthy": lambda _: self._become("healthy"),
            "degraded": lambda _: self._become("degraded"),
            "unhealthy": lambda _: self._become("unhealthy"),
            "slow": lambda query: self._slow(int(query.get("ms", "500"))),
            "hang": lambda _: self._slow(3_600_000),
            "exit": lambda query: self._later(lambda: os._exit(int(query.get("code", "3")))),
            "crash": lambda _: self._later(lambda: os.kill(os.getpid(), signal.SIGSEGV)),
            "burn": lambda _: self._later(_burn),
            "leak": lambda query: self._state.held.append(bytearray(int(query.get("mb", "50")) * 1024 * 1024)),
        }

    def _become(self, status: str) -> None:
        self._state.status = status
        self._state.delay_s = 0.0

    def _slow(self, delay_ms: int) -> None:
        self._state.delay_s = delay_ms / 1000

    def _later(self, act: Callable[[], object]) -> None:
        """After the answer is out."""
        threading.Timer(0.05, act).start()


def _burn() -> None:
    while True:
        sum(range(10_000))


def make_handler(state: State, faults: Faults) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests += 1
            threading.Event().wait(state.delay_s)
            path = urlsplit(self.path).path
            if path == "/healthz":
                self._answer(200, {"status": state.status, "service": state.name})
            elif path == "/metrics":
                self._answer(200, {"requests_total": state.requests, "uptime_s": round(time.time() - state.began, 1)})
            elif path == "/":
                self._answer(200, {"service": state.name, "pid": os.getpid(), "faults": FAULTS})
            else:
                self._answer(404, {"error": f"no {path}; try /, /healthz, /metrics"})

        def do_POST(self) -> None:
            parts = urlsplit(self.path)
            name = parts.path.removeprefix("/fault/")
            if not parts.path.startswith("/fault/") or name not in faults.known:
                self._answer(404, {"error": f"no {parts.path}; try POST /fault/ with one of {FAULTS}"})
                return
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            try:
                faults.known[name](query)
            except ValueError as error:
                self._answer(400, {"error": str(error)})
                return
            say(f"{state.name}: fault {name}")
            self._answer(200, {"fault": name})

        def _answer(self, status: int, body: dict[str, object]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
            """Probes come every other second: they are no news."""

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news either."""


def main() -> int:
    parser = argparse.ArgumentParser(description="A demo service with faults on request.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--start-delay-s", type=float, default=0.0, help="seconds until it listens")
    options = parser.parse_args()
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    stop.wait(options.start_delay_s)
    state = State(options.name)
    try:
        server = Server(("127.0.0.1", options.port), make_handler(state, Faults(state)))
    except OSError as error:
        say(f"{options.name}: cannot listen on 127.0.0.1:{options.port}: {error.strerror}")
        return 1
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    say(f"{options.name}: listening on 127.0.0.1:{options.port}, pid {os.getpid()}")
    stop.wait()
    say(f"{options.name}: stopping")
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
