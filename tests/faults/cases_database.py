"""Databases that are down, frozen, full, blocked: what the shipped runbooks make of them."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
import redis

from tests.faults.database_stage import SERVICE, Stage, postgres_stage, redis_stage
from tests.faults.postgres import MOST as MOST_SESSIONS
from tests.faults.postgres import RESERVED, Postgres
from tests.faults.redis import MOST as MOST_CLIENTS
from tests.faults.redis import Redis
from tests.faults.registry import Case, Ended, Kind
from tests.support.eventually import eventually

MAIN: Final = "database_connection_failure"
LOCK: Final = "database_lock_left"
LONG_S: Final = 30.0
UPDATE: Final = "update stock set n = n + 1 where id = 1"


def _runs(stage: Stage[Any]) -> int:
    return int(stage.service()["incarnation"])


def _end(stage: Stage[Any], number: int) -> None:
    """``number`` goes to the server's main process."""
    stage.broke_at = time.monotonic()
    os.kill(stage.running.pid(SERVICE), number)


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def _well(rig: Postgres) -> None:
    with rig.connect("app") as session:
        session.execute(UPDATE)


def _postgres_ended(number: int) -> Callable[..., Ended]:
    def run(folder: Path, *, acts: bool) -> Ended:
        with postgres_stage(folder, acts=acts) as stage:
            _end(stage, number)
            ended = stage.alert()
            if acts:
                _well(stage.rig)
                assert _runs(stage) == 2
            return ended

    return run


def _postgres_exhausted(folder: Path, *, acts: bool) -> Ended:
    """Every session that ordinary users may have is taken by one that does nothing."""
    with postgres_stage(folder, acts=acts) as stage, ExitStack() as sessions:
        for number in range(MOST_SESSIONS - RESERVED):
            sessions.enter_context(stage.rig.connect("app", f"hoarder-{number}"))
        stage.broke_at = time.monotonic()
        eventually(lambda: time.monotonic() - stage.broke_at > 1.2)
        ended = stage.alert(idle_s=1)
        if acts:
            _well(stage.rig)
            assert _runs(stage) == 1, "it was restarted"
        return ended


@contextmanager
def waiting(rig: Postgres, ends: list[Exception | None], holder: str = "app") -> Iterator[psycopg.Connection[Any]]:
    """A session that holds a lock and does nothing, and another that has waited for it for more than a second."""
    with closing(rig.connect(holder, "holder")) as holding, closing(rig.connect("app", "waiter")) as waiter:
        holding.execute(f"begin; {UPDATE}")

        def wait() -> None:
            try:
                waiter.execute(UPDATE)
            except psycopg.Error as error:
                ends.append(error)
            else:
                ends.append(None)

        waits = threading.Thread(target=wait)
        waits.start()
        asked = "select count(*) from pg_locks where not granted and waitstart < now() - interval '1.1 s'"
        with rig.connect() as chief:
            eventually(lambda: chief.execute(asked).fetchone() == (1,), within_s=LONG_S)
        yield holding
        with rig.connect() as chief:  # where nothing was mended it waits still
            chief.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'holder'")
        waits.join(LONG_S)


def _postgres_locked(folder: Path, *, acts: bool) -> Ended:
    ends: list[Exception | None] = []
    with postgres_stage(folder, acts=acts) as stage, waiting(stage.rig, ends):
        stage.broke_at = time.monotonic()
        ended = stage.alert("database_locked", blocked_s=1)
        if acts:
            eventually(lambda: ends == [None], within_s=LONG_S)
            assert _runs(stage) == 1, "it was restarted"
        return ended


def _postgres_broken(folder: Path, *, acts: bool) -> Ended:
    """It cannot be brought back: what is started in its place never accepts. It is wanted as before, and not ready."""
    with postgres_stage(folder, acts=acts, hasty=True) as stage:
        stage.rig.program.unlink()
        stage.rig.program.write_text("#!/bin/sh\nexec sleep 1000\n", encoding="ascii")
        stage.rig.program.chmod(0o755)
        _end(stage, signal.SIGKILL)
        ended = stage.alert()
        assert stage.service()["state"] != "stopped"
        assert stage.steps()["restart"] == "rolled_back"
        return ended


# -- Redis ------------------------------------------------------------------------------------------------------------


def _kept(rig: Redis) -> None:
    with rig.connect() as client:
        assert client.get("price") == "1.1"
        client.set("price", "1.2")


def _redis_ended(number: int) -> Callable[..., Ended]:
    def run(folder: Path, *, acts: bool) -> Ended:
        with redis_stage(folder, acts=acts) as stage:
            with stage.rig.connect() as client:
                client.set("price", "1.1")
            _end(stage, number)
            ended = stage.alert()
            if acts:
                _kept(stage.rig)
                assert _runs(stage) == 2
            return ended

    return run


def _redis_crowded(left: int, runs: int) -> Callable[..., Ended]:
    """All clients but ``left`` are taken by such as do nothing. With none left nobody gets in: it is restarted."""

    def run(folder: Path, *, acts: bool) -> Ended:
        with redis_stage(folder, acts=acts) as stage, ExitStack() as clients:
            with stage.rig.connect() as client:
                client.set("price", "1.1")
            eventually(lambda: _crowd(stage.rig, clients, MOST_CLIENTS - left), within_s=LONG_S)
            stage.broke_at = time.monotonic()
            eventually(lambda: time.monotonic() - stage.broke_at > 2.2)  # Redis counts whole seconds
            ended = stage.alert(idle_s=1)
            if acts:
                _kept(stage.rig)
                assert _runs(stage) == runs
            return ended

    return run


