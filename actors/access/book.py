"""Whom the running daemon knows: the table in memory, read again when its file changes.

``look`` is called about once a second on the link nodes' threads and may be slow; ``admits``, ``name_of`` and ``judge``
are called on link pumps for every handshake and message and only look into dictionaries. So a revoked key is refused
within about a second, on living sessions too, and a slow disk delays that and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from actors.access.audit import Audit
from actors.access.keyring import Keyring, Signature, utc_now
from actors.access.rules import ALLOWED, COUNTED, Bucket, Client, Denied, decide, held_back, lapsed, unknown
from actors.access.table import BadTable, Table
from actors.clock import Clock
from bridge_link.errors import KeyTrouble
from bridge_link.keys import ServerKey, new_pair
from bridge_link.wire import Kind
from bridge_link.zap import CannotDecide, Guard

Record = Callable[[Table, Callable[[bool], object]], object]


@dataclass(frozen=True)
class _Known:
    """One state of the table."""

    by_name: Mapping[str, Client]
    names: Mapping[str, str]
    """By public key."""

    @classmethod
    def of(cls, table: Table) -> _Known:
        clients = table.clients()
        return cls(clients, {client.public: name for name, client in clients.items()})


@dataclass
class ClientBook:
    """``open`` first; then ``guard`` is what sockets are made with.

    ``record`` is given each state of the table that was read, and whom to tell whether it is on record: until it is,
    it is given again about once a second.
    """

    keyring: Keyring
    clock: Clock
    audit: Audit
    record: Record = lambda _table, told: told(True)
    _unrecorded: Table | None = None
    _is_recording: bool = False
    _known: _Known | None = None
    _server: ServerKey | None = None
    _read: Signature | None = None
    _is_prepared: bool = False
    _trouble: str | None = None
    _reading: threading.Lock = field(default_factory=threading.Lock)
    _spending: threading.Lock = field(default_factory=threading.Lock)
    _buckets: dict[str, Bucket] = field(default_factory=dict)

    def open(self) -> None:
        """Raises KeyRefused: a key that others can read, or that is none. A full or read-only disk is a trouble."""
        if self._server is not None:
            return
        with self._reading:
            self._prepare()
            self._read_again()

    @property
    def guard(self) -> Guard:
        assert self._server is not None, "open comes first"  # noqa: S101
        return Guard(self._server.secret, self.admits, self.name_of)

    @property
    def follower_guard(self) -> Guard:
        """For the socket events are published on: only who may ask comes in, and only he has a name there."""
        guard = self.guard

        def admits(public: str, address: str) -> bool:
            return guard.admits(public, address) and self._follower(public) is not None

        return Guard(guard.secret, admits, self._follower)

    def _follower(self, public: str) -> str | None:
        known = self._known
        client = None if known is None else known.by_name.get(known.names.get(public, ""))
        may_ask = client is not None and not isinstance(decide(client, Kind.QUERY, None, self.clock.wall()), Denied)
        return client.name if client is not None and may_ask else None

    def look(self) -> str | None:
        """Read what has changed. Returns what is wrong with the keys, or None."""
        with self._reading:
            if not self._is_prepared:
                try:
                    self._prepare()
                except KeyTrouble as error:
                    self._trouble = str(error)
            if self._is_prepared and (self._trouble is not None or self.keyring.signature() != self._read):
                self._read_again()
            self._record()
            return self._trouble

    def _record(self) -> None:
        table = self._unrecorded
        if table is None or self._is_recording:
            return
        self._is_recording = True

        def told(is_done: bool) -> None:
            self._is_recording = False
            if is_done and self._unrecorded is table:
                self._unrecorded = None

        self.record(table, told)

    def _prepare(self) -> None:
        try:
            self._server = self.keyring.prepare(utc_now(), self._server)
            self._is_prepared = True
        except OSError as error:  # full or read-only: nobody finds a key, and services are supervised all the same
            where = error.filename or self.keyring.directory
            self._trouble = f"no keys for clients: cannot write {where}: {error.strerror}"
            self._server = self._server or self.keyring.readable_server_key() or new_pair()

    def _read_again(self) -> None:
        signature = self.keyring.signature()
        try:
            table = self.keyring.written_table()
            self._known, self._unrecorded = _Known.of(table), table
        except (BadTable, KeyTrouble) as error:
            kept = "nobody is let in" if self._known is None else "the table as it was is used"
            if self._is_prepared:
                self._trouble = f"{error}; {kept}"
            return
        self._read = signature
        if self._is_prepared:
            self._trouble = None

    # -- on pumps -----------------------------------------------------------------------------------------------------

    def admits(self, public: str, address: str) -> bool:
        """Raises CannotDecide."""
        known = self._known
        if known is None:
            raise CannotDecide
        client = known.by_name.get(known.names.get(public, ""))
        denied = None if client is None else lapsed(client, self.clock.wall())
        if client is not None and denied is None:
            return True
        self.audit.refused("an unknown key" if denied is None else f"a client: {denied.text},", address, public)
        return False

    def name_of(self, public: str) -> str | None:
        known = self._known
        return None if known is None else known.names.get(public)

    def may(self, name: str, kind: Kind) -> bool:
        """As ``judge``, where asking is no offence: nothing is counted, and nothing goes on record."""
        known = self._known
        client = None if known is None else known.by_name.get(name)
        return client is not None and not isinstance(decide(client, kind, None, self.clock.wall()), Denied)

    def judge(self, name: str, kind: Kind, alert_type: str | None = None) -> Denied | None:
        """What an authenticated client is answered instead of being heard; None: it is heard."""
        known = self._known
        client = None if known is None else known.by_name.get(name)
        if client is None:  # taken out of the table between two looks
            denied = unknown(f"{name} is not known here any more")
        else:
            verdict = decide(client, kind, alert_type, self.clock.wall())
            if isinstance(verdict, Denied):
                denied = verdict
            elif client.max_rate_per_s is None or kind not in COUNTED:
                return None
            else:
                wait_s = self._spend(client, client.max_rate_per_s)
                if not wait_s:
                    return None
                denied = held_back(client, wait_s)
        self.audit.denied(name, kind, denied)
        return denied

    def judge_alerts(self, name: str, types: Sequence[str]) -> Sequence[Denied | None]:
        """``judge`` of an alert of each of these types."""
        known = self._known
        client = None if known is None else known.by_name.get(name)
        if client is not None and client.max_rate_per_s is None:  # then each of a type is judged alike
            now = self.clock.wall()
            if all(decide(client, Kind.ALERT, one, now) is ALLOWED for one in set(types)):
                return [None] * len(types)
        return [self.judge(name, Kind.ALERT, one) for one in types]

    def _spend(self, client: Client, rate_per_s: float) -> float:
        now = self.clock.now()
        with self._spending:  # two links' pumps
            bucket = self._buckets.get(client.name)
            if bucket is None or bucket.rate_per_s != rate_per_s:
                bucket = self._buckets[client.name] = Bucket.full(rate_per_s, now)
            return bucket.take(now)


@dataclass
class PlainBook:
    """The book of links without keys: all who can reach them are the local user's programs."""

    keyring: Keyring
    guard: None = None
    follower_guard: None = None
    _trouble: str | None = None
    _is_said: bool = False

    def open(self) -> None:
        self.look()

    def look(self) -> str | None:
        if not self._is_said:
            try:
                self.keyring.say_curve_is_off()
                self._is_said, self._trouble = True, None
            except (KeyTrouble, OSError) as error:
                self._trouble = f"clients cannot be told that links have no keys: {error}"
        return self._trouble

    def may(self, name: str, kind: Kind) -> bool:
        del name, kind
        return True

    def judge(self, name: str, kind: Kind, alert_type: str | None = None) -> Denied | None:
        del name, kind, alert_type
        return None

    def judge_alerts(self, name: str, types: Sequence[str]) -> Sequence[Denied | None]:
        return unjudged_alerts(name, types)


Book = ClientBook | PlainBook
Judge = Callable[[str, Kind, str | None], Denied | None]
JudgeAlerts = Callable[[str, Sequence[str]], Sequence[Denied | None]]
"""A client's name, the types of the alerts it sent -> what each of them is answered instead of being heard, or None."""


def unjudged(name: str, kind: Kind, alert_type: str | None) -> None:
    """Everybody may say everything."""
    del name, kind, alert_type


def unjudged_alerts(name: str, types: Sequence[str]) -> Sequence[Denied | None]:
    """Everybody may send every alert."""
    del name
    return [None] * len(types)
