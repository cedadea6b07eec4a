"""Hostile strings in the step ``database_operation``: each reaches a real server as the data it is, or not at all.

What servers are told they say themselves: PostgreSQL in its log of statements with their parameters, Redis in MONITOR,
item by item. For every string that is what they are told for a harmless one, with the string in its place.
"""

from __future__ import annotations

import ast
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import psycopg
import pytest

from runbooks.calls.family import CallOutcome
from runbooks.engine_words import Answer
from runbooks.model import Action, Runbook
from runbooks.parameters import resolve
from runbooks.parse import parse
from runbooks.plan import bind, bound_action
from runbooks.ports import Ports
from runbooks.problems import BadRunbook
from runbooks.steps import make_call, make_check, take_snapshot
from tests.actions.place import TOKEN, ports_of
from tests.faults import redis as redis_rig
from tests.faults.postgres import Postgres, running_postgres
from tests.faults.redis import Redis, running_redis
from tests.injection.books import made, raw, step
from tests.injection.hearing import bound, is_resolved, listening

pytestmark = pytest.mark.xdist_group("injected databases")
KEEP: Final = "test"
"""The sessions of these tests."""


def operation(name: str, **more: Any) -> Runbook:
    return made("database", step("database_operation", {"operation": name, "service": "db", **more}))


def outcome(action: Action | None, ports: Ports, snapshot: Any = None) -> CallOutcome:
    assert action is not None
    assert action.call is not None
    return make_call(action.call, snapshot, ports, TOKEN)


def accepted(book: Runbook, corpus: tuple[str, ...]) -> Iterator[tuple[str, Action]]:
    """The strings that come as far as a step; an empty one is the parameter's default there."""
    found = [(value or "none", action) for value in corpus if (action := bound(book, value)) is not None]
    assert len(found) > len(corpus) * 0.8
    yield from found


AT_ONCE: Final = 20
NUMBERS: Final = range(AT_ONCE)
HARMLESS: Final = tuple(f"harmless{number}" for number in NUMBERS)
ALERT: Final = {"field": "/type", "op": "exists", "value": True}


def many(parameters: dict[str, Any], **more: Any) -> Runbook:
    """A runbook whose step takes twenty strings of one alert, ``{v0}`` to ``{v19}``: a connection each is dear."""
    book = raw("many", step("database_operation", {"service": "db", **parameters}, **more), ALERT)
    named = {f"v{number}": {"type": "string", "required": True, "from": f"/labels/v{number}"} for number in NUMBERS}
    return parse(json.dumps(book | {"parameters": named, "target": "many:all"}).encode())


def filled(book: Runbook, values: Sequence[str]) -> Action:
    facts = {"type": "t", "labels": {f"v{number}": value for number, value in enumerate(values)}}
    return bound_action(bind(book, resolve(book.parameters, facts)), 0, {})


