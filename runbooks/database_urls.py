"""Addresses of databases: what may be shown of them, and whether anything is there. A password is never shown."""

from __future__ import annotations

import enum
import socket
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from runbooks.database_words import Database
from runbooks.ports import PortError

POSTGRESQL: Final = "postgresql"
REDIS: Final = "redis"
_SCHEMES: Final = {
    "postgresql": POSTGRESQL,
    "postgres": POSTGRESQL,
    "redis": REDIS,
    "rediss": REDIS,
    "unix": REDIS,
}
_PORTS: Final = {POSTGRESQL: 5432, REDIS: 6379}
_HIDDEN: Final = "***"
_SECRET_OPTIONS: Final = ("password", "sslpassword", "passfile")
GREETING_S: Final = 0.1
GREETING_BYTES: Final = 512


class Deadline:
    """A moment on the clock that never goes back, ``timeout_s`` from now."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._at = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._at - time.monotonic())

    @property
    def is_over(self) -> bool:
        return self.left_s <= 0.0


@dataclass(frozen=True, slots=True)
class Address:
    """``path`` is a unix socket's; else ``host`` and ``port`` count."""

    host: str
    port: int
    path: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether no network lies between: silence is then the server's own."""
        return self.path is not None or self.host in ("localhost", "::1") or self.host.startswith("127.")

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def engine_of(database: Database) -> str:
    """``postgresql`` or ``redis``.

    Raises:
        PortError: the url has no scheme that is known, or that of the other engine.
    """
    found = _SCHEMES.get(database.url.partition("://")[0])
    if found is None:
        raise PortError("the database's url begins with none of postgresql://, redis://, rediss://, unix://")
    if database.engine not in (None, found):
        raise PortError(f"the database's url is of {found}, and the runbook says {database.engine}")
    return found


def shown(database: Database) -> str:
    """The database as people may see it: engine, place, name; no user, no password, no options."""
    parts = _split(database.url)
    return f"{engine_of(database)} at {address_of(database)}{'' if parts.scheme == 'unix' else parts.path}"


def address_of(database: Database) -> Address:
    """Where it is (of several hosts the first).

    Raises:
        PortError: the url says no place.
    """
    engine, parts = engine_of(database), _split(database.url)
    if parts.scheme == "unix":
        return Address("", 0, unquote(parts.path))
    first, asked = parts.netloc.rpartition("@")[2].split(",")[0], parse_qs(parts.query)
    host, port_text = _host_and_port(first)
    host = asked.get("host", [unquote(host)])[0] or "localhost"
    try:
        port = int(asked.get("port", [port_text or str(_PORTS[engine])])[0])
    except ValueError:
        raise PortError("the port in the database's url is no number") from None
    return Address(host, port, f"{host}/.s.PGSQL.{port}" if host.startswith("/") else None)


def scrubbed(text: str, database: Database) -> str:
    """``text`` without the url and without what is secret in it; one line."""
    text = " ".join(text.split()).replace(database.url, shown(database))
    for secret in _secrets(database.url):
        text = text.replace(secret, _HIDDEN)
    return text


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise PortError("the database's url cannot be read") from None


def _host_and_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = text.partition(":")
    return host, port


def _secrets(url: str) -> list[str]:
    parts = _split(url)
    user_info = parts.netloc.rpartition("@")[0]
    written = [user_info.partition(":")[2]]
    written += [one for name in _SECRET_OPTIONS for one in parse_qs(parts.query).get(name, [])]
    return sorted({form for one in written for form in (one, unquote(one)) if form}, key=len, reverse=True)


# -- is anything there? -----------------------------------------------------------------------------------------------


class Reached(enum.Enum):
    """What a bare connection shows. ``SILENT``: no answer to the connection itself, and no network to blame."""

    ACCEPTS = "accepts"
    REFUSES = "refuses"
    SILENT = "silent"


def knock(address: Address, deadline: Deadline) -> tuple[Reached, str]:
    """Connect and say nothing; with what the server says unasked (Redis says so why it hangs up).

    Raises:
        PortError: nobody can tell.
    """
    limit_s = max(deadline.left_s, GREETING_S)
    try:
        with _connected(address, limit_s) as reached:
            return Reached.ACCEPTS, _greeting(reached)
    except (ConnectionRefusedError, FileNotFoundError):
        return Reached.REFUSES, ""
    except (TimeoutError, BlockingIOError) as error:
        if address.is_local:
            return Reached.SILENT, ""
        raise PortError(f"{address}: no answer within {limit_s:.1f} s") from error
    except OSError as error:
        raise PortError(f"{address}: {error.strerror or error}") from error


def _connected(address: Address, limit_s: float) -> socket.socket:
    if address.path is None:
        return socket.create_connection((address.host, address.port), timeout=limit_s)
    reached = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        reached.settimeout(limit_s)
        reached.connect(address.path)
    except OSError:
        reached.close()
        raise
    return reached


def _greeting(reached: socket.socket) -> str:
    reached.settimeout(GREETING_S)
    try:
        return reached.recv(GREETING_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""
