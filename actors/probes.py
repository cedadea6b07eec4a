"""Probes: one look at whether a service answers. Blocking, on I/O pool threads, never longer than the given timeout.

Each call closes what it opened: no thread, socket or process is left behind, however the other side behaves. Proxies
from the environment and redirects are not followed: the service itself is asked, nobody else.
"""

from __future__ import annotations

import contextlib
import enum
import http.client
import io
import json
import os
import secrets
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast
from urllib.parse import SplitResult, urlsplit

from actors.runtimes.family import KILL_SIGNAL, kill_family, members_of, wait_gone
from actors.runtimes.procfs import TOKEN_VARIABLE, ProcessIdentity, TokenScan, identity_of, read_table

_BODY_BYTES: Final = 64 * 1024
_KILL_S: Final = 2.0
_OUTPUT_CHARS: Final = 200


class ProbeVerdict(enum.Enum):
    PASS = "pass"  # noqa: S105  no password
    DEGRADED = "degraded"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one look showed. ``detail`` is short: ``http /healthz: 503``."""

    verdict: ProbeVerdict
    detail: str


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """GET ``url``. A JSON body's ``status`` counts too: ``unhealthy`` under 200 fails, ``degraded`` degrades."""

    url: str


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """Passes when ``host:port`` accepts a connection."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ExecProbe:
    """Passes when the command (no shell) exits with 0. ``environment`` is added to the daemon's own."""

    command: tuple[str, ...]
    working_dir: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


Probe = HttpProbe | TcpProbe | ExecProbe


def run_probe(check: Probe, timeout_s: float) -> ProbeResult:
    """Look once. Never raises for what the service does; a look that takes longer than ``timeout_s`` seconds fails."""
    try:
        return _look(check, timeout_s)
    except Exception as error:  # whatever a strange address or answer brings, it is the service's failure, not ours
        return ProbeResult(ProbeVerdict.FAIL, f"{type(check).__name__}: {_words(error)}")


def _look(check: Probe, timeout_s: float) -> ProbeResult:
    match check:
        case HttpProbe(url):
            return _probe_http(urlsplit(url), time.monotonic() + timeout_s, timeout_s)
        case TcpProbe(host, port):
            return _probe_tcp(host, port, timeout_s)
        case ExecProbe():
            return _probe_exec(check, timeout_s)


# -- http -------------------------------------------------------------------------------------------------------------


class _DeadlineStream(io.RawIOBase):
    """A socket's bytes until a deadline: a server that drips one byte a second must not stretch a probe."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._sock.settimeout(_left_s(self._deadline))
        return self._sock.recv_into(buffer)

    def makefile(self, _mode: str) -> IO[bytes]:
        return io.BufferedReader(self)


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _probe_http(url: SplitResult, deadline: float, timeout_s: float) -> ProbeResult:
    what = f"http {url.path or '/'}"
    try:
        status, body = _get(url, deadline)
    except TimeoutError:
        return ProbeResult(ProbeVerdict.FAIL, f"{what}: no answer within {timeout_s:g} s")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return ProbeResult(ProbeVerdict.FAIL, f"{what}: {_words(error)}")
    return _judge(what, status, body)


def _get(url: SplitResult, deadline: float) -> tuple[int, bytes]:
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"{url.geturl()!r} is no http address")
    port = url.port or (443 if url.scheme == "https" else 80)
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection((url.hostname, port), timeout=_left_s(deadline)))
        if url.scheme == "https":
            context = ssl.create_default_context()
            sock = stack.enter_context(context.wrap_socket(sock, server_hostname=url.hostname))
        sock.settimeout(_left_s(deadline))
        sock.sendall(_request(url))
        stream = stack.enter_context(_DeadlineStream(sock, deadline))
        # HTTPResponse asks its socket for nothing but ``makefile``
        response = stack.enter_context(http.client.HTTPResponse(cast("socket.socket", stream), method="GET"))
        response.begin()
        return response.status, response.read(_BODY_BYTES)


def _request(url: SplitResult) -> bytes:
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {url.netloc.rpartition('@')[2]}",
        "User-Agent: selfheal",
        "Accept: application/json, */*",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _judge(what: str, status: int, body: bytes) -> ProbeResult:
    """Only 2xx passes; the body may say less good things, never better ones."""
    said = _said(body)
    detail = f"{what}: {status}" + (f" {said}" if said else "")
    if not 200 <= status < 300 or said == "unhealthy":
        return ProbeResult(ProbeVerdict.FAIL, detail)
    if said == "degraded":
        return ProbeResult(ProbeVerdict.DEGRADED, detail)
    return ProbeResult(ProbeVerdict.PASS, detail)


def _said(body: bytes) -> str | None:
    """The ``status`` of a JSON body when it is one of the three known words."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    word = answer.get("status") if isinstance(answer, dict) else None
    known = word.strip().lower() if isinstance(word, str) else None
    return known if known in ("healthy", "degraded", "unhealthy") else None


