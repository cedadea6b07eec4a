"""A part of the corpus through the real daemon: what it starts, says, sends and writes down."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from guardian_link import Alert, GuardianClient
from guardian_link.errors import AlertRefused
from guardian_link.messages import BadAlert
from tests.actions.web import Web, web
from tests.bridge.test_bridge_endpoint import Peer
from tests.bridge.test_bridge_endpoint import line as as_line
from tests.faults.redis import Redis, running_redis
from tests.injection.books import RECORD, raw, recording, step
from tests.injection.corpus import load
from tests.injection.hearing import is_argument
from tests.injection.peers import SAID, Far, lines_of, said, working
from tests.support.eventually import eventually
from tests.system.running import SLEEPER, Running, daemon, write_config

pytestmark = pytest.mark.timeout(300)
PROGRAM = (sys.executable, "-m", "tests.injection.audited")
RUNS = 12
TOLD = 150
LONG_S = 120.0
LOCKS = {"service": "a", "keys": ["lock:{value}"]}


@dataclass
class Outside:
    """What the daemon's steps reach."""

    web: Web
    peer: Far
    redis: Redis


def acting(folder: Path, it: Web) -> dict[str, Any]:
    """One runbook with a step of each kind, all of which get the value."""
    config = str(folder / "files" / "app.json")
    given = {"file": config, "set": {"db.name": "{value}"}}
    look = {"call": {"type": "configuration_is", "with": given}}
    back = {
        "call": {"type": "configuration_restore", "with": {"file": config}},
        "verify": {"call": {"type": "configuration_restored", "with": {"file": config}}},
    }
    restoring = {
        "call": {"type": "database_operation", "with": {"operation": "restore_locks", **LOCKS}},
        "verify": {"call": {"type": "database_restored", "with": LOCKS}},
    }
    url = f"{it.base}/x/{{value}}"
    steps = [
        recording(folder / "argv", "{value}", "--message={message}", "{source}"),
        step("http_request", {"method": "POST", "url": url, "body": {"value": "{value}"}}, on_failure="continue"),
        step("configuration_change", given, effect="mutating", probe=look, verify=look, rollback=back),
        step("bridge_command", {"endpoint": "peer", "command": "work", "parameters": SAID}),
        step("database_operation", {"operation": "clear_locks", **LOCKS, "blocked_for": 0}, rollback=restoring),
        step("notify", {"channel": "default", "message": "{value}"}),
        step("notify", {"channel": "program", "message": "{value}"}),
    ]
    actions = [{**one, "id": f"s{number}"} for number, one in enumerate(steps)]
    book = raw("hostile", actions[0], {"field": "/type", "op": "eq", "value": "hostile"})
    return {**book, "actions": actions}


@contextmanager
def place(folder: Path) -> Iterator[tuple[Running, Outside]]:
    for name in ("books", "files", "audit", "marks"):
        (folder / name).mkdir()
    (folder / "files" / "app.json").write_text('{"db": {"name": "old"}}')
    with web() as it, Peer() as peer, running_redis(folder) as store:
        (folder / "books" / "hostile.json").write_text(json.dumps(acting(folder, it)))
        program = [sys.executable, "-I", "-S", "-c", RECORD, str(folder / "program")]
        config = write_config(
            folder,
            {"a": SLEEPER},
            recovery={"enabled": True, "max_concurrent": 1},  # all change one file
            runbooks={
                "directories": [str(folder / "books")],
                "files": {"roots": [str(folder / "files")]},
                "databases": {"a": {"url": store.url()}},
            },
            bridges={"peer": {"kind": "tcp", "address": peer.address, "silence": f"{LONG_S:g}s"}},
            notifications={"channels": {"program": {"command": program}}},
            alerting={"sinks": [{"log": {}}, {"webhook": f"{it.base}/plain"}]},
        )
        environment = {"SELFHEAL_TEST_AUDIT": str(folder / "audit")}
        with (
            daemon(config, folder / "state", program=PROGRAM, environment=environment) as running,
            peer.accept() as far_end,
        ):
            far_end.sendall(as_line(kind="hello", name="peer", commands=["work"]) + as_line(kind="heartbeat"))
            far = Far()
            with working(far, lambda closed: lines_of(far_end, far, closed)):
                yield running, Outside(it, far, store)


