"""Runbooks' calls about databases against a real Redis."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from runbooks.engine_words import Answer
from runbooks.model import Call, CallType
from runbooks.ports import PortError
from runbooks.steps import take_snapshot
from tests.faults.redis import MOST, PASSWORD, Redis, running_redis
from tests.runbooks.database_calls import BELOW, OK, PORTS, TOKEN, UNBLOCKED, do, health, look
from tests.support.eventually import eventually
from tests.system.running import free_port

LOOP = "while true do end"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
def store(server: Redis) -> Iterator[Redis]:
    """Without keys and clients of others."""
    yield server
    with server.connect() as client:
        client.flushall()
        client.client_kill_filter(skipme=True, _type="normal")
        eventually(lambda: client.info("clients")["connected_clients"] == 1)


def lives(client: redis.Redis) -> bool:
    """Over the very connection it had."""
    assert client.connection is not None
    try:
        client.connection.send_command("PING", check_health=False)  # type: ignore[no-untyped-call]
        client.connection.read_response()
    except redis.RedisError:
        return False
    return True


def test_a_healthy_redis_is_seen_as_such(store: Redis) -> None:
    with store.connect():
        found = health(store.url())
    assert (found["trouble"], found["sessions"], found["most_sessions"]) == ("none", 1, MOST)
    assert (found["writable"], found["engine"]) == (True, "redis")
    assert look(OK, url=store.url()).answer is Answer.YES
    assert look(BELOW, url=store.url(), share="50%").answer is Answer.YES
    assert look(UNBLOCKED, url=store.url()).answer is Answer.YES


def test_a_stopped_redis_is_down_and_the_wrong_password_is_not(store: Redis) -> None:
    assert health(f"redis://127.0.0.1:{free_port()}/0")["trouble"] == "down"
    assert health(store.url("wrong"))["trouble"] == "denied"
    assert look(OK, url=store.url("wrong")).answer is Answer.NO


@pytest.mark.parametrize("timeout_s", [0.5, 2.0])
def test_a_frozen_redis_hangs_nobody(store: Redis, timeout_s: float) -> None:
    with store.connect() as client:
        pid = client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        found = health(store.url(), timeout_s)
        took_s = time.monotonic() - begun
    finally:
        os.kill(pid, signal.SIGCONT)
    assert found["trouble"] == "hung"
    assert took_s < timeout_s + 0.05


def test_exhausted_clients_are_seen_and_idle_ones_ended(store: Redis) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(store.connect(f"hoarder-{n}")) for n in range(MOST - 3)]
        kept = stack.enter_context(store.connect("risk-manager"))
        worker = stack.enter_context(store.connect("worker"))
        queue: list[Any] = []
        waits = threading.Thread(target=lambda: queue.append(worker.blpop(["jobs"], timeout=30)))
        waits.start()
        eventually(lambda: health(store.url())["waiting"] == 1)
        assert health(store.url())["trouble"] == "exhausted"
        assert look(BELOW, url=store.url(), share=0.9).answer is Answer.NO
        assert do(operation="kill_idle", url=store.url(), idle_for="1h").result["ended"] == 0
        done = do(operation="kill_idle", url=store.url(), idle_for=0, keep=["risk-manager"])
        assert (done.result["ended"], done.result["left"]) == (len(idle), 2)
        assert not any(lives(one) for one in idle)
        assert lives(kept)
        kept.rpush("jobs", "one")  # a worker that waits for work was left alone
        waits.join(20)
        assert [list(one) for one in queue] == [["jobs", "one"]]
        assert look(BELOW, url=store.url(), share=0.9).answer is Answer.YES


def test_at_the_very_last_client_nobody_gets_in(store: Redis) -> None:
    with ExitStack() as stack:
        for n in range(MOST):
            stack.enter_context(store.connect(f"hoarder-{n}"))
        assert health(store.url())["trouble"] == "full"
        assert look(BELOW, url=store.url(), share=0.9).answer is Answer.NO
        assert look(OK, url=store.url()).answer is Answer.NO
        assert not do(operation="kill_idle", url=store.url(), idle_for=0).ok


def test_a_script_that_blocks_the_server_is_killed(store: Redis) -> None:
    errors: list[str] = []

    def loop() -> None:
        with store.connect() as client:
            try:
                client.eval(LOOP, 0)
            except redis.RedisError as error:
                errors.append(str(error))

    runs = threading.Thread(target=loop)
    runs.start()
    eventually(lambda: health(store.url())["trouble"] == "blocked", within_s=30)
    assert look(UNBLOCKED, url=store.url(number=1)).answer is Answer.NO
    assert look(OK, url=store.url(number=1)).answer is Answer.NO
    done = do(operation="unblock", url=store.url(number=1))
    assert done.result["sessions"] == [{"script": "script", "was": "cancelled"}]
    runs.join(20)
    assert errors
    assert look(OK, url=store.url(number=1)).answer is Answer.YES


def test_who_waits_in_a_blocking_command_too_long_is_answered(store: Redis) -> None:
    with store.connect("worker") as worker:
        got: list[Any] = []
        waits = threading.Thread(target=lambda: got.append(worker.blpop(["jobs"], timeout=60)))
        waits.start()
        eventually(lambda: health(store.url())["waiting"] == 1)
        assert do(operation="unblock", url=store.url(), blocked_for="1h").result["cancelled"] == 0
        assert do(operation="unblock", url=store.url(), blocked_for=0).result["cancelled"] == 1
        waits.join(20)
        assert got == [None]
        assert lives(worker)


def clear(store: Redis, *, blocked_for: float = 0) -> Call:
    with_keys = {"operation": "clear_locks", "url": store.url(number=2), "keys": ["lock:*"], "blocked_for": blocked_for}
    return Call(CallType.DATABASE_OPERATION, with_keys, 20.0)


def test_lock_keys_that_never_expire_are_deleted_and_put_back_as_they_were(store: Redis) -> None:
    with store.connect() as client:
        client.select(2)
        client.set("lock:orders", "owner-1")
        client.hset("lock:risk", "owner", "owner-2")
        client.set("lock:young", "owner-3", ex=300)
        client.set("price", "1")
        assert take_snapshot([clear(store, blocked_for=3600)], PORTS, TOKEN) == {"database_keys:lock:*": []}
        snapshot = take_snapshot([clear(store)], PORTS, TOKEN)
        client.set("lock:risk2", "came later")
        left: dict[str, Any] = {"url": store.url(number=2), "keys": ["lock:*"], "blocked_for": 0}
        for _ in range(3):  # looking does not touch them
            assert look(UNBLOCKED, **left).answer is Answer.NO
            assert look(UNBLOCKED, snapshot, **left).answer is Answer.NO
        done = do(snapshot, **clear(store).arguments)
        assert done.result == {"ended": 2, "keys": ["lock:orders", "lock:risk"], "left": []}
        assert sorted(client.keys()) == ["lock:risk2", "lock:young", "price"]
        assert look(UNBLOCKED, snapshot, **left).answer is Answer.YES
        restored: dict[str, Any] = {"url": store.url(number=2), "keys": ["lock:*"]}
        assert look(CallType.DATABASE_RESTORED, snapshot, **restored).answer is Answer.NO
        client.set("lock:orders", "somebody else")  # taken anew: it is his
        for _ in range(2):
            assert do(snapshot, operation="restore_locks", **restored).ok
        assert client.get("lock:orders") == "somebody else"
        assert client.hgetall("lock:risk") == {"owner": "owner-2"}
        assert look(CallType.DATABASE_RESTORED, snapshot, **restored).answer is Answer.YES


def test_a_look_at_what_a_lock_holds_does_not_make_it_young(store: Redis) -> None:
    """A daemon that dies after its look must find it again."""
    with store.connect() as client, redis.Redis(port=store.port, password=PASSWORD, db=2) as raw:
        client.select(2)
        client.set("lock:orders", "an owner that is gone")
        raw.restore("lock:orders", 0, raw.dump("lock:orders"), replace=True, idletime=1000)
        looks = [take_snapshot([clear(store, blocked_for=900)], PORTS, TOKEN) for _ in range(3)]
        assert looks == [looks[0]] * 3
        assert [key["name"] for key in looks[0]["database_keys:lock:*"]] == ["lock:orders"]
        assert client.get("lock:orders") == "an owner that is gone"


def test_a_lock_that_changed_hands_stays(store: Redis) -> None:
    with store.connect() as client:
        client.select(2)
        client.set("lock:orders", "owner-1")
        snapshot = take_snapshot([clear(store)], PORTS, TOKEN)
        client.set("lock:orders", "owner-2")
        assert do(snapshot, **clear(store).arguments).result["left"] == ["lock:orders"]
        assert client.get("lock:orders") == "owner-2"


def test_what_is_no_lock_is_not_taken_for_one(store: Redis) -> None:
    with store.connect() as client:
        client.select(2)
        client.set("lock:big", "x" * 100_000)
        client.config_set("rdbcompression", "no")
        with pytest.raises(PortError, match="no lock"):
            take_snapshot([clear(store)], PORTS, TOKEN)
        assert not do(**clear(store).arguments).ok