def _words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "unknown host"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, http.client.HTTPException):
        return f"no HTTP answer ({type(error).__name__})"
    return str(error)


# -- tcp --------------------------------------------------------------------------------------------------------------


def _probe_tcp(host: str, port: int, timeout_s: float) -> ProbeResult:
    what = f"tcp {host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return ProbeResult(ProbeVerdict.PASS, f"{what}: open")
    except TimeoutError:
        return ProbeResult(ProbeVerdict.FAIL, f"{what}: no answer within {timeout_s:g} s")
    except OSError as error:
        return ProbeResult(ProbeVerdict.FAIL, f"{what}: {_words(error)}")


# -- exec -------------------------------------------------------------------------------------------------------------


def _probe_exec(check: ExecProbe, timeout_s: float) -> ProbeResult:
    what = f"exec {check.command[0] if check.command else '(nothing)'}"
    token = secrets.token_hex(16)
    with tempfile.TemporaryFile() as output:  # a file, not a pipe: a grandchild that holds it cannot keep us waiting
        try:
            child = subprocess.Popen(
                check.command,
                cwd=check.working_dir,
                env={**os.environ, **check.environment, TOKEN_VARIABLE: token},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, IndexError, ValueError) as error:
            return ProbeResult(ProbeVerdict.FAIL, f"{what}: cannot start: {_words(error)}")
        in_time = _wait_and_sweep(child, token, timeout_s)
        if not in_time:
            return ProbeResult(ProbeVerdict.FAIL, f"{what}: no end within {timeout_s:g} s")
        return _judge_exit(what, child.returncode, _last_line(output))


def _wait_and_sweep(child: subprocess.Popen[bytes], token: str, timeout_s: float) -> bool:
    """Whether it ended in time. Its group, and after a timeout all its descendants, are dead in any case."""
    main = identity_of(child.pid)
    in_time = main is not None and wait_gone([main], timeout_s)
    if main is not None and not in_time:
        kill_family(lambda: _family(main, token), _KILL_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, KILL_SIGNAL)  # the unreaped child still holds the number of its group
    child.wait()
    return in_time


def _family(main: ProcessIdentity, token: str) -> tuple[ProcessIdentity, ...]:
    return members_of(read_table(), main, TokenScan().holders(token))


def _judge_exit(what: str, returncode: int, last_line: str) -> ProbeResult:
    end = f"signal {-returncode}" if returncode < 0 else f"exit {returncode}"
    if returncode == 0:
        return ProbeResult(ProbeVerdict.PASS, f"{what}: {end}")
    return ProbeResult(ProbeVerdict.FAIL, f"{what}: {end}" + (f": {last_line}" if last_line else ""))


def _last_line(output: IO[bytes]) -> str:
    end = output.seek(0, os.SEEK_END)
    output.seek(max(0, end - 4 * _OUTPUT_CHARS))
    lines = output.read().decode("utf-8", "replace").split("\n")
    written = [line.strip() for line in lines if line.strip()]
    return written[-1][-_OUTPUT_CHARS:] if written else ""
