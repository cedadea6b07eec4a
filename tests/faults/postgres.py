"""A PostgreSQL server of its own: an own folder, port, user, few connections. Alone, or as a service of the daemon.

PostgreSQL does not run as root: tests that do give it to another user. Its folder is not below ``tmp_path``, which that
user could not enter. ``initdb`` runs once a process; clusters are copies.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from tests.support.eventually import eventually
from tests.system.running import free_port

MOST: Final = 12
RESERVED: Final = 3
PASSWORD: Final = "canary-of-postgres"
"""Of every url, though the server trusts whoever comes: it must not be found anywhere."""
SETTINGS: Final = f"""
listen_addresses = '127.0.0.1'
max_connections = {MOST}
superuser_reserved_connections = {RESERVED}
max_wal_senders = 2
fsync = off
shared_buffers = 1MB
autovacuum = off
log_min_messages = fatal
lc_messages = 'C'
"""
_USERS: Final = ("postgres", "nobody")


def binaries() -> Path:
    """Where PostgreSQL's programs are; skips the test where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    program = shutil.which("initdb")
    if not found and program is None:
        pytest.skip("no PostgreSQL server here; on Debian: apt-get install postgresql")
    return found[-1].parent if found else Path(program or "").resolve().parent


def account() -> pwd.struct_passwd | None:
    """Whom the server is given to; None: whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    return next(one for one in pwd.getpwall() if one.pw_name in _USERS)


def _as_account() -> dict[str, Any]:
    who = account()
    return {} if who is None else {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}


def _own_folder(prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    if (who := account()) is not None:
        os.chown(folder, who.pw_uid, who.pw_gid)
    return folder


@functools.cache
def _template() -> Path:
    """A cluster that was never started. Kept until the process ends."""
    import atexit

    folder = _own_folder("selfheal-initdb-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run(
        [
            binaries() / "initdb",
            "-D",
            folder / "data",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-N",
            "--no-locale",
            "-E",
            "UTF8",
        ],
        check=True,
        capture_output=True,
        cwd=folder,
        **_as_account(),
    )
    with (folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as settings:
        settings.write(SETTINGS)
    return folder / "data"


@dataclass
class Postgres:
    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def program(self) -> Path:
        """A link of our own to the server, which tests can break."""
        return self.folder / "postgres"

    @property
    def command(self) -> list[str]:
        data = self.folder / "data"
        return [str(self.program), "-D", str(data), "-p", str(self.port), "-k", str(self.folder)]

    def url(self, user: str = "postgres") -> str:
        return f"postgresql://{user}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def service(self, **more: Any) -> dict[str, Any]:
        """As the daemon's configuration has it. Nobody but a runbook brings it back."""
        who = account()
        return {
            "command": self.command,
            "working_dir": str(self.folder),
            "restart_policy": "never",
            "health_check": {"tcp": f"127.0.0.1:{self.port}", "interval": "200ms", "timeout": "1s"},
            "graceful_shutdown_timeout": "1s",
            **({} if who is None else {"user": who.pw_name}),
            **more,
        }

    def connect(self, user: str = "postgres", name: str = "test", **more: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url(user), application_name=name, autocommit=True, connect_timeout=5, **more)

    def until_ready(self, within_s: float = 30) -> None:
        def look() -> bool:
            try:
                self.connect().close()
            except psycopg.OperationalError as error:
                raise AssertionError(str(error)) from error
            return True

        eventually(look, within_s=within_s, every_s=0.05)

    def make_users(self) -> None:
        """``app`` is an ordinary user; ``watch`` may see and end the sessions of such; ``plain`` may not."""
        self.until_ready()  # its port is open before it takes anybody
        with self.connect() as session:
            session.execute("create role app login; create role plain login; create role watch login")
            session.execute("grant pg_monitor, pg_signal_backend to watch")
            session.execute(
                "create table if not exists stock (id int primary key, n int); insert into stock values (1, 0)"
            )
            session.execute("grant all on stock to app, plain")

    def break_program(self) -> None:
        """From here on the server cannot be started."""
        self.program.unlink()
        self.program.symlink_to("/bin/false")

    def postmaster(self) -> int:
        return int((self.folder / "data" / "postmaster.pid").read_text().splitlines()[0])


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A cluster, not started; its folder goes at the end."""
    template = _template()
    folder = _own_folder("selfheal-pg-")
    try:
        subprocess.run(["cp", "-a", template, folder / "data"], check=True)
        made = Postgres(folder)
        made.program.symlink_to(binaries() / "postgres")
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A cluster that runs alone, with its users."""
    with postgres() as made, (made.folder / "log").open("wb") as log:
        server = subprocess.Popen(made.command, stdout=log, stderr=log, cwd=made.folder, **_as_account())
        try:
            made.until_ready()
            made.make_users()
            yield made
        finally:
            server.send_signal(signal.SIGCONT)
            server.send_signal(signal.SIGQUIT)
            server.wait(30)
