"""PostgreSQL and Redis for runbooks, through psycopg and redis-py. Runs on the I/O pool; every wait has a limit.

The client libraries are imported when they are first needed: a daemon without them says what to install.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, TypeVar

from runbooks.database_urls import POSTGRESQL, REDIS, Deadline, engine_of, scrubbed, shown
from runbooks.database_words import (
    Database,
    DatabaseLimits,
    DatabaseView,
    LockKey,
    SessionRules,
    Sessions,
    SessionsEnded,
)
from runbooks.ports import PortError

_MODULES: Final = {POSTGRESQL: "runbooks.postgresql", REDIS: "runbooks.redis_server"}
_LIBRARIES: Final = {POSTGRESQL: "psycopg[binary]", REDIS: "redis"}
MARGIN_S: Final = 0.3
T = TypeVar("T")


class LocalDatabases:
    """Fulfils ``ports.Databases``. No password is in any text that leaves it.

    Args:
        urls: of services that are databases; ``{"secret": NAME}`` for one that is a secret.
        secret: the value of a secret; raises PortError.
    """

    def __init__(
        self,
        urls: Mapping[str, str | Mapping[str, str]] = MappingProxyType({}),
        secret: Callable[[str], str] | None = None,
    ) -> None:
        self._urls = dict(urls)
        self._secret = secret

    def of_service(self, service: str) -> Database | None:
        url = self._urls.get(service)
        if url is None or isinstance(url, str):
            return None if url is None else Database(url)
        if self._secret is None:
            raise PortError(f"the url of {service!r} is the secret {url['secret']!r}, and there are no secrets here")
        return Database(self._secret(url["secret"]))

    def view(self, database: Database, limits: DatabaseLimits, timeout_s: float) -> DatabaseView:
        deadline = _deadline(timeout_s)
        found: DatabaseView = _made(database, lambda engine: engine.view(database, limits, deadline))
        return replace(found, detail=scrubbed(found.detail, database))

    def end_sessions(self, database: Database, which: Sessions, rules: SessionRules, timeout_s: float) -> SessionsEnded:
        deadline = _deadline(timeout_s)
        done: SessionsEnded = _made(database, lambda engine: engine.end_sessions(database, which, rules, deadline))
        return done

    def lock_keys(
        self, database: Database, patterns: tuple[str, ...], idle_for_s: float, timeout_s: float
    ) -> tuple[LockKey, ...]:
        deadline = _deadline(timeout_s)
        return _made(database, lambda engine: engine.lock_keys(database, patterns, idle_for_s, deadline), REDIS)

    def lock_names(
        self, database: Database, patterns: tuple[str, ...], idle_for_s: float, timeout_s: float
    ) -> tuple[str, ...]:
        deadline = _deadline(timeout_s)
        return _made(database, lambda engine: engine.lock_names(database, patterns, idle_for_s, deadline), REDIS)

    def keys_standing(self, database: Database, keys: tuple[LockKey, ...], timeout_s: float) -> tuple[str, ...]:
        return _made(database, lambda engine: engine.keys_standing(database, keys, _deadline(timeout_s)), REDIS)

    def remove_keys(self, database: Database, keys: tuple[LockKey, ...], timeout_s: float) -> tuple[str, ...]:
        return _made(database, lambda engine: engine.remove_keys(database, keys, _deadline(timeout_s)), REDIS)

    def restore_keys(self, database: Database, keys: tuple[LockKey, ...], timeout_s: float) -> tuple[str, ...]:
        return _made(database, lambda engine: engine.restore_keys(database, keys, _deadline(timeout_s)), REDIS)

    def keys_missing(self, database: Database, keys: tuple[LockKey, ...], timeout_s: float) -> tuple[str, ...]:
        return _made(database, lambda engine: engine.keys_missing(database, keys, _deadline(timeout_s)), REDIS)


def _deadline(timeout_s: float) -> Deadline:
    """A little earlier than the call's: what is said of a server that hangs takes a moment more."""
    return Deadline(max(timeout_s / 2, timeout_s - MARGIN_S))


def _made(database: Database, work: Callable[[Any], T], only: str | None = None) -> T:
    """Raises PortError, whose text names the database and holds none of its secrets."""
    name = engine_of(database)
    if only not in (None, name):
        raise PortError(f"{shown(database)}: lock keys are Redis's; clear_locks ends sessions there")
    try:
        engine = importlib.import_module(_MODULES[name])
    except ImportError as missing:
        raise PortError(
            f"{name} cannot be looked into: {missing.name} is not installed; "
            f"pip install '{_LIBRARIES[name]}' (selfheal[daemon] brings it) and restart the daemon"
        ) from missing
    try:
        return work(engine)
    except Exception as error:
        kind = "" if isinstance(error, PortError) else f"{type(error).__name__}: "
        # the library's error may hold the url: it is not chained
        raise PortError(f"{shown(database)}: {kind}{scrubbed(str(error), database)}") from None
