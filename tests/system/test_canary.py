"""Secrets of every kind go through one daemon and all its paths, and are afterwards nowhere but where they belong.

Each has a text of its own, so that a leak says which way it came. What is looked through: every file of the state
directory, the daemon's log, every answer of the API, the command line's output, every command line and environment of
the machine, plain alerts and notices as they arrived.
"""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from guardian_link import Alert, GuardianClient
from tests.actions.web import Web, web
from tests.support.eventually import eventually
from tests.system.running import Running, daemon, free_port, write_config
from tests.system.test_secrets import answers, private

pytestmark = pytest.mark.timeout(240)
LONG_S = 60.0
NAMES = (
    "environment",
    "environment_file",
    "service_secret",
    "token",
    "hook",
    "pg_url",
    "redis_url",
    "sink",
    "sink_header",
    "channel",
    "channel_header",
    "operator",
    "old_value",
    "malformed",
    "edited_environment",
    "edited_sink",
    "edited_redis",
    "faulty",
)
WELL = {"call": {"type": "service_exists", "with": {"service": "holder"}}}


class Canaries(dict[str, str]):
    """One text a secret. ``found_in``: the names of those that stand in ``raw``, plainly or in Base64."""

    def __init__(self) -> None:
        super().__init__({name: f"canary{number:02}{uuid.uuid4().hex}" for number, name in enumerate(NAMES)})
        self._shapes = {name: shapes(text.encode()) for name, text in self.items()}

    def found_in(self, raw: bytes | str, *, base64_too: bool = True) -> list[str]:
        raw = raw.encode() if isinstance(raw, str) else raw
        return [
            name
            for name, (plain, *coded) in self._shapes.items()
            if plain in raw or (base64_too and any(one in raw for one in coded))
        ]


def shapes(text: bytes) -> list[bytes]:
    """It, and what its middle is in Base64 wherever it begins in a longer text."""
    coded = []
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + text)
        coded.append(whole[4 : len(whole) - 4])
    return [text, *coded]


# -- the world --------------------------------------------------------------------------------------------------------


def peer(port: int, heard: list[Any], closed: threading.Event) -> threading.Thread:
    """A bridge endpoint (``tcp``) whose one command fails and says back what it was given."""

    def serve() -> None:
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(0.2)
            while not closed.is_set():
                try:
                    line, _ = server.accept()
                except TimeoutError:
                    continue
                with line, suppress(OSError):
                    line.settimeout(0.2)
                    say(line, {"kind": "hello", "name": "peer", "session": "s1", "commands": ["login"]})
                    talk(line)

    def say(line: socket.socket, body: dict[str, Any]) -> None:
        line.sendall(json.dumps(body).encode() + b"\n")

    def talk(line: socket.socket) -> None:
        text = b""
        while not closed.is_set():
            try:
                raw = line.recv(65536)
            except TimeoutError:
                say(line, {"kind": "heartbeat"})
                continue
            if not raw:
                return
            *whole, text = (text + raw).split(b"\n")
            for body in map(json.loads, whole):
                if body.get("kind") == "command":
                    heard.append(body)
                    error = f"cannot log in with {json.dumps(body.get('parameters'))}"
                    say(line, {"kind": "reply", "id": body["id"], "state": "failed", "error": error})

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def step(kind: str, parameters: dict[str, Any], **more: Any) -> dict[str, Any]:
    made = {"id": "do_it", "name": "Do it", "action_type": kind, "effect": "idempotent", "timeout": "20s"}
    return {**made, **({"parameters": parameters} if parameters else {}), **more}


def book(name: str, *actions: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": 2,
        "id": name,
        "version": "1.0.0",
        "name": name,
        "description": "For tests",
        "match": {"field": "/type", "op": "eq", "value": name},
        "target": f"{name}:all",
        "actions": list(actions),
        "success_criteria": [WELL],
    }


TOKEN = {"secret": "token"}
SHOW = (
    "import os, pathlib, sys, threading\n"
    "pathlib.Path(sys.argv[1]).touch()\n"
    "while not pathlib.Path(sys.argv[1] + '.go').exists(): threading.Event().wait(0.02)\n"
    "print(os.environ['TOKEN']); print(os.environ['TOKEN'], file=sys.stderr); sys.exit(3)\n"
)


