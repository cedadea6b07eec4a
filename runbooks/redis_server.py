"""What runbooks do with Redis, over redis-py: one connection a call, no retries, a deadline for the whole."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from runbooks.database_urls import REDIS, Deadline, Reached, address_of, knock
from runbooks.database_words import (
    Database,
    DatabaseLimits,
    DatabaseTrouble,
    DatabaseView,
    LockKey,
    SessionRules,
    Sessions,
    SessionsEnded,
)
from runbooks.ports import PortError

MOST_KEYS: Final = 1000
MOST_VALUE_BYTES: Final = 64 * 1024
SCAN_COUNT: Final = 1000
NEVER_EXPIRES: Final = -1
SHORTEST_S: Final = 0.05
CUT_AFTER_S: Final = 0.1
"""Behind the sockets' own limits, which say more."""
T = TypeVar("T")
_FULL: Final = "max number of clients reached"
_BUSY: Final = "BUSY"
_DUMP_UNNOTICED: Final = """
local idle = redis.call('OBJECT', 'IDLETIME', KEYS[1])
local value = redis.call('DUMP', KEYS[1])
if value and redis.call('PTTL', KEYS[1]) == -1 then
  redis.call('RESTORE', KEYS[1], 0, value, 'REPLACE', 'IDLETIME', idle)
end
return value
"""
"""For servers on which every look makes a key young: a daemon that died after its look would find no lock left."""
_SKIPPED: Final = {"S": "a replica's", "M": "a master's", "P": "a subscriber's", "O": "a monitor's"}


class _Client:
    """One connection, cut when the deadline comes: a server that sends drop by drop is cut too."""

    def __init__(self, database: Database, deadline: Deadline) -> None:
        options: dict[str, Any] = dict(parse_url(database.url))  # type: ignore[no-untyped-call]
        self._number = int(options.pop("db", 0) or 0)
        kind = options.pop("connection_class", redis.Connection)
        limit_s = max(SHORTEST_S, deadline.left_s)
        self._connection = kind(
            **options
            | {
                "socket_timeout": limit_s,
                "socket_connect_timeout": limit_s,
                "retry": Retry(NoBackoff(), 0),
                "protocol": 2,
            }
        )
        self._is_unnoticed = False
        self._cut = threading.Timer(limit_s + CUT_AFTER_S, self._connection.disconnect)
        self._cut.daemon = True

    def __enter__(self) -> Self:
        self._cut.start()
        try:
            self._made(self._connection.connect)
        except BaseException:
            self._cut.cancel()
            self._connection.disconnect()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cut.cancel()
        self._connection.disconnect()

    def ask(self, *command: str | bytes | int) -> Any:
        """Raises redis.RedisError."""
        self._made(lambda: self._connection.send_command(*command))
        return self._made(self._connection.read_response)

    def _made(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (ValueError, AttributeError, OSError) as error:  # closed under it
            raise redis.TimeoutError(f"cut: {error}") from error

    def text(self, *command: str | bytes | int) -> str:
        """The answer as text. Raises redis.RedisError."""
        answer = self.ask(*command)
        return bytes(answer).decode(errors="replace")

    def select(self) -> None:
        """Go to the database of the url: a server that a script blocks refuses that, hence not at once."""
        if self._number:
            self.ask("SELECT", self._number)

    def look_unnoticed(self) -> None:
        """From here on a look at a key does not count as its use. Raises redis.RedisError."""
        try:
            self.ask("CLIENT", "NO-TOUCH", "ON")
            self._is_unnoticed = True
        except redis.ResponseError:  # older than 7.2, or not allowed
            self._is_unnoticed = False

    def value(self, name: str) -> bytes | None:
        """A key as ``DUMP`` has it; how long nobody touched it stays as it was. Raises redis.RedisError."""
        found: bytes | None = None
        if not self._is_unnoticed:
            with suppress(redis.ResponseError):  # scripts are not allowed, or no such age is kept: it is lost
                found = self.ask("EVAL", _DUMP_UNNOTICED, 1, name)
        if found is None:
            found = self.ask("DUMP", name)
        return found

    def info(self, section: str) -> dict[str, str]:
        pairs = (line.partition(":") for line in self.text("INFO", section).splitlines())
        return {name: value for name, colon, value in pairs if colon}

    def clients(self) -> list[dict[str, str]]:
        lines = self.text("CLIENT", "LIST").splitlines()
        return [{key: value for key, _, value in (word.partition("=") for word in line.split())} for line in lines]


def view(database: Database, limits: DatabaseLimits, deadline: Deadline) -> DatabaseView:
    """As ``ports.Databases``. Clients that wait in a blocking command do so by their own wish: they are no trouble."""
    try:
        with _Client(database, deadline) as client:
            client.ask("PING")
            client.select()
            figures = client.info("clients")
            role, saved = client.info("replication")["role"], client.info("persistence")
            most = int(figures["maxclients"])
    except redis.RedisError as error:
        return _outside(database, error, deadline)
    sessions, blocked, writable = (
        int(figures["connected_clients"]) - 1,
        int(figures["blocked_clients"]),
        role == "master",
    )
    told = f"{sessions} of {most} clients"
    told += f", {blocked} in blocking commands" if blocked else ""
    told += "" if writable else f", takes no writes: a {role}"
    told += "" if saved.get("rdb_last_bgsave_status", "ok") == "ok" else ", its last save failed"
    trouble = DatabaseTrouble.EXHAUSTED if sessions >= most * limits.share else DatabaseTrouble.NONE
    return DatabaseView(REDIS, trouble, told, sessions, most, blocked, None, writable)


def _outside(database: Database, error: redis.RedisError, deadline: Deadline) -> DatabaseView:
    text = str(error)
    trouble = _trouble_in(text, error)
    if trouble is None:
        reached, greeting = knock(address_of(database), deadline)
        if reached is Reached.REFUSES:
            return DatabaseView(REDIS, DatabaseTrouble.DOWN, "nothing accepts connections")
        if greeting.startswith("-"):
            text, trouble = greeting.removeprefix("-"), _trouble_in(greeting, error)
    if trouble is None:
        hung = reached is Reached.SILENT or deadline.is_over or isinstance(error, redis.TimeoutError)
        trouble = DatabaseTrouble.HUNG if hung else DatabaseTrouble.DENIED
    if trouble is DatabaseTrouble.HUNG:
        text = f"accepts, and answers nothing within {deadline.timeout_s:g} s"
    if trouble is DatabaseTrouble.BLOCKED:
        return DatabaseView(REDIS, trouble, "a script or function blocks the server")
    return DatabaseView(REDIS, trouble, text)


def _trouble_in(text: str, error: redis.RedisError) -> DatabaseTrouble | None:
    if _FULL in text:
        return DatabaseTrouble.FULL
    if isinstance(error, redis.BusyLoadingError):
        return DatabaseTrouble.STARTING
    if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError):
        return DatabaseTrouble.DENIED
    if isinstance(error, redis.ResponseError):
        return DatabaseTrouble.BLOCKED if text.startswith(_BUSY) else DatabaseTrouble.DENIED
    return None


