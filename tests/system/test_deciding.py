"""What limits runbooks, in the real daemon: killed, and with the clock set while it was away."""

from __future__ import annotations

import functools
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from guardian_link import Alert, GuardianClient
from tests.runbooks.files import COMMAND, GOOD
from tests.support.eventually import eventually
from tests.system.running import SLEEPER, Running, write_config
from tests.system.running import daemon as any_daemon

daemon = functools.partial(any_daemon, in_order=False)
pytestmark = pytest.mark.timeout(240)
HOUR = 3600.0


def book(name: str, argv: list[str], **more: Any) -> dict[str, Any]:
    step = {**COMMAND, "command": argv}
    return {
        **GOOD,
        "id": name,
        "match": {"field": "/type", "op": "eq", "value": name},
        "actions": [step],
        "success_criteria": [{"call": {"type": "command_ok", "argv": ["true"]}, "within": "5s"}],
    } | more


def sent(running: Running, kind: str, service: str = "a") -> tuple[str, str]:
    """Outcome and reason of an alert, once what it started is over."""
    with GuardianClient(state_dir=running.state) as guardian:
        ack = guardian.send(Alert(type=kind, service=service), timeout_s=60)
        if ack.execution_id is not None:
            guardian.wait(ack.execution_id, 60)
    newest = running.get("/v1/alerts?limit=1")["alerts"][0]
    return newest["outcome"], newest.get("reason", "")


def set_clock(journal: Path, by_s: float) -> None:
    """All that is on record was written by a clock that was wrong by so much."""
    with sqlite3.connect(journal) as db:
        for table, columns in {
            "executions": ("decided_at", "started_at", "ended_at"),
            "alerts": ("received_at", "decided_at"),
            "silences": ("at", "ended_at"),
            "steps": ("at",),
        }.items():
            for column in columns:
                db.execute(f"UPDATE {table} SET {column} = {column} + ?", (by_s,))  # noqa: S608
    db.close()


def test_all_limits_hold_over_kills_and_a_clock_that_is_set(tmp_path: Path) -> None:
    books = tmp_path / "books"
    books.mkdir()
    for one in (
        book("cooled", ["true"], limits={"cooldown": "30m"}),
        book("counted", ["true"], limits={"max_runs": [{"count": 1, "per": "40m", "scope": "runbook"}]}),
        book("useless", ["false"], limits={"breaker": {"failures": 2, "per": "30m", "open_for": "30m"}}),
        book("repeated", ["true"], dedup={"window": "30m"}),
    ):
        (books / f"{one['id']}.json").write_text(json.dumps(one), encoding="utf-8")
    config = write_config(tmp_path, {"a": SLEEPER, "b": SLEEPER}, runbooks={"directories": [str(books)]})
    state = tmp_path / "state"
    wanted = {
        "cooled": "cooling",
        "counted": "limited",
        "useless": "breaker_open",
        "repeated": "duplicate",
        "silent": "silenced",
        "service_failure": "latched",
    }
    with daemon(config, state) as first:
        first.until_ready()
        silenced = first.call("silence", "add", "service=quiet", "--for", "30m", "--why", "works")
        assert silenced.returncode == 0, silenced.stderr
        for kind in ("cooled", "counted", "useless", "useless", "repeated"):
            assert sent(first, kind)[0] == "run", kind
        first.process.kill()
        first.process.wait()
    with sqlite3.connect(state / "journal.db") as db:
        db.execute("INSERT INTO latches VALUES ('service:b', 'x-0', 1.0, 'x-0 ended unknown')")
    db.close()
    for by_s in (HOUR, -2 * HOUR):
        set_clock(state / "journal.db", by_s)
        with daemon(config, state) as running:
            found = {kind: sent(running, kind)[0] for kind in ("cooled", "counted", "useless", "repeated")}
            found["service_failure"] = sent(running, "service_failure", "b")[0]
            found["silent"] = sent(running, "service_failure", "quiet")[0]
            assert found == wanted, by_s
            running.process.kill()
            running.process.wait()
    with daemon(config, state) as last:
        assert "service:b" in last.call("recovery", "latches").stdout
        assert last.call("recovery", "release", "service:b", "--why", "looked at it").returncode == 0
        assert sent(last, "service_failure", "b") == ("run", "matched")


def test_the_queue_is_shown_and_served_by_the_next_daemon(tmp_path: Path) -> None:
    books = tmp_path / "books"
    books.mkdir()
    held = tmp_path / "held"
    held.touch()
    waits = ["sh", "-c", f"while [ -e {held} ]; do sleep 0.1; done"]
    slow = book("slow", waits, dedup={"fingerprint": ["/service"]})
    slow["actions"][0]["timeout"] = "60s"
    (books / "slow.json").write_text(json.dumps(slow), encoding="utf-8")
    config = write_config(
        tmp_path, {"a": SLEEPER}, runbooks={"directories": [str(books)]}, recovery={"max_concurrent": 1}
    )
    state = tmp_path / "state"
    with daemon(config, state) as first:
        for service in ("one", "two", "three"):
            first.call("alert", "send", "--type", "slow", "--service", service)

        def queue() -> list[str]:
            told = first.get("/v1/executions")["executions"]
            return [one["target"] for one in sorted(told, key=lambda one: one.get("queue", {}).get("position", 0))]

        eventually(lambda: queue() == ["service:one", "service:two", "service:three"], within_s=30)
        shown = first.call("executions").stdout
        assert "2. 1 runbooks may run at once" in shown
        first.process.kill()
        first.process.wait()
    with daemon(config, state) as second:
        eventually(
            lambda: [one["status"] for one in second.get("/v1/executions")["executions"]].count("queued") == 2,
            within_s=30,
        )
        held.unlink()

        def done() -> bool:
            ended = [(one["target"], one["status"]) for one in second.get("/v1/executions")["executions"]]
            assert ended == [(f"service:{name}", "succeeded") for name in ("three", "two", "one")], ended
            return True

        eventually(done, within_s=60)
