"""Databases that are down, frozen, full, blocked: what the shipped runbooks make of them."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
import redis

from tests.faults.database_stage import LOCK, MAIN, Stage, postgres_stage, redis_stage
from tests.faults.ended import Ended
from tests.faults.postgres import MOST as MOST_SESSIONS
from tests.faults.postgres import RESERVED, Postgres
from tests.faults.redis import MOST as MOST_CLIENTS
from tests.faults.redis import Redis
from tests.faults.registry import Case, Kind
from tests.faults.ward import Bed, Part
from tests.support.eventually import eventually

LONG_S: Final = 60.0
STRANGER: Final = "nobody_of_this_name"
UPDATE: Final = "update stock set n = n + 1 where id = 1"


def _runs(stage: Stage[Any]) -> int:
    return stage.bed.runs()


def _end(stage: Stage[Any], number: int) -> None:
    """``number`` goes to the server's main process."""
    stage.broke_at = time.monotonic()
    os.kill(stage.bed.pid(), number)


def _postgres(run: Callable[[Stage[Postgres]], Ended], **more: Any) -> Callable[[Bed], AbstractContextManager[Part]]:
    @contextmanager
    def play(bed: Bed) -> Iterator[Part]:
        with postgres_stage(bed, **more) as stage:

            def go() -> Ended:
                stage.rig.until_ready()
                stage.rig.make_users()
                stage.broke_at = time.monotonic()
                return run(stage)

            yield Part(stage.config, go, stage.ready)

    return play


def _redis(run: Callable[[Stage[Redis]], Ended], **more: Any) -> Callable[[Bed], AbstractContextManager[Part]]:
    @contextmanager
    def play(bed: Bed) -> Iterator[Part]:
        with redis_stage(bed, **more) as stage:

            def go() -> Ended:
                stage.rig.until_ready()
                stage.broke_at = time.monotonic()
                return run(stage)

            yield Part(stage.config, go, stage.ready)

    return play


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def _well(rig: Postgres) -> None:
    with rig.connect("app") as session:
        session.execute(UPDATE)


def _postgres_ended(number: int) -> Callable[[Stage[Postgres]], Ended]:
    def run(stage: Stage[Postgres]) -> Ended:
        _end(stage, number)
        ended = stage.alert()
        if stage.bed.acts:
            _well(stage.rig)
            assert _runs(stage) == 2
        return ended

    return run


def _postgres_exhausted(stage: Stage[Postgres]) -> Ended:
    """Every session that ordinary users may have is taken by one that does nothing."""
    with ExitStack() as sessions:
        for number in range(MOST_SESSIONS - RESERVED):
            sessions.enter_context(stage.rig.connect("app", f"hoarder-{number}"))
        stage.broke_at = time.monotonic()
        eventually(lambda: time.monotonic() - stage.broke_at > 1.2)
        ended = stage.alert(idle_s=1)
        if stage.bed.acts:
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


def _postgres_locked(stage: Stage[Postgres]) -> Ended:
    ends: list[Exception | None] = []
    with waiting(stage.rig, ends):
        stage.broke_at = time.monotonic()
        ended = stage.alert("database_locked", blocked_s=1)
        if stage.bed.acts:
            eventually(lambda: ends == [None], within_s=LONG_S)
            assert _runs(stage) == 1, "it was restarted"
        return ended


def _postgres_locked_by_a_superuser(stage: Stage[Postgres]) -> Ended:
    ends: list[Exception | None] = []
    with waiting(stage.rig, ends, holder="postgres"):
        ended = stage.alert("database_locked", blocked_s=1)
        assert "unblock" in ended.detail
        assert ends == []
        assert _runs(stage) == 1
        return ended


def _postgres_stranger(stage: Stage[Postgres]) -> Ended:
    """Whoever is not let in restarts nothing."""
    ended = stage.alert()
    assert STRANGER in ended.detail
    assert _runs(stage) == 1
    return ended


def _postgres_broken(stage: Stage[Postgres]) -> Ended:
    """It cannot be brought back: what is started in its place never accepts. It is wanted as before, and not ready."""
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


def _redis_ended(number: int) -> Callable[[Stage[Redis]], Ended]:
    def run(stage: Stage[Redis]) -> Ended:
        with stage.rig.connect() as client:
            client.set("price", "1.1")
        _end(stage, number)
        ended = stage.alert()
        if stage.bed.acts:
            _kept(stage.rig)
            assert _runs(stage) == 2
        return ended

    return run


def _redis_crowded(left: int, runs: int) -> Callable[[Stage[Redis]], Ended]:
    """All clients but ``left`` are taken by such as do nothing. With none left nobody gets in: it is restarted."""

    def run(stage: Stage[Redis]) -> Ended:
        with ExitStack() as clients:
            with stage.rig.connect() as client:
                client.set("price", "1.1")
            eventually(lambda: _crowd(stage.rig, clients, MOST_CLIENTS - left), within_s=LONG_S)
            stage.broke_at = time.monotonic()
            eventually(lambda: time.monotonic() - stage.broke_at > 2.2)  # Redis counts whole seconds
            ended = stage.alert(idle_s=1)
            if stage.bed.acts:
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


def _redis_blocked(stage: Stage[Redis]) -> Ended:
    """By a script that never ends."""
    with stage.rig.connect() as client:

        def loop() -> None:
            with suppress(redis.RedisError):
                client.eval("while true do end", 0)

        loops = threading.Thread(target=loop)
        loops.start()
        eventually(lambda: _is_busy(stage.rig), within_s=LONG_S)
        stage.broke_at = time.monotonic()
        ended = stage.alert("database_locked")
        if stage.bed.acts:
            loops.join(LONG_S)
            assert not loops.is_alive()
            assert _runs(stage) == 1, "it was restarted"
        os.kill(stage.bed.pid(), signal.SIGKILL)
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


