"""http_request: its key, its result, what it expects, and certificates."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from runbooks.engine_words import Answer, Try
from runbooks.model import Call, CallType, Trouble
from runbooks.network import MAX_BODY_BYTES, LocalHttp
from runbooks.ports import PortError
from runbooks.steps import make_call
from tests.actions.place import TOKEN, answer, do, ports_of
from tests.actions.web import web


def test_requests_that_change_something_carry_one_key_for_all_attempts(tmp_path: Path) -> None:
    ports = ports_of(tmp_path)
    with web() as it:
        for method in ("POST", "PUT", "DELETE", "GET"):
            for attempt in (1, 2):
                call = Call(CallType.HTTP_REQUEST, {"url": it.base, "method": method})
                assert make_call(call, None, ports, TOKEN, Try("step", attempt)).ok
        keys = [request.headers.get("Idempotency-Key") for request in it.seen]
        assert keys == [f"{TOKEN}.step"] * 6 + [None] * 2
        own = Call(CallType.HTTP_REQUEST, {"url": it.base, "headers": {"idempotency-key": "mine"}})
        assert make_call(own, None, ports, TOKEN, Try("step", 1)).ok
        assert [value for name, value in it.seen[-1].headers.items() if name.lower() == "idempotency-key"] == ["mine"]


def test_its_json_is_the_result(tmp_path: Path) -> None:
    ports = ports_of(tmp_path)
    with web() as it:
        it.answer = json.dumps({"drained": 3, "long": "x" * 5000}).encode()
        done = do(ports, CallType.HTTP_REQUEST, url=it.base)
        assert done.result["drained"] == 3
        assert len(done.output) < 5000, "the result is whole, what is said of it is short"
        it.answer = b"plain"
        assert do(ports, CallType.HTTP_REQUEST, url=it.base).result == {"output": "plain"}
        it.answer = b"x" * (2 * MAX_BODY_BYTES)
        assert len(do(ports, CallType.HTTP_REQUEST, url=it.base).result["output"]) == MAX_BODY_BYTES


def test_what_it_expects(tmp_path: Path) -> None:
    ports = ports_of(tmp_path)
    with web() as it:
        it.status = 409
        refused = do(ports, CallType.HTTP_REQUEST, url=it.base)
        assert (refused.ok, refused.trouble) == (False, Trouble.REFUSED)
        assert do(ports, CallType.HTTP_REQUEST, url=it.base, expect=[409]).ok
        assert answer(ports, CallType.HTTP_OK, url=it.base) is Answer.UNKNOWN
        assert answer(ports, CallType.HTTP_OK, url=it.base, expect=[409]) is Answer.YES


@pytest.mark.parametrize(
    ("sends", "each", "said"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", "no answer within 0.5 s"),
        (b"", b"H", "no answer within 0.5 s"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", b"x", None),
    ],
    ids=["head", "first line", "body"],
)
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(sends: bytes, each: bytes, said: str | None) -> None:
    is_over = threading.Event()

    def drip(listener: socket.socket) -> None:
        with listener.accept()[0] as peer, contextlib.suppress(OSError):
            peer.recv(4096)
            peer.sendall(sends)
            while not is_over.wait(0.1):
                peer.sendall(each)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        began = time.monotonic()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            if said is None:
                assert LocalHttp().request("GET", url, 0.5, {}).body.startswith("hello")
            else:
                with pytest.raises(PortError, match=said):
                    LocalHttp().request("GET", url, 0.5, {})
        finally:
            is_over.set()
        assert time.monotonic() - began < 5


@contextmanager
def secure(folder: Path) -> Iterator[tuple[int, Path]]:
    """A server with a certificate that nobody vouches for."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    words = ("-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1")
    names = ("-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(
        ["openssl", "req", *words, *names, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port, certificate
        finally:
            server.shutdown()
            thread.join(10)
            server.socket.close()


def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        assert not os.environ.get("SELFHEAL_REQUIRE_ALL"), "openssl is missing"
        pytest.skip("openssl is missing")
    ports = ports_of(tmp_path / "state")
    with secure(tmp_path) as (port, certificate):
        url = f"https://127.0.0.1:{port}/"
        refused = do(ports, CallType.HTTP_REQUEST, method="GET", url=url)
        assert not refused.ok
        assert "certificate verify failed" in refused.error.lower()
        assert answer(ports, CallType.HTTP_OK, url=url) is Answer.UNKNOWN
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        vouched = do(ports, CallType.HTTP_REQUEST, method="GET", url=url)
        assert vouched.ok, "docs: a list of your own"
