"""HTTP requests and TCP connections of runbooks. Runs on the I/O pool; every wait has a limit."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import certifi
import httpx

from runbooks.ports import HttpAnswer, PortError

MAX_BODY_BYTES: Final = 65536


class LocalHttp:
    """Fulfils ``ports.Http``. Proxies of the environment are not used: runbooks talk to their own services.

    Certificates are verified, always: against the system's list and certifi's, or only against those that
    ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` of the daemon's environment name.
    """

    def request(
        self, method: str, url: str, timeout_s: float, headers: Mapping[str, str], body: Any = None
    ) -> HttpAnswer:
        """One request, in ``timeout_s`` seconds in all: to the end of the head, or the beginning of the body.

        Raises:
            PortError: there was no answer.
        """
        try:
            return asyncio.run(_asked(method, url, timeout_s, dict(headers), body))
        except TimeoutError as error:
            raise PortError(f"{method} {url}: no answer within {timeout_s:g} s") from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol) as error:
            raise PortError(f"{method} {url}: no connection: {error}") from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise PortError(f"{method} {url}: {type(error).__name__}: {error}") from error


async def _asked(method: str, url: str, timeout_s: float, headers: dict[str, str], body: Any) -> HttpAnswer:
    """The limits of httpx are each read's: a server that sends one byte at a time would never reach them."""
    read = bytearray()
    answer: httpx.Response | None = None
    try:
        async with (
            asyncio.timeout(timeout_s),
            httpx.AsyncClient(verify=_trusted(), timeout=None, trust_env=False, follow_redirects=False) as client,  # noqa: S113  the line above
        ):
            answer = await client.send(client.build_request(method, url, headers=headers, json=body), stream=True)
            try:
                async for chunk in answer.aiter_bytes():
                    read += chunk
                    if len(read) >= MAX_BODY_BYTES:
                        break
            finally:
                await answer.aclose()
    except TimeoutError:  # a body that goes on for ever is listened to until now
        if answer is None:
            raise
    return HttpAnswer(answer.status_code, read[:MAX_BODY_BYTES].decode(errors="replace"))


def _trusted() -> ssl.SSLContext:
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _context(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Made once: reading the lists takes longer than most requests."""
    context = ssl.create_default_context()  # OpenSSL itself knows these variables
    if file is None and folder is None:
        context.load_verify_locations(certifi.where())
    return context


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