# -- clients ----------------------------------------------------------------------------------------------------------


def end_sessions(database: Database, which: Sessions, rules: SessionRules, deadline: Deadline) -> SessionsEnded:
    """As ``ports.Databases``. A script that blocks the server is killed; one that has written cannot be."""
    with _inside(database, deadline) as client:
        if which is Sessions.IDLE:
            return _end_idle(client, rules)
        killed = _kill_script(client)
        return killed if killed.cancelled else _unblock(client, rules)


@contextmanager
def _inside(database: Database, deadline: Deadline) -> Iterator[_Client]:
    """Raises PortError."""
    try:
        with _Client(database, deadline) as client:
            yield client
    except redis.RedisError as error:
        raise PortError(_outside(database, error, deadline).detail) from None


def _end_idle(client: _Client, rules: SessionRules) -> SessionsEnded:
    ended, left = [], []
    me = client.ask("CLIENT", "ID")
    for one in client.clients():
        if int(one["idle"]) < rules.idle_for_s or int(one["id"]) == me:
            continue
        why = _why_left(one, rules)
        if why is None and not client.ask("CLIENT", "KILL", "ID", one["id"]):
            why = "was gone already"
        if why is None:
            ended.append(_named(one))
        else:
            left.append(_named(one) | {"why": why})
    return SessionsEnded(tuple(ended), (), tuple(left))


def _unblock(client: _Client, rules: SessionRules) -> SessionsEnded:
    """Who waits in a blocking command too long is answered as if its time were over."""
    waiting = (
        one
        for one in client.clients()
        if "b" in one["flags"] and int(one["idle"]) >= rules.blocked_for_s and not _is_kept(one, rules)
    )
    return SessionsEnded((), tuple(_named(one) for one in waiting if client.ask("CLIENT", "UNBLOCK", one["id"])))


def _kill_script(client: _Client) -> SessionsEnded:
    for kind in ("SCRIPT", "FUNCTION"):
        try:
            client.ask(kind, "KILL")
        except redis.ResponseError as error:
            if not str(error).startswith("NOTBUSY"):
                raise
        else:
            return SessionsEnded((), ({"script": kind.lower()},))
    return SessionsEnded()


def _why_left(one: Mapping[str, str], rules: SessionRules) -> str | None:
    if "b" in one["flags"]:
        return "waits in a blocking command"
    skipped = next((why for flag, why in _SKIPPED.items() if flag in one["flags"]), None)
    return "to be kept" if skipped is None and _is_kept(one, rules) else skipped