def _crowd(rig: Redis, clients: ExitStack, number: int) -> bool:
    """The daemon's own health checks come and go: whoever is refused tries again."""
    with ExitStack() as tried:
        for one in range(number):
            try:
                tried.enter_context(rig.connect(f"hoarder-{one}"))
            except redis.RedisError:
                return False
        clients.push(tried.pop_all())
        return True


def _redis_blocked(folder: Path, *, acts: bool) -> Ended:
    """By a script that never ends."""
    with redis_stage(folder, acts=acts) as stage, stage.rig.connect() as client:

        def loop() -> None:
            with suppress(redis.RedisError):
                client.eval("while true do end", 0)

        loops = threading.Thread(target=loop)
        loops.start()
        eventually(lambda: _is_busy(stage.rig), within_s=LONG_S)
        stage.broke_at = time.monotonic()
        ended = stage.alert("database_locked")
        if acts:
            loops.join(LONG_S)
            assert not loops.is_alive()
            assert _runs(stage) == 1, "it was restarted"
        os.kill(stage.running.pid(SERVICE), signal.SIGKILL)
        loops.join(LONG_S)
        return ended


def _is_busy(rig: Redis) -> bool:
    try:
        rig.connect().close()
    except redis.RedisError as error:
        return "BUSY" in str(error)
    return False


def _lock_left(rig: Redis) -> redis.Redis:
    client = rig.connect("risk-manager")
    client.set("lock:orders", "an owner that is gone")
    client.set("lock:young", "another", ex=300)
    client.set("price", "1.1")
    eventually(lambda: _idle_s(client) >= 2, within_s=LONG_S)
    return client


def _idle_s(client: redis.Redis) -> int:
    found: Any = client.object("idletime", "lock:orders")
    return int(found)


def _redis_lock(folder: Path, *, acts: bool) -> Ended:
    with redis_stage(folder, acts=acts) as stage, _lock_left(stage.rig) as client:
        stage.broke_at = time.monotonic()
        ended = stage.alert("database_lock_left", lock_keys="lock:*", left_s=1)
        if acts:
            found: Any = client.keys()
            assert sorted(found) == ["lock:young", "price"]
            assert client.set("lock:orders", "a new owner", nx=True)
        return ended


def _redis_lock_put_back(folder: Path, *, acts: bool) -> Ended:
    """That the lock is gone does not help: the service does not become ready. It is there again as it was."""
    with (
        redis_stage(folder, acts=acts, hasty=True, service={"health_check": {"tcp": "127.0.0.1:1"}}) as stage,
        _lock_left(stage.rig) as client,
    ):
        stage.broke_at = time.monotonic()
        before = client.dump("lock:orders")
        ended = stage.alert("database_lock_left", lock_keys="lock:*", left_s=1)
        assert client.dump("lock:orders") == before
        assert client.ttl("lock:orders") == -1
        return ended


def _redis_broken(folder: Path, *, acts: bool) -> Ended:
    with redis_stage(folder, acts=acts, hasty=True) as stage:
        stage.rig.break_program()
        _end(stage, signal.SIGKILL)
        ended = stage.alert()
        assert stage.service()["state"] != "stopped"
        assert stage.steps()["restart"] in ("rolled_back", "failed")
        return ended


def _another(folder: Path, *, acts: bool) -> Ended:
    """A database that is well, and an alert that only has its name in it."""
    with redis_stage(folder, acts=acts) as stage:
        ended = stage.alert("database_backup_late")
        assert _runs(stage) == 1
        return ended


def _no_postgres() -> str | None:
    found = any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb")
    return None if found else "no PostgreSQL server here; on Debian: apt-get install postgresql"


def _no_redis() -> str | None:
    return None if shutil.which("redis-server") else "no Redis server here; on Debian: apt-get install redis-server"


def _cured(runbook: str, name: str, run: Any, trouble: Any) -> Case:
    return Case(runbook, name, Kind.SUCCESS, run, ("succeeded",), trouble)


CASES: Final[tuple[Case, ...]] = (
    _cured(MAIN, "postgresql_killed", _postgres_ended(signal.SIGKILL), _no_postgres),
    _cured(MAIN, "postgresql_frozen", _postgres_ended(signal.SIGSTOP), _no_postgres),
    _cured(MAIN, "postgresql_exhausted", _postgres_exhausted, _no_postgres),
    _cured(MAIN, "postgresql_locked", _postgres_locked, _no_postgres),
    _cured(MAIN, "redis_killed", _redis_ended(signal.SIGKILL), _no_redis),
    _cured(MAIN, "redis_frozen", _redis_ended(signal.SIGSTOP), _no_redis),
    _cured(MAIN, "redis_exhausted", _redis_crowded(2, 1), _no_redis),
    _cured(MAIN, "redis_full", _redis_crowded(0, 2), _no_redis),
    _cured(MAIN, "redis_blocked", _redis_blocked, _no_redis),
    _cured(LOCK, "redis_lock_left", _redis_lock, _no_redis),
    Case(MAIN, "postgresql_broken", Kind.ROLLBACK, _postgres_broken, ("rolled_back",), _no_postgres),
    Case(MAIN, "redis_broken", Kind.ROLLBACK, _redis_broken, ("rolled_back",), _no_redis),
    Case(LOCK, "redis_lock_put_back", Kind.ROLLBACK, _redis_lock_put_back, ("rolled_back",), _no_redis),
    Case(MAIN, "another_alert", Kind.NO_MATCH, _another, ("no_match",), _no_redis),
)
