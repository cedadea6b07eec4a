"""Runbooks' calls about databases against a real PostgreSQL: what they see, whom they end, and how long it takes."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from runbooks.engine_words import Answer
from runbooks.model import Call, CallType
from runbooks.steps import take_snapshot
from tests.faults.postgres import MOST, PASSWORD, RESERVED, Postgres, running_postgres
from tests.runbooks.database_calls import BELOW, OK, PORTS, TOKEN, UNBLOCKED, do, health, look
from tests.support.eventually import eventually
from tests.system.running import free_port


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as made:
        yield made


@pytest.fixture
def pg(server: Postgres) -> Iterator[Postgres]:
    """Without sessions of others."""
    yield server
    with server.connect() as session:
        session.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
        eventually(
            lambda: (
                session.execute("select count(*) from pg_stat_activity where usename <> 'postgres'").fetchone() == (0,)
            )
        )


def lives(session: psycopg.Connection[Any]) -> bool:
    try:
        session.execute("select 1")
    except psycopg.OperationalError:
        return False
    return True


def until_at_work(pg: Postgres, name: str) -> None:
    with pg.connect() as session:
        query = "select count(*) from pg_stat_activity where query like '%%pg_sleep%%' and application_name = %s"
        at_work = f"{query} and state = 'active' and usename = 'app'"
        eventually(lambda: session.execute(at_work, (name,)).fetchone() == (1,))


# -- PostgreSQL -------------------------------------------------------------------------------------------------------


def test_a_healthy_postgresql_is_seen_as_such(pg: Postgres) -> None:
    with pg.connect("app"):
        found = health(pg.url())
    assert (found["trouble"], found["sessions"], found["most_sessions"]) == ("none", 1, MOST - RESERVED)
    assert (found["writable"], found["engine"], found["share"]) == (True, "postgresql", round(1 / 9, 3))
    assert look(OK, url=pg.url()).answer is Answer.YES
    assert look(BELOW, url=pg.url(), share="50%").answer is Answer.YES
    assert look(UNBLOCKED, url=pg.url()).answer is Answer.YES


def test_one_that_takes_no_writes_is_told(pg: Postgres) -> None:
    with pg.connect() as session:
        session.execute("alter role app set default_transaction_read_only = on")
        try:
            found = health(pg.url("app"))
        finally:
            session.execute("alter role app reset default_transaction_read_only")
    assert (found["trouble"], found["writable"]) == ("none", False)
    assert "takes no writes" in look(OK, url=pg.url("app")).detail or found["detail"]


def test_a_stopped_postgresql_is_down_and_the_wrong_password_is_not(pg: Postgres) -> None:
    nobody = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{free_port()}/postgres"
    assert health(nobody)["trouble"] == "down"
    assert look(OK, url=nobody).answer is Answer.NO
    assert look(BELOW, url=nobody, share=0.9).answer is Answer.UNKNOWN
    assert look(UNBLOCKED, url=nobody).answer is Answer.UNKNOWN
    no_such = pg.url().replace("/postgres", "/elsewhere").replace("//elsewhere", "//postgres")
    assert health(no_such)["trouble"] == "denied"
    assert "elsewhere" in look(OK, url=no_such).detail
    assert look(OK, url=no_such).answer is Answer.NO


@pytest.mark.parametrize("timeout_s", [0.5, 2.0])
def test_a_frozen_postgresql_hangs_nobody(pg: Postgres, timeout_s: float) -> None:
    os.kill(pg.postmaster(), signal.SIGSTOP)
    try:
        begun = time.monotonic()
        found = health(pg.url(), timeout_s)
        took_s = time.monotonic() - begun
    finally:
        os.kill(pg.postmaster(), signal.SIGCONT)
    assert found["trouble"] == "hung"
    assert timeout_s / 2 <= took_s < timeout_s + 0.05


def test_exhausted_sessions_are_seen_and_idle_ones_ended(pg: Postgres) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(pg.connect("app", f"hoarder-{n}")) for n in range(MOST - RESERVED - 1)]
        kept = stack.enter_context(pg.connect("app", "risk-manager"))
        assert health(pg.url())["trouble"] == "exhausted"
        assert health(pg.url("app"))["trouble"] == "full"  # for an ordinary user there is no way in
        assert look(BELOW, url=pg.url("app"), share=0.9).answer is Answer.NO
        assert look(BELOW, url=pg.url(), share=0.9).answer is Answer.NO
        assert do(operation="terminate_idle", url=pg.url(), idle_for="1h").result["ended"] == 0
        done = do(operation="terminate_idle", url=pg.url(), idle_for=0, keep=["risk-manager"])
        assert (done.ok, done.result["ended"], done.result["left"]) == (True, len(idle), 1)
        assert not any(lives(one) for one in idle)
        assert lives(kept)
        assert look(BELOW, url=pg.url(), share=0.9).answer is Answer.YES
        again = do(operation="terminate_idle", url=pg.url(), idle_for=0, keep=["risk-manager"])
        assert again.result["ended"] == 0


def test_sessions_of_superusers_and_those_at_work_are_never_ended(pg: Postgres) -> None:
    with pg.connect() as chief, pg.connect("app") as worker:
        at_work = threading.Thread(target=worker.execute, args=("select pg_sleep(2)",))
        at_work.start()
        until_at_work(pg, "test")
        done = do(operation="terminate_idle", url=pg.url(), idle_for=0)
        assert done.result["ended"] == 0
        assert {one["was"] for one in done.result["sessions"]} == {"left"}
        at_work.join()
        assert lives(chief)
        assert lives(worker)


def test_who_may_not_end_sessions_says_what_to_grant(pg: Postgres) -> None:
    with pg.connect("app") as session:
        done = do(operation="terminate_idle", url=pg.url("plain"), idle_for=0)
        assert not done.ok
        assert "pg_signal_backend" in done.error
        assert lives(session)
        assert do(operation="terminate_idle", url=pg.url("watch"), idle_for=0).result["ended"] == 1
        assert not lives(session)


def blocked(pg: Postgres, stack: ExitStack) -> tuple[psycopg.Connection[Any], list[object]]:
    """A session that holds a lock and idles, and one that waits for it behind another that waits too."""
    holder, second, third = (stack.enter_context(pg.connect("app", name)) for name in ("holder", "second", "third"))
    holder.execute("begin; update stock set n = n + 1 where id = 1")
    ends: list[object] = []

    def wait(session: psycopg.Connection[Any]) -> None:
        try:
            session.execute("update stock set n = n + 10 where id = 1")
            ends.append(session)
        except psycopg.Error as error:
            ends.append(error)

    threads = [threading.Thread(target=wait, args=(one,)) for one in (second, third)]
    for thread in threads:
        thread.start()
    for thread in threads:
        stack.callback(thread.join)
    eventually(lambda: health(pg.url(), blocked_for=0.2)["waiting"] == 2)
    return holder, ends


def test_the_root_of_a_wait_is_ended_and_those_behind_it_go_on(pg: Postgres) -> None:
    with ExitStack() as stack:
        holder, ends = blocked(pg, stack)
        assert health(pg.url(), blocked_for=0.2)["trouble"] == "blocked"
        assert look(UNBLOCKED, url=pg.url(), blocked_for="200ms").answer is Answer.NO
        assert look(UNBLOCKED, url=pg.url(), blocked_for="1h").answer is Answer.YES
        assert do(operation="terminate_blocking", url=pg.url(), blocked_for="1h").result["ended"] == 0
        done = do(operation="terminate_blocking", url=pg.url(), blocked_for=0.2)
        assert [one["application"] for one in done.result["sessions"]] == ["holder"]
        assert (done.result["ended"], done.result["cancelled"]) == (1, 0)
        eventually(lambda: [type(one) for one in ends] == [type(holder)] * 2)
        assert not lives(holder)
        eventually(lambda: look(UNBLOCKED, url=pg.url(), blocked_for="200ms").answer is Answer.YES)


def test_a_root_at_work_is_only_cancelled(pg: Postgres) -> None:
    with ExitStack() as stack:
        holder, ends = blocked(pg, stack)
        errors: list[str] = []

        def work() -> None:
            try:
                holder.execute("select pg_sleep(60)")
            except psycopg.errors.QueryCanceled as error:
                errors.append(str(error))

        at_work = threading.Thread(target=work)
        at_work.start()
        until_at_work(pg, "holder")
        done = do(operation="terminate_blocking", url=pg.url(), blocked_for=0.2)
        assert (done.result["ended"], done.result["cancelled"]) == (0, 1)
        at_work.join(20)
        assert errors
        eventually(lambda: len(ends) == 2)
        holder.execute("rollback")
        assert lives(holder)


def test_left_advisory_locks_are_cleared_with_their_idle_holder(pg: Postgres) -> None:
    with pg.connect("app", "holder") as holder, pg.connect("app", "idle") as idle:
        holder.execute("select pg_advisory_lock(7)")
        done = do(operation="clear_locks", url=pg.url(), idle_for=0, blocked_for="1h")
        assert [one["application"] for one in done.result["sessions"]] == ["holder"]
        assert lives(idle)
        assert idle.execute("select pg_try_advisory_lock(7)").fetchone() == (True,)


# -- what is no database ----------------------------------------------------------------------------------------------


def served(answer: bytes) -> tuple[socket.socket, threading.Event]:
    """Whoever connects is sent ``answer`` drop by drop, for ever, whatever he says."""
    server, is_over = socket.create_server(("127.0.0.1", 0)), threading.Event()
    server.settimeout(30)

    def serve(client: socket.socket) -> None:
        with client:
            while not is_over.wait(0.1):
                try:
                    client.sendall(answer)
                except OSError:
                    return

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return server, is_over


@pytest.mark.parametrize("scheme", ["postgresql", "redis"])
@pytest.mark.parametrize(
    ("answer", "troubles"), [(b"", {"hung"}), (b"$", {"hung", "denied"}), (b"N", {"hung", "denied"})]
)
def test_who_accepts_and_never_comes_to_an_answer_holds_nobody(scheme: str, answer: bytes, troubles: set[str]) -> None:
    server, is_over = served(answer)
    with server:
        url = f"{scheme}://u:{PASSWORD}@127.0.0.1:{server.getsockname()[1]}/0"
        begun = time.monotonic()
        assert health(url, 1.0)["trouble"] in troubles
        assert look(OK, timeout_s=1.0, url=url).answer is Answer.NO
        assert time.monotonic() - begun < 2 + 0.1
        is_over.set()


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://u:{PASSWORD}@h/x",
        f"postgresql://u:{PASSWORD}@127.0.0.1:port/x",
        f"postgresql://u:{PASSWORD}@127.0.0.1:1/x?nonsense={PASSWORD}",
        f"redis://u:{PASSWORD}@127.0.0.1:port/x",
        f"redis://u:{PASSWORD}@no-such-host.invalid/0",
        f"postgresql://u:{PASSWORD}@no-such-host.invalid/0",
        f"{PASSWORD}",
    ],
)
def test_what_nobody_can_tell_is_unknown_and_no_text_has_the_password(url: str) -> None:
    for kind in (OK, UNBLOCKED):
        assert look(kind, url=url, timeout_s=3.0).answer is Answer.UNKNOWN
    assert not do(operation="terminate_idle", url=url, timeout_s=3.0).ok


def test_without_a_url_the_service_says_whether_it_is_down() -> None:
    done = do(operation="health", service="pg")
    assert done.result["trouble"] == "unseen"
    assert not do(operation="health", service="other").ok
    assert not do(operation="terminate_idle").ok
    assert take_snapshot([Call(CallType.DATABASE_OPERATION, {"operation": "terminate_idle"})], PORTS, TOKEN) == {
        "database_keys:": None
    }
