"""Runbooks of databases, on real servers. Starts are counted by whatever starts the server, ended sessions in
PostgreSQL's own log, and what was done to a key in Redis's append-only file.

A server writes over its environment, so it cannot be found by it as other services are: each start notes its process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Final

import psycopg
import redis

from guardian_link import Alert
from tests.crash.world import World
from tests.crash_runbooks.stages import AHEAD, BACK, SNAPSHOT, Services, Stage, both
from tests.faults import postgres as postgres_rig
from tests.faults import redis as redis_rig
from tests.faults.postgres import Postgres, postgres
from tests.faults.redis import Redis, redis_server
from tests.support.eventually import eventually

SERVICE: Final = "db"
LIMIT_S: Final = 30.0
LOCK: Final = "lock:orders"
UPDATE: Final = "update stock set n = n + 1 where id = 1"
ENDED: Final = "terminating connection due to administrator command"
_STARTED: Final = '#!/bin/sh\necho $$ >>"{starts}"\nexec {program} "$@"\n'


class _OnServer(Stage):
    """``kind`` and ``labels``: of the alert."""

    kind: ClassVar[str]
    labels: ClassVar[dict[str, Any]] = {}
    signal_to_end: ClassVar[int] = signal.SIGKILL
    rig: Postgres | Redis

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.held = ExitStack()

    def services(self) -> Services:
        return {SERVICE: self.rig.service()}

    def config(self) -> dict[str, Any]:
        secret = self.folder / "db.url"
        secret.write_text(f"{self.rig.url()}\n", encoding="utf-8")
        secret.chmod(0o600)
        databases = {SERVICE: {"url": {"secret": "db_url"}}}
        return {"runbooks": {"databases": databases}, "secrets": {"db_url": {"file": str(secret)}}}

    def alert(self) -> Alert:
        return Alert(type=self.kind, service=SERVICE, source="crash-matrix", labels=self.labels)

    @property
    def starts(self) -> Path:
        """Each start of the server is a line of it: its process."""
        return self.rig.folder / "starts"

    def count_starts(self) -> None:
        program = self.rig.program.readlink()
        self.rig.program.unlink()
        self.rig.program.write_text(_STARTED.format(starts=self.starts, program=program), encoding="ascii")
        self.rig.program.chmod(0o755)

    def pids(self) -> list[int]:
        return [int(one) for one in self.starts.read_text().split()] if self.starts.exists() else []

    def alive(self) -> list[int]:
        return [pid for pid in self.pids() if _place_of(pid).startswith(str(self.rig.folder))]

    def ill(self) -> list[str]:
        alive = self.alive()
        return [f"{len(alive)} servers live"] if len(alive) != 1 else []

    def close(self) -> None:
        for daemon in self.world.daemons:  # or it would bring the server back
            daemon.kill()
        self.world.kill_keeper()
        self.held.close()

    def end_servers(self) -> None:
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, self.signal_to_end)
        eventually(lambda: not self.alive(), within_s=LIMIT_S)


def _place_of(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return ""


# -- Redis ------------------------------------------------------------------------------------------------------------


class _OnRedis(_OnServer):
    rig: Redis

    @classmethod
    def trouble(cls) -> str | None:
        return None if shutil.which("redis-server") else "no Redis server here; on Debian: apt-get install redis-server"

    def begin(self) -> None:
        self.rig = self.held.enter_context(redis_server(self.folder))
        self.held.callback(self.end_servers)
        self.count_starts()


class RedisKilled(_OnRedis):
    runbook = "database_connection_failure"
    kind = "database_connection_failure"
    variant = "success"
    wanted = "succeeded"
    right: ClassVar[Sequence[str]] = ("start", "start")
    passes: ClassVar[Sequence[str]] = (*AHEAD, *SNAPSHOT, *both("skipped"))
    order = 45

    def break_it(self) -> None:
        with self.rig.connect() as client:
            client.set("price", "1.1")
        (pid,) = self.alive()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: self.world.nodes()[SERVICE]["state"] != "ready", within_s=LIMIT_S)

    def effects(self) -> list[str]:
        return ["start"] * len(self.pids())

    def ill(self) -> list[str]:
        with contextlib.suppress(redis.RedisError), self.rig.connect() as client:
            found = client.get("price")
            return [*super().ill(), *([f"the price is {found}"] if found != "1.1" else [])]
        return [*super().ill(), "it does not answer"]


class RedisKilledForNothing(RedisKilled):
    """It runs again, and that does not help: it is wanted and runs, as before."""

    variant = "rollback"
    wanted = "rolled_back"
    helps = False
    passes: ClassVar[Sequence[str]] = (*RedisKilled.passes, *both("failing"), *BACK)
    order = 46


class LockLeft(_OnRedis):
    runbook = "database_lock_left"
    kind = "database_lock_left"
    variant = "success"
    wanted = "succeeded"
    labels: ClassVar = {"lock_keys": "lock:*", "left_s": 60}
    right: ClassVar[Sequence[str]] = ("DEL",)
    has_probe = False
    order = 43

    def break_it(self) -> None:
        """A lock that nobody has touched for a while, and a young one."""
        with self.rig.connect() as client:
            client.set("price", "1.1")
            client.set("lock:young", "another", ex=300)
            client.set(LOCK, "an owner that is gone")
            dumped = redis.Redis(port=self.rig.port, password=redis_rig.PASSWORD).dump(LOCK)
            client.delete(LOCK)
            client.execute_command("RESTORE", LOCK, 0, dumped, "IDLETIME", 1000)

    def effects(self) -> list[str]:
        """What was done to the lock after the fault, as Redis wrote it down."""
        done = [one for one in _written(self.rig.folder) if LOCK in one[1:2]]
        return [one[0] for one in done[3:] if "REPLACE" not in one]  # a look puts the key's age back

    def ill(self) -> list[str]:
        with self.rig.connect() as client:
            keys: Any = client.keys()
            wanted = sorted({"lock:young", "price"} | self.stands())
            return [*super().ill(), *([f"keys {keys}"] if sorted(keys) != wanted else [])]

    def stands(self) -> set[str]:
        return set()


class LockPutBack(LockLeft):
    """That it is gone does not help: it is there again, as it was."""

    variant = "rollback"
    wanted = "rolled_back"
    helps = False
    right: ClassVar[Sequence[str]] = ("DEL", "RESTORE")
    passes: ClassVar[Sequence[str]] = (*LockLeft.passes, *both("failing"), *BACK)
    order = 44

    def stands(self) -> set[str]:
        return {LOCK}


def _written(folder: Path) -> Iterator[list[str]]:
    """The commands of an append-only file."""
    for file in sorted((folder / "appendonlydir").glob("*.incr.aof")):
        rest = file.read_bytes()
        while rest.startswith(b"*"):
            head, _, rest = rest.partition(b"\r\n")
            words = []
            for _word in range(int(head[1:])):
                size, _, rest = rest.partition(b"\r\n")
                length = int(size[1:])
                words.append(rest[:length].decode(errors="replace"))
                rest = rest[length + 2 :]
            yield [words[0].upper(), *words[1:]]


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


class _OnPostgres(_OnServer):
    runbook = "database_connection_failure"
    wanted = "succeeded"
    right: ClassVar[Sequence[str]] = ("start", "ended")
    passes: ClassVar[Sequence[str]] = (*AHEAD, *SNAPSHOT, *both("skipped"))
    signal_to_end = signal.SIGQUIT
    rig: Postgres

    @classmethod
    def trouble(cls) -> str | None:
        found = any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb")
        return None if found else "no PostgreSQL server here; on Debian: apt-get install postgresql"

    def begin(self) -> None:
        self.rig = self.held.enter_context(postgres())
        self.held.callback(self.end_servers)
        self.count_starts()

    def session(self, name: str) -> psycopg.Connection[Any]:
        session = self.rig.connect("app", name)
        self.held.callback(session.close)
        return session

    def effects(self) -> list[str]:
        logs = (self.world.state / "logs").glob(f"{SERVICE}*")
        ended = sum(file.read_text(errors="replace").count(ENDED) for file in logs)
        return ["start"] * len(self.pids()) + ["ended"] * ended


class Waited(_OnPostgres):
    """A session holds a lock and does nothing, another waits for it: the first is ended, and only that one."""

    variant = "unblocked"
    kind = "database_locked"
    labels: ClassVar = {"blocked_s": 1}
    order = 48

    def break_it(self) -> None:
        self.rig.make_users()
        holder, self.waiter = self.session("holder"), self.session("waiter")
        holder.execute(f"begin; {UPDATE}")
        self.waiter.pgconn.send_query(UPDATE.encode())
        asked = "select count(*) from pg_locks where not granted and waitstart < now() - interval '1.1 s'"
        with self.rig.connect() as chief:
            eventually(lambda: chief.execute(asked).fetchone() == (1,), within_s=LIMIT_S)

    def ill(self) -> list[str]:
        with self.rig.connect() as chief:
            found = chief.execute("select n from stock").fetchone()
        return [*super().ill(), *([f"the waiting update made it {found}"] if found != (1,) else [])]


class Crowded(_OnPostgres):
    """Sessions that do nothing take all places: they are ended, each once."""

    variant = "made-room"
    kind = "database_exhausted"
    labels: ClassVar = {"idle_s": 1}
    most: ClassVar[int] = postgres_rig.MOST - postgres_rig.RESERVED
    right: ClassVar[Sequence[str]] = ("start", *["ended"] * most)
    order = 49

    def break_it(self) -> None:
        self.rig.make_users()
        for number in range(self.most):
            self.session(f"hoarder-{number}")
        asked = (
            "select count(*) from pg_stat_activity where usename = 'app' and state_change < now() - interval '1.1 s'"
        )
        with self.rig.connect() as chief:
            eventually(lambda: chief.execute(asked).fetchone() == (self.most,), within_s=LIMIT_S)


STAGES = (RedisKilled, RedisKilledForNothing, LockLeft, LockPutBack, Waited, Crowded)
