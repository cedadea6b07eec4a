"""What a client may do. Pure: no files, no clocks, no sockets.

The name a rule is asked about is the authenticated one; what a body says about its sender is never looked at.
"""

from __future__ import annotations

import enum
import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bridge_link.wire import KEY_REFUSED, KEY_REFUSED_MS, Kind


class Role(enum.Enum):
    GUARDIAN = "guardian"
    BRIDGE = "bridge"
    OPERATOR = "operator"
    VIEWER = "viewer"


KINDS: Final[Mapping[Role, frozenset[Kind]]] = {
    Role.GUARDIAN: frozenset({Kind.ALERT, Kind.QUERY, Kind.HEARTBEAT}),
    Role.BRIDGE: frozenset({Kind.ALERT, Kind.HEARTBEAT, Kind.REPLY, Kind.HELLO}),
    Role.OPERATOR: frozenset({Kind.QUERY}),
    Role.VIEWER: frozenset({Kind.QUERY}),
}
FROM_CLIENTS: Final = frozenset().union(*KINDS.values())
TYPES: Final[Mapping[Role, tuple[str, ...]]] = {Role.GUARDIAN: ("*",), Role.BRIDGE: ("bridge_*",)}
"""The alert types of a role when none were said."""
COUNTED: Final = frozenset({Kind.ALERT, Kind.QUERY})
"""What a rate is about: a heartbeat held back would be taken for a death."""


@dataclass(frozen=True, slots=True)
class Client:
    """One line of the table. Times are Unix seconds."""

    name: str
    public: str
    roles: frozenset[Role]
    alert_types: tuple[str, ...]
    max_rate_per_s: float | None = None
    not_after: float | None = None
    revoked_at: float | None = None
    kinds: frozenset[Kind] = field(init=False)
    _takes: re.Pattern[str] | None = field(init=False)
    _is_free: bool = field(init=False)

    def __post_init__(self) -> None:
        globs = self.alert_types
        object.__setattr__(self, "kinds", frozenset().union(*(KINDS[role] for role in self.roles)))
        pattern = None if "*" in globs else re.compile("|".join(map(fnmatch.translate, globs)) or "(?!)")
        object.__setattr__(self, "_takes", pattern)
        is_alive = self.revoked_at is None and self.not_after is None
        object.__setattr__(self, "_is_free", is_alive and pattern is None and Kind.ALERT in self.kinds)

    @property
    def may_alert_anything(self) -> bool:
        """Always, and of any type: as nearly all."""
        return self._is_free

    def may_alert(self, alert_type: str) -> bool:
        return self._takes is None or self._takes.match(alert_type) is not None


@dataclass(frozen=True, slots=True)
class Allowed:
    pass


@dataclass(frozen=True, slots=True)
class Denied:
    """``code`` is the NACK's. One that is not permanent may come again after ``retry_after_ms`` milliseconds."""

    code: str
    text: str
    permanent: bool = True
    retry_after_ms: int = 0


ALLOWED: Final = Allowed()


def decide(client: Client, kind: Kind, alert_type: str | None, now: float) -> Allowed | Denied:
    """Whether a client may say this now (Unix seconds). What no client may say at all is not judged here."""
    if kind is Kind.ALERT and client.may_alert_anything:
        return ALLOWED
    if (denied := lapsed(client, now)) is not None:
        return denied
    if kind not in client.kinds and kind in FROM_CLIENTS:
        return Denied("forbidden", f"{client.name} ({_roles(client)}) may not send {kind.name}")
    if kind is Kind.ALERT and not client.may_alert(alert_type or ""):
        text = f"{client.name} ({_roles(client)}) may not send alerts of type {(alert_type or '')[:80]}"
        return Denied("forbidden", text)
    return ALLOWED


def lapsed(client: Client, now: float) -> Denied | None:
    """Whether the key itself is no longer good."""
    if client.revoked_at is not None:
        return unknown(f"the key of {client.name} was revoked")
    if client.not_after is not None and now >= client.not_after:
        return unknown(f"the key of {client.name} has expired")
    return None


def unknown(text: str) -> Denied:
    """A key nobody may speak with now: what is sent with it may come again with another."""
    return Denied(KEY_REFUSED, text, permanent=False, retry_after_ms=KEY_REFUSED_MS)


def _roles(client: Client) -> str:
    return ", ".join(sorted(role.value for role in client.roles)) or "no role"


@dataclass(slots=True)
class Bucket:
    """So many a second on average, at most one second's worth at once. Times are any clock's seconds."""

    rate_per_s: float
    level: float
    at: float

    @classmethod
    def full(cls, rate_per_s: float, now: float) -> Bucket:
        return cls(rate_per_s, max(1.0, rate_per_s), now)

    def take(self, now: float) -> float:
        """Take one. Returns 0.0, or after how many seconds there is one again."""
        self.level = min(max(1.0, self.rate_per_s), self.level + (now - self.at) * self.rate_per_s)
        self.at = now
        if self.level < 1.0:
            return (1.0 - self.level) / self.rate_per_s
        self.level -= 1.0
        return 0.0


def held_back(client: Client, wait_s: float) -> Denied:
    text = f"{client.name} may send {client.max_rate_per_s:g} messages a second"
    return Denied("busy", text, permanent=False, retry_after_ms=max(1, round(1000 * wait_s)))