def changing(file: Path, **more: Any) -> dict[str, Any]:
    given = {"file": str(file), "set": {"db.password": TOKEN}}
    look = {"call": {"type": "configuration_is", "with": given}}
    back = {
        "call": {"type": "configuration_restore", "with": {"file": str(file)}},
        "verify": {"call": {"type": "configuration_restored", "with": {"file": str(file)}}},
    }
    return step("configuration_change", given, effect="mutating", probe=look, verify=look, rollback=back, **more)


def looking(criterion: dict[str, Any]) -> dict[str, Any]:
    return step("wait_until", {**criterion, "every": "200ms"}, effect="none", timeout="1s")


def books(etc: Path, it: Web) -> list[dict[str, Any]]:
    def bad(name: str) -> dict[str, Any]:
        return book(f"bad_{name}", changing(etc / f"bad.{name}"))

    header = {"Authorization": TOKEN}
    fails = {"id": "fail", "name": "Fail", "action_type": "command", "effect": "idempotent", "command": ["false"]}
    seen = {
        "criterion": "configuration_is",
        "file": str(etc / "other.yaml"),
        "set": {"db.password": TOKEN},
        "every": "200ms",
    }
    login = {"endpoint": "peer", "command": "login", "parameters": {"password": TOKEN}}
    show = [sys.executable, "-c", SHOW, str(etc / "shown")]
    return [
        book("post", step("http_request", {"method": "POST", "url": it.base, "headers": header, "body": {"p": TOKEN}})),
        book("hook", step("http_request", {"url": {"secret": "hook"}})),
        book("program", step("command", {"environment": {"TOKEN": TOKEN}}, command=show)),
        book("no_program", step("command", {"environment": {"TOKEN": TOKEN}}, command=["/no/such/program"])),
        book("postgres", step("database_operation", {"operation": "health", "service": "pg"}, effect="none")),
        book("redis", step("database_operation", {"operation": "health", "service": "cache"}, effect="none")),
        book("postgres_ok", looking({"criterion": "database_ok", "service": "pg"})),
        book("redis_ok", looking({"criterion": "database_ok", "service": "cache"})),
        book("change", changing(etc / "app.yaml"), fails),
        book("unlike", looking(seen)),
        *(bad(name) for name in ("yaml", "json", "toml", "ini", "service")),
        book("tell", step("notify", {"channel": "hook", "message": "m"})),
        book("tell_inline", step("notify", {"channel": "inline", "message": "m"})),
        book("tell_program", step("notify", {"channel": "program", "message": "m"})),
        book("bridge", step("bridge_command", login)),
    ]


def files(etc: Path, canaries: Canaries) -> None:
    bad = canaries["malformed"]
    (etc / "app.yaml").write_text(f"db:\n  password: {canaries['old_value']}\n")
    (etc / "other.yaml").write_text(f"db:\n  password: {canaries['old_value']}\n")
    (etc / "bad.yaml").write_text(f"db:\n  password: {bad}\n  password: {bad}\n")
    (etc / "bad.json").write_text(f'{{"db": {{"password": "{bad}" "x": 1}}}}')
    (etc / "bad.toml").write_text(f"[db]\npassword = {bad}\n")
    (etc / "bad.ini").write_text(f"[db {bad}\npassword: {bad}\n")
    (etc / "bad.service").write_text(f"[db]\npassword {bad}\n")


