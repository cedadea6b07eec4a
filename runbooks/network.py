"""HTTP requests and TCP connections of runbooks. Runs on the I/O pool; every wait has a limit."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import certifi
import httpx

from runbooks.ports import HttpAnswer, PortError

MAX_BODY_BYTES: Final = 65536
CHUNK_BYTES: Final = 4096


class LocalHttp:
    """Fulfils ``ports.Http``. Proxies of the environment are not used: runbooks talk to their own services.

    Certificates are verified, always: against the system's list and certifi's, or only against those that
    ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` of the daemon's environment name.
    """

    def request(
        self, method: str, url: str, timeout_s: float, headers: Mapping[str, str], body: Any = None
    ) -> HttpAnswer:
        deadline_s = time.monotonic() + timeout_s
        try:
            with (
                httpx.Client(verify=_trusted(), timeout=timeout_s, trust_env=False, follow_redirects=False) as client,
                client.stream(method, url, headers=dict(headers), json=body) as answer,
            ):
                return HttpAnswer(answer.status_code, _read(answer, deadline_s))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise PortError(f"{method} {url}: no connection: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise PortError(f"{method} {url}: {type(error).__name__}: {error}") from error


def _trusted() -> ssl.SSLContext:
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Made once: reading the lists takes longer than most requests."""
    context = ssl.create_default_context()  # OpenSSL itself knows these variables
    if file is None and folder is None:
        context.load_verify_locations(certifi.where())
    return context


def _read(answer: httpx.Response, deadline_s: float) -> str:
    """The beginning of the body: a server that sends for ever is not listened to for ever."""
    read = b""
    for chunk in answer.iter_bytes(CHUNK_BYTES):
        read += chunk
        if len(read) >= MAX_BODY_BYTES or time.monotonic() >= deadline_s:
            break
    return read[:MAX_BODY_BYTES].decode(errors="replace")


class LocalTcp:
    """Fulfils ``ports.Tcp``."""

    def connects(self, host: str, port: int, timeout_s: float) -> bool:
        try:
            with socket.create_connection((host, port), timeout=timeout_s):
                return True
        except ConnectionRefusedError:
            return False
        except OSError as error:
            raise PortError(f"tcp {host}:{port}: {error}") from error
