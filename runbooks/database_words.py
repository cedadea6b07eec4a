"""What runbooks say of databases and ask of them: the words of the port ``Databases``. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class DatabaseTrouble(enum.Enum):
    """What keeps a database from serving, as one word: it says which cure fits.

    ``DOWN``: nothing accepts. ``STARTING``: it says that it is coming up, or going down. ``HUNG``: it accepts and
    answers nothing in time. ``FULL``: no more connections, not even for us. ``EXHAUSTED``: we got in, but others soon
    cannot. ``BLOCKED``: somebody has waited for a lock (or the whole server for a script) too long. ``DENIED``: it
    runs, and does not let us in: wrong password, no such database. ``UNSEEN``: its service runs, nobody can look
    inside.
    """

    NONE = "none"
    DOWN = "down"
    STARTING = "starting"
    HUNG = "hung"
    FULL = "full"
    EXHAUSTED = "exhausted"
    BLOCKED = "blocked"
    DENIED = "denied"
    UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class Database:
    """Which database. ``url`` may hold a password: it is never shown. ``engine`` None: as the url's scheme says."""

    url: str
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class DatabaseLimits:
    """From when on a database is in trouble: the share (0 to 1) of its sessions in use, seconds waited for a lock."""

    share: float = 0.9
    blocked_for_s: float = 30.0


@dataclass(frozen=True, slots=True)
class DatabaseView:
    """How a database is. Figures are None when it did not let us look. ``most_sessions`` is what ordinary users may
    have; ``writable`` False: it says itself that it takes no writes (a standby, a replica).
    """

    engine: str
    trouble: DatabaseTrouble
    detail: str
    sessions: int | None = None
    most_sessions: int | None = None
    waiting: int | None = None
    longest_wait_s: float | None = None
    writable: bool | None = None

    @property
    def share(self) -> float | None:
        if self.sessions is None or not self.most_sessions:
            return None
        return self.sessions / self.most_sessions


class Sessions(enum.Enum):
    """Which sessions to end. ``IDLE``: doing nothing for too long. ``BLOCKING``: at the root of a wait for a lock that
    takes too long (Redis: clients, or the script, that have blocked too long). ``HOLDING``: those, and idle ones that
    hold an advisory lock.
    """

    IDLE = "idle"
    BLOCKING = "blocking"
    HOLDING = "holding"


@dataclass(frozen=True, slots=True)
class SessionRules:
    """``keep``: users, application and client names that are left alone."""

    idle_for_s: float = 300.0
    blocked_for_s: float = 30.0
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionsEnded:
    """Whose session was ended, whose statement only cancelled, and who was left alone and why; JSON values."""

    ended: tuple[Mapping[str, Any], ...] = ()
    cancelled: tuple[Mapping[str, Any], ...] = ()
    left: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class LockKey:
    """A key of Redis that never expires, with its value as ``DUMP`` gives it, in base64."""

    name: str
    value: str


class Databases(Protocol):
    """Every method ends within its ``timeout_s``, whatever the server does."""

    def of_service(self, service: str) -> Database | None:
        """The database that the configuration says a service is; None where it says nothing.

        Raises:
            PortError: its url is a secret that cannot be read.
        """

    def view(self, database: Database, limits: DatabaseLimits, timeout_s: float) -> DatabaseView:
        """Look in. A server that refuses, hangs or says no is an answer.

        Raises:
            PortError: nobody can tell (no route, no such host, no client library, a url that is none).
        """

    def end_sessions(self, database: Database, which: Sessions, rules: SessionRules, timeout_s: float) -> SessionsEnded:
        """End sessions, never our own, a superuser's or a replication's, and wait until they are gone.

        Raises:
            PortError: we cannot get in, or may not end them.
        """

    def lock_keys(
        self, database: Database, patterns: tuple[str, ...], idle_for_s: float, timeout_s: float
    ) -> tuple[LockKey, ...]:
        """Keys of Redis that fit a pattern, never expire, and were not touched for ``idle_for_s``.

        Raises:
            PortError: we cannot get in, there are too many, or the engine has no such keys.
        """

    def lock_names(
        self, database: Database, patterns: tuple[str, ...], idle_for_s: float, timeout_s: float
    ) -> tuple[str, ...]:
        """The names of such keys only: to read a value is to touch it, and then it is not idle any more.

        Raises:
            PortError: as ``lock_keys``.
        """

    def keys_standing(self, database: Database, keys: tuple[LockKey, ...], timeout_s: float) -> tuple[str, ...]:
        """The names of those that still have the value given.

        Raises:
            PortError: nobody can tell.
        """

    def remove_keys(self, database: Database, keys: tuple[LockKey, ...], timeout_s: float) -> tuple[str, ...]:
        """Delete each key that still has the value given; the names of those deleted.

        Raises:
            PortError: we cannot get in, or it refuses.
        """

    def restore_keys(self, database: Database, keys: tuple[LockKey, ...], timeout_s: float) -> tuple[str, ...]:
        """Put back each key that is not there; one that somebody has set anew is his. The names of those put back.

        Raises:
            PortError: we cannot get in, or it refuses.
        """

    def keys_missing(self, database: Database, keys: tuple[LockKey, ...], timeout_s: float) -> tuple[str, ...]:
        """The names of those that are not there.

        Raises:
            PortError: nobody can tell.
        """