def configuration(etc: Path, canaries: Canaries, it: Web, port: int) -> dict[str, Any]:
    closed = free_port()

    def file(name: str, text: str) -> dict[str, str]:
        return {"file": str(private(etc / name, text + "\n"))}

    environment_file = private(etc / "environment", f"FROM_FILE={canaries['environment_file']}\n")
    holder = {
        "command": ["sleep", "1000"],
        "environment": {"INLINE": canaries["environment"]},
        "environment_files": [str(environment_file)],
        "secrets": {"SECRET": file("service", canaries["service_secret"])},
    }
    crashing = {**holder, "command": ["sh", "-c", "exit 3"], "max_restarts": 1, "within": "1h"}
    hook = {"webhook": {"secret": "hook"}, "headers": {"X-Key": TOKEN}}
    inline = {"webhook": f"{it.base}/{canaries['channel']}", "headers": {"X-Key": canaries["channel_header"]}}
    return {
        "services": {
            "holder": holder,
            "crashing": crashing,
            "absent": {**holder, "command": ["no-such-program"]},
            "pg": {"command": ["sleep", "1000"]},
            "cache": {"command": ["sleep", "1000"]},
        },
        "secrets": {
            "token": file("token", canaries["token"]),
            "hook": file("hook", f"{it.base}/{canaries['hook']}"),
            "pg_url": file("pg_url", f"postgresql://me:{canaries['pg_url']}@127.0.0.1:{closed}/x"),
        },
        "runbooks": {
            "directories": [str(etc / "books")],
            "files": {"roots": [str(etc)]},
            "databases": {
                "pg": {"url": {"secret": "pg_url"}},
                "cache": {"url": f"redis://:{canaries['redis_url']}@127.0.0.1:{closed}/0"},
            },
        },
        "notifications": {"channels": {"hook": hook, "inline": inline, "program": {"command": ["false"]}}},
        "alerting": {
            "sinks": [
                {"log": {}},
                {"webhook": f"{it.base}/{canaries['sink']}", "headers": {"X-Key": canaries["sink_header"]}},
                {"webhook": f"http://127.0.0.1:{closed}/{canaries['sink']}"},
            ]
        },
        "bridges": {"peer": {"kind": "tcp", "address": f"127.0.0.1:{port}"}},
        "links": {
            "guardian": {"address": "tcp://127.0.0.1:0"},
            "bridge": {"address": "tcp://127.0.0.1:0"},
            "operator": {
                "address": "127.0.0.1:0",
                "tokens": {"ann": file("operator", f"{canaries['operator']}")["file"]},
            },
        },
    }


@contextmanager
def place(folder: Path) -> Iterator[tuple[Running, Canaries, Web, Path, list[Any]]]:
    etc, canaries, port, heard, closed = folder / "etc", Canaries(), free_port(), list[Any](), threading.Event()
    (etc / "books").mkdir(parents=True)
    with web() as it:
        it.status = 500
        it.echoes = True
        thread = peer(port, heard, closed)
        try:
            files(etc, canaries)
            for one in books(etc, it):
                (etc / "books" / f"{one['id']}.json").write_text(json.dumps(one))
            config = write_config(etc, **configuration(etc, canaries, it, port))
            with daemon(config, folder / "state", wait=False) as running:
                eventually((running.state / "operator.sock").exists, within_s=LONG_S)
                running.until_ready("holder", "pg", "cache", within_s=LONG_S)
                yield running, canaries, it, etc, heard
        finally:
            closed.set()
            thread.join(10)


# -- what is done -----------------------------------------------------------------------------------------------------


def all_runs(running: Running, names: list[str]) -> dict[str, str]:
    """One alert a runbook; the executions' ids by runbook."""
    address, key = (running.state / "guardian.address").read_text().strip(), running.state / "keys" / "local.key"
    begun = {}
    with GuardianClient(address, key_file=key) as guardian:
        for name in names:
            decision = guardian.send(Alert(type=name, service="holder"), timeout_s=LONG_S).decision
            assert decision is not None, name
            assert decision.execution_id is not None, (name, decision)
            begun[name] = decision.execution_id
    return begun


def by_id(running: Running) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in running.get("/v1/executions?limit=200")["executions"]}