def _redis_lock(stage: Stage[Redis]) -> Ended:
    with _lock_left(stage.rig) as client:
        stage.broke_at = time.monotonic()
        ended = stage.alert("database_lock_left", lock_keys="lock:*", left_s=1)
        if stage.bed.acts:
            found: Any = client.keys()
            assert sorted(found) == ["lock:young", "price"]
            assert client.set("lock:orders", "a new owner", nx=True)
        return ended


def _redis_lock_put_back(stage: Stage[Redis]) -> Ended:
    """That the lock is gone does not help: the service does not become ready. It is there again as it was."""
    with _lock_left(stage.rig) as client:
        stage.broke_at = time.monotonic()
        before = client.dump("lock:orders")
        ended = stage.alert("database_lock_left", lock_keys="lock:*", left_s=1)
        assert client.dump("lock:orders") == before
        assert client.ttl("lock:orders") == -1
        return ended


def _redis_broken(stage: Stage[Redis]) -> Ended:
    stage.rig.break_program()
    _end(stage, signal.SIGKILL)
    ended = stage.alert()
    assert stage.service()["state"] != "stopped"
    assert stage.steps()["restart"] in ("rolled_back", "failed")
    return ended


def _another(stage: Stage[Redis]) -> Ended:
    """A database that is well, and an alert that only has its name in it."""
    ended = stage.alert("database_backup_late")
    assert _runs(stage) == 1
    return ended


def _stopped_by_a_person(stage: Stage[Redis]) -> Ended:
    assert stage.bed.selfheal.call("services", "stop", stage.bed.name).returncode == 0
    ended = stage.alert()
    assert "stopped_by_hand" in ended.detail
    assert stage.service()["state"] == "stopped"
    return ended


def _unseen(stage: Stage[Redis]) -> Ended:
    """It runs and cannot be looked into: nothing is restarted on a guess."""
    ended = stage.alert()
    assert "runbooks.databases" in ended.detail
    assert _runs(stage) == 1
    return ended


def _unseen_and_down(stage: Stage[Redis]) -> Ended:
    _end(stage, signal.SIGKILL)
    eventually(lambda: stage.service()["state"] != "ready", within_s=LONG_S, every_s=0.05)
    ended = stage.alert()
    if stage.bed.acts:
        stage.rig.connect().close()
    return ended


def _no_postgres() -> str | None:
    found = any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb")
    return None if found else "no PostgreSQL server here; on Debian: apt-get install postgresql"


def _no_redis() -> str | None:
    return None if shutil.which("redis-server") else "no Redis server here; on Debian: apt-get install redis-server"


OK: Final = ("succeeded",)
NO: Final = ("failed",)
BACK: Final = ("rolled_back",)
UNREADY: Final[dict[str, Any]] = {"health_check": {"tcp": "127.0.0.1:1"}}


def _of_postgres(
    name: str, kind: Kind, run: Callable[[Stage[Postgres]], Ended], wanted: tuple[str, ...], **more: Any
) -> Case:
    return Case(MAIN, f"postgresql_{name}", kind, _postgres(run, **more), wanted, _no_postgres)


def _of_redis(
    name: str,
    kind: Kind,
    run: Callable[[Stage[Redis]], Ended],
    wanted: tuple[str, ...],
    runbook: str = MAIN,
    **more: Any,
) -> Case:
    return Case(runbook, f"redis_{name}", kind, _redis(run, **more), wanted, _no_redis)


CASES: Final[tuple[Case, ...]] = (
    _of_postgres("killed", Kind.SUCCESS, _postgres_ended(signal.SIGKILL), OK),
    _of_postgres("frozen", Kind.SUCCESS, _postgres_ended(signal.SIGSTOP), OK),
    _of_postgres("exhausted", Kind.SUCCESS, _postgres_exhausted, OK),
    _of_postgres("locked", Kind.SUCCESS, _postgres_locked, OK),
    _of_postgres("broken", Kind.ROLLBACK, _postgres_broken, BACK),
    _of_postgres("superuser_blocks", Kind.LEFT, _postgres_locked_by_a_superuser, NO),
    _of_postgres("not_let_in", Kind.LEFT, _postgres_stranger, NO, user=STRANGER),
    _of_redis("killed", Kind.SUCCESS, _redis_ended(signal.SIGKILL), OK),
    _of_redis("frozen", Kind.SUCCESS, _redis_ended(signal.SIGSTOP), OK),
    _of_redis("exhausted", Kind.SUCCESS, _redis_crowded(2, 1), OK),
    _of_redis("full", Kind.SUCCESS, _redis_crowded(0, 2), OK),
    _of_redis("blocked", Kind.SUCCESS, _redis_blocked, OK),
    _of_redis("unseen_down", Kind.SUCCESS, _unseen_and_down, OK, seen=False),
    _of_redis("broken", Kind.ROLLBACK, _redis_broken, BACK),
    _of_redis("stopped", Kind.LEFT, _stopped_by_a_person, NO),
    _of_redis("unseen", Kind.LEFT, _unseen, NO, seen=False),
    _of_redis("another_alert", Kind.NO_MATCH, _another, ("no_match",)),
    _of_redis("lock_left", Kind.SUCCESS, _redis_lock, OK, LOCK),
    _of_redis("lock_put_back", Kind.ROLLBACK, _redis_lock_put_back, BACK, LOCK, service=UNREADY),
    _of_redis("lock_another_alert", Kind.NO_MATCH, _another, ("no_match",), LOCK),
)