def lines(file: Path) -> list[list[str]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def send(running: Running, values: list[str], others: list[str]) -> list[str]:
    """An alert that starts a run for each value; for each other one an alert that has it in every field that takes it.
    The executions' ids.
    """
    begun = []
    key = running.state / "keys" / "local.key"
    with GuardianClient((running.state / "guardian.address").read_text().strip(), key_file=key) as guardian:
        for value in values:
            alert = Alert("hostile", "a", message=value, source=value, labels={"value": value}, dedup_key=value)
            decision = guardian.send(alert, timeout_s=LONG_S).decision
            assert decision is not None
            assert decision.execution_id is not None, (value, decision)
            begun.append(decision.execution_id)
        for value in others:
            labels = {"value": value, value[:100] or "x": value}
            fields: list[dict[str, Any]] = [
                {"message": value, "source": value, "labels": labels, "dedup_key": value},
                {"service": value},
                {"type": value},
                {"severity": value},
            ]
            for one in fields:
                with suppress(BadAlert, AlertRefused):  # not even sent: NUL, half a character, a name that is none
                    guardian.send(Alert(**{"type": "told", **one}), timeout_s=LONG_S)
    return begun


def test_a_part_of_the_corpus(tmp_path: Path) -> None:
    corpus = load(tmp_path / "marks" / "made")
    usable = [one for one in corpus if is_argument(one) and one and len(one) < 1000]
    values = usable[:: len(usable) // RUNS][:RUNS]
    others = [one for one in corpus if len(one) < 1000][:: len(corpus) // TOLD]
    with place(tmp_path) as (running, outside), outside.redis.connect() as store:
        store.mset({"price": "1.1", **{f"lock:{value}": "held" for value in values}})
        started = len(lines(tmp_path / "audit" / "daemon"))
        begun = send(running, values, others)

        def ended() -> dict[str, str] | None:
            found = {one["id"]: one for one in running.get("/v1/executions?limit=100")["executions"]}
            over = {name: found[name]["status"] for name in begun if found[name].get("ended_at")}
            return over if len(over) == len(begun) else None

        statuses = eventually(ended, within_s=LONG_S)
        assert set(statuses.values()) == {"succeeded"}, running.get("/v1/executions?limit=100")
        only_what_the_runbook_names(tmp_path, started, values)
        one_request_each(outside.web, values)
        one_command_each(outside.peer, values)
        left: Any = store.keys()
        assert set(left) - {f"lock:{value}" for value in values if set(value) & set("*?[\\")} == {"price"}
        lines_stay_lines(running, tmp_path)
        assert list((tmp_path / "marks").iterdir()) == []
        assert sorted(one.name for one in (tmp_path / "files").iterdir()) == ["app.json"]
        assert set(json.loads((tmp_path / "files" / "app.json").read_text())) == {"db"}


def only_what_the_runbook_names(folder: Path, started: int, values: list[str]) -> None:
    """The daemon starts hosts of commands and nothing else, and they the two programs, with the values as they are."""
    host = str(folder / "audit" / "host.py")
    ours = lines(folder / "audit" / "daemon")[started:]
    assert {tuple(one) for one in ours} == {("subprocess.Popen", sys.executable, "-I", "-S", host)}
    assert len(ours) == 2 * len(values)
    hosts = lines(folder / "audit" / "hosts")
    python = [sys.executable, "-I", "-S", "-c", RECORD]
    assert all(one[:5] == python for one in hosts), hosts
    by_name = {name: sorted(one[6:] for one in hosts if one[5] == str(folder / name)) for name in ("argv", "program")}
    assert by_name["argv"] == sorted([value, f"--message={value}", value] for value in values)
    assert by_name["program"] == [[]] * len(values)
    assert sorted(lines(folder / "argv")) == by_name["argv"]


def one_request_each(it: Web, values: list[str]) -> None:
    bodies = [json.loads(one.body)["value"] for one in it.seen if one.path.startswith("/x/")]
    assert len(bodies) == len(set(bodies)) >= len(values) - 3
    assert set(bodies) <= set(values), "some a path cannot hold"
    assert {one.path for one in it.seen if not one.path.startswith("/x/")} == {"/plain"}


def canonical(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True)


def one_command_each(far: Far, values: list[str]) -> None:
    bodies = [far.take()[1] for _ in values]
    assert far.heard.empty()
    fixed = {"command": "work", "instead_of": [], "asked_before": False}
    wanted = [{**fixed, "parameters": said(value)} for value in values]
    assert sorted(bodies, key=canonical) == sorted(wanted, key=canonical)


def lines_stay_lines(running: Running, folder: Path) -> None:
    """Each line of the log is one event; a table has a line each and no control character; the audit chain holds."""
    events = [json.loads(line) for line in running.log.read_text().splitlines() if line.strip()]
    assert all(isinstance(one, dict) and "event" in one for one in events)
    assert sum(one["event"] == "plain alert" for one in events) > TOLD // 2
    assert not any(one.get("event") == "execution ended" and "status" not in one for one in events)
    for line in (folder / "state" / "keeper.log").read_text().splitlines():
        assert line.isprintable(), line
    shown = running.call("alerts", "--limit", "1000").stdout
    count = len(running.get("/v1/alerts?limit=1000")["alerts"])
    assert len(shown.splitlines()) == count + 1
    for words in (["executions"], ["tree"], ["why", "alerts"]):
        shown += running.call(*words).stdout
    assert all(char == "\n" or char.isprintable() for char in shown)
    assert running.call("audit", "verify").returncode == 0