def processes(what: str) -> dict[str, bytes]:
    """``cmdline`` or ``environ`` of all processes, with the command line as name."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
            found[f"{process.name} {line!r}"] = (process / what).read_bytes()
        except OSError:
            continue
    return found


def test_no_secret_is_anywhere_else(tmp_path: Path) -> None:
    with place(tmp_path) as (running, canaries, it, etc, heard):
        names = [one["id"] for one in books(etc, it)]
        begun = all_runs(running, names)
        eventually((etc / "shown").exists, within_s=LONG_S)
        lines, environments = processes("cmdline"), processes("environ")
        (etc / "shown.go").touch()
        ended = eventually(
            lambda: {**by_id(running)} if all(one.get("ended_at") for one in by_id(running).values()) else None,
            within_s=LONG_S,
        )
        edited = edits(running, canaries, etc)
        told = answers(running, ["holder", "crashing", "absent", *begun.values(), "plain-alerts", "runbook-files"])
        told |= edited | outputs(running) | {"log": running.log.read_text()}
        statuses = {name: ended[one]["status"] for name, one in begun.items()}
        print(statuses)
        assert set(statuses.values()) <= {"failed", "rolled_back", "succeeded"}, statuses
        assert {name for name, one in statuses.items() if one == "succeeded"} == {"postgres", "redis"}, statuses
        assert statuses["change"] == "rolled_back"
        all_have_been_used(canaries, environments, it, heard, etc)
        leaks = {where: found for where, text in told.items() if (found := canaries.found_in(text))}
        leaks |= {where: found for where, raw in lines.items() if (found := canaries.found_in(raw))}
        leaks |= {f"body to {one.path}": found for one in it.seen if (found := spoken(canaries, one.body))}
        assert leaks == {}
        strangers = {where for where, raw in environments.items() if canaries.found_in(raw) and not is_meant(where)}
        assert strangers == set(), "a secret in the environment of somebody it is not for"
        running.process.kill()  # what a killed daemon leaves
        running.process.wait()
        assert in_files(canaries, running.state) == {}


def is_meant(where: str) -> bool:
    """The step that shows its environment, and the three services that have secrets."""
    return any(words in where for words in ("/shown", "sleep", "exit 3", "no-such-program"))


def spoken(canaries: Canaries, body: bytes) -> list[str]:
    """The body that was meant to hold it is no leak."""
    return [] if b'"p"' in body else canaries.found_in(body)


def in_files(canaries: Canaries, state: Path) -> dict[str, list[str]]:
    """Snapshots of files stand in the journal in Base64, which its mode protects; else nowhere, and nowhere plainly."""
    found: dict[str, list[str]] = {}
    for path in state.rglob("*"):
        if path.is_file():
            is_journal = path.name.startswith("journal.db")
            assert not is_journal or path.stat().st_mode & 0o077 == 0, path
            leaks = canaries.found_in(path.read_bytes(), base64_too=not is_journal)
            found |= {str(path): leaks} if leaks else {}
    return found


def all_have_been_used(
    canaries: Canaries, environments: dict[str, bytes], it: Web, heard: list[Any], etc: Path
) -> None:
    """Each was where it belongs: else nothing would be shown by its being nowhere else."""
    around = b"".join(environments.values())
    assert set(canaries.found_in(around)) >= {"environment", "environment_file", "service_secret", "token"}
    asked = " ".join(f"{one.path} {one.headers} {one.body!r}" for one in it.seen)
    used = {"token", "hook", "sink", "sink_header", "channel", "channel_header"}
    assert set(canaries.found_in(asked)) >= used, set(canaries.found_in(asked))
    assert canaries["token"] in str(heard)
    assert canaries["old_value"] in (etc / "app.yaml").read_text(), "it was put back"


def edits(running: Running, canaries: Canaries, etc: Path) -> dict[str, str]:
    """An edited file with other secrets, and one with problems: what plan and apply say, also as JSON."""
    file = etc / "selfheal.yaml"
    text = file.read_text()
    new = text
    for old, name in (("environment", "environment"), ("sink", "sink"), ("redis_url", "redis")):
        assert canaries[old] in new
        new = new.replace(canaries[old], canaries[f"edited_{name}"])
    said = {}
    file.write_text(new.replace("redis://:", f"mysql://:{canaries['faulty']}").replace("X-Key: canary", "X-Key: [] #"))
    said["faulty plan"] = running.call("plan").stderr
    said["faulty apply"] = running.call("apply", "--json").stdout + running.call("apply").stderr
    assert "runbooks.databases.cache.url" in said["faulty plan"], said
    file.write_text(new)
    said |= {"plan": running.call("plan").stdout, "plan json": running.call("plan", "--json").stdout}
    said["apply"] = running.call("apply").stdout
    assert "alerting" in said["plan"], said
    assert "environment.INLINE" in said["plan"], said
    return said


def outputs(running: Running) -> dict[str, str]:
    config = str(running.state.parent / "etc" / "selfheal.yaml")
    commands = [
        ["tree"],
        ["services", "status", "--json"],
        ["alerts", "--json"],
        ["executions"],
        ["executions", "--json"],
        ["why", "holder"],
        ["why", "alerts"],
        ["runbook", "list", "--config", config],
        ["runbook", "show", "post", "--config", config],
        ["recovery", "status"],
        ["recovery", "latches"],
        ["audit", "verify"],
        ["logs", "crashing"],
    ]
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda words: running.call(*words), commands))
    return {" ".join(words): one.stdout + one.stderr for words, one in zip(commands, done, strict=True)}