def _is_kept(one: Mapping[str, str], rules: SessionRules) -> bool:
    return bool({one.get("name"), one.get("user")} & set(rules.keep))


def _named(one: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": int(one["id"]),
        "user": one.get("user", ""),
        "name": one.get("name", ""),
        "address": one.get("addr", ""),
        "seconds": int(one["idle"]),
    }


# -- lock keys --------------------------------------------------------------------------------------------------------


def lock_names(database: Database, patterns: tuple[str, ...], idle_for_s: float, deadline: Deadline) -> tuple[str, ...]:
    """As ``ports.Databases``. A key that expires ends by itself; how long one was not touched Redis says in seconds."""
    with _inside(database, deadline) as client:
        client.select()
        return _left(client, patterns, idle_for_s)


def lock_keys(
    database: Database, patterns: tuple[str, ...], idle_for_s: float, deadline: Deadline
) -> tuple[LockKey, ...]:
    """As ``ports.Databases``."""
    with _inside(database, deadline) as client:
        client.select()
        names = _left(client, patterns, idle_for_s)
        if names:
            client.look_unnoticed()
        dumped = [(name, client.value(name)) for name in names]
        return tuple(_lock_key(name, value) for name, value in dumped if value is not None)


def _left(client: _Client, patterns: tuple[str, ...], idle_for_s: float) -> tuple[str, ...]:
    names = sorted({name for pattern in patterns for name in _scan(client, pattern)})
    if len(names) > MOST_KEYS:
        raise PortError(f"{len(names)} keys fit {', '.join(patterns)}, and locks are few: at most {MOST_KEYS}")
    return tuple(name for name in names if _is_left(client, name, idle_for_s))


def _is_left(client: _Client, name: str, idle_for_s: float) -> bool:
    """Neither question touches the key."""
    if client.ask("PTTL", name) != NEVER_EXPIRES:
        return False
    idle_s = client.ask("OBJECT", "IDLETIME", name)
    return idle_s is not None and int(idle_s) >= idle_for_s


def keys_standing(database: Database, keys: tuple[LockKey, ...], deadline: Deadline) -> tuple[str, ...]:
    """As ``ports.Databases``."""
    with _inside(database, deadline) as client:
        client.select()
        return tuple(key.name for key in keys if client.ask("DUMP", key.name) == base64.b64decode(key.value))


def remove_keys(database: Database, keys: tuple[LockKey, ...], deadline: Deadline) -> tuple[str, ...]:
    """As ``ports.Databases``. A key that is changed meanwhile stays: WATCH ends the transaction."""
    with _inside(database, deadline) as client:
        client.select()
        return tuple(key.name for key in keys if _remove(client, key))


def _remove(client: _Client, key: LockKey) -> bool:
    client.ask("WATCH", key.name)
    if client.ask("DUMP", key.name) != base64.b64decode(key.value) or client.ask("PTTL", key.name) != NEVER_EXPIRES:
        client.ask("UNWATCH")
        return False
    client.ask("MULTI")
    client.ask("DEL", key.name)
    return bool(client.ask("EXEC"))


def restore_keys(database: Database, keys: tuple[LockKey, ...], deadline: Deadline) -> tuple[str, ...]:
    """As ``ports.Databases``."""
    with _inside(database, deadline) as client:
        client.select()
        return tuple(key.name for key in keys if _restore(client, key))


def _restore(client: _Client, key: LockKey) -> bool:
    try:
        client.ask("RESTORE", key.name, 0, base64.b64decode(key.value))
    except redis.ResponseError as error:
        if str(error).startswith("BUSYKEY"):
            return False
        raise
    return True


def keys_missing(database: Database, keys: tuple[LockKey, ...], deadline: Deadline) -> tuple[str, ...]:
    """As ``ports.Databases``."""
    with _inside(database, deadline) as client:
        client.select()
        return tuple(key.name for key in keys if not client.ask("EXISTS", key.name))


def _scan(client: _Client, pattern: str) -> Iterator[str]:
    cursor: bytes | int = 0
    while True:
        cursor, names = client.ask("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
        for name in names:
            try:
                yield bytes(name).decode()
            except UnicodeDecodeError:
                raise PortError(f"a key that fits {pattern} is no UTF-8 text: {bytes(name)!r:.80}") from None
        if int(cursor) == 0:
            return


def _lock_key(name: str, value: bytes) -> LockKey:
    if len(value) > MOST_VALUE_BYTES:
        raise PortError(f"key {name} holds {len(value)} bytes: that is no lock; at most {MOST_VALUE_BYTES}")
    return LockKey(name, base64.b64encode(value).decode("ascii"))
