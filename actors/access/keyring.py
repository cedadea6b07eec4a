"""The place of all keys, ``STATE/keys``: the daemon's own pair, the table of clients, the local key.

Used by the daemon (main thread at the start, link nodes' threads later) and by ``selfheal keys``, at the same time: who
changes something holds the lock file. A daemon that cannot write (a full or read-only disk) goes on with keys in memory
and writes them as soon as it can.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from actors.access.rules import Role
from actors.access.table import BadTable, Line, Table
from bridge_link.errors import KeyMissing
from bridge_link.keys import (
    CURVE_OFF,
    LOCAL,
    ClientKey,
    ServerKey,
    keys_directory,
    new_client_key,
    new_pair,
    read_key_file,
    read_server_key,
    write_key_file,
    write_server_key,
)
from bridge_link.private_files import make_private_directory, read_private, sweep_unfinished, write_private

RESERVED: Final = frozenset({LOCAL, "server", "selfheal", "alertmanager"})
"""Names alerts are stored under that come without a key of their own."""
ALL_ROLES: Final = tuple(role.value for role in Role)

Signature = tuple[int, int, int, int]


class Keyring:
    """Args:
    state_dir: the daemon's; ``keys`` in it is made when something is written.
    """

    def __init__(self, state_dir: Path) -> None:
        self.directory = keys_directory(state_dir)
        self.table_file = self.directory / "clients.json"
        self._server_file = self.directory / "server.key"
        self._local_file = self.directory / f"{LOCAL}.key"

    # -- what is there ------------------------------------------------------------------------------------------------

    def signature(self) -> Signature | None:
        """Changes whenever the table's file does; None: there is none, or it cannot be looked at."""
        try:
            facts = self.table_file.stat()
        except OSError:
            return None
        return facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns

    def table(self) -> Table:
        """Raises BadTable, KeyRefused. Without a file it is empty."""
        try:
            return self.written_table()
        except KeyMissing:
            return Table()

    def written_table(self) -> Table:
        """As ``table``, but for a daemon that has seen one. Raises KeyMissing too."""
        try:
            return Table.parsed(read_private(self.table_file))
        except BadTable as bad:
            raise BadTable(f"{self.table_file}: {bad}") from None

    # -- changes ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else changes anything meanwhile. Raises KeyRefused, OSError."""
        make_private_directory(self.directory)
        fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def change_table(self, change: Callable[[Table], Table]) -> Table:
        """Raises what ``change`` raises, BadTable, KeyRefused, OSError; then nothing has changed."""
        with self.changing():
            return self._changed(change)

    def server_key(self) -> ServerKey:
        """The daemon's pair; a new one if there is none. Raises KeyRefused, OSError."""
        with self.changing():
            return self._server()

    def add(self, line: Line, key: ClientKey, file: Path) -> None:
        """A new client: its key file, then its line in the table.

        Raises:
            NameTaken: a client has the name; nothing has changed.
            FileExistsError: the file is there; nothing has changed.
            BadTable, KeyRefused, OSError: likewise.
        """
        with self.changing():
            wider = self.table().with_new(line)
            write_key_file(file, key)
            try:
                write_private(self.table_file, wider.text(), replace=True)
            except OSError:
                file.unlink()
                raise

    # -- at the daemon's start ----------------------------------------------------------------------------------------

    def prepare(self, now: datetime, made: ServerKey | None = None) -> ServerKey:
        """The daemon's pair; the local key fits to it and stands in the table. Nothing is written when all is there.

        Args:
            made: the pair this daemon made already and could not write.

        Raises:
            KeyRefused: what is there may be read by others, or is no key; the text says what to do.
            OSError: it cannot be written.
        """
        if self.directory.exists():
            make_private_directory(self.directory)  # refused when others may enter it
        with contextlib.suppress(KeyMissing, BadTable):
            server, local = read_server_key(self._server_file), read_key_file(self._local_file)
            if local is not None and self._fits(local, server) and with_local(self.table(), local, now) == self.table():
                return server
        with self.changing():
            sweep_unfinished(self.directory)
            server = self._server(made)
            local = self._local(server)
            with contextlib.suppress(BadTable):  # the book says it, for as long as it is so
                self._changed(lambda table: with_local(table, local, now))
            return server

    def readable_server_key(self) -> ServerKey | None:
        """The daemon's pair, where nothing can be written. Raises KeyRefused."""
        try:
            return read_server_key(self._server_file)
        except KeyMissing:
            return None

    def say_curve_is_off(self) -> None:
        """For local programs that look for a key. Raises KeyRefused, OSError."""
        with self.changing():
            write_private(self._local_file, CURVE_OFF, replace=True)

    def _server(self, made: ServerKey | None = None) -> ServerKey:
        try:
            return read_server_key(self._server_file)
        except KeyMissing:
            pair = made or new_pair()
            write_server_key(self._server_file, pair)
            return pair

    def _local(self, server: ServerKey) -> ClientKey:
        """The key in the file, as far as it is one; it is made to fit to the server's."""
        try:
            found = read_key_file(self._local_file)
        except KeyMissing:
            found = None
        if found is not None and self._fits(found, server):
            return found
        fits = replace(found, name=LOCAL, server=server.public) if found else new_client_key(LOCAL, server.public)
        write_key_file(self._local_file, fits, replace=True)
        return fits

    @staticmethod
    def _fits(local: ClientKey, server: ServerKey) -> bool:
        return (local.name, local.server) == (LOCAL, server.public)

    def _changed(self, change: Callable[[Table], Table]) -> Table:
        old = self.table()
        new = change(old)
        if new != old:
            write_private(self.table_file, new.text(), replace=True)
        return new


def with_local(table: Table, local: ClientKey, now: datetime) -> Table:
    """The table with this local key in it. A person's word about it (revoked, a rate) stands while it is the same."""
    known = table.line(LOCAL)
    if known is not None and known.public == local.public:
        return table
    return table.put(Line(name=LOCAL, public=local.public, roles=ALL_ROLES, alert_types=("*",), made_at=now))


def utc_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