def groups(corpus: tuple[str, ...]) -> list[list[str]]:
    """All that can be a step's values, twenty at once, of all kinds."""
    usable = [value for value in corpus if value and is_resolved(value)]
    assert len(usable) > len(corpus) * 0.8
    count = -(-len(usable) // AT_ONCE)
    return [[*usable[at::count], *usable[:AT_ONCE]][:AT_ONCE] for at in range(count)]


KEEPING: Final = many(
    {"operation": "terminate_idle", "idle_for": 0, "keep": [*(f"{{v{number}}}" for number in NUMBERS), KEEP]}
)


# -- PostgreSQL -------------------------------------------------------------------------------------------------------

ENTRY: Final = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ \S+ \[\d+\] ", re.MULTILINE)
LIMIT: Final = re.compile(r"'\d+'$")
"""The last parameter of a session's first statement: how many milliseconds one may take."""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """It writes down every statement of ``watch``, and nothing else."""
    with running_postgres() as made_, made_.connect() as session:
        session.execute("alter role watch set log_min_messages = 'log'; alter role watch set log_statement = 'all'")
        yield made_


def logged(pg: Postgres, since: int = 0) -> list[str]:
    """``LOG``: a statement as it came; ``DETAIL``: its parameters, none of which can hold a line end."""
    text = (pg.folder / "log").read_bytes()[since:].decode("ascii")
    return [LIMIT.sub("'...'", entry.rstrip("\n")) for entry in ENTRY.split(text)[1:]]


def in_a_list(values: Sequence[str]) -> str:
    """As they stand in the log: JSON in quotes."""
    return json.dumps(values)[1:-1].replace("'", "''")


def size(pg: Postgres) -> int:
    return (pg.folder / "log").stat().st_size


def world(pg: Postgres) -> list[Any]:
    """All there is to be changed."""
    with pg.connect() as session:
        return [
            session.execute("select * from stock order by id").fetchall(),
            session.execute("select oid::regclass::text from pg_class where relnamespace > 2000 order by 1").fetchall(),
            session.execute("select rolname, rolsuper, rolcanlogin, rolconfig from pg_roles order by 1").fetchall(),
            session.execute("select proname from pg_proc where oid >= 16384").fetchall(),
            session.execute("select name, setting from pg_settings where source <> 'client' order by 1").fetchall(),
            session.execute("select datname from pg_database order by 1").fetchall(),
        ]


def test_postgresql_gets_parameters_of_the_one_statement_there_is(
    corpus: tuple[str, ...], tmp_path: Path, server: Postgres
) -> None:
    """A session that is named like one of the strings is kept because of it."""
    ports, before = ports_of(tmp_path / "state", databases={"db": server.url("watch")}), world(server)
    named = 0
    with server.connect("app", KEEP) as other, server.connect(name=KEEP):
        since = size(server)
        assert outcome(filled(KEEPING, HARMLESS), ports).ok
        harmless = logged(server, since)
        assert [entry.partition(":")[0] for entry in harmless] == ["LOG", "DETAIL"] * 2
        assert [entry.count(in_a_list(HARMLESS)) for entry in harmless] == [0, 0, 0, 1]
        since = size(server)
        with listening() as heard:
            for group in groups(corpus):
                name = renamed(other, group)
                named += name != KEEP
                done = outcome(filled(KEEPING, group), ports)
                assert done.ok, (group, done)
                mine = [one for one in done.result["sessions"] if one["user"] == "app"]
                assert [(one["application"], one["why"]) for one in mine] == [(name, "to be kept")]
                assert (done.result["ended"], done.result["cancelled"]) == (0, 0)
    assert named > 30
    assert (heard.processes, heard.written) == ([], [])
    assert logged(server, since) == [
        entry.replace(in_a_list(HARMLESS), in_a_list(group)) for group in groups(corpus) for entry in harmless
    ]
    assert world(server) == before


def renamed(session: psycopg.Connection[Any], values: Sequence[str]) -> str:
    """The session's name from here on: the first of the strings that is ASCII and not too long for one."""
    name = next((value for value in values if value.isascii() and len(value) < 64), KEEP)
    session.execute("select set_config('application_name', %s, false)", (name,))
    return name


@pytest.mark.parametrize(
    ("name", "argument"),
    [("health", "engine"), ("health", "share"), ("health", "blocked_for"), ("terminate_idle", "idle_for")],
)
def test_what_is_no_number_or_engine_is_not_even_sent(
    name: str, argument: str, corpus: tuple[str, ...], tmp_path: Path, server: Postgres
) -> None:
    ports = ports_of(tmp_path / "state", databases={"db": server.url("watch")})
    book = operation(name, **{argument: "{value}"})
    since, sent, begun = size(server), 0, 0
    for value, action in accepted(book, corpus):
        done = outcome(action, ports)
        begun += 1
        sent += done.ok
        assert not done.ok or float(value) >= 0, value
    told = logged(server, since)
    assert [entry.partition(":")[0] for entry in told] == ["LOG", "DETAIL"] * 2 * sent
    assert len({entry for entry in told if entry.startswith("LOG")}) == (2 if sent else 0)
    assert sent < begun * 0.05
    for entry in told:
        if entry.startswith("DETAIL"):
            assert re.fullmatch(r"DETAIL:  [Pp]arameters: (\$\d = '([\w.+-]+|\[\]|\.\.\.)'(, |$))+", entry), entry


def test_a_name_that_is_no_database_of_the_configuration_leads_nowhere(
    corpus: tuple[str, ...], tmp_path: Path, server: Postgres
) -> None:
    ports = ports_of(tmp_path / "state", databases={"db": server.url("watch")})
    book = made("database", step("database_operation", {"operation": "terminate_idle", "service": "{value}"}))
    with listening() as heard:
        since = size(server)
        for value, action in accepted(book, corpus):
            done = outcome(action, ports)
            assert "nobody can look into" in done.error, (value, done)
    assert (logged(server, since), heard.connections, heard.processes) == ([], [], [])


@pytest.mark.parametrize("url", ["{value}", "redis://{value}/0", "postgresql://127.0.0.1/x?options={value}"])
def test_no_alert_names_a_url(url: str) -> None:
    with pytest.raises(BadRunbook, match="url cannot be"):
        made("database", step("database_operation", {"operation": "health", "url": url}))


# -- Redis ------------------------------------------------------------------------------------------------------------

LOCKS: Final = {"service": "db", "keys": [f"lock:{{v{number}}}" for number in NUMBERS]}
CLEAR: Final = many(
    {"operation": "clear_locks", **LOCKS, "blocked_for": 0},
    rollback={
        "call": {"type": "database_operation", "with": {"operation": "restore_locks", **LOCKS}},
        "verify": {"call": {"type": "database_restored", "with": LOCKS}},
    },
)
ITEM: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')
Argv = tuple[bytes, ...]


@dataclass
class Store:
    """A server, who else is there, and a client to which the server says what it is told by others than the first."""

    rig: Redis
    ports: Ports
    monitor: socket.socket = field(init=False)

    def __enter__(self) -> Self:
        self.control = self.rig.connect()
        self.control.config_set("appendonly", "no")
        self.control.flushall()
        own: Any = self.control.connection
        self._own = f":{own._sock.getsockname()[1]}]".encode()
        self.monitor = socket.create_connection(("127.0.0.1", self.rig.port), timeout=30)
        self._lines = self.monitor.makefile("rb")
        self.monitor.sendall(f"AUTH {redis_rig.PASSWORD}\r\nMONITOR\r\n".encode())
        assert [self._lines.readline() for _ in range(2)] == [b"+OK\r\n"] * 2
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self.monitor.close()
        self.control.close()

    def told(self) -> list[Argv]:
        """What it was told since the last time, without what scripts tell it."""
        self.control.echo("until here")
        found = list[Argv]()
        while True:
            head, _, said = self._lines.readline().partition(b"] ")
            argv = tuple(ast.literal_eval(f'b"{one.decode("ascii")}"') for one in ITEM.findall(said))
            is_own = (head + b"]").endswith(self._own)
            if is_own and argv[0].upper() == b"ECHO":
                return found
            if not is_own and not head.endswith(b" lua"):
                found.append(argv)

    def clear_and_restore(self, values: Sequence[str]) -> tuple[list[str], Counter[Argv]]:
        """Both steps of the runbook: the keys that were cleared, and what the server was told."""
        action = filled(CLEAR, values)
        assert action.call is not None
        assert action.rollback is not None
        undo, undone = action.rollback.call, action.rollback.verify.call
        snapshot = json.loads(json.dumps(take_snapshot((action.call, undone), self.ports, TOKEN)))
        done = outcome(action, self.ports, snapshot)
        assert done.ok, (values, done)
        back = make_call(undo, snapshot, self.ports, TOKEN)
        assert (back.ok, back.result) == (True, {"keys": done.result["keys"]}), (values, back)
        assert make_check(undone, snapshot, self.ports, TOKEN).answer is Answer.YES
        return done.result["keys"], Counter(self.told())


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with running_redis(tmp_path_factory.mktemp("redis")) as made_:
        yield made_


@pytest.fixture
def store(redis_server: Redis, tmp_path: Path) -> Iterator[Store]:
    with Store(redis_server, ports_of(tmp_path / "state", databases={"db": redis_server.url()})) as made_:
        yield made_


def lock(value: str) -> str:
    return f"lock:{value}"


def put(told: Counter[Argv], old: str, new: str) -> Counter[Argv]:
    old_name, name = lock(old).encode(), lock(new).encode()
    return Counter({tuple(name if one == old_name else one for one in argv): count for argv, count in told.items()})


def test_redis_gets_items_of_the_commands_there_are(corpus: tuple[str, ...], store: Store) -> None:
    """Locks that are named like the strings go and come back; only one that no pattern fits is spared."""
    others = {"price": "1.1", "lock": "held"}
    store.control.mset(others)
    keys, at_first = store.clear_and_restore(HARMLESS)
    assert keys == []
    (one,) = {argv for argv in at_first if lock(HARMLESS[0]).encode() in argv}
    assert one[0] == b"SCAN"
    store.control.set(lock(HARMLESS[0]), "held")
    keys, with_one = store.clear_and_restore(HARMLESS)
    assert keys == [lock(HARMLESS[0])]
    store.control.delete(*keys)
    about_it = with_one - at_first
    assert {b"DUMP", b"WATCH", b"DEL", b"RESTORE"} <= {argv[0] for argv in about_it}
    store.told()
    with listening() as heard:
        for group in groups(corpus):
            locks = {lock(value): "held" for value in group}
            store.control.mset(locks)
            keys, told = store.clear_and_restore(group)
            assert set(keys) >= {lock(value) for value in group if not set(value) & set("*?[\\")}
            wanted = at_first
            for old, value in zip(HARMLESS, group, strict=True):
                wanted = put(wanted, old, value)
            for key in keys:
                wanted += put(about_it, HARMLESS[0], key.removeprefix("lock:"))
            assert told == wanted
            every: Any = store.control.keys()
            assert {key: store.control.get(key) for key in every} == {**locks, **others}
            store.control.delete(*locks)
            store.told()
    assert (heard.processes, heard.written) == ([], [])
    assert {tuple(one) for one in heard.connections} == {("127.0.0.1", store.rig.port)}


def test_redis_is_told_nothing_of_whom_to_keep(corpus: tuple[str, ...], store: Store) -> None:
    """Who is kept is found here."""
    assert outcome(filled(KEEPING, HARMLESS), store.ports).ok
    harmless = store.told()
    for group in groups(corpus):
        done = outcome(filled(KEEPING, group), store.ports)
        assert (done.ok, done.result["ended"]) == (True, 0), (group, done)
        assert store.told() == harmless
